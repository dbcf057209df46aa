package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReferences(t *testing.T) {
	for _, text := range []string{
		"ghcr.io/owner/hurd@sha256:" + hex64, "ghcr.io/owner/hurd:v1@sha256:" + hex64, "ghcr.io/owner/hurd:v1", "ghcr.io/o/n",
		"localhost/x:latest", "127.0.0.1:5000/a/b/c:1", "[::1]:5000/a:1",
		"https://github.com/o/r/releases/download/v1/m.hurdsnap@sha256:" + hex64, "http://127.0.0.1:80/m@sha256:" + hex64,
	} {
		if r, err := Parse(" " + text + "\n"); err != nil || r.String() != text {
			t.Errorf("Parse(%q) = %q, %v", text, r, err)
		}
	}
	for text, says := range map[string]string{
		"":                            "write HOST/NAME",
		"owner/hurd:latest":           "write HOST/NAME",
		"ghcr.io":                     "write HOST/NAME",
		"ghcr.io/Owner/hurd":          "capitals",
		"ghcr.io/o/n:a b":             "can't be a tag",
		"ghcr.io/o/n@sha256:123":      "64 digits",
		"ghcr.io/o/n@sha512:" + hex64: "capitals",
		"ghcr.io/o/n@sha256:" + strings.ToUpper(hex64):    "64 digits",
		"https://host.example/m":                          "behind a URL belongs",
		"https://host.example/@sha256:" + hex64:           "names no file",
		"http://host.example/m@sha256:" + hex64:           "only https://",
		"ftp://host.example/m@sha256:" + hex64:            "only https://",
		"https://u:SECRET@host.example/m@sha256:" + hex64: "password",
		"https://host.example/m?t=SECRET":                 "behind a URL belongs",
		"https://h\x7f/?SECRET@sha256:" + hex64:           "can't be read",
	} {
		_, err := Parse(text)
		if !errors.Is(err, ErrReference) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("Parse(%q): %v, want it to say %q", text, err, says)
		}
	}
}

// TestPushAndPull brings a machine to a registry and back.
func TestPushAndPull(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := packed(1, 300_000)
		var moved []int64
		w.c.Moved = func(done, total int64) { moved = append(moved, done, total) }
		pinned := w.push(host+"/a/b:v1", p)
		if len(moved) == 0 || moved[len(moved)-2] != p.Size || moved[len(moved)-1] != p.Size {
			t.Errorf("moved %v", moved)
		}
		if pinned.Tag != "" || !strings.HasPrefix(pinned.String(), host+"/a/b@sha256:") {
			t.Errorf("pushed as %s", pinned)
		}
		w.blobLog()
		if again := w.push(host+"/a/b:v2", p); again.Digest != pinned.Digest {
			t.Errorf("the same machine has another digest: %s, %s", again, pinned)
		}
		if log := w.blobLog(); slices.ContainsFunc(log, func(l string) bool { return strings.HasPrefix(l, "POST") }) {
			t.Errorf("what the registry has was sent again: %q", log)
		}
		for _, ref := range []Reference{pinned, parse(t, host+"/a/b:v1"), parse(t, host+"/a/b:v2")} {
			part := partFile(t)
			found, err := w.pull(ref, part, p.Size)
			if err != nil {
				t.Fatal(err)
			}
			if found.Reference.Digest != pinned.Digest || found.Size != p.Size || found.Digest() != p.SHA256 || found.Facts["a"] != "b" {
				t.Errorf("found %+v", found)
			}
			sameFile(t, part, p)
		}
		if _, err := w.c.Push(t.Context(), pinned, p); !errors.Is(err, ErrReference) {
			t.Errorf("pushing to a digest: %v", err)
		}
		if _, err := w.c.Find(t.Context(), parse(t, host+"/a/b")); !errors.Is(err, ErrUnpinned) {
			t.Errorf("neither tag nor digest: %v", err)
		}
	})
}

