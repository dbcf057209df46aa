package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// TestE2EWarmPruned has four runs begin from one store while somebody removes
// all from it that can be removed, again and again: what is in use stays, each
// run has its result, and in the end nothing is left.
func TestE2EWarmPruned(t *testing.T) {
	needGuest(t)
	cache, entry := saved(t)
	store := &snapshot.Store{Dir: lifecycle.SnapshotDir(filepath.Join(cache, "hurd-qemu-action"))}
	pruned := func() []snapshot.Info {
		t.Helper()
		p, err := store.Prune(t.Context(), time.Nanosecond, 1)
		if err != nil {
			t.Fatal(err)
		}
		return p.Removed
	}
	first := warmRun(t, cache, "cat /root/prepared; sleep 600", "INPUT_SNAPSHOT=restore")
	first.stdout.await(t, "\nkept\n") // from here on the entry is in use
	var others []*program
	for range 3 {
		others = append(others, warmRun(t, cache, "cat /root/prepared; wc -l </root/times", "INPUT_SNAPSHOT=restore"))
	}
	running := func(p *program) bool {
		return !strings.Contains(p.stdout.String(), "\nThe script succeeded") && !strings.Contains(p.stdout.String(), "\n::error")
	}
	times, ticker := 0, time.NewTicker(10*time.Millisecond)
	defer ticker.Stop()
	for began := time.Now(); slices.ContainsFunc(others, running) && time.Since(began) < 3*time.Minute; times++ {
		<-ticker.C
		if removed := pruned(); len(removed) > 0 {
			t.Fatalf("removed while it is in use: %v", removed)
		}
	}
	t.Logf("pruned %d times", times)
	for _, p := range others {
		p.ends("restored")
		has(t, "the log", p.stdout.String(), "\nkept\n1\n")
	}
	if status, _, stderr := snapshotCommand(t, cache, "rm", filepath.Base(entry)); status != 125 || !strings.Contains(stderr, "in use") {
		t.Errorf("rm of what is in use: %d, %s", status, stderr)
	}
	first.interrupt()
	if status, out := first.wait(), first.outputs(); status != 130 || out["snapshot"] != "restored" {
		t.Errorf("status %d, snapshot %s", status, out["snapshot"])
	}
	if removed := pruned(); len(removed) != 1 || len(inStore(t, cache)) > 0 {
		t.Errorf("removed %v, left %v", removed, inStore(t, cache))
	}
}
