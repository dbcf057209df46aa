package results

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	stdhex "encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Both kinds are one thing to whoever has an artifact to make.
var _, _ interface {
	Upload(ctx context.Context, u Upload) (Artifact, error)
} = &Artifacts{}, Directory{}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return stdhex.EncodeToString(h[:])
}

func bundle(files ...string) *Bundle {
	b := &Bundle{}
	for _, f := range files {
		b.AddBytes(f, time.Time{}, []byte("contents of "+f))
	}
	return b
}

// noise is n bytes that nothing compresses.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// unzip reads a zip back.
func unzip(t *testing.T, data []byte) map[string]string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range r.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(rc)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, twice := files[f.Name]; twice {
			t.Errorf("%s is there twice", f.Name)
		}
		files[f.Name] = string(text)
	}
	return files
}

func TestUploadArtifact(t *testing.T) {
	for _, camel := range []bool{false, true} {
		w := newWorld(t)
		w.Camel = camel
		a := &Artifacts{Service: w.service(), TempDir: t.TempDir()}
		got, err := a.Upload(t.Context(), Upload{Name: "logs", Bundle: bundle("serial.log", "d/qemu.log"), Days: 3})
		if err != nil {
			t.Fatal(err)
		}
		b := w.Artifacts["logs"]
		if want := (Artifact{ID: 9007199254740993, Name: "logs", Size: int64(len(b.Data)), SHA256: sum(b.Data)}); got != want {
			t.Errorf("made %+v, want %+v", got, want)
		}
		if !b.Finalized || b.Expires != "2026-01-05T03:04:05Z" {
			t.Errorf("finalized %v, expires %q", b.Finalized, b.Expires)
		}
		want := map[string]string{"serial.log": "contents of serial.log", "d/qemu.log": "contents of d/qemu.log"}
		if diff := cmp.Diff(want, unzip(t, b.Data)); diff != "" {
			t.Error(diff)
		}
		if left, _ := os.ReadDir(a.TempDir); len(left) > 0 || len(w.notes) > 0 {
			t.Errorf("left in the temporary directory: %v; notes %q", left, w.notes)
		}
		_, err = a.Upload(t.Context(), Upload{Name: "logs", Bundle: bundle("a")})
		w.fails(err, ErrExists, `uploading artifact "logs"`, "already exists on the workflow run")
	}
}

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		days, most int
		want       string
		note       bool
	}{
		{0, 0, "", false}, {0, 5, "", false}, {1, 0, "2026-01-03T03:04:05Z", false},
		{90, 0, "2026-04-02T03:04:05Z", false}, {30, 10, "2026-01-12T03:04:05Z", true}, {10, 10, "2026-01-12T03:04:05Z", false},
	} {
		w := newWorld(t)
		a := &Artifacts{Service: w.service(), MaxDays: c.most}
		if _, err := a.Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f"), Days: c.days}); err != nil {
			t.Fatal(err)
		}
		if got := w.Artifacts["a"].Expires; got != c.want || (len(w.notes) == 1) != c.note {
			t.Errorf("%d of %d days: expires %q, want %q; notes %q", c.days, c.most, got, c.want, w.notes)
		}
	}
}

func TestUploadIsChecked(t *testing.T) {
	for words, u := range map[string]Upload{
		"it is empty":           {Bundle: bundle("f")},
		"'/'":                   {Name: "a/b", Bundle: bundle("f")},
		"for -1":                {Name: "a", Bundle: bundle("f"), Days: -1},
		"1 to 90 days, not for": {Name: "a", Bundle: bundle("f"), Days: 91},
		"no file to upload":     {Name: "a", Bundle: &Bundle{}},
		"no file":               {Name: "a"},
	} {
		w := newWorld(t)
		_, err := (&Artifacts{Service: w.service()}).Upload(t.Context(), u)
		w.fails(err, nil, words)
		_, err = (Directory{Path: t.TempDir()}).Upload(t.Context(), u)
		w.fails(err, nil, words)
		if len(w.Requests) > 0 {
			t.Errorf("%s: asked %q", words, w.Requests)
		}
	}
}

