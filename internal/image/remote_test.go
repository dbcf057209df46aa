package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/fetch"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

// site is a web server with files, and a log of what was asked.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	first map[string]http.HandlerFunc // answers the first request for a path
	log   []string                    // "path range"
}

func newSite(t *testing.T, start func(http.Handler) *httptest.Server) *site {
	t.Helper()
	s := &site{files: map[string][]byte{}, first: map[string]http.HandlerFunc{}}
	s.Server = start(s)
	t.Cleanup(s.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	data, ok := s.files[r.URL.Path]
	first := s.first[r.URL.Path]
	delete(s.first, r.URL.Path)
	s.mu.Unlock()
	switch {
	case first != nil:
		first(w, r)
	case !ok:
		http.NotFound(w, r)
	default:
		w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func (s *site) requests() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := strings.Join(s.log, "\n")
	s.log = nil
	return log
}

func (s *site) store(t *testing.T) *Store {
	t.Helper()
	st := &Store{Dir: filepath.Join(t.TempDir(), "store"), Client: s.Client()}
	t.Cleanup(func() { tidy(t, st) })
	return st
}

// tidy holds that nothing half written stays in a store.
func tidy(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"tmp", downloadsDir} {
		if left := s.entries(dir); len(left) > 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
}

func sha(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func sha2(data []byte) string {
	h := sha512.Sum512(data)
	return hex.EncodeToString(h[:])
}

func tarGz(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPresetFromMirror holds which requests a preset leads to, and that the
// second run makes none.
func TestPresetFromMirror(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	raw := rawDisk(1 << 20)
	const file = "debian-hurd-i386-20250807.img.tar.xz"
	packed := tarGz(t, "debian-hurd.img", raw) // packings are not told by their names
	web.files["/m/ports/13.0/hurd-i386/"+file] = packed
	web.files["/m/ports/13.0/hurd-i386/SHA512SUMS"] = []byte(sha2([]byte("x")) + "  other.img\n" + sha2(packed) + "  " + file + "\n")
	s := web.store(t)
	s.Now = func() time.Time { return time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC) }
	want := Want{Arch: "i386", Mirror: web.URL + "/m"}
	b := mustObtain(t, s, "debian", want)
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the disk differs: %v", err)
	}
	if b.Reused || b.Digest != "sha256:"+sha(packed) || b.Preset == nil || b.Preset.File != file || b.VirtualSize != units.MiB {
		t.Errorf("base = %+v", b)
	}
	verified := fmt.Sprintf("published (%s/m/ports/13.0/hurd-i386/SHA512SUMS, pinned 2026-03-20)", web.URL)
	if b.Verified.String() != verified {
		t.Errorf("verified: %s, want %s", b.Verified, verified)
	}
	if got := web.requests(); got != strings.Join([]string{
		"/m/ports/latest/hurd-i386/SHA512SUMS", "/m/ports/latest/hurd-i386/SHA256SUMS", "/m/ports/13.0/hurd-i386/SHA512SUMS",
		"/m/ports/latest/hurd-i386/" + file, "/m/ports/13.0/hurd-i386/" + file,
	}, "\n") {
		t.Errorf("requests:\n%s", got)
	}
	again := mustObtain(t, s, "debian", want)
	if !again.Reused || again.Verified.String() != verified || web.requests() != "" {
		t.Errorf("the second time: %+v", again)
	}
	// What was pinned decides from now on, whatever the list says.
	web.files["/m/ports/13.0/hurd-i386/SHA512SUMS"] = []byte(sha2([]byte("new")) + "  " + file + "\n")
	web.files["/m/ports/13.0/hurd-i386/"+file] = tarGz(t, "new.img", raw)
	if err := errors.Join(b.Close(), again.Close()); err != nil {
		t.Fatal(err)
	}
	s2 := &Store{Dir: s.Dir, Client: s.Client}
	removeAll(t, s2, EntryImage)
	_, err := s2.Obtain(t.Context(), mustParse(t, "debian"), want)
	if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), "SHA512SUMS, pinned 2026-03-20 it is "+sha2(packed)) {
		t.Errorf("after the publisher has replaced it: %v", err)
	}
}

func removeAll(t *testing.T, s *Store, kind string) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Type == kind {
			_ = s.Remove(e) // one in use stays
		}
	}
}

