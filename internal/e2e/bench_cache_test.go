//go:build bench

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// benchRate is what all downloads together get of the cache, in bytes per second.
const benchRate = 100e6

// slowCache plays the Actions cache service, as far as our program uses it, and
// a publisher of an image, both on one line.
type slowCache struct {
	*httptest.Server
	mu      sync.Mutex
	entries []*slowEntry
	image   string // path of the published image
	sent    int64
	next    time.Time // when the line is free again
}

type slowEntry struct {
	id     string // version and key
	blocks map[string][]byte
	data   []byte
	ready  bool
}

func newSlowCache(t *testing.T) *slowCache {
	c := &slowCache{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// env is what a job tells about its cache.
func (c *slowCache) env() []string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	token := part(`{"alg":"none"}`) + "." + part(`{"scp":"Actions.Results:12:34","ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":3}]"}`) + "." + part("signature")
	return []string{"ACTIONS_RESULTS_URL=" + c.URL + "/", "ACTIONS_RUNTIME_TOKEN=" + token}
}

func (c *slowCache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/blob/"); ok {
		c.blob(w, r, name)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/image/") {
		http.ServeFile(&throttled{w, c}, r, c.image)
		return
	}
	var in struct {
		Key, Version string
		RestoreKeys  []string `json:"restore_keys"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in) // an empty key is found nowhere
	_, method, _ := strings.Cut(r.URL.Path, "CacheService/")
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.find(in.Version, in.Key, nil)
	reply := map[string]any{"ok": false}
	switch {
	case method == "CreateCacheEntry" && entry == nil:
		entry = &slowEntry{id: in.Version + "\n" + in.Key, blocks: map[string][]byte{}}
		c.entries = append(c.entries, entry)
		reply = map[string]any{"ok": true, "signed_upload_url": c.address(entry)}
	case method == "FinalizeCacheEntryUpload" && entry != nil:
		entry.ready = true
		reply = map[string]any{"ok": true, "entry_id": "1"}
	case method == "GetCacheEntryDownloadURL":
		if entry = c.find(in.Version, in.Key, in.RestoreKeys); entry != nil && entry.ready {
			reply = map[string]any{"ok": true, "matched_key": strings.TrimPrefix(entry.id, in.Version+"\n"), "signed_download_url": c.address(entry)}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) // the client notices
}

// find finds an entry by its key, else the newest whose key begins with one of
// the others.
func (c *slowCache) find(version, key string, beginnings []string) *slowEntry {
	for _, e := range c.entries {
		if e.id == version+"\n"+key {
			return e
		}
	}
	for _, beginning := range beginnings {
		for _, e := range slices.Backward(c.entries) {
			if strings.HasPrefix(e.id, version+"\n"+beginning) {
				return e
			}
		}
	}
	return nil
}

func (c *slowCache) address(e *slowEntry) string {
	return fmt.Sprintf("%s/blob/%d?sig=x", c.URL, slices.Index(c.entries, e))
}

// blob takes blocks and sends ranges.
func (c *slowCache) blob(w http.ResponseWriter, r *http.Request, id string) {
	n, err := strconv.Atoi(id)
	c.mu.Lock()
	if err != nil || n >= len(c.entries) {
		c.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	entry := c.entries[n]
	c.mu.Unlock()
	body, _ := io.ReadAll(r.Body) // the client notices
	switch r.URL.Query().Get("comp") {
	case "block":
		c.mu.Lock()
		entry.blocks[r.URL.Query().Get("blockid")] = body
		c.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	case "blocklist":
		var list struct{ Latest []string }
		_ = xml.Unmarshal(body, &list) // as above
		c.mu.Lock()
		for _, name := range list.Latest {
			entry.data = append(entry.data, entry.blocks[name]...)
		}
		c.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	default:
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(&throttled{w, c}, r, "", time.Time{}, bytes.NewReader(entry.data))
	}
}

// throttled sends no faster than the line of the cache is.
type throttled struct {
	http.ResponseWriter
	cache *slowCache
}

// ReadFrom has a file go through Write.
func (t *throttled) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{t}, r)
}

func (t *throttled) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(len(p)-sent, 64<<10)
		t.cache.mu.Lock()
		now := time.Now()
		if t.cache.next.Before(now) {
			t.cache.next = now
		}
		t.cache.next = t.cache.next.Add(time.Duration(float64(n) / benchRate * float64(time.Second)))
		until := t.cache.next
		t.cache.sent += int64(n)
		t.cache.mu.Unlock()
		time.Sleep(time.Until(until))
		done, err := t.ResponseWriter.Write(p[sent : sent+n])
		if sent += done; err != nil {
			return sent, err
		}
	}
	return len(p), nil
}

// benchCache restores from the job's cache, on a host that has nothing, and on
// one that has the image.
func benchCache(t *testing.T, r *report) {
	c := newSlowCache(t)
	args := []string{"--memory=" + benchMemorySize, "--sync=none", "--run", "echo " + firstLine}
	first := t.TempDir()
	saving := runOursIn(t, first, c.env(), append(args, "--snapshot=save")...)
	if len(c.entries) != 1 || !strings.Contains(saving.log, "put into the cache") {
		t.Fatalf("nothing was put into the cache:\n%s", saving.log)
	}
	size := units.Bytes(len(c.entries[0].data))
	snapshots := filepath.Join(first, "hurd-qemu-action/snapshots")
	var nothing, image []measured
	restore := func(cache string) measured {
		c.sent = 0
		m := runOursIn(t, cache, c.env(), append(args, "--snapshot=restore")...)
		if m.phases["Restore"] == 0 || units.Bytes(c.sent) < size {
			t.Fatalf("not from the cache (%d bytes sent):\n%s", c.sent, m.log)
		}
		return m
	}
	interleave(benchRounds(7),
		func(int) { nothing = append(nothing, restore(t.TempDir())) },
		func(int) {
			if err := os.RemoveAll(snapshots); err != nil {
				t.Fatal(err)
			}
			image = append(image, restore(first))
		})
	r.print("## From the job's cache, throttled to %.0f MB/s\n\nThe entry is %s packed. The run that saved it: peak memory of our process %s.\n\n",
		benchRate/1e6, size.Human(), saving.peak.Human())
	r.print("| the host has | first line | image | fetch | restore | peak memory of our process |\n|---|---|---|---|---|---|\n")
	for _, row := range []struct {
		name string
		m    []measured
	}{{"nothing", nothing}, {"the image", image}} {
		phase := func(name string) spread {
			return seconds(row.m, func(m measured) time.Duration { return m.phases[name] })
		}
		r.print("| %s | %s | %s | %s | %s | %s |\n", row.name, seconds(row.m, func(m measured) time.Duration { return m.first }),
			phase("Image"), phase("Fetch saved machine"), phase("Restore"), mostMemory(row.m).Human())
	}
	r.print("\n")
	r.goal("peak memory of our process while packing, MiB", float64(saving.peak)/float64(units.MiB), 64, false)
	r.plot(t, "warm-cache", fmt.Sprintf("From a cache at %.0f MB/s to the script's first line", benchRate/1e6), "s", []bar{
		{"the host has nothing", seconds(nothing, func(m measured) time.Duration { return m.first })},
		{"the host has the image", seconds(image, func(m measured) time.Duration { return m.first })},
	})
}