// TestUploadGoesOn has everything fail once, and the artifact be right.
func TestUploadGoesOn(t *testing.T) {
	for _, azure := range []bool{false, true} {
		w := newWorld(t)
		w.Azure = azure
		w.Fail("CreateArtifact", cut, status(502, "<html>bad gateway</html>"))
		w.Fail("block", cutBody, status(503, "", "x-ms-error-code", "ServerBusy"), status(500, ""), cut)
		w.Fail("list", cut, status(504, ""))
		w.Fail("FinalizeArtifact", status(500, `{"code":"internal","msg":"oops"}`), status(429, "", "Retry-After", "7"))
		b := &Bundle{}
		b.AddBytes("noise", time.Time{}, noise(3*blockSize+17))
		if _, err := (&Artifacts{Service: w.service()}).Upload(t.Context(), Upload{Name: "a", Bundle: b}); err != nil {
			t.Fatal(err)
		}
		if got := unzip(t, w.Artifacts["a"].Data)["noise"]; got != string(noise(3*blockSize+17)) {
			t.Error("the file is not what it was")
		}
		if want := 4 + 2 + 2; w.Count("CreateArtifact") != 3 || len(w.waits) != want+2 || len(w.notes) != len(w.waits) {
			t.Errorf("waits %v, notes %q", w.waits, w.notes)
		}
		if !strings.Contains(strings.Join(w.notes, "\n"), "trying again in 7s") {
			t.Errorf("Retry-After is not honoured: %q", w.notes)
		}
		if !azure && w.Most != 1 {
			t.Errorf("%d blocks at once to a peer that appends", w.Most)
		}
	}
}

// TestUploadEnds has failures that last: what the reader gets to see.
func TestUploadEnds(t *testing.T) {
	busy := status(503, `{"code":"unavailable","msg":"try later"}`)
	denied := status(403, "<Error><Code>AuthenticationFailed</Code><Message>Signature did not match sig="+secret+"</Message></Error>")
	for name, c := range map[string]struct {
		method string
		faults []fault
		kind   error
		words  string
	}{
		"busy":      {"CreateArtifact", []fault{busy, busy, busy, busy, busy}, nil, "503 Service Unavailable (unavailable): try later (tried 5 times)"},
		"denied":    {"CreateArtifact", []fault{status(403, `{"code":"permission_denied","msg":"not for https://x/y?sig=`+secret+` at all"}`)}, nil, "403 Forbidden (permission_denied): not for https://x/y?*** at all"},
		"quota":     {"CreateArtifact", []fault{status(403, `{"code":"resource_exhausted","msg":"insufficient usage to create artifact"}`)}, ErrQuota, "every 6 to 12 hours"},
		"GHES":      {"CreateArtifact", []fault{status(404, "not found")}, ErrUnsupported, "GitHub Enterprise Server"},
		"no route":  {"CreateArtifact", []fault{status(404, `{"code":"bad_route","msg":"no handler for path"}`)}, ErrUnsupported, "no handler"},
		"login":     {"CreateArtifact", []fault{status(302, "", "Location", "https://elsewhere/")}, nil, "302 Found"},
		"broken":    {"CreateArtifact", []fault{ok(`{"ok":tr`)}, ErrUnsupported, "answered with something broken, not with JSON"},
		"too long":  {"CreateArtifact", []fault{ok(`{"ok":"` + strings.Repeat("x", maxReply) + `"}`)}, ErrUnsupported, "not with JSON"},
		"a page":    {"CreateArtifact", []fault{status(200, "<html>", "Content-Type", "text/html")}, ErrUnsupported, `"text/html", not with JSON`},
		"no":        {"CreateArtifact", []fault{ok(`{"ok":false,"message":"bad day"}`)}, nil, "bad day"},
		"no reason": {"CreateArtifact", []fault{ok(`{}`)}, nil, "gives no reason"},
		"no URL":    {"CreateArtifact", []fault{ok(`{"ok":true,"signed_upload_url":"file:///etc?sig=` + secret + `"}`)}, nil, "no http address"},
		"expired":   {"block", []fault{denied}, nil, "uploading a block: 403 Forbidden (AuthenticationFailed)"},
		"list":      {"list", []fault{denied}, nil, "uploading the list of blocks: 403 Forbidden (AuthenticationFailed)"},
		"hash":      {"FinalizeArtifact", []fault{status(400, `{"code":"invalid_argument","msg":"hash does not match"}`)}, nil, "hash does not match"},
		"not final": {"FinalizeArtifact", []fault{ok(`{"ok":false}`)}, nil, "FinalizeArtifact: the service says no"},
		"long wait": {"CreateArtifact", []fault{status(429, `{"code":"resource_exhausted"}`, "Retry-After", "3600")}, nil, "asks to wait 1h0m0s"},
		"cut":       {"CreateArtifact", []fault{cut, cut, cut, cut, cut}, nil, "CreateArtifact: EOF (tried 5 times)"},
		"cut block": {"block", []fault{cut, cut, cut, cut, cut}, nil, "uploading a block: EOF (tried 5 times)"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Fail(c.method, c.faults...)
			_, err := (&Artifacts{Service: w.service()}).Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f")})
			w.fails(err, c.kind, c.words)
			if len(w.waits) != len(c.faults)-1 {
				t.Errorf("waits %v", w.waits)
			}
		})
	}
}

