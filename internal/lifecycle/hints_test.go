package lifecycle

import (
	"testing"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/provision"
)

// TestHints holds that root-partition decides, and that a preset breaks a tie.
func TestHints(t *testing.T) {
	i386, err := image.FindPreset("debian", platform.I386)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		input  int
		preset *image.Preset
		want   provision.Hints
	}{
		{0, nil, provision.Hints{}},
		{3, nil, provision.Hints{Partition: 3}},
		{0, i386, provision.Hints{Prefer: 5}},
		{3, i386, provision.Hints{Partition: 3, Prefer: 5}},
	} {
		r, _ := newRun()
		r.config.RootPartition = tc.input
		if got := r.hints(tc.preset); got != tc.want {
			t.Errorf("%d, %v: %+v, want %+v", tc.input, tc.preset, got, tc.want)
		}
	}
}