// TestPinnedPreset holds that a preset's hash is ours, whatever is published.
func TestPinnedPreset(t *testing.T) {
	web := newSite(t, httptest.NewServer)
	const path = "/ports/latest/hurd-amd64/debian-hurd-amd64-20260314.img.tar.xz"
	web.files[path] = tarGz(t, "disk.img", rawDisk(1<<20))
	s := web.store(t)
	_, err := s.Obtain(t.Context(), mustParse(t, "debian"), Want{Mirror: web.URL, Verify: VerifyPinned})
	if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), "known to us is 0c6151e7a402c065") {
		t.Errorf("error %v, want one that names both hashes", err)
	}
	if got := web.requests(); got != path {
		t.Errorf("requests:\n%s", got)
	}
	_, err = s.Obtain(t.Context(), mustParse(t, "debian"), Want{Mirror: web.URL, SHA512: sha2(nil)})
	if !errors.Is(err, ErrHash) || web.requests() != "" {
		t.Errorf("with another hash than the preset's: %v", err)
	}
}

// TestURL obtains one file under all kinds of verification.
func TestURL(t *testing.T) {
	raw := rawDisk(1 << 20)
	packed := tarGz(t, "disk.img", raw)
	sums512 := []byte(sha2(packed) + " *disk.tar.gz\n")
	sums256 := []byte("SHA256 (disk.tar.gz) = " + strings.ToUpper(sha(packed)) + "\n")
	for _, tc := range []struct {
		name     string
		files    map[string][]byte
		want     Want
		verified string // the beginning
		err      error
		says     string
	}{
		{"SHA-512 given", nil, Want{SHA512: strings.ToUpper(sha2(packed))}, "given (SHA-512 " + sha2(packed)[:16] + "...)", nil, ""},
		{"SHA-256 given", nil, Want{SHA256: sha(packed), Verify: VerifyPinned}, "given (SHA-256 ", nil, ""},
		{"both given", nil, Want{SHA256: sha(packed), SHA512: sha2(packed)}, "given (SHA-512 ", nil, ""},
		{"SHA512SUMS", map[string][]byte{"/i/SHA512SUMS": sums512}, Want{}, "published (https://", nil, ""},
		{"SHA256SUMS", map[string][]byte{"/i/SHA256SUMS": sums256}, Want{}, "published (https://", nil, ""},
		{"none", nil, Want{Verify: VerifyNone}, "none", nil, ""},
		{"no list", nil, Want{}, "", ErrNoList, "no published hash was found for disk.tar.gz"},
		{"not in the list", map[string][]byte{"/i/SHA512SUMS": []byte("x")}, Want{}, "", ErrNoList, "/i/SHA512SUMS does not list it; "},
		{"wrong SHA-256", nil, Want{SHA256: sha(raw)}, "", ErrHash, "its SHA-256 is " + sha(packed) + ", wanted is " + sha(raw)},
		{"one of two is wrong", nil, Want{SHA256: sha(packed), SHA512: sha2(raw)}, "", ErrHash, "its SHA-512 is " + sha2(packed)},
		{"wrong list", map[string][]byte{"/i/SHA512SUMS": []byte(sha2(raw) + "  disk.tar.gz\n")}, Want{}, "", ErrHash, "/i/SHA512SUMS, pinned "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			web := newSite(t, httptest.NewTLSServer)
			web.files["/i/disk.tar.gz"] = packed
			for path, data := range tc.files {
				web.files[path] = data
			}
			s := web.store(t)
			src := mustParse(t, web.URL+"/i/disk.tar.gz?signed=secret")
			b, err := s.Obtain(t.Context(), src, tc.want)
			if tc.err != nil {
				var e *Error
				if !errors.Is(err, tc.err) || !errors.As(err, &e) || e.Hint == "" || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") {
					t.Errorf("error %v, want %q and a hint", err, tc.says)
				}
				if left := s.entries(imagesDir); len(left) > 0 {
					t.Errorf("kept: %q", left)
				}
				return
			}
			if err != nil || !strings.HasPrefix(b.Verified.String(), tc.verified) || b.Origin != web.URL+"/i/disk.tar.gz" {
				t.Fatalf("base %+v, %v; want verified as %q", b, err, tc.verified)
			}
			web.requests()
			again, err := s.Obtain(t.Context(), src, tc.want)
			if err != nil || !again.Reused || again.Path != b.Path || again.Verified != b.Verified {
				t.Errorf("again: %+v, %v", again, err)
			}
			if asked := web.requests(); (asked != "") != (tc.want.Verify == VerifyNone) {
				t.Errorf("again it asked %q", asked)
			}
			if err := errors.Join(b.Close(), again.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnverifiedIsRevalidated fetches a file without any hash again when the
// server has another one, and only then.
func TestUnverifiedIsRevalidated(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	s := web.store(t)
	for i, tc := range []struct {
		disk   []byte
		reused bool
	}{{rawDisk(1 << 20), false}, {rawDisk(1 << 20), true}, {rawDisk(2 << 20), false}} {
		web.files["/disk.img"] = tc.disk
		b := mustObtain(t, s, web.URL+"/disk.img", Want{Verify: VerifyNone})
		if b.Reused != tc.reused || b.VirtualSize != units.Bytes(len(tc.disk)) {
			t.Errorf("%d: %+v", i, b)
		}
	}
}

// TestBadFiles holds what is said about files that are not what they should be.
func TestBadFiles(t *testing.T) {
	raw := rawDisk(1 << 20)
	packed := tarGz(t, "disk.img", raw)
	cutDisk := bytes.Clone(raw)
	copy(cutDisk[446:], []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0})
	for _, tc := range []struct {
		name string
		data []byte
		err  error
		says string
	}{
		{"web page", []byte("<!doctype html><title>Sign in</title>"), fetch.ErrNotFile, `a web page with the title "Sign in"; open the address in a browser`},
		{"cut archive", packed[:len(packed)/2], unpack.ErrTruncated, "unpacking gzip: the file ends too early"},
		{"program", append([]byte("\x7fELF"), raw...), disk.ErrNotDisk, "a program (ELF); check that the address or path is that of a disk image"},
		{"program in an archive", tarGz(t, "x.img", append([]byte("\x7fELF"), raw...)), disk.ErrNotDisk, "a program (ELF)"},
		{"no disk", tarGz(t, "README", []byte("text")), unpack.ErrNoDisk, `it holds ["README"]; pack exactly one disk image`},
		{"cut disk", cutDisk, disk.ErrTruncated, "partition 1 ends at byte"},
		{"escape", tarGz(t, "../../etc/cron.d/x.img", raw), unpack.ErrEscape, "not trusted"},
		{"bzip2", []byte("BZh91AY&SY\x00\x00"), unpack.ErrUnsupported, "a bzip2 file; pack the image as"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			web := newSite(t, httptest.NewTLSServer)
			web.files["/file"] = tc.data
			s := web.store(t)
			_, err := s.Obtain(t.Context(), mustParse(t, web.URL+"/file?signed=secret"), Want{Verify: VerifyNone})
			if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") ||
				!strings.HasPrefix(err.Error(), "obtaining "+web.URL+"/file: ") {
				t.Errorf("error %v\nwant %q", err, tc.says)
			}
			if left := s.entries(imagesDir); len(left) > 0 {
				t.Errorf("kept: %q", left)
			}
		})
	}
}

func TestStatuses(t *testing.T) {
	for status, says := range map[int]string{
		404: "/file: 404 Not Found; check the address", 401: "give a token", 403: "the server refuses", 410: "use another one",
	} {
		web := newSite(t, httptest.NewTLSServer)
		web.first["/file"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
		s := web.store(t)
		_, err := s.Obtain(t.Context(), mustParse(t, web.URL+"/file"), Want{SHA256: sha(nil)})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d: error %v, want %q", status, err, says)
		}
	}
}

// TestPiecesThatDoNotFit has a server whose ranges hold other bytes: only the
// hash shows it, and then the file is fetched in one piece.
func TestPiecesThatDoNotFit(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	data := rawDisk(1 << 20)
	web.files["/disk.img"] = data
	half := len(data) / 2
	web.first["/disk.img"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:half]) // the client notices
		web.mu.Lock()
		defer web.mu.Unlock()
		web.first["/disk.img"] = func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
				t.Error("no range was asked for")
			}
			w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(bytes.Repeat([]byte("wrong!!!"), half/8)) // the client notices
		}
	}
	s := web.store(t)
	var notes []string
	s.Progress = func(r Report) {
		if r.Note != "" {
			notes = append(notes, r.String())
		}
	}
	b := mustObtain(t, s, web.URL+"/disk.img", Want{SHA256: sha(data)})
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the disk differs: %v", err)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "the connection ended too early: after 524288 of 1048576 bytes; trying again in") ||
		!strings.Contains(all, "pieces that do not fit together; starting again in one piece") {
		t.Errorf("notes:\n%s", all)
	}
}

