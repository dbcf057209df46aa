package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestTarSourceLimit bounds what the files of a stream have together.
func TestTarSourceLimit(t *testing.T) {
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, name := range []string{"a", "b"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Size: 5, Mode: 0o644}))
		_, err := w.Write([]byte("12345"))
		must(t, err)
	}
	must(t, w.Close())
	for _, tc := range []struct {
		limit units.Bytes
		files int
		err   error
	}{{0, 2, nil}, {10, 2, nil}, {9, 1, ErrTooMuch}, {4, 0, ErrTooMuch}} {
		files := 0
		err := NewTarSource(bytes.NewReader(stream.Bytes()), tc.limit).Walk(t.Context(), func(Node) error {
			files++
			return nil
		})
		if files != tc.files || !errors.Is(err, tc.err) {
			t.Errorf("limit %d: %d files, %v; want %d, %v", tc.limit, files, err, tc.files, tc.err)
		}
	}
}
