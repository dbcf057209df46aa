// Package servicetest plays the two services of a job that package results is
// a client of, for the tests of whoever uses them.
package servicetest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
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

// World plays both services and the blob store by their rules, strictly: what
// act or Azure would refuse, it refuses. Fail makes it misbehave.
type World struct {
	Server *httptest.Server // on loopback
	Token  string           // the only one that it takes
	// Azure gives blobs a host of Azure's, else they are on the services' host.
	Azure bool
	Camel bool // replies in protobuf's other spelling

	Mu        sync.Mutex // guards what follows, while requests may come
	Artifacts map[string]*Blob
	Entries   map[string]*Blob // by version + "\n" + key
	Requests  []string         // methods, in order of arrival
	Most      int              // how many blocks were in transit at once

	t       testing.TB
	faults  map[string][]Fault // by method or "block", "list", "get"
	blobs   map[string]*Blob
	signs   int
	transit int
}

// Fault is one answer that is not the usual one.
type Fault func(w http.ResponseWriter, r *http.Request)

// Blob is an artifact or a cache entry.
type Blob struct {
	Signature string // that its address must have
	Expires   string // as the client asked for
	Data      []byte
	Arrival   []string // IDs of blocks, as they came
	ETag      string
	Finalized bool
	Sent      int64 // bytes of it that were sent

	name     string
	run, job string
	blocks   map[string][]byte
}

// Secret begins the signatures of all addresses.
const Secret = "SIGNATURE0f1e2d"

// New begins a world, which ends with the test. It is an error when faults that
// it was given have not been met by then.
func New(t testing.TB) *World {
	w := &World{
		t: t, faults: map[string][]Fault{}, Artifacts: map[string]*Blob{}, Entries: map[string]*Blob{}, blobs: map[string]*Blob{},
		Token: Token(`{"scp":"a b:c Actions.Results:12:34","ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":3}]"}`),
	}
	w.Server = httptest.NewServer(w)
	t.Cleanup(func() {
		w.Server.Close()
		w.Mu.Lock()
		defer w.Mu.Unlock()
		for method, left := range w.faults {
			if len(left) > 0 {
				t.Errorf("%d faults of %s were never met", len(left), method)
			}
		}
	})
	return w
}

// Token is a runtime token with claims, in JSON, as far as a client looks at one.
func Token(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e([]byte(claims)) + "." + e([]byte("the signature of it"))
}

// Clean holds that a text has nothing secret in it.
func (w *World) Clean(text string) {
	w.t.Helper()
	for _, s := range append(strings.Split(w.Token, "."), Secret, "sig=", "se=2026") {
		if strings.Contains(text, s) {
			w.t.Errorf("%q is in a text: %s", s, text)
		}
	}
}

// Forget takes back the faults of a method that were not met, and tells how many.
func (w *World) Forget(method string) int {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	n := len(w.faults[method])
	delete(w.faults, method)
	return n
}

// Fail has the next requests of a method get other answers than the usual one:
// a method of the services, or "block", "list" or "get" of the blob store.
func (w *World) Fail(method string, f ...Fault) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.faults[method] = append(w.faults[method], f...)
}

// next is the fault that is due, or nil.
func (w *World) next(method string) Fault {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Requests = append(w.Requests, method)
	queue := w.faults[method]
	if len(queue) == 0 {
		return nil
	}
	w.faults[method] = queue[1:]
	return queue[0]
}

// Count is how many requests of a method came.
func (w *World) Count(method string) (n int) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	for _, r := range w.Requests {
		if r == method {
			n++
		}
	}
	return n
}

// ServeHTTP answers as the services or the blob store.
func (w *World) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
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

// Status answers with a status and pairs of header and value.
func Status(code int, body string, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body) //nolint:gosec // no browser reads it
	}
}

// OK answers with JSON.
func OK(body string) Fault { return Status(http.StatusOK, body, "Content-Type", "application/json") }