// TestBackoff: the waits double, each with a quarter of chance; a server's
// wish to wait longer is met.
func TestBackoff(t *testing.T) {
	w := newWorld(t)
	busy := status(503, "")
	w.Fail("CreateArtifact", busy, busy, busy, busy, status(503, "", "Retry-After", "60"), status(503, "", "Retry-After", "1"))
	s := w.service()
	s.Tries = 7
	if _, err := (&Artifacts{Service: s}).Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f")}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 60, 30} { // 30: no wait is longer by itself, or shorter than the server's
		least, most := want*time.Second*3/4, want*time.Second*5/4
		if want == 60 {
			least, most = time.Minute, time.Minute
		}
		if got := w.waits[i]; got < least || got > most {
			t.Errorf("wait %d is %v, want about %d s", i+1, got, want)
		}
	}
}

// TestSleepByClock holds that a wait ends with the run.
func TestSleepByClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := sleepByClock(t.Context(), time.Hour); err != nil || time.Since(start) != time.Hour {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, os.ErrDeadlineExceeded)
		defer cancel()
		if err := sleepByClock(ctx, time.Hour); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour+time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// TestWrongHash shows that the scripted server would notice a wrong blob, and
// what we would say.
func TestWrongHash(t *testing.T) {
	w := newWorld(t)
	w.Fail("block", func(rw http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		data[0] ^= 1
		r.Body = io.NopCloser(bytes.NewReader(data))
		w.PutBlock(rw, r, w.Artifacts["a"])
	})
	_, err := (&Artifacts{Service: w.service()}).Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f")})
	w.fails(err, nil, "FinalizeArtifact: 400 Bad Request (invalid_argument): hash does not match")
}

func TestNoService(t *testing.T) {
	w := newWorld(t)
	_, err := (&Cache{Service: &Service{}}).Find(t.Context(), "k", nil, "v")
	w.fails(err, ErrUnsupported, "ACTIONS_RESULTS_URL is not set")
	w.fails((&Cache{Service: &Service{}}).Writable(), ErrUnsupported)
	for name, c := range map[string]struct {
		change func(*Service)
		kind   error
		words  string
	}{
		"no URL":     {func(s *Service) { s.URL = "" }, ErrUnsupported, "ACTIONS_RESULTS_URL is not set"},
		"bad URL":    {func(s *Service) { s.URL = "ftp://x?sig=" + secret }, nil, "ACTIONS_RESULTS_URL is no http address"},
		"no token":   {func(s *Service) { s.Token = "" }, ErrUnsupported, "ACTIONS_RUNTIME_TOKEN is not set"},
		"two lines":  {func(s *Service) { s.Token += "\nX: y" }, nil, "ACTIONS_RUNTIME_TOKEN is no token"},
		"no JWT":     {func(s *Service) { s.Token = "opaque" }, nil, "JSON web token"},
		"no scope":   {func(s *Service) { s.Token = makeToken(`{"scp":"Actions.GenericRead:1"}`) }, ErrUnsupported, "no scope Actions.Results:RUN:JOB"},
		"no backend": {func(s *Service) { s.Token = makeToken(`{"scp":"Actions.Results::1 Actions.Results:1"}`) }, ErrUnsupported, "no scope"},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.service()
			c.change(s)
			_, err := (&Artifacts{Service: s}).Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f")})
			w.fails(err, c.kind, c.words)
			if s.Token != "" && strings.Contains(err.Error(), s.Token) {
				t.Errorf("the token is in %q", err)
			}
		})
	}
	if len(w.Requests) > 0 {
		t.Errorf("asked %q", w.Requests)
	}
	if got := fmt.Sprintf("%v %+v", w.service(), &Hit{Key: "k", address: secret}); got != "the services of the job k" {
		t.Errorf("printed: %q", got)
	}
}

