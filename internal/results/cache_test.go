package results

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is a file in memory.
type sink struct {
	mu   sync.Mutex
	data []byte
}

func (s *sink) WriteAt(p []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = make([]byte, 0, 64<<20)
	}
	s.data = s.data[:max(len(s.data), int(at)+len(p))]
	return copy(s.data[at:], p), nil
}

func TestCacheRoundTrip(t *testing.T) {
	for _, azure := range []bool{false, true} {
		for _, camel := range []bool{false, true} {
			w := newWorld(t)
			w.Azure, w.Camel = azure, camel
			c := &Cache{Service: w.service()}
			data := noise(2*rangeSize + 3)
			if _, err := c.Find(t.Context(), "k-1", []string{"k-"}, "v"); !errors.Is(err, ErrMiss) {
				t.Fatalf("in an empty cache: %v", err)
			}
			var told []int64
			saved, err := c.Save(t.Context(), "k-1", "v", bytes.NewReader(data), int64(len(data)), func(done, total int64) {
				told = append(told, done, total)
			})
			if err != nil || saved != (Saved{ID: 77, Size: int64(len(data))}) {
				t.Fatalf("saved %+v, %v", saved, err)
			}
			if n := len(told); n != 6 || told[n-2] != told[n-1] || told[n-1] != int64(len(data)) {
				t.Errorf("progress %v", told)
			}
			hit, err := c.Find(t.Context(), "k-1", nil, "v")
			if err != nil || hit.Key != "k-1" {
				t.Fatalf("found %v, %v", hit, err)
			}
			var got sink
			last := int64(0)
			size, err := c.Download(t.Context(), hit, &got, 0, func(done, total int64) {
				if done < last || total != int64(len(data)) {
					t.Errorf("progress %d of %d after %d", done, total, last)
				}
				last = done
			})
			if err != nil || size != int64(len(data)) || !bytes.Equal(got.data, data) || last != size {
				t.Errorf("received %d bytes of %d, %v", size, len(data), err)
			}
			if n := w.Count("get"); n != 3 {
				t.Errorf("%d requests for 3 ranges", n)
			}
			_, err = c.Save(t.Context(), "k-1", "v", bytes.NewReader(data), 1, nil)
			w.fails(err, ErrExists, "or another job is saving it")
			if len(w.notes) > 0 {
				t.Errorf("notes %q", w.notes)
			}
		}
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	c := &Cache{Service: w.service()}
	for _, key := range []string{"a-1", "a-2", "b-1"} {
		w.Entry(key, "v1", []byte("x"))
	}
	w.Entry("a-3", "v2", []byte("x"))
	for _, x := range []struct {
		key     string
		restore []string
		want    string
	}{
		{"a-1", nil, "a-1"}, {"a-9", []string{"a-"}, "a-2"}, {"c", []string{"x", "b-", "a-"}, "b-1"},
		{"a-", nil, ""}, {"a-3", nil, ""},
	} {
		hit, err := c.Find(t.Context(), x.key, x.restore, "v1")
		if x.want == "" {
			w.fails(err, ErrMiss, x.key)
		} else if err != nil || hit.Key != x.want {
			t.Errorf("%q: found %v, %v, want %q", x.key, hit, err, x.want)
		}
	}
	w.Fail("GetCacheEntryDownloadURL", status(404, `{"code":"not_found","msg":"no entry"}`), ok(`{"ok":true}`), status(401, `{"code":"unauthenticated","msg":"token expired"}`))
	_, err := c.Find(t.Context(), "a-1", nil, "v1")
	w.fails(err, ErrMiss)
	_, err = c.Find(t.Context(), "a-1", nil, "v1")
	w.fails(err, nil, "no address")
	_, err = c.Find(t.Context(), "a-1", nil, "v1")
	w.fails(err, nil, `looking for "a-1" in the cache: GetCacheEntryDownloadURL: 401 Unauthorized (unauthenticated): token expired`)
	// A server that does not repeat the key.
	w.Fail("GetCacheEntryDownloadURL", ok(`{"ok":true,"signedDownloadUrl":"https://h/?sig=x"}`))
	if hit, err := c.Find(t.Context(), "a-1", nil, "v1"); err != nil || hit.Key != "a-1" {
		t.Errorf("found %v, %v", hit, err)
	}
}

// TestRenewedEntryIsAnother: the key leads to something else by now.
func TestRenewedEntryIsAnother(t *testing.T) {
	w := newWorld(t)
	w.Entry("k", "v", []byte("x"))
	c := &Cache{Service: w.service()}
	hit, err := c.Find(t.Context(), "k", nil, "v")
	if err != nil {
		t.Fatal(err)
	}
	w.Fail("get", status(403, ""))
	w.Fail("GetCacheEntryDownloadURL", ok(`{"ok":true,"matched_key":"k2","signed_download_url":"https://h/?sig=x"}`))
	_, err = c.Download(t.Context(), hit, &sink{}, 0, nil)
	w.fails(err, ErrChanged)
}

func TestKeysAreChecked(t *testing.T) {
	w := newWorld(t)
	c := &Cache{Service: w.service()}
	for _, key := range []string{"", "a,b", "a\nb", "a\xff", strings.Repeat("k", 513)} {
		_, err := c.Find(t.Context(), key, nil, "v")
		w.fails(err, ErrKey)
		_, err = c.Find(t.Context(), "good", []string{key}, "v")
		w.fails(err, ErrKey)
		_, err = c.Save(t.Context(), key, "v", strings.NewReader("x"), 1, nil)
		w.fails(err, ErrKey)
	}
	_, err := c.Find(t.Context(), "good", slices.Repeat([]string{"r"}, 10), "v")
	w.fails(err, ErrKey, "11 keys")
	_, err = c.Save(t.Context(), "good", "v", strings.NewReader(""), 0, nil)
	w.fails(err, nil, "the file is empty")
	if len(w.Requests) > 0 {
		t.Errorf("asked %q", w.Requests)
	}
	if err := checkKey(strings.Repeat("k", 512)); err != nil {
		t.Error(err)
	}
}

func TestMode(t *testing.T) {
	for mode, want := range map[Mode]struct{ read, write bool }{
		"": {true, true}, ModeWrite: {true, true}, ModeRead: {true, false}, ModeWriteOnly: {false, true},
		ModeNone: {}, "of the future": {},
	} {
		w := newWorld(t)
		w.Entry("k", "v", []byte("x"))
		c := &Cache{Service: w.service(), Mode: mode}
		_, err := c.Find(t.Context(), "k", nil, "v")
		if want.read == errors.Is(err, ErrWriteOnly) || want.read != (err == nil) {
			t.Errorf("mode %q: Find is %v", mode, err)
		}
		_, err = c.Save(t.Context(), "new", "v", strings.NewReader("x"), 1, nil)
		if want.write == errors.Is(err, ErrReadOnly) || want.write != (err == nil) {
			t.Errorf("mode %q: Save is %v", mode, err)
		}
		if !want.read && !want.write && len(w.Requests) > 0 {
			t.Errorf("mode %q: asked %q", mode, w.Requests)
		}
	}
}

// TestReadOnlyToken is a pull request from a fork.
func TestReadOnlyToken(t *testing.T) {
	for access, want := range map[string]bool{
		`[{"Scope":"refs/heads/main","Permission":1}]`:                                              true,
		`[{"Scope":"refs/heads/main","Permission":1},{"Scope":"refs/pull/1/merge","Permission":3}]`: false,
		`[{"Scope":"","Permission":2}]`:                                                             false, // act's
		`[]`:                                                                                        false, ``: false, `not JSON`: false,
	} {
		token := makeToken(fmt.Sprintf(`{"ac":%q}`, access))
		err := (&Cache{Service: &Service{URL: "http://x", Token: token}}).Writable()
		if errors.Is(err, ErrReadOnly) != want || !want && err != nil {
			t.Errorf("%s: %v", access, err)
		}
	}
	if err := (&Cache{Service: &Service{URL: "http://x", Token: "opaque"}}).Writable(); err != nil {
		t.Errorf("a token of another kind: %v", err)
	}
}

func TestSaveIsRefused(t *testing.T) {
	for _, c := range []struct {
		answer fault
		kind   error
		words  string
	}{
		{ok(`{"ok":false}`), ErrExists, "another job"},
		{ok(`{"ok":false,"message":"cache already exists"}`), ErrExists, "cache already exists"},
		{ok(`{"ok":false,"message":"Cache is read-only for this run"}`), ErrReadOnly, "Cache is read-only"},
		{ok(`{"ok":false,"message":"cache quota reached"}`), ErrQuota, "cache quota reached"},
		{status(409, `{"code":"already_exists","msg":"taken"}`), ErrExists, "taken"},
		{status(403, `{"code":"permission_denied","msg":"cache write denied: token has no writable scopes"}`), ErrReadOnly, "no writable scopes"},
		{status(404, ``), ErrUnsupported, "CreateCacheEntry: 404"},
		{ok(`{"ok":true}`), nil, "no address"},
	} {
		w := newWorld(t)
		w.Fail("CreateCacheEntry", c.answer)
		_, err := (&Cache{Service: w.service()}).Save(t.Context(), "k", "v", strings.NewReader("x"), 1, nil)
		w.fails(err, c.kind, c.words, `saving "k" to the cache`)
	}
	w := newWorld(t)
	w.Fail("FinalizeCacheEntryUpload", status(400, `{"code":"invalid_argument","msg":"bad size"}`), ok(`{}`))
	c := &Cache{Service: w.service()}
	_, err := c.Save(t.Context(), "k", "v", strings.NewReader("x"), 1, nil)
	w.fails(err, nil, "FinalizeCacheEntryUpload: 400")
	_, err = c.Save(t.Context(), "k2", "v", strings.NewReader("x"), 1, nil)
	w.fails(err, nil, "FinalizeCacheEntryUpload: the service says no")
}

// TestBlocksOutOfOrder has the first blocks arrive last.
func TestBlocksOutOfOrder(t *testing.T) {
	w := newWorld(t)
	w.Azure = true
	last := make(chan struct{})
	data := noise(4*blockSize + 5)
	late := func(rw http.ResponseWriter, r *http.Request) {
		<-last
		w.PutBlock(rw, r, w.Entries["v\nk"])
	}
	w.Fail("block", late, late, late, late, func(rw http.ResponseWriter, r *http.Request) {
		w.PutBlock(rw, r, w.Entries["v\nk"])
		close(last)
	})
	if _, err := (&Cache{Service: w.service()}).Save(t.Context(), "k", "v", bytes.NewReader(data), int64(len(data)), nil); err != nil {
		t.Fatal(err)
	}
	b := w.Entries["v\nk"]
	if !bytes.Equal(b.Data, data) {
		t.Error("the entry is not what was saved")
	}
	if slices.IsSorted(b.Arrival) {
		t.Errorf("the blocks arrived in order: %q", b.Arrival)
	}
}

// TestDownloadFaults has the server misbehave, and the entry be right, or the
// error be clear.
func TestDownloadFaults(t *testing.T) {
	data := noise(3*rangeSize + 1000)
	serve := func(rw http.ResponseWriter, code int, header string, body []byte) {
		rw.Header().Set("ETag", `"0"`)
		if header != "" {
			rw.Header().Set("Content-Range", header)
		}
		rw.WriteHeader(code)
		_, _ = rw.Write(body)
	}
	whole := func(rw http.ResponseWriter, _ *http.Request) { serve(rw, 200, "", data) }
	half := func(rw http.ResponseWriter, r *http.Request) { // promises more than it sends
		var from, to int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		to = min(to, int64(len(data))-1)
		rw.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		serve(rw, 206, fmt.Sprintf("bytes %d-%d/%d", from, to, len(data)), data[from:from+(to-from)/2])
		panic(http.ErrAbortHandler)
	}
	lie := func(header string) fault {
		return func(rw http.ResponseWriter, _ *http.Request) { serve(rw, 206, header, data[:rangeSize]) }
	}
	trickle := func(rw http.ResponseWriter, r *http.Request) {
		var from int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		rw.Header().Set("Content-Length", "100000")
		serve(rw, 206, fmt.Sprintf("bytes %d-%d/%d", from, from+99999, len(data)), data[from:from+1000])
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	stall := func(rw http.ResponseWriter, r *http.Request) { // of the first range
		rw.Header().Set("Content-Length", "100000")
		serve(rw, 206, fmt.Sprintf("bytes 0-99999/%d", len(data)), data[:1000])
		_ = http.NewResponseController(rw).Flush()
		hang(rw, r)
	}
	other := func(rw http.ResponseWriter, _ *http.Request) { // after half of the first range
		rw.Header().Set("ETag", `"other"`)
		rw.Header().Set("Content-Range", fmt.Sprintf("bytes 4194303-8388607/%d", len(data)))
		rw.WriteHeader(http.StatusPartialContent)
		_, _ = rw.Write(data[4194303:8388608])
	}
	short := func(rw http.ResponseWriter, _ *http.Request) { // of the first range
		serve(rw, 206, fmt.Sprintf("bytes 0-99999/%d", len(data)), data[:100000])
	}
	cutWhole := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		serve(rw, 200, "", data[:12345])
		panic(http.ErrAbortHandler)
	}
	denied := status(403, "", "x-ms-error-code", "AuthenticationFailed")
	busy := status(503, "", "Retry-After", "2")
	for name, c := range map[string]struct {
		faults []fault
		limit  int64
		kind   error // of the error, whose text has words in it; neither: succeeds
		words  string
		note   string
	}{
		"nothing":           {},
		"ranges ignored":    {faults: []fault{whole, whole}, note: "in one piece"},
		"ignored later":     {faults: []fault{half, whole, whole, whole, whole, whole, whole, whole}, note: "in one piece"},
		"ignored and cut":   {faults: []fault{whole, cutWhole, cutWhole, whole}, note: "EOF"},
		"cut":               {faults: []fault{half, half, half, half}},
		"cut at once":       {faults: []fault{cut, cut}, note: "trying again"},
		"short first range": {faults: []fault{short}},
		"trickle":           {faults: []fault{trickle, trickle, trickle, trickle, trickle}, words: "(tried 5 times)"},
		"trickle, then not": {faults: []fault{trickle, trickle, trickle, trickle}, note: "trying again"},
		"silence":           {faults: []fault{stall}, note: "nothing was sent or received for too long"},
		"busy":              {faults: []fault{busy, half, busy, status(429, "", "Retry-After", "9")}, note: "trying again in 9s"},
		"other range":       {faults: []fault{lie(fmt.Sprintf("bytes 5-8388607/%d", len(data))), whole}, note: "bytes 0 to 8388607 were asked for, 5 to 8388607"},
		"more than asked":   {faults: []fault{lie(fmt.Sprintf("bytes 0-8388608/%d", len(data))), whole}, note: "in one piece"},
		"no size":           {faults: []fault{lie("bytes 0-8388607/*"), whole}, note: "does not say which"},
		"no range":          {faults: []fault{lie(""), whole}, note: "does not say which"},
		"backwards":         {faults: []fault{lie("bytes 7-3/9"), whole}, note: "in one piece"},
		"416":               {faults: []fault{status(416, ""), whole}, note: "in one piece"},
		"expired":           {faults: []fault{denied}, note: "asking for a new one"},
		"expired, whole":    {faults: []fault{whole, denied, whole}, note: "asking for a new one"},
		"refused":           {faults: []fault{denied, denied}, words: "downloading: 403 Forbidden (AuthenticationFailed)"},
		"gone":              {faults: []fault{status(404, "", "x-ms-error-code", "BlobNotFound")}, words: "404 Not Found (BlobNotFound)"},
		"lasting":           {faults: []fault{busy, busy, busy, busy, busy}, words: "tried 5 times"},
		"replaced":          {faults: []fault{half, lie("bytes 4194303-8388607/9999999")}, kind: ErrChanged},
		"same size, other":  {faults: []fault{half, other}, kind: ErrChanged},
		"too large":         {limit: int64(len(data)) - 1, kind: ErrTooLarge, words: "25166824 bytes, 25166823 are allowed"},
		"too large, whole":  {faults: []fault{whole, whole}, limit: 1000, kind: ErrTooLarge},
		"just so large":     {limit: int64(len(data))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Entry("k", "v", data)
			w.Fail("get", c.faults...)
			cache := &Cache{Service: w.service()}
			if name == "silence" {
				cache.Service.Stall = 200 * time.Millisecond
			}
			hit, err := cache.Find(t.Context(), "k", nil, "v")
			if err != nil {
				t.Fatal(err)
			}
			var got sink
			var told int64
			size, err := cache.Download(t.Context(), hit, &got, c.limit, func(done, _ int64) { told = done })
			if name == "ignored later" {
				w.Forget("get") // how many were met depends on the schedule
			}
			if c.kind != nil || c.words != "" {
				w.fails(err, c.kind, c.words, `downloading "k" from the cache`)
				return
			}
			if err != nil || size != int64(len(data)) || !bytes.Equal(got.data, data) {
				t.Fatalf("received %d of %d bytes, %v", size, len(data), err)
			}
			if told != size {
				t.Errorf("the last progress is %d of %d", told, size)
			}
			notes := strings.Join(w.notes, "\n")
			if !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if n := w.Count("GetCacheEntryDownloadURL"); n != 1 && !strings.HasPrefix(name, "expired") {
				t.Errorf("%d addresses were asked for", n)
			}
		})
	}
}

