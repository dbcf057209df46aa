package results

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// world plays both services and the blob store by their rules, strictly: what
// act or Azure would refuse, it refuses. fail makes it misbehave.
type world struct {
	t      *testing.T
	server *httptest.Server
	token  string
	// azure gives blobs a host of Azure's, else they are on the services' host.
	azure bool
	camel bool // replies in protobuf's other spelling

	mu        sync.Mutex
	faults    map[string][]fault // by method or "block", "list", "get"
	artifacts map[string]*blob
	entries   map[string]*blob // by version + "\n" + key
	blobs     map[string]*blob
	signs     int
	requests  []string // methods, in order of arrival
	notes     []string
	waits     []time.Duration
	most      int // how many blocks were in transit at once
	transit   int
}

// fault is one answer that is not the usual one.
type fault func(w http.ResponseWriter, r *http.Request)

type blob struct {
	name      string
	run, job  string
	signature string
	expires   string
	data      []byte
	blocks    map[string][]byte
	arrival   []string
	finalized bool
	etag      string
}

const secret = "SIGNATURE0f1e2d"

var clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, faults: map[string][]fault{}, artifacts: map[string]*blob{}, entries: map[string]*blob{}, blobs: map[string]*blob{},
		token: makeToken(`{"scp":"a b:c Actions.Results:12:34","ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":3}]"}`),
	}
	w.server = httptest.NewServer(w)
	t.Cleanup(func() {
		w.server.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.clean(strings.Join(w.notes, "\n"))
		for method, left := range w.faults {
			if len(left) > 0 {
				t.Errorf("%d faults of %s were never met", len(left), method)
			}
		}
	})
	return w
}

func makeToken(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e([]byte(claims)) + "." + e([]byte("the signature of it"))
}

// lead is an HTTP client for which every host is the server at an address.
func lead(t testing.TB, address string) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: transfers}
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", strings.TrimPrefix(address, "http://"))
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// service is a client of this world.
func (w *world) service() *Service {
	return &Service{
		URL: w.server.URL + "/some/path/", Token: w.token, Client: lead(w.t, w.server.URL),
		Notify: func(note string) { w.mu.Lock(); defer w.mu.Unlock(); w.notes = append(w.notes, note) },
		Sleep: func(ctx context.Context, d time.Duration) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.waits = append(w.waits, d)
			return context.Cause(ctx)
		},
		Now: func() time.Time { return clock },
	}
}

// clean holds that a text has nothing secret in it.
func (w *world) clean(text string) {
	w.t.Helper()
	for _, s := range append(strings.Split(w.token, "."), secret, "sig=", "se=2026") {
		if strings.Contains(text, s) {
			w.t.Errorf("%q is in a text: %s", s, text)
		}
	}
}

// fails is an error of a kind, with words, without secrets.
func (w *world) fails(err, kind error, words ...string) {
	w.t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		w.t.Fatalf("error %v, want one that is %v", err, kind)
	}
	w.clean(err.Error())
	w.clean(fmt.Sprintf("%+v", err))
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func (w *world) fail(method string, f ...fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[method] = append(w.faults[method], f...)
}

// next is the fault that is due, or nil.
func (w *world) next(method string) fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, method)
	queue := w.faults[method]
	if len(queue) == 0 {
		return nil
	}
	w.faults[method] = queue[1:]
	return queue[0]
}

func (w *world) count(method string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if r == method {
			n++
		}
	}
	return n
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/twirp/"):
		w.twirp(rw, r)
	case strings.HasPrefix(r.URL.Path, "/blob/"):
		w.blob(rw, r)
	default:
		w.t.Errorf("request for %s %s", r.Method, r.URL.Path)
		rw.WriteHeader(http.StatusTeapot)
	}
}

