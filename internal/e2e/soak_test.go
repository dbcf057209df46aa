//go:build soak

package e2e

import (
	"os"
	"strconv"
	"testing"
)

// TestSoak makes one run after the other (SOAK_ROUNDS, or 20), each of which
// must succeed at the first boot and leave nothing.
func TestSoak(t *testing.T) {
	needGuest(t)
	n, err := strconv.Atoi(os.Getenv("SOAK_ROUNDS"))
	if err != nil || n < 1 {
		n = 20
	}
	for i := range n {
		p := start(t, setup{action: true, env: []string{"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=uname -a"}})
		status := p.wait()
		out := p.outputs()
		t.Logf("round %d: %s, boot %s s in %s attempt", i+1, out["result"], out["boot-seconds"], out["boot-attempts"])
		if status != 0 || out["boot-attempts"] != "1" {
			t.Fatalf("round %d: status %d, outputs %v", i+1, status, out)
		}
	}
}
