package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/results"
	"github.com/org/hurd-qemu-action/internal/results/servicetest"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// cacheRun gives a run of the small machine in a job with a cache. Its waits take
// no time, and are counted.
func cacheRun(t *testing.T, w *servicetest.World, env ...string) (r *run, log *strings.Builder, waited *time.Duration) {
	t.Helper()
	r, log = newRunLog()
	waited = new(time.Duration)
	r.dir = t.TempDir()
	r.Host.ResultsURL, r.Host.Environ = w.Server.URL+"/", append([]string{"ACTIONS_RUNTIME_TOKEN=" + w.Token}, env...)
	r.warm.store, r.warm.key = &snapshot.Store{Dir: filepath.Join(t.TempDir(), "store")}, smallKey()
	r.config.SnapshotMaxSize = units.GiB
	r.impatient = func(s *results.Service) {
		s.Stall = 300 * time.Millisecond
		s.Sleep = func(_ context.Context, d time.Duration) error {
			*waited += d
			return nil
		}
	}
	return r, log, waited
}

// share puts the small machine into the cache.
func share(t *testing.T, r *run) (string, error) {
	t.Helper()
	e := smallEntry(t, &snapshot.Store{Dir: t.TempDir()})
	defer func() { _ = e.Close() }() // it was only read
	return r.shareSaved(t.Context(), e)
}

// several is a fault so many times.
func several(n int, f servicetest.Fault) []servicetest.Fault {
	all := make([]servicetest.Fault, n)
	for i := range all {
		all[i] = f
	}
	return all
}

var (
	busyCache   = servicetest.Status(http.StatusTooManyRequests, "", "Retry-After", "7")
	busierCache = servicetest.Status(http.StatusTooManyRequests, "", "Retry-After", "3600")
	brokenCache = servicetest.Status(http.StatusInternalServerError, "")
	expiredURL  = servicetest.Status(http.StatusForbidden, "", "x-ms-error-code", "AuthenticationFailed")
)

// cutAnswer begins to send a cache entry, and no more.
func cutAnswer(b *servicetest.Blob) servicetest.Fault {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", b.ETag)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(b.Data)-1, len(b.Data)))
		w.Header().Set("Content-Length", fmt.Sprint(len(b.Data)))
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush() // the client notices
		servicetest.Cut(w, r)
	}
}

// mostWaited bounds the waits for a cache that does not work.
const mostWaited = 2 * cacheMaxWait

// TestCacheRestores asks caches of all kinds for a machine.
func TestCacheRestores(t *testing.T) {
	for _, tc := range []struct {
		name   string
		method string // that fails
		faults []servicetest.Fault
		cuts   int // of what it sends
		down   bool
		env    string
		damage bool
		err    error
		says   []string // in the log or the error
		wait   time.Duration
	}{
		{name: "works"},
		{name: "busy", method: "GetCacheEntryDownloadURL", faults: several(1, busyCache), wait: 7 * time.Second, says: []string{"429 Too Many Requests", "trying again in 7s"}},
		{name: "busy for an hour", method: "GetCacheEntryDownloadURL", faults: several(1, busierCache), err: snapshot.ErrMiss,
			says: []string{"warning: The cache could not be asked for a saved machine: ", "asks to wait 1h0m0s", "the machine is booted"}},
		{name: "broken", method: "GetCacheEntryDownloadURL", faults: several(cacheTries, brokenCache), err: snapshot.ErrMiss,
			says: []string{"warning: The cache could not be asked", "500 Internal Server Error (tried 3 times)"}},
		{name: "silent", method: "GetCacheEntryDownloadURL", faults: several(cacheTries, servicetest.Hang), err: snapshot.ErrMiss,
			says: []string{"warning: The cache could not be asked", "nothing was sent or received for too long"}},
		{name: "down", down: true, err: snapshot.ErrMiss, says: []string{"warning: The cache could not be asked", "connection refused"}},
		{name: "of an old server", method: "GetCacheEntryDownloadURL", faults: several(1, servicetest.Status(http.StatusNotFound, "")), err: snapshot.ErrMiss,
			says: []string{"Cache: looking for", "does not offer the service"}},
		{name: "only written", env: "ACTIONS_CACHE_MODE=write-only", err: snapshot.ErrMiss, says: []string{"may not read from the cache"}},
		{name: "an address that has expired", method: "get", faults: several(1, expiredURL), says: []string{"asking for a new one"}},
		{name: "addresses that have expired", method: "get", faults: several(2, expiredURL), says: []string{"403 Forbidden"}, err: errAny},
		{name: "a cut", cuts: 1, says: []string{"trying again"}},
		{name: "cuts for good", cuts: cacheTries, err: errAny, says: []string{"fetching it from the cache", "tried 3 times"}},
		{name: "something else", damage: true, err: snapshot.ErrDamaged, says: []string{"unpacking what the cache has"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := servicetest.New(t)
			r, log, waited := cacheRun(t, w, tc.env)
			saver, _, _ := cacheRun(t, w)
			if _, err := share(t, saver); err != nil {
				t.Fatal(err)
			}
			for _, b := range w.Entries {
				if tc.damage {
					b.Data[len(b.Data)-8] ^= 1
				}
				w.Fail("get", several(tc.cuts, cutAnswer(b))...)
			}
			w.Fail(tc.method, tc.faults...)
			if tc.down {
				w.Server.Close()
			}
			entry, err := r.fetchSaved(t.Context())
			if err == nil {
				_ = entry.Close() // it was only read
			}
			if !errors.Is(err, tc.err) && (tc.err != errAny || err == nil) { //nolint:errorlint // errAny is no error
				t.Errorf("error %v, want %v", err, tc.err)
			}
			checkCache(t, w, log.String(), err, tc.says)
			if *waited > mostWaited || tc.wait > 0 && *waited != tc.wait {
				t.Errorf("waited for %s", *waited)
			}
		})
	}
}