func status(code int, body string, header ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func ok(body string) fault { return status(http.StatusOK, body, "Content-Type", "application/json") }

// cut ends the connection without an answer.
func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// cutBody takes some of what is sent, and then ends the connection.
func cutBody(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.CopyN(io.Discard, r.Body, 1000)
	panic(http.ErrAbortHandler)
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

type fields struct {
	Run         string   `json:"workflow_run_backend_id"`
	Job         string   `json:"workflow_job_run_backend_id"`
	Name        string   `json:"name"`
	Expires     string   `json:"expires_at"`
	Version     any      `json:"version"`
	Size        string   `json:"size"`
	Hash        string   `json:"hash"`
	Key         string   `json:"key"`
	RestoreKeys []string `json:"restore_keys"`
	SizeBytes   string   `json:"size_bytes"`
}

// known are the fields of each method; encoding/json alone would take Name
// for name, and a field of another method.
var known = map[string]string{
	"CreateArtifact":           "workflow_run_backend_id workflow_job_run_backend_id name expires_at version",
	"FinalizeArtifact":         "workflow_run_backend_id workflow_job_run_backend_id name size hash",
	"CreateCacheEntry":         "key version",
	"FinalizeCacheEntryUpload": "key size_bytes version",
	"GetCacheEntryDownloadURL": "key restore_keys version",
}

func (w *world) twirp(rw http.ResponseWriter, r *http.Request) {
	service, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/twirp/github.actions.results.api.v1."), "/")
	if r.Header.Get("Authorization") != "Bearer "+w.token || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
		w.t.Errorf("%s %s with header %v", r.Method, method, r.Header)
	}
	if (service == "ArtifactService") != strings.HasSuffix(method, "Artifact") {
		w.t.Errorf("%s has no method %s", service, method)
	}
	if f := w.next(method); f != nil {
		f(rw, r)
		return
	}
	in, err := w.decode(method, r.Body)
	if err != nil {
		w.t.Errorf("%s: %v", method, err)
		status(500, "")(rw, r)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	reply := map[string]func(fields) any{
		"CreateArtifact": w.createArtifact, "FinalizeArtifact": w.finalizeArtifact,
		"CreateCacheEntry": w.createEntry, "FinalizeCacheEntryUpload": w.finalizeEntry, "GetCacheEntryDownloadURL": w.getEntry,
	}[method](in)
	if f, bad := reply.(fault); bad {
		f(rw, r)
		return
	}
	text, _ := json.Marshal(reply)
	if w.camel {
		text = []byte(strings.NewReplacer("signed_upload_url", "signedUploadUrl", "signed_download_url", "signedDownloadUrl",
			"matched_key", "matchedKey", "artifact_id", "artifactId", "entry_id", "entryId").Replace(string(text)))
	}
	ok(string(text))(rw, r)
}

func (w *world) decode(method string, body io.Reader) (in fields, err error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return in, err
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(text, &names); err != nil {
		return in, err
	}
	for name, value := range names {
		if !slices.Contains(strings.Fields(known[method]), name) || string(value) == "null" {
			return in, fmt.Errorf("unknown field %q, or null", name)
		}
	}
	return in, json.Unmarshal(text, &in)
}

// sign makes a new signed address of a blob; w.mu is held.
func (w *world) sign(id string) string {
	w.signs++
	w.blobs[id].signature = fmt.Sprintf("%s%d", secret, w.signs)
	base := w.server.URL
	if w.azure {
		base = "http://account.blob.core.windows.net"
	}
	return base + "/blob/" + url.PathEscape(id) + "?se=2026-01-01T00%3A00%3A00Z&sig=" + w.blobs[id].signature
}

func (w *world) newBlob() *blob {
	id := strconv.Itoa(len(w.blobs))
	b := &blob{name: id, blocks: map[string][]byte{}, etag: `"` + id + `"`}
	w.blobs[id] = b
	return b
}

func (w *world) createArtifact(in fields) any {
	if w.artifacts[in.Name] != nil {
		return status(409, `{"code":"already_exists","msg":"an artifact with this name already exists on the workflow run"}`)
	}
	if in.Run != "12" || in.Job != "34" || in.Version != 4.0 {
		w.t.Errorf("CreateArtifact with %+v", in)
	}
	b := w.newBlob()
	b.run, b.job, b.expires = in.Run, in.Job, in.Expires
	w.artifacts[in.Name] = b
	return map[string]any{"ok": true, "signed_upload_url": w.sign(b.name)}
}

func (w *world) finalizeArtifact(in fields) any {
	b := w.artifacts[in.Name]
	switch {
	case b == nil || b.run != in.Run || b.job != in.Job:
		return status(404, `{"code":"not_found","msg":"artifact not found"}`)
	case in.Size != strconv.Itoa(len(b.data)):
		return status(400, `{"code":"invalid_argument","msg":"size does not match"}`)
	case in.Hash != "sha256:"+sum(b.data):
		return status(400, `{"code":"invalid_argument","msg":"hash does not match"}`)
	}
	b.finalized = true
	return map[string]any{"ok": true, "artifact_id": "9007199254740993"} // no float64
}

func (w *world) createEntry(in fields) any {
	id := in.Version.(string) + "\n" + in.Key
	if w.entries[id] != nil {
		return map[string]any{"ok": false}
	}
	w.entries[id] = w.newBlob()
	return map[string]any{"ok": true, "signed_upload_url": w.sign(w.entries[id].name)}
}

func (w *world) finalizeEntry(in fields) any {
	b := w.entries[in.Version.(string)+"\n"+in.Key]
	if b == nil || in.SizeBytes != strconv.Itoa(len(b.data)) {
		return status(400, `{"code":"invalid_argument","msg":"size does not match"}`)
	}
	b.finalized = true
	return map[string]any{"ok": true, "entry_id": "77"}
}

func (w *world) getEntry(in fields) any {
	prefix := in.Version.(string) + "\n"
	var found []string
	for id, b := range w.entries {
		if key, same := strings.CutPrefix(id, prefix); same && b.finalized {
			found = append(found, key)
		}
	}
	slices.SortFunc(found, func(a, b string) int { // newest first
		return cmp.Compare(w.entries[prefix+b].name, w.entries[prefix+a].name)
	})
	if slices.Contains(found, in.Key) {
		return w.hit(prefix, in.Key)
	}
	for _, k := range in.RestoreKeys {
		for _, key := range found {
			if strings.HasPrefix(key, k) {
				return w.hit(prefix, key)
			}
		}
	}
	return map[string]any{"ok": false}
}

func (w *world) hit(prefix, key string) any {
	return map[string]any{"ok": true, "matched_key": key, "signed_download_url": w.sign(w.entries[prefix+key].name)}
}

// entry puts a finished cache entry into the world.
func (w *world) entry(key, version string, data []byte) *blob {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.newBlob()
	b.data, b.finalized = data, true
	w.entries[version+"\n"+key] = b
	return b
}

// blob plays Azure, when the blob has its host, else act: blocks in order only.
func (w *world) blob(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	b := w.blobs[strings.TrimPrefix(r.URL.Path, "/blob/")]
	good := b != nil && r.URL.Query().Get("sig") == b.signature
	w.mu.Unlock()
	if r.Header.Get("Authorization") != "" {
		w.t.Error("the token was sent to the blob store")
	}
	if !good {
		status(403, `<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code><Message>sig=`+r.URL.Query().Get("sig")+`</Message></Error>`)(rw, r)
		return
	}
	step := map[string]string{"block": "block", "blocklist": "list", "": "get"}[r.URL.Query().Get("comp")]
	if want := map[string]string{"get": http.MethodGet}[step]; r.Method != cmp.Or(want, http.MethodPut) {
		w.t.Errorf("%s with comp=%s", r.Method, r.URL.Query().Get("comp")) // a single Put Blob is what act ignores
	}
	if f := w.next(step); f != nil {
		f(rw, r)
		return
	}
	switch step {
	case "block":
		w.putBlock(rw, r, b)
	case "list":
		w.putList(rw, r, b)
	default:
		rw.Header().Set("ETag", b.etag)
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(b.data))
	}
}

func (w *world) putBlock(rw http.ResponseWriter, r *http.Request, b *blob) {
	w.mu.Lock()
	w.transit++
	w.most = max(w.most, w.transit)
	w.mu.Unlock()
	data, err := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.transit--
	if err != nil || int64(len(data)) != r.ContentLength {
		return
	}
	id := r.URL.Query().Get("blockid")
	if raw, err := base64.StdEncoding.DecodeString(id); err != nil || len(raw) != 8 {
		w.t.Errorf("block id %q", id)
	}
	b.blocks[id] = data
	b.arrival = append(b.arrival, id)
	rw.WriteHeader(http.StatusCreated) // without x-ms-request-id, as act
}

func (w *world) putList(rw http.ResponseWriter, r *http.Request, b *blob) {
	var list struct{ Latest []string }
	if err := xml.NewDecoder(r.Body).Decode(&list); err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.azure && !slices.Equal(list.Latest, b.arrival) {
		w.t.Errorf("to a peer that appends the blocks %q were sent as %q", list.Latest, b.arrival)
	}
	b.data = nil
	for _, id := range list.Latest {
		block, there := b.blocks[id]
		if !there {
			status(400, "", "x-ms-error-code", "InvalidBlockList")(rw, r)
			return
		}
		b.data = append(b.data, block...)
	}
	rw.WriteHeader(http.StatusCreated)
}