// TestExpiredOnce has all connections find at once that the address is too
// old: one new one is asked for.
func TestExpiredOnce(t *testing.T) {
	w := newWorld(t)
	data := noise(3 * rangeSize)
	b := w.Entry("k", "v", data)
	c := &Cache{Service: w.service()}
	hit, err := c.Find(t.Context(), "k", nil, "v")
	if err != nil {
		t.Fatal(err)
	}
	// The first range still comes; then the signature is no longer good.
	w.Fail("get", func(rw http.ResponseWriter, r *http.Request) {
		w.Mu.Lock()
		b.Signature = "none"
		w.Mu.Unlock()
		rw.Header().Set("ETag", b.ETag)
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(data))
	})
	var got sink
	if _, err := c.Download(t.Context(), hit, &got, 0, nil); err != nil || !bytes.Equal(got.data, data) {
		t.Fatalf("received %d bytes, %v", len(got.data), err)
	}
	if n := w.Count("GetCacheEntryDownloadURL"); n != 2 {
		t.Errorf("%d addresses were asked for, want 2", n)
	}
	// An entry that is gone meanwhile.
	w.Mu.Lock()
	b.Signature = "none"
	delete(w.Entries, "v\nk")
	w.Mu.Unlock()
	hit.renewed = false // as if it had just been found
	_, err = c.Download(t.Context(), hit, &sink{}, 0, nil)
	w.fails(err, ErrMiss, "AuthenticationFailed", "asking for a new address")
}