func TestStall(t *testing.T) {
	w := newWorld(t)
	w.Fail("CreateArtifact", hang)
	w.Fail("block", hang)
	s := w.service()
	s.Stall = 100 * time.Millisecond
	if _, err := (&Artifacts{Service: s}).Upload(t.Context(), Upload{Name: "a", Bundle: bundle("f")}); err != nil {
		t.Fatal(err)
	}
	if len(w.notes) != 2 || !strings.Contains(w.notes[0], "nothing was sent or received for too long (100ms)") {
		t.Errorf("notes %q", w.notes)
	}
}

// TestCancel has the run end while a request is in transit: at once, and with
// the reason.
func TestCancel(t *testing.T) {
	interrupted := errors.New("interrupted")
	for _, step := range []string{"CreateArtifact", "block", "list", "FinalizeArtifact"} {
		w := newWorld(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		w.Fail(step, func(rw http.ResponseWriter, r *http.Request) {
			cancel(interrupted)
			hang(rw, r)
		})
		_, err := (&Artifacts{Service: w.service()}).Upload(ctx, Upload{Name: "a", Bundle: bundle("f")})
		w.fails(err, interrupted)
	}
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted)
	_, err := (&Artifacts{Service: w.service()}).Upload(ctx, Upload{Name: "a", Bundle: bundle("f")})
	w.fails(err, interrupted)
	_, err = (Directory{Path: t.TempDir()}).Upload(ctx, Upload{Name: "a", Bundle: bundle("f")})
	w.fails(err, interrupted)
	if len(w.Requests) > 0 {
		t.Errorf("asked %q", w.Requests)
	}
}

// TestDeadline: no wait is begun that outlasts the time there is.
func TestDeadline(t *testing.T) {
	w := newWorld(t)
	w.Fail("CreateArtifact", status(429, `{"code":"resource_exhausted","msg":"slow down"}`, "Retry-After", "90"))
	s := w.service()
	s.Now = time.Now
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := (&Artifacts{Service: s}).Upload(ctx, Upload{Name: "a", Bundle: bundle("f")})
	w.fails(err, nil, "slow down", "asks to wait 1m30s", "no time is left")
}

// TestBlobRedirect: a signed address may lead on, but not out of TLS.
func TestBlobRedirect(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/?sig="+secret, http.StatusTemporaryRedirect))
	defer secure.Close()
	s := &Service{Client: secure.Client(), Tries: 1}
	err := s.upload(t.Context(), secure.URL+"/?sig="+secret, strings.NewReader("x"), 1, nil)
	if err == nil || !strings.Contains(err.Error(), "from https to http") || strings.Contains(err.Error(), secret) {
		t.Errorf("error %v", err)
	}
}

// TestUnreadableFile: a file to upload that fails is not the network's fault.
func TestUnreadableFile(t *testing.T) {
	w := newWorld(t)
	c := &Cache{Service: w.service()}
	_, err := c.Save(t.Context(), "k", "v", failingFile{}, 10, nil)
	w.fails(err, os.ErrInvalid, "reading the file to upload")
	if len(w.waits) > 0 {
		t.Errorf("waits %v", w.waits)
	}
}

type failingFile struct{}

func (failingFile) ReadAt([]byte, int64) (int, error) { return 0, os.ErrInvalid }

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "999999999": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0, "Fri, 02 Jan 2099 03:00:00 GMT": 24 * time.Hour,
	} {
		if got := retryAfter(value, clock); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	s := &Service{Token: "opaque-token"}
	for in, want := range map[string]string{
		"a opaque-token b":              "a *** b",
		"see https://h/p?sig=x&y=z, ok": "see https://h/p?*** ok",
		"sig=abc&se=1 Signature=q":      "sig=***&se=1 Signature=***",
		"jwt eyJhbGciOiJub25lIn0.abc.d": "jwt ***",
		"two\nlines\x1b[31m\u202e\xff":  "two lines[31m\ufffd",
		strings.Repeat("é", 400):        strings.Repeat("é", 300) + "...",
	} {
		if got := s.redact(in); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}
