package lifecycle

import (
	"testing"

	"github.com/org/hurd-qemu-action/internal/cloudinit"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// TestUntouched: each thing that is done before the script ends the session of
// the first command.
func TestUntouched(t *testing.T) {
	for name, touch := range map[string]func(*run){
		"":                        func(*run) {},
		"a seed disk":             func(r *run) { r.seed = "seed.iso" },
		"user-data":               func(r *run) { r.userData.plan.Steps = make([]cloudinit.Step, 1) },
		"prepare":                 func(r *run) { r.config.Prepare = "true" },
		"a machine that is saved": func(r *run) { r.warm.store = &snapshot.Store{} },
	} {
		r := &run{}
		touch(r)
		if got := r.untouched(); got != (name == "") {
			t.Errorf("with %q: %t", name, got)
		}
	}
}