func TestDownloadIsCanceled(t *testing.T) {
	interrupted := errors.New("interrupted")
	for n := range 3 {
		w := newWorld(t)
		w.Entry("k", "v", noise(4*rangeSize))
		ctx, cancel := context.WithCancelCause(t.Context())
		c := &Cache{Service: w.service()}
		hit, err := c.Find(ctx, "k", nil, "v")
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		_, err = c.Download(ctx, hit, &sink{}, 0, func(int64, int64) {
			if calls++; calls == 1+n*100 {
				cancel(interrupted)
			}
		})
		w.fails(err, interrupted)
	}
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.Entry("k", "v", noise(100))
	c := &Cache{Service: w.service()}
	hit, err := c.Find(t.Context(), "k", nil, "v")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Download(t.Context(), hit, full{}, 0, nil)
	w.fails(err, io.ErrShortWrite, "writing what was received")
	w.Fail("get", status(416, ""))
	_, err = c.Download(t.Context(), hit, full{}, 0, nil)
	w.fails(err, io.ErrShortWrite, "writing what was received")
	if len(w.waits) > 0 {
		t.Errorf("waits %v", w.waits)
	}
}

type full struct{}

func (full) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }

// TestSaveFromFile holds that an *os.File does.
func TestSaveFromFile(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, noise(blockSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := (&Cache{Service: w.service()}).Save(t.Context(), "k", "v", f, blockSize+1, nil); err != nil {
		t.Fatal(err)
	}
}