// errAny stands for any error.
var errAny = errors.New("any error")

func checkCache(t *testing.T, w *servicetest.World, log string, err error, says []string) {
	t.Helper()
	text := log
	if err != nil {
		text += err.Error()
	}
	for _, s := range says {
		if !strings.Contains(text, s) {
			t.Errorf("neither log nor error says %q:\n%s", s, text)
		}
	}
	w.Clean(text)
	if strings.Contains(text, "SECRET") {
		t.Errorf("the login of the machine is in the log: %s", text)
	}
}

// TestCacheSaves gives a machine to caches of all kinds.
func TestCacheSaves(t *testing.T) {
	fork := servicetest.Token(`{"scp":"Actions.Results:12:34","ac":"[{\"Scope\":\"refs/pull/1/merge\",\"Permission\":1}]"}`)
	for _, tc := range []struct {
		name   string
		method string
		faults []servicetest.Fault
		down   bool
		twice  bool
		env    string
		note   string // what becomes of it; empty: an error
		says   []string
		wait   time.Duration
	}{
		{name: "works", note: "put into the cache in"},
		{name: "has it", twice: true, note: "the cache has it already"},
		{name: "busy", method: "CreateCacheEntry", faults: several(1, busyCache), note: "put into the cache in", wait: 7 * time.Second, says: []string{"trying again in 7s"}},
		{name: "busy for an hour", method: "CreateCacheEntry", faults: several(1, busierCache), says: []string{"putting it into the cache", "asks to wait 1h0m0s"}},
		{name: "broken", method: "FinalizeCacheEntryUpload", faults: several(cacheTries, brokenCache), says: []string{"500 Internal Server Error (tried 3 times)"}},
		{name: "silent", method: "block", faults: several(cacheTries, servicetest.Hang), says: []string{"nothing was sent or received for too long"}},
		{name: "down", down: true, says: []string{"putting it into the cache", "connection refused"}},
		{name: "of an old server", method: "CreateCacheEntry", faults: several(1, servicetest.Status(http.StatusNotFound, "")), note: "not put into the cache"},
		{name: "only read", env: "ACTIONS_CACHE_MODE=read", note: "not put into the cache"},
		{name: "of a fork", env: "ACTIONS_RUNTIME_TOKEN=" + fork, note: "as in a pull request from a fork"},
		{name: "full", method: "CreateCacheEntry", faults: several(1, servicetest.Status(http.StatusForbidden, `{"code":"permission_denied","msg":"storage quota has been hit"}`)), says: []string{"quota"}},
		{name: "cuts", method: "block", faults: []servicetest.Fault{servicetest.CutBody, servicetest.Cut}, note: "put into the cache in", says: []string{"trying again"}},
		{name: "cuts for good", method: "block", faults: several(cacheTries, servicetest.CutBody), says: []string{"tried 3 times"}},
		{name: "an address that has expired", method: "block", faults: several(1, expiredURL), says: []string{"403 Forbidden"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := servicetest.New(t)
			r, log, waited := cacheRun(t, w, tc.env)
			if tc.twice {
				if _, err := share(t, r); err != nil {
					t.Fatal(err)
				}
			}
			w.Fail(tc.method, tc.faults...)
			if tc.down {
				w.Server.Close()
			}
			note, err := share(t, r)
			if (err == nil) != (tc.note != "") || !strings.Contains(note, tc.note) {
				t.Errorf("%q, %v; want %q", note, err, tc.note)
			}
			checkCache(t, w, log.String()+note, err, tc.says)
			if *waited > mostWaited || tc.wait > 0 && *waited != tc.wait {
				t.Errorf("waited for %s", *waited)
			}
			if left, err := filepath.Glob(r.dir + "/*"); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		})
	}
}
