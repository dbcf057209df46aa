package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-containerregistry/pkg/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network with one registry, which another project has written, and
// whatever a test puts beside it. There are no connections: requests are calls,
// so that in a bubble of synctest minutes of waiting take no time.
type world struct {
	t     *testing.T
	hosts map[string]http.Handler
	// fault may answer in place of a host; nil means that the host does.
	fault func(req *http.Request) *http.Response

	mu    sync.Mutex
	log   []string // "METHOD host/path range", of those that are about blobs
	all   []*http.Request
	notes []string
	c     *Client
}

const host = "machines.example"

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, hosts: map[string]http.Handler{host: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}}
		w.c = &Client{Transport: w, Notify: func(n string) { w.notes = append(w.notes, n) }}
		test(t, w)
	})
}

// RoundTrip has a host answer.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil { // a server reads it
		data, err := io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(data))
	}
	w.mu.Lock()
	w.all = append(w.all, req)
	if strings.Contains(req.URL.Path, "/blobs/") {
		w.log = append(w.log, strings.TrimSpace(req.Method+" "+req.URL.Host+" "+req.Header.Get("Range")))
	}
	fault, handler := w.fault, w.hosts[req.URL.Host]
	w.mu.Unlock()
	if fault != nil {
		if resp := fault(req); resp != nil {
			resp.Request = req
			return resp, nil
		}
	}
	if err := context.Cause(req.Context()); err != nil { // as a connection's end
		return nil, err
	}
	if handler == nil {
		return nil, errors.New("no such host " + req.URL.Host)
	}
	resp := serve(handler, req)
	resp.Request = req
	return resp, nil
}

// serve is what a handler answers.
func serve(h http.Handler, req *http.Request) *http.Response {
	in := req.Clone(req.Context())
	in.RequestURI, in.Host, in.RemoteAddr = req.URL.RequestURI(), req.URL.Host, "192.0.2.1:1"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, in)
	return rec.Result()
}

// status is a refusal.
func status(code int, header ...string) *http.Response {
	rec := httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		rec.Header().Set(header[i], header[i+1])
	}
	rec.WriteHeader(code)
	return rec.Result()
}

// broken is a body that ends with an error.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
func (broken) Close() error { return nil }

// packed is a machine to publish.
func packed(seed uint64, size int) Packed {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	sum := sha256.Sum256(data)
	return Packed{
		File: bytes.NewReader(data), Size: int64(size), SHA256: hex.EncodeToString(sum[:]), Name: "machine.hurdsnap",
		Facts: map[string]string{"org.opencontainers.image.created": "2026-11-24T00:00:00Z", "a": "b"},
	}
}

func parse(t *testing.T, text string) Reference {
	t.Helper()
	ref, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// push publishes a machine under a reference.
func (w *world) push(ref string, p Packed) Reference {
	w.t.Helper()
	pinned, err := w.c.Push(w.t.Context(), parse(w.t, ref), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return pinned
}

// pull fetches a machine, and returns the part file.
func (w *world) pull(ref Reference, part string, limit int64) (Found, error) {
	found, err := w.c.Find(context.Background(), ref)
	if err != nil {
		return found, err
	}
	return found, w.c.Pull(context.Background(), found, part, limit, nil)
}

// blobLog returns the requests about blobs since the last call.
func (w *world) blobLog() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.log
	w.log = nil
	return log
}

func partFile(t *testing.T) string { return filepath.Join(t.TempDir(), "part") }