// Cut ends the connection without an answer.
func Cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// CutBody takes some of what is sent, and then ends the connection.
func CutBody(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.CopyN(io.Discard, r.Body, 1000)
	panic(http.ErrAbortHandler)
}

// Hang never answers.
func Hang(_ http.ResponseWriter, r *http.Request) {
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

func (w *World) twirp(rw http.ResponseWriter, r *http.Request) {
	service, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/twirp/github.actions.results.api.v1."), "/")
	if r.Header.Get("Authorization") != "Bearer "+w.Token || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
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
		Status(500, "")(rw, r)
		return
	}
	w.Mu.Lock()
	defer w.Mu.Unlock()
	reply := map[string]func(fields) any{
		"CreateArtifact": w.createArtifact, "FinalizeArtifact": w.finalizeArtifact,
		"CreateCacheEntry": w.createEntry, "FinalizeCacheEntryUpload": w.finalizeEntry, "GetCacheEntryDownloadURL": w.getEntry,
	}[method](in)
	if f, bad := reply.(Fault); bad {
		f(rw, r)
		return
	}
	text, _ := json.Marshal(reply)
	if w.Camel {
		text = []byte(strings.NewReplacer("signed_upload_url", "signedUploadUrl", "signed_download_url", "signedDownloadUrl",
			"matched_key", "matchedKey", "artifact_id", "artifactId", "entry_id", "entryId").Replace(string(text)))
	}
	OK(string(text))(rw, r)
}