func sameFile(t *testing.T, path string, p Packed) {
	t.Helper()
	got, err := os.ReadFile(path)
	want, _ := io.ReadAll(io.NewSectionReader(p.File, 0, p.Size))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want the %d that were pushed", len(got), err, p.Size)
	}
	if err := Discard(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// isBlob tells whether a request is for the contents of a blob.
func isBlob(req *http.Request) bool {
	return req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
}

// TestPullFails has registries fail in all ways. The time is that of the waits.
func TestPullFails(t *testing.T) {
	times := 0
	for _, tc := range []struct {
		name  string
		fault func(w *world, req *http.Request) *http.Response
		limit int64
		err   error
		says  string // in the error; empty: it succeeds
		notes string
		most  time.Duration
	}{
		{name: "a damaged layer", err: ErrDigest, says: "is wanted, the 300000 bytes have", fault: func(w *world, req *http.Request) *http.Response {
			if !isBlob(req) {
				return nil
			}
			resp := serve(w.hosts[host], req)
			data, _ := io.ReadAll(resp.Body)
			data[len(data)/2] ^= 1
			resp.Body = io.NopCloser(bytes.NewReader(data))
			return resp
		}},
		{name: "another manifest", err: ErrDigest, says: "sent something else", fault: func(_ *world, req *http.Request) *http.Response {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				return nil
			}
			resp := status(200, "Content-Type", "application/vnd.oci.image.manifest.v1+json", "Content-Length", "2")
			resp.ContentLength, resp.Body = 2, io.NopCloser(strings.NewReader("{}"))
			return resp
		}},
		{name: "a layer that is too large", limit: 1000, err: ErrSize, says: "300000 bytes, allowed are 1000"},
		{name: "a cut", notes: "after 100000 of 300000 bytes; trying again", most: 2 * time.Second, fault: func(w *world, req *http.Request) *http.Response {
			if !isBlob(req) || req.Header.Get("Range") != "" {
				return nil
			}
			resp := serve(w.hosts[host], req)
			resp.Body = broken{io.LimitReader(resp.Body, 100_000)}
			return resp
		}},
		{name: "busy", notes: "429 Too Many Requests (try again in 7s)", most: 8 * time.Second, fault: func(_ *world, req *http.Request) *http.Response {
			if !isBlob(req) || times > 0 {
				return nil
			}
			times++
			return status(429, "Retry-After", "7")
		}},
		{name: "busy for long", says: "try again in 10m0s", fault: func(*world, *http.Request) *http.Response { return status(429, "Retry-After", "600") }},
		{name: "broken for good", says: "500 Internal Server Error (4 times in a row)", most: 10 * time.Second,
			fault: func(*world, *http.Request) *http.Response { return status(500) }},
		{name: "silent", says: "nothing was received for too long (30s)", most: 3 * time.Minute, fault: func(_ *world, req *http.Request) *http.Response {
			<-req.Context().Done()
			return status(500)
		}},
		{name: "not there", says: "docker login " + host, fault: func(*world, *http.Request) *http.Response { return status(404) }},
		{name: "denied", says: "docker login " + host, fault: func(*world, *http.Request) *http.Response { return status(403) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				p := packed(2, 300_000)
				ref := w.push(host+"/m:1", p)
				times = 0
				if tc.fault != nil {
					w.fault = func(req *http.Request) *http.Response { return tc.fault(w, req) }
				}
				part, began := partFile(t), time.Now()
				_, err := w.pull(ref, part, tc.limit)
				if took := time.Since(began); took > tc.most {
					t.Errorf("it took %s", took)
				}
				if notes := strings.Join(w.notes, "\n"); !strings.Contains(notes, tc.notes) {
					t.Errorf("notes %q, want %q", notes, tc.notes)
				}
				if tc.says == "" {
					if err != nil {
						t.Fatal(err)
					}
					sameFile(t, part, p)
					return
				}
				if err == nil || !strings.Contains(err.Error(), tc.says) || tc.err != nil && !errors.Is(err, tc.err) {
					t.Errorf("error %v, want %q", err, tc.says)
				}
				if _, err := os.Stat(part); tc.err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("what is of no use is kept: %v", err)
				}
			})
		})
	}
}

// TestPullGoesOn has a second process take what the first has received.
func TestPullGoesOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := packed(3, 300_000)
		ref, part := w.push(host+"/m:1", p), partFile(t)
		found, err := w.c.Find(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		stop := errors.New("stop")
		if err := w.c.Pull(t.Context(), found, part, 0, func(r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, 100_000)
			return errors.Join(stop, err)
		}); !errors.Is(err, stop) {
			t.Fatal(err)
		}
		have, err := os.ReadFile(part)
		if err != nil || len(have) < 100_000 || len(have) == int(p.Size) {
			t.Fatalf("%d bytes, %v", len(have), err)
		}
		w.blobLog()
		if _, err := w.pull(ref, part, 0); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("GET %s bytes=%d-299999", host, len(have))
		if log := w.blobLog(); !slices.Contains(log, want) {
			t.Errorf("requests %q, want %q", log, want)
		}
		// All of it is there: nothing is asked for.
		if _, err := w.pull(ref, part, 0); err != nil || len(w.blobLog()) > 0 {
			t.Errorf("%v, or it was fetched again", err)
		}
		// What is there is wrong: it is fetched anew.
		have[0] ^= 1
		if err := os.WriteFile(part, have, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.pull(ref, part, 0); err != nil {
			t.Fatal(err)
		}
		sameFile(t, part, p)
	})
}

