package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestEmbeddedFails holds that a damaged or unreadable selftest image is told,
// and leaves nothing.
func TestEmbeddedFails(t *testing.T) {
	lost := errors.New("bad block")
	good, _, err := embedded(rawDisk(1 << 20))["selftest"]()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := io.ReadAll(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		open func() (io.ReadCloser, int64, error)
		says string
	}{
		"opening": {func() (io.ReadCloser, int64, error) { return nil, 0, lost }, "bad block"},
		"reading": {func() (io.ReadCloser, int64, error) { return io.NopCloser(iotest.ErrReader(lost)), 0, nil }, "reading the embedded image: bad block"},
		"no zstd": {func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("x")), 0, nil }, "unpacking the embedded image: "},
		"cut": {func() (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(packed[:len(packed)-4])), 0, nil
		}, "unpacking the embedded image: unexpected EOF"},
	} {
		s := newStore(t)
		s.Embedded = map[string]func() (io.ReadCloser, int64, error){"selftest": tc.open}
		_, err := s.Obtain(t.Context(), mustParse(t, "selftest"), Want{})
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.HasPrefix(err.Error(), "obtaining selftest: ") {
			t.Errorf("%s: error %v, want %q", name, err, tc.says)
		}
		if left := s.entries(imagesDir); len(left) > 0 {
			t.Errorf("%s: kept %q", name, left)
		}
	}
}

func TestEmbeddedCanceled(t *testing.T) {
	s := newStore(t)
	s.Embedded = embedded(rawDisk(1 << 20))
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := s.Obtain(ctx, mustParse(t, "selftest"), Want{}); !errors.Is(err, stop) {
		t.Errorf("error %v, want the cause", err)
	}
}

// TestPackedCanceled cancels while a local archive is unpacked.
func TestPackedCanceled(t *testing.T) {
	s := newStore(t)
	s.Now = ticking()
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.Progress = func(Report) { cancel(stop) }
	for _, pack := range [][]byte{gzipped(bigDisk()), bigDisk()} {
		src := mustParse(t, file(t, "disk.img", pack))
		if _, err := s.Obtain(ctx, src, Want{SHA256: sha(nil)}); !errors.Is(err, stop) {
			t.Errorf("error %v, want the cause", err)
		}
	}
}