func (w *World) decode(method string, body io.Reader) (in fields, err error) {
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

// sign makes a new signed address of a blob; w.Mu is held.
func (w *World) sign(id string) string {
	w.signs++
	w.blobs[id].Signature = fmt.Sprintf("%s%d", Secret, w.signs)
	base := w.Server.URL
	if w.Azure {
		base = "http://account.blob.core.windows.net"
	}
	return base + "/blob/" + url.PathEscape(id) + "?se=2026-01-01T00%3A00%3A00Z&sig=" + w.blobs[id].Signature
}

func (w *World) newBlob() *Blob {
	id := strconv.Itoa(len(w.blobs))
	b := &Blob{name: id, blocks: map[string][]byte{}, ETag: `"` + id + `"`}
	w.blobs[id] = b
	return b
}

func (w *World) createArtifact(in fields) any {
	if w.Artifacts[in.Name] != nil {
		return Status(409, `{"code":"already_exists","msg":"an artifact with this name already exists on the workflow run"}`)
	}
	if in.Run != "12" || in.Job != "34" || in.Version != 4.0 {
		w.t.Errorf("CreateArtifact with %+v", in)
	}
	b := w.newBlob()
	b.run, b.job, b.Expires = in.Run, in.Job, in.Expires
	w.Artifacts[in.Name] = b
	return map[string]any{"ok": true, "signed_upload_url": w.sign(b.name)}
}

func (w *World) finalizeArtifact(in fields) any {
	b := w.Artifacts[in.Name]
	switch {
	case b == nil || b.run != in.Run || b.job != in.Job:
		return Status(404, `{"code":"not_found","msg":"artifact not found"}`)
	case in.Size != strconv.Itoa(len(b.Data)):
		return Status(400, `{"code":"invalid_argument","msg":"size does not match"}`)
	case in.Hash != fmt.Sprintf("sha256:%x", sha256.Sum256(b.Data)):
		return Status(400, `{"code":"invalid_argument","msg":"hash does not match"}`)
	}
	b.Finalized = true
	return map[string]any{"ok": true, "artifact_id": "9007199254740993"} // no float64
}

func (w *World) createEntry(in fields) any {
	id := in.Version.(string) + "\n" + in.Key
	if w.Entries[id] != nil {
		return map[string]any{"ok": false}
	}
	w.Entries[id] = w.newBlob()
	return map[string]any{"ok": true, "signed_upload_url": w.sign(w.Entries[id].name)}
}

func (w *World) finalizeEntry(in fields) any {
	b := w.Entries[in.Version.(string)+"\n"+in.Key]
	if b == nil || in.SizeBytes != strconv.Itoa(len(b.Data)) {
		return Status(400, `{"code":"invalid_argument","msg":"size does not match"}`)
	}
	b.Finalized = true
	return map[string]any{"ok": true, "entry_id": "77"}
}

func (w *World) getEntry(in fields) any {
	prefix := in.Version.(string) + "\n"
	var found []string
	for id, b := range w.Entries {
		if key, same := strings.CutPrefix(id, prefix); same && b.Finalized {
			found = append(found, key)
		}
	}
	slices.SortFunc(found, func(a, b string) int { // newest first
		return cmp.Compare(w.Entries[prefix+b].name, w.Entries[prefix+a].name)
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

func (w *World) hit(prefix, key string) any {
	return map[string]any{"ok": true, "matched_key": key, "signed_download_url": w.sign(w.Entries[prefix+key].name)}
}

// Entry puts a finished cache entry into the world.
func (w *World) Entry(key, version string, data []byte) *Blob {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	b := w.newBlob()
	b.Data, b.Finalized = data, true
	w.Entries[version+"\n"+key] = b
	return b
}

// blob plays Azure, when the blob has its host, else act: blocks in order only.
func (w *World) blob(rw http.ResponseWriter, r *http.Request) {
	w.Mu.Lock()
	b := w.blobs[strings.TrimPrefix(r.URL.Path, "/blob/")]
	good := b != nil && r.URL.Query().Get("sig") == b.Signature
	w.Mu.Unlock()
	if r.Header.Get("Authorization") != "" {
		w.t.Error("the token was sent to the blob store")
	}
	if !good {
		Status(403, `<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code><Message>sig=`+r.URL.Query().Get("sig")+`</Message></Error>`)(rw, r)
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
		w.PutBlock(rw, r, b)
	case "list":
		w.putList(rw, r, b)
	default:
		rw.Header().Set("ETag", b.ETag)
		http.ServeContent(&counting{rw, w, b}, r, "", time.Time{}, bytes.NewReader(b.Data))
	}
}

// counting counts what is sent of a blob.
type counting struct {
	http.ResponseWriter
	world *World
	blob  *Blob
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.world.Mu.Lock()
	defer c.world.Mu.Unlock()
	c.blob.Sent += int64(n)
	return n, err
}

// PutBlock takes a block of a blob, as the blob store does.
func (w *World) PutBlock(rw http.ResponseWriter, r *http.Request, b *Blob) {
	w.Mu.Lock()
	w.transit++
	w.Most = max(w.Most, w.transit)
	w.Mu.Unlock()
	data, err := io.ReadAll(r.Body)
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.transit--
	if err != nil || int64(len(data)) != r.ContentLength {
		return
	}
	id := r.URL.Query().Get("blockid")
	if raw, err := base64.StdEncoding.DecodeString(id); err != nil || len(raw) != 8 {
		w.t.Errorf("block id %q", id)
	}
	b.blocks[id] = data
	b.Arrival = append(b.Arrival, id)
	rw.WriteHeader(http.StatusCreated) // without x-ms-request-id, as act
}

func (w *World) putList(rw http.ResponseWriter, r *http.Request, b *Blob) {
	var list struct{ Latest []string }
	if err := xml.NewDecoder(r.Body).Decode(&list); err != nil {
		w.t.Error(err)
	}
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if !w.Azure && !slices.Equal(list.Latest, b.Arrival) {
		w.t.Errorf("to a peer that appends the blocks %q were sent as %q", list.Latest, b.Arrival)
	}
	b.Data = nil
	for _, id := range list.Latest {
		block, there := b.blocks[id]
		if !there {
			Status(400, "", "x-ms-error-code", "InvalidBlockList")(rw, r)
			return
		}
		b.Data = append(b.Data, block...)
	}
	rw.WriteHeader(http.StatusCreated)
}
