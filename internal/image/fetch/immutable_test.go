package fetch

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
)

// TestImmutable goes on with a file that its name tells the contents of, at a
// server that names no version; and asks for nothing when all of it is there.
func TestImmutable(t *testing.T) {
	data := random(300_000)
	for name, tc := range map[string]struct {
		have      int64
		immutable bool
		log       []string
	}{
		"in part":                 {100_000, true, []string{"bytes=100000-299999"}},
		"all":                     {300_000, true, nil},
		"in part, but may change": {100_000, false, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, map[string]http.Handler{"images.example": sequence(cutting(file(data, ""), int(tc.have)), file(data, ""))}, func(t *testing.T, w *world) {
				interrupt(w, tc.have)
				w.log = nil
				r := w.request(address)
				r.Immutable = tc.immutable
				got, err := w.get(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("received %d bytes, %v", len(got), err)
				}
				if fmt.Sprint(trim(w.log)) != fmt.Sprint(tc.log) {
					t.Errorf("ranges %q, want %q", trim(w.log), tc.log)
				}
			})
		})
	}
}