// TestOtherArtifacts has other things in the registry.
func TestOtherArtifacts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i, manifest := range []string{
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`,
			`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"` + ArtifactType + `","config":{},"layers":[{"mediaType":"` + LayerType + `","digest":"sha256:1","size":1}]}`,
			`[]`,
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("https://%s/v2/x/manifests/%d", host, i), strings.NewReader(manifest))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			if resp := serve(w.hosts[host], req); resp.StatusCode >= 400 && i != 2 {
				t.Fatal(resp.Status)
			}
			w.fault = func(req *http.Request) *http.Response {
				if i != 2 || req.Method == http.MethodHead {
					return nil
				}
				resp := status(200, "Content-Type", "application/vnd.oci.image.manifest.v1+json")
				resp.ContentLength, resp.Body = int64(len(manifest)), io.NopCloser(strings.NewReader(manifest))
				return resp
			}
			if _, err := w.c.Find(t.Context(), parse(t, fmt.Sprintf("%s/x:%d", host, i))); !errors.Is(err, ErrKind) {
				t.Errorf("%s: %v", manifest, err)
			}
		}
	})
}

// TestPushFails has a registry that takes an upload only after a while, or never.
func TestPushFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p, puts := packed(4, 100_000), 0
		w.fault = func(req *http.Request) *http.Response {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/blobs/") {
				if puts++; puts < 3 {
					return status(503)
				}
			}
			return nil
		}
		ref := w.push(host+"/m", p)
		w.fault = nil
		if _, err := w.pull(ref, partFile(t), 0); err != nil {
			t.Error(err)
		}
		w.fault = func(req *http.Request) *http.Response {
			if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/blobs/") {
				return nil
			}
			resp := status(403, "Content-Type", "application/json")
			resp.Body = io.NopCloser(strings.NewReader(`{"errors":[{"code":"DENIED","message":"not ` + "\\u001b[31m" + `you"}]}`))
			return resp
		}
		_, err := w.c.Push(t.Context(), parse(t, host+"/n"), packed(5, 1000))
		if err == nil || !strings.Contains(err.Error(), "403 Forbidden: DENIED not  [31myou") || strings.Contains(err.Error(), "http") {
			t.Errorf("error %q", err)
		}
		w.fault = func(req *http.Request) *http.Response {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				return status(403)
			}
			return nil
		}
		if _, err := w.c.Push(t.Context(), parse(t, host+"/o"), packed(9, 1000)); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("a manifest that is refused: %v", err)
		}
	})
}

// slowly reads a file at a slow connection's pace.
type slowly struct {
	io.ReaderAt
	each time.Duration
}

func (s slowly) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(s.each)
	return s.ReaderAt.ReadAt(p, off)
}

// TestPushTakesLong has an upload that takes an hour, and a registry that takes
// as long as it may for what is complete: only standing still ends a push.
func TestPushTakesLong(t *testing.T) {
	for _, tc := range []struct {
		name         string
		each, commit time.Duration
		says         string // in the error; empty: it succeeds
	}{
		{"slow", defaultStall - time.Second, commitStall - time.Second, ""},
		{"stalled", defaultStall + time.Second, 0, "for too long (30s)"},
		{"never taken", 0, commitStall + time.Second, "for too long (5m0s)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				p := packed(8, 4<<20)
				p.File = slowly{p.File, tc.each}
				w.fault = func(req *http.Request) *http.Response {
					if req.Method == http.MethodPut && req.ContentLength == p.Size {
						time.Sleep(tc.commit)
					}
					return nil
				}
				began := time.Now()
				_, err := w.c.Push(t.Context(), parse(t, host+"/m"), p)
				if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("error %v, want %q", err, tc.says)
				}
				if took := time.Since(began); tc.says == "" && took < 10*time.Minute {
					t.Errorf("it took %s: the test is no test", took)
				}
			})
		})
	}
}

// TestFiles fetches a machine from a web server.
func TestFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := packed(6, 50_000)
		files := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			http.ServeContent(rw, r, "", time.Time{}, io.NewSectionReader(p.File, 0, p.Size))
		})
		w.hosts["web.example"] = http.RedirectHandler("https://cdn.example/x?signature=SECRET", http.StatusFound)
		w.hosts["cdn.example"] = files
		part := partFile(t)
		if _, err := w.pull(parse(t, "https://web.example/m.hurdsnap@sha256:"+p.SHA256), part, 0); err != nil {
			t.Fatal(err)
		}
		sameFile(t, part, p)
		_, err := w.pull(parse(t, "https://web.example/m.hurdsnap@sha256:"+hex64), part, 0)
		if !errors.Is(err, ErrDigest) {
			t.Errorf("another digest: %v", err)
		}
		_, err = w.pull(parse(t, "https://web.example/m.hurdsnap@sha256:"+p.SHA256), part, 49_999)
		if !errors.Is(err, ErrSize) {
			t.Errorf("too large: %v", err)
		}
		// A server that does not say how long it goes on.
		w.hosts["cdn.example"] = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(rw, io.NewSectionReader(p.File, 0, p.Size))
		})
		_, err = w.pull(parse(t, "https://web.example/m.hurdsnap@sha256:"+p.SHA256), part, 49_999)
		if !errors.Is(err, ErrSize) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("endless: %v", err)
		}
	})
}

// TestPullEnds ends with its context.
func TestPullEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ref := w.push(host+"/m", packed(7, 1000))
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		w.fault = func(*http.Request) *http.Response {
			cancel(stop)
			return status(503)
		}
		if _, err := w.c.Find(ctx, ref); !errors.Is(err, stop) {
			t.Errorf("error %v", err)
		}
	})
}
