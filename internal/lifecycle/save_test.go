package lifecycle

import (
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/results/servicetest"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestCommit keeps a machine in the store and in the cache, unless it is larger
// than it may be.
func TestCommit(t *testing.T) {
	for name, tc := range map[string]struct {
		most units.Bytes
		mode string
		old  bool // one is there already
		err  string
	}{
		"kept":       {units.GiB, snapshotAuto, false, ""},
		"saved anew": {units.GiB, snapshotSave, true, ""},
		"too large":  {100, snapshotAuto, false, "snapshot-max-size is 100 B"},
	} {
		t.Run(name, func(t *testing.T) {
			w := servicetest.New(t)
			r, _, _ := cacheRun(t, w)
			r.config.SnapshotMaxSize, r.config.Snapshot = tc.most, tc.mode
			if tc.old {
				if err := smallEntry(t, r.warm.store).Close(); err != nil {
					t.Fatal(err)
				}
			}
			draft := smallDraft(t, r.warm.store)
			defer draft.Discard()
			m := smallManifest()
			m.Guest = []byte(`{"Uname":"new"}`)
			err := r.commit(t.Context(), draft, m)
			list, listErr := r.warm.store.List()
			if listErr != nil {
				t.Fatal(listErr)
			}
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || len(list) > 0 || len(w.Entries) > 0 {
					t.Errorf("%v, %d in the store, %d in the cache", err, len(list), len(w.Entries))
				}
				return
			}
			if err != nil || len(list) != 1 || !strings.Contains(string(list[0].Manifest.Guest), `"new"`) || len(w.Entries) != 1 || r.warm.saved == 0 {
				t.Errorf("%v, %+v, %d in the cache", err, list, len(w.Entries))
			}
		})
	}
}
