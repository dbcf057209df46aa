package image

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// hubSite is a GitHub that has one release and one run with artifacts. The
// files themselves are on another host, at addresses that expire.
type hubSite struct {
	*site
	cdn       *site
	assets    []hubFile
	artifacts []hubFile
	direct    []byte // when set, the API itself sends the asset
	token     string
	signed    int // how many addresses were given
	limited   bool
}

func newHub(t *testing.T) *hubSite {
	t.Helper()
	h := &hubSite{cdn: newSite(t, httptest.NewServer)}
	h.site = newSite(t, func(http.Handler) *httptest.Server { return httptest.NewServer(h) })
	return h
}

func (h *hubSite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+h.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if h.limited {
		w.Header().Set("X-RateLimit-Limit", "60")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", fmt.Sprint(time.Date(2099, 1, 1, 15, 4, 5, 0, time.UTC).Unix()))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	redirect := func(file string) {
		h.signed++
		http.Redirect(w, r, fmt.Sprintf("%s/%s?signature=secret-%d", h.cdn.URL, file, h.signed), http.StatusFound)
	}
	answer := func(v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
	switch path := r.URL.EscapedPath(); {
	case path == "/repos/gnu/hurd/releases/tags/v1%2F0" || path == "/repos/gnu/hurd/releases/tags/v1/0":
		answer(map[string]any{"assets": h.assets})
	case path == "/repos/gnu/hurd/releases/assets/7" && h.direct != nil && r.Header.Get("Accept") == "application/octet-stream":
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(h.direct))
	case path == "/repos/gnu/hurd/releases/assets/7":
		redirect("asset")
	case path == "/repos/gnu/hurd/actions/runs/42/artifacts" && r.URL.Query().Get("page") == "1" && len(h.artifacts) > 2:
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?page=2>; rel="next"`, h.URL, path))
		answer(map[string]any{"artifacts": h.artifacts[:2]})
	case path == "/repos/gnu/hurd/actions/runs/42/artifacts":
		answer(map[string]any{"artifacts": h.artifacts[min(len(h.artifacts), 2)*btoi(len(h.artifacts) > 2):]})
	case strings.HasPrefix(path, "/repos/gnu/hurd/actions/artifacts/"):
		redirect("artifact")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *hubSite) want() Want {
	h.token = "secret-token"
	return Want{Token: h.token, API: h.URL, Run: Run{Repository: "gnu/hurd", ID: 42}}
}

func zipped1(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err == nil {
		_, err = f.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const assetName = "gnu/hurd@v1/0:disk.img"

func TestReleaseAsset(t *testing.T) {
	data := rawDisk(1 << 20)
	for _, tc := range []struct {
		name     string
		digest   string
		change   func(w *Want, h *hubSite)
		verified string
		says     string
	}{
		{"GitHub's digest", "sha256:" + sha(data), func(*Want, *hubSite) {}, "published (GitHub's digest of the asset)", ""},
		{"wrong digest", "sha256:" + sha(nil), func(*Want, *hubSite) {}, "", "by GitHub's digest of the asset it is " + sha(nil)},
		{"no digest", "", func(*Want, *hubSite) {}, "", "GitHub knows no digest of this asset; give image-sha256"},
		{"no digest, given", "", func(w *Want, _ *hubSite) { w.SHA256 = sha(data) }, "given (SHA-256 ", ""},
		{"no digest, none", "", func(w *Want, _ *hubSite) { w.Verify = VerifyNone }, "none", ""},
		{"sent by the API", "", func(w *Want, h *hubSite) { w.SHA256, h.direct = sha(data), data }, "given (SHA-256 ", ""},
		{"wrong token", "", func(w *Want, _ *hubSite) { w.Token = "secret-wrong" }, "", "asking GitHub: 401 Unauthorized; the file is not for everybody: give a token"},
		{"rate limit", "", func(_ *Want, h *hubSite) { h.limited = true }, "", "GitHub's rate limit is used up (60 questions an hour) until 15:04:05; "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub(t)
			h.assets = []hubFile{{ID: 6, Name: "other"}, {ID: 7, Name: "disk.img", Digest: tc.digest, State: "uploaded"}}
			h.cdn.files["/asset"] = data
			want := h.want()
			tc.change(&want, h)
			s := h.store(t)
			b, err := s.Obtain(t.Context(), mustParse(t, assetName), want)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") {
					t.Errorf("error %v, want %q", err, tc.says)
				}
				return
			}
			if err != nil || !strings.HasPrefix(b.Verified.String(), tc.verified) || b.Origin != assetName {
				t.Fatalf("base %+v, %v", b, err)
			}
			if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the disk differs: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignedAddressExpires cuts the first connection and refuses the first
// address from then on.
func TestSignedAddressExpires(t *testing.T) {
	h := newHub(t)
	data := rawDisk(1 << 20)
	h.assets = []hubFile{{ID: 7, Name: "disk.img", Digest: "sha256:" + sha(data)}}
	h.cdn.files["/asset"] = data
	h.cdn.first["/asset"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2]) // the client notices
		h.cdn.mu.Lock()
		defer h.cdn.mu.Unlock()
		h.cdn.first["/asset"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	}
	var notes []string
	s := h.store(t)
	s.Progress = func(r Report) { notes = append(notes, r.String()) }
	mustObtain(t, s, assetName, h.want())
	if h.signed != 3 {
		t.Errorf("%d addresses were asked for, want 3", h.signed)
	}
	if all := strings.Join(notes, "\n"); strings.Contains(all, "secret") || !strings.Contains(all, "403 Forbidden; trying again") {
		t.Errorf("notes:\n%s", all)
	}
}

func TestReleaseErrors(t *testing.T) {
	h := newHub(t)
	h.assets = []hubFile{{ID: 1, Name: "a.img"}, {ID: 2, Name: "disk.img", State: "starter"}}
	want := h.want()
	s := h.store(t)
	for text, says := range map[string]string{
		assetName:                 "looking for " + assetName + ": the release has no such asset; it has a.img, disk.img",
		"gnu/hurd@v2:disk.img":    "there is no release v2 in gnu/hurd, or the token may not see it (404 Not Found)",
		"gnu/nothing@v1:disk.img": "there is no release v1 in gnu/nothing",
	} {
		_, err := s.Obtain(t.Context(), mustParse(t, text), want)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want %q", text, err, says)
		}
	}
}

func TestArtifact(t *testing.T) {
	data := rawDisk(1 << 20)
	packed := zipped1(t, "disk.tar.gz", tarGz(t, "disk.img", data))
	h := newHub(t)
	h.cdn.files["/artifact"] = packed
	h.artifacts = []hubFile{
		{ID: 1, Name: "disk", Expired: true}, {ID: 2, Name: "logs"}, {ID: 3, Name: "disk", Digest: "sha256:" + sha(packed)}, {ID: 4, Name: "old", Expired: true},
	}
	s, want := h.store(t), h.want()
	b := mustObtain(t, s, "artifact:disk", want)
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the disk differs: %v", err)
	}
	if b.Verified.String() != "published (GitHub's artifact of this run)" || b.Origin != "artifact:disk of run 42" || b.Reused {
		t.Errorf("base = %+v", b)
	}
	h.cdn.requests()
	if b := mustObtain(t, s, "artifact:disk", want); !b.Reused || h.cdn.requests() != "" {
		t.Errorf("the second time: %+v", b)
	}
	given := want
	given.SHA256 = sha(tarGz(t, "disk.img", data)) // of the file inside
	if b := mustObtain(t, s, "artifact:disk", given); b.Verified.How != Given {
		t.Errorf("with a hash: %+v", b)
	}
	for _, tc := range []struct{ text, says string }{
		{"artifact:nothing", "run 42 has no such artifact; it has disk, logs, old; the job that uploads it must be in needs:"},
		{"artifact:old", "the artifact has expired; run the job that uploads it again"},
	} {
		_, err := s.Obtain(t.Context(), mustParse(t, tc.text), want)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: error %v, want %q", tc.text, err, tc.says)
		}
	}
	other := want
	other.Run.ID = 43
	if _, err := s.Obtain(t.Context(), mustParse(t, "artifact:disk"), other); err == nil || !strings.Contains(err.Error(), "there is no run 43 in gnu/hurd, or the token may not see it (it needs actions: read)") {
		t.Errorf("another run: %v", err)
	}
}

// TestArtifactDigest holds that the zip is compared with GitHub's digest.
func TestArtifactDigest(t *testing.T) {
	h := newHub(t)
	h.cdn.files["/artifact"] = zipped1(t, "disk.img", rawDisk(1<<20))
	h.artifacts = []hubFile{{ID: 3, Name: "disk", Digest: "sha256:" + sha(nil)}}
	s := h.store(t)
	_, err := s.Obtain(t.Context(), mustParse(t, "artifact:disk"), h.want())
	if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), "by GitHub it is "+sha(nil)) {
		t.Errorf("error %v", err)
	}
}
