package results

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
)

// blobOf opens an entry of a world.
func blobOf(t *testing.T, w *world, data []byte) *Blob {
	t.Helper()
	w.Entry("k", "v", data)
	c := &Cache{Service: w.service()}
	hit, err := c.Find(t.Context(), "k", nil, "v")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1000)
	b, n, err := c.Open(t.Context(), hit, 0, p)
	if err != nil || n != min(len(data), 1000) || !bytes.Equal(p[:n], data[:n]) || b.Size() != int64(len(data)) || b.Key() != "k" {
		t.Fatalf("%d bytes of %d, %v", n, len(data), err)
	}
	return b
}

func TestBlob(t *testing.T) {
	w := newWorld(t)
	data := noise(1 << 20)
	blobOf(t, w, data[:10])
	b := blobOf(t, w, data)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			p := make([]byte, 1+i*1000)
			off := int64(i * 50000)
			if err := b.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, data[off:off+int64(len(p))]) {
				t.Errorf("%d bytes at %d: %v", len(p), off, err)
			}
		})
	}
	all.Wait()
	if w.Count("get") != 22 {
		t.Errorf("%d requests", w.Count("get"))
	}
	for _, off := range []int64{-1, 1 << 20, 1<<20 - 5} {
		if err := b.ReadAt(t.Context(), make([]byte, 10), off); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading at %d: %v", off, err)
		}
	}
	c := &Cache{Service: w.service()}
	hit, err := c.Find(t.Context(), "k", nil, "v")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Open(t.Context(), hit, 1000, make([]byte, 10)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}
}

// TestBlobFaults reads through what passes, and not through what does not.
func TestBlobFaults(t *testing.T) {
	w := newWorld(t)
	data := noise(300000)
	b := blobOf(t, w, data)
	denied := status(http.StatusForbidden, "", "x-ms-error-code", "AuthenticationFailed")
	read := func(want error, faults ...fault) {
		t.Helper()
		w.Fail("get", faults...)
		p := make([]byte, 200000)
		err := b.ReadAt(t.Context(), p, 1000)
		if !errors.Is(err, want) || err == nil && !bytes.Equal(p, data[1000:201000]) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	read(nil, cut, status(503, ""))
	// Each address may expire after it was of use.
	for range 3 {
		read(nil, denied)
	}
	if n := w.Count("GetCacheEntryDownloadURL"); n != 4 {
		t.Errorf("asked for %d addresses", n)
	}
	w.Entry("k", "v", noise(300000)) // under the same key, with another ETag
	read(ErrChanged, denied)
	read(ErrRanges, status(http.StatusOK, "all of it"))
	var refused *APIError
	w.Fail("get", denied, denied)
	if err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
		t.Errorf("two refusals: %v", err)
	} else {
		w.Clean(err.Error())
	}
}
