//go:build soak

package e2e

import (
	"os"
	"strconv"
	"testing"
)

// TestSoakWarmDamaged goes through all that can be wrong with a saved machine.
func TestSoakWarmDamaged(t *testing.T) {
	needGuest(t)
	for _, d := range damages() {
		t.Run(d.name, d.run)
	}
}

// TestSoakWarm restores the same machine SOAK_RESTORES times, or 50.
func TestSoakWarm(t *testing.T) {
	needGuest(t)
	n, err := strconv.Atoi(os.Getenv("SOAK_RESTORES"))
	if err != nil || n < 1 {
		n = 50
	}
	cache, _ := saved(t)
	for i := range n {
		p := warmRun(t, cache, "cat /root/prepared; wc -l </root/times; pidof sleep | wc -w")
		out := p.ends("restored")
		has(t, "the log", p.stdout.String(), "\nkept\n1\n1\n")
		t.Logf("restore %d: SSH after %s s", i+1, out["boot-seconds"])
	}
}
