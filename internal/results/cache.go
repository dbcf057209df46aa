package results

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"
)

// Mode is what a job may do with the cache: the runner sets ACTIONS_CACHE_MODE
// (actions/runner, change 4538).
type Mode string

// The modes. An unset ACTIONS_CACHE_MODE is ModeWrite.
const (
	ModeNone      Mode = "none"
	ModeRead      Mode = "read"
	ModeWrite     Mode = "write" // and read
	ModeWriteOnly Mode = "write-only"
)

// Cache is the job's cache service. Nothing that goes wrong with it needs to
// end a job: an entry that is not there can be made again.
//
// The service decides what is found: entries of this branch, of the branch
// that a pull request is for, and of the default branch. Entries are immutable.
type Cache struct {
	Service *Service
	Mode    Mode // "" is ModeWrite; one that is not known allows nothing
}

func (c *Cache) reads() bool  { return c.Mode == "" || c.Mode == ModeWrite || c.Mode == ModeRead }
func (c *Cache) writes() bool { return c.Mode == "" || c.Mode == ModeWrite || c.Mode == ModeWriteOnly }

// The service's limits on keys.
const (
	maxKey  = 512
	maxKeys = 10
)

// ErrKey is wrapped by the errors of keys that the service would not take.
var ErrKey = errors.New("not a cache key")

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: it is empty", ErrKey)
	case len(key) > maxKey:
		return fmt.Errorf("%w: it has %d characters, more than %d: %q", ErrKey, len(key), maxKey, key[:40]+"...")
	case strings.Contains(key, ","):
		return fmt.Errorf("%w: %q holds a comma", ErrKey, key)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: %q holds control characters or is not UTF-8", ErrKey, key)
	}
	return nil
}

// Hit is an entry that was found.
type Hit struct {
	Key string // of the entry; not the one asked for when a restore key found it

	version string
	mu      sync.Mutex
	address string // signed
	renewed bool   // since an address was last of use
}

// String keeps the address, which is signed, out of what %v prints.
func (h *Hit) String() string { return h.Key }

// Find looks for the entry of a key, else for the newest whose key begins with
// one of the restore keys, in their order. Only entries of the same version
// count: an opaque text that says how an entry was made. None is ErrMiss.
func (c *Cache) Find(ctx context.Context, key string, restoreKeys []string, version string) (*Hit, error) {
	hit, err := c.find(ctx, key, restoreKeys, version)
	if err != nil {
		return nil, fmt.Errorf("looking for %q in the cache: %w", key, err)
	}
	return hit, nil
}

func (c *Cache) find(ctx context.Context, key string, restoreKeys []string, version string) (*Hit, error) {
	if !c.reads() {
		return nil, fmt.Errorf("%w (ACTIONS_CACHE_MODE is %q)", ErrWriteOnly, c.Mode)
	}
	if len(restoreKeys)+1 > maxKeys {
		return nil, fmt.Errorf("%w: %d keys at once are more than %d", ErrKey, len(restoreKeys)+1, maxKeys)
	}
	for _, k := range append([]string{key}, restoreKeys...) {
		if err := checkKey(k); err != nil {
			return nil, err
		}
	}
	if restoreKeys == nil {
		restoreKeys = []string{} // protobuf's JSON has no null for a list
	}
	r, err := c.Service.call(ctx, cacheService, "GetCacheEntryDownloadURL", struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
		Version     string   `json:"version"`
	}{key, restoreKeys, version})
	var refused *APIError
	switch {
	case errors.As(err, &refused) && refused.Code == "not_found":
		return nil, ErrMiss
	case err != nil:
		return nil, err
	case !r.ok():
		return nil, ErrMiss
	case r.text("signed_download_url") == "":
		return nil, errors.New("the service found an entry and gave no address of it")
	}
	hit := &Hit{Key: r.text("matched_key"), version: version, address: r.text("signed_download_url")}
	if hit.Key == "" {
		hit.Key = key
	}
	return hit, nil
}

// renew asks for a new address of the same entry, unless somebody else has since
// the one that failed was given out, or that one was new and of no use.
func (c *Cache) renew(ctx context.Context, hit *Hit, failed string) (string, error) {
	hit.mu.Lock()
	defer hit.mu.Unlock()
	if hit.address != failed {
		return hit.address, nil
	}
	if hit.renewed {
		return "", errors.New("a new address was refused, too")
	}
	hit.renewed = true
	c.Service.notify("the address of the cache entry has expired; asking for a new one")
	again, err := c.find(ctx, hit.Key, nil, hit.version)
	if err != nil {
		return "", fmt.Errorf("asking for a new address: %w", err)
	}
	if again.Key != hit.Key {
		return "", fmt.Errorf("asking for a new address: %w", ErrChanged)
	}
	hit.address = again.address
	return hit.address, nil
}