// TestChangesOnTheServer has a file that is replaced while it is fetched.
func TestChangesOnTheServer(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	old, data := bytes.Repeat([]byte{1}, 1<<20), rawDisk(1<<20)
	web.files["/disk.img"] = data
	web.first["/disk.img"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"old"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(old)))
		_, _ = w.Write(old[:len(old)/2]) // the client notices
	}
	s := web.store(t)
	b := mustObtain(t, s, web.URL+"/disk.img", Want{Verify: VerifyNone})
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the disk is not the new one: %v", err)
	}
}

// TestOneOfManyFetches lets several want the same file at the same time.
func TestOneOfManyFetches(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	data := rawDisk(1 << 20)
	web.files["/disk.img"] = data
	dir := filepath.Join(t.TempDir(), "store")
	const many = 5
	waiting, begun := make(chan struct{}, many), make(chan struct{})
	web.first["/disk.img"] = func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		for range many - 1 {
			<-waiting // until all others wait for us
		}
		_, _ = w.Write(data) // the client notices
	}
	var wg sync.WaitGroup
	obtain := func() {
		defer wg.Done()
		s := &Store{Dir: dir, Client: web.Client(), Progress: func(r Report) {
			if r.Step == StepWait {
				waiting <- struct{}{}
			}
		}}
		b, err := s.Obtain(t.Context(), mustParse(t, web.URL+"/disk.img"), Want{SHA256: sha(data)})
		if err != nil {
			t.Error(err)
			return
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Add(many)
	go obtain()
	<-begun
	for range many - 1 {
		go obtain()
	}
	wg.Wait()
	if got := web.requests(); got != "/disk.img" {
		t.Errorf("requests:\n%s", got)
	}
}

// TestCanceledFetchGoesOn cancels in the middle: nothing half unpacked stays,
// and what was received is not fetched again.
func TestCanceledFetchGoesOn(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	data := rawDisk(4 << 20)
	web.files["/disk.img"] = data
	half := len(data) / 2
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	web.first["/disk.img"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:half]) // the client ends it
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	s := web.store(t)
	s.Now = ticking()
	s.Progress = func(r Report) {
		if r.Done >= units.Bytes(half) {
			cancel(stop)
		}
	}
	src, want := mustParse(t, web.URL+"/disk.img"), Want{SHA256: sha(data)}
	if _, err := s.Obtain(ctx, src, want); !errors.Is(err, stop) {
		t.Fatalf("error %v, want the cause", err)
	}
	if left := s.entries("tmp"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	web.requests()
	s.Progress = nil
	b := mustObtain(t, s, web.URL+"/disk.img", want)
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the disk differs: %v", err)
	}
	if got := web.requests(); !strings.HasPrefix(got, fmt.Sprintf("/disk.img bytes=%d", half)) {
		t.Errorf("requests:\n%s", got)
	}
}

// ticking is a clock that is a second on each time somebody looks.
func ticking() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

// TestReports holds that progress is told with rate and time left.
func TestReports(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	data := rawDisk(4 << 20)
	web.files["/disk.img"] = data
	s := web.store(t)
	s.Now = ticking()
	var last, some Report
	s.Progress = func(r Report) {
		if last = r; r.Left > 0 {
			some = r
		}
	}
	mustObtain(t, s, web.URL+"/disk.img", Want{SHA256: sha(data)})
	if last.Done != 4*units.MiB || last.Total != 4*units.MiB || last.Step != StepFetch || last.Source != web.URL+"/disk.img" {
		t.Errorf("the last report is %+v", last)
	}
	if some.Rate <= 0 || !strings.Contains(some.String(), "/s, ") || !strings.HasSuffix(some.String(), " left") {
		t.Errorf("a report in between is %q", some)
	}
}
