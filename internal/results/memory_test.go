package results

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestMemory holds that what is allocated in total, by client and server, is
// a fraction of what is transferred: no block is ever held in memory.
func TestMemory(t *testing.T) {
	const size = 256 * int64(units.MiB)
	address := benchServer(t, size)
	file, err := os.Create(filepath.Join(t.TempDir(), "entry"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	s := &Service{Client: lead(t, address)}
	for what, do := range map[string]func() error{
		"upload": func() error {
			return s.upload(t.Context(), "http://account.blob.core.windows.net/", file, size, nil)
		},
		"download": func() error {
			_, err := (&Cache{Service: s}).Download(t.Context(), &Hit{address: address}, file, 0, nil)
			return err
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := units.Bytes(after.TotalAlloc - before.TotalAlloc); n > 32*units.MiB {
			t.Errorf("%s of %s allocates %s", what, units.Bytes(size), n.Human())
		} else {
			t.Logf("%s of %s allocates %s", what, units.Bytes(size), n.Human())
		}
	}
}
