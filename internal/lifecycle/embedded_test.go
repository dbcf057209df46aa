package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/org/hurd-qemu-action/internal/selftest"
)

// TestEmbeddedHash holds that the selftest guest has the hash that the store
// takes for its name without reading it.
func TestEmbeddedHash(t *testing.T) {
	r, _, err := openSelftest()
	if errors.Is(err, selftest.ErrNotBuilt) && os.Getenv("E2E_REQUIRED") != "1" {
		t.Skip("the selftest guest is not built (make guest)")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	known, ok := r.(interface{ SHA256() string })
	if !ok || known.SHA256() != hex.EncodeToString(h.Sum(nil)) {
		t.Errorf("the guest has the hash %x, and it says otherwise (%t)", h.Sum(nil), ok)
	}
}
