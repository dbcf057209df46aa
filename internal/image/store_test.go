package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/units"
)

// rawDisk makes a small disk with a boot sector, some data and a hole.
func rawDisk(size int) []byte {
	d := make([]byte, size)
	copy(d[512:], "the first sector after the boot sector")
	copy(d[size-4096:], "the last block")
	d[510], d[511] = 0x55, 0xaa
	return d
}

// embedded is the opener of a selftest image of the given contents.
func embedded(raw []byte) map[string]func() (io.ReadCloser, int64, error) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return map[string]func() (io.ReadCloser, int64, error){
		"selftest": func() (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(b.Bytes())), int64(b.Len()), nil
		},
	}
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func mustParse(t *testing.T, text string) Source {
	t.Helper()
	s, err := ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustObtain(t *testing.T, s *Store, text string, want Want) Base {
	t.Helper()
	b, err := s.Obtain(t.Context(), mustParse(t, text), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestSelftestToOverlay(t *testing.T) {
	raw := rawDisk(1 << 20)
	s := newStore(t)
	s.Embedded = embedded(raw)
	b := mustObtain(t, s, "selftest", Want{})
	if b.Reused || b.Format != Raw || b.VirtualSize != units.MiB || b.Verified.How != Embedded {
		t.Errorf("base = %+v", b)
	}
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the unpacked disk differs: %v", err)
	}
	if b := mustObtain(t, s, "selftest", Want{}); !b.Reused {
		t.Error("the second time it was unpacked again")
	}
	edits := 0
	edit := func(_ context.Context, path string) ([]byte, error) {
		edits++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt([]byte("edited"), 4096)
		return []byte("what was done"), errors.Join(err, f.Close())
	}
	for i, reused := range []bool{false, true} {
		p, err := s.Prepare(t.Context(), b, "v1", edit)
		if err != nil {
			t.Fatal(err)
		}
		if p.Reused != reused || string(p.Manifest) != "what was done" || edits != 1 || p.Digest != b.Digest {
			t.Errorf("%d: %+v after %d edits", i, p, edits)
		}
		overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
		if err := CreateOverlay(p.Base, overlay, 2*units.MiB); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