// works notes that an address was of use: when it expires it may be renewed.
func (h *Hit) works(address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.address == address {
		h.renewed = false
	}
}

func (h *Hit) current() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.address
}

// Saved is an entry that was made.
type Saved struct {
	ID   int64
	Size int64
}

// Save makes an entry of a file. A key that is taken, or that another job is
// saving right now, is ErrExists; a job that may not write gets ErrReadOnly.
// The file is read in parallel and parts of it may be read again; it must not
// change meanwhile. Nothing of it is held in memory.
func (c *Cache) Save(ctx context.Context, key, version string, file io.ReaderAt, size int64, progress Progress) (Saved, error) {
	saved, err := c.save(ctx, key, version, file, size, progress)
	if err != nil {
		return Saved{}, fmt.Errorf("saving %q to the cache: %w", key, err)
	}
	return saved, nil
}

// Writable tells by the runner's settings whether Save has a chance: nil, or
// an error that wraps ErrReadOnly or ErrUnsupported and says why not. It asks
// nobody.
func (c *Cache) Writable() error {
	if !c.writes() {
		return fmt.Errorf("%w (ACTIONS_CACHE_MODE is %q)", ErrReadOnly, c.Mode)
	}
	if _, err := c.Service.origin(); err != nil {
		return err
	}
	// What can't be read says nothing: peers other than GitHub may use a
	// token of another kind.
	if claims, err := parseToken(c.Service.Token); err == nil && claims.readOnly() {
		return fmt.Errorf("%w: its token gives the right to no cache scope, as in a pull request from a fork", ErrReadOnly)
	}
	return nil
}

func (c *Cache) save(ctx context.Context, key, version string, file io.ReaderAt, size int64, progress Progress) (Saved, error) {
	if err := c.Writable(); err != nil {
		return Saved{}, err
	}
	if err := checkKey(key); err != nil {
		return Saved{}, err
	}
	if size <= 0 {
		return Saved{}, errors.New("there is nothing to save: the file is empty")
	}
	r, err := c.Service.call(ctx, cacheService, "CreateCacheEntry", struct {
		Key     string `json:"key"`
		Version string `json:"version"`
	}{key, version})
	if err != nil {
		return Saved{}, readOnly(err)
	}
	if !r.ok() {
		return Saved{}, c.taken(r)
	}
	address := r.text("signed_upload_url")
	if address == "" {
		return Saved{}, errors.New("CreateCacheEntry: the service says yes and gives no address to upload to")
	}
	if err := c.Service.upload(ctx, address, file, size, progress); err != nil {
		return Saved{}, err
	}
	r, err = c.Service.call(ctx, cacheService, "FinalizeCacheEntryUpload", struct {
		Key     string `json:"key"`
		Size    int64  `json:"size_bytes,string"`
		Version string `json:"version"`
	}{key, size, version})
	if err != nil {
		return Saved{}, err
	}
	if !r.ok() {
		return Saved{}, c.Service.refused("FinalizeCacheEntryUpload", r)
	}
	return Saved{ID: r.number("entry_id"), Size: size}, nil
}

// taken is the error of a reply that does not say ok: most often the key is
// taken, but the service may name another reason.
func (c *Cache) taken(r reply) error {
	text := c.Service.redact(r.text("message"))
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "read-only"), strings.Contains(lower, "read only"), strings.Contains(lower, "permission"), strings.Contains(lower, "denied"):
		return fmt.Errorf("%w: the service says: %s", ErrReadOnly, text)
	case strings.Contains(lower, "quota"), strings.Contains(lower, "insufficient usage"):
		return fmt.Errorf("%w: the service says: %s", ErrQuota, text)
	case text != "":
		return fmt.Errorf("%w, or another job is saving it; the service says: %s", ErrExists, text)
	}
	return fmt.Errorf("%w, or another job is saving it", ErrExists)
}

// readOnly finds out that a refusal to create an entry is one to this job.
func readOnly(err error) error {
	var refused *APIError
	if errors.As(err, &refused) && (refused.Code == "permission_denied" || refused.Status == http.StatusForbidden) && !errors.Is(err, ErrQuota) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
