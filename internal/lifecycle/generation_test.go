package lifecycle

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/results/servicetest"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// TestGeneration: a key of the cache says which generation it is of, and no
// other key is taken for one.
func TestGeneration(t *testing.T) {
	k := smallKey()
	for _, g := range []generation{{0, false}, {1, true}, {12, false}} {
		if got, err := readGeneration(k, g.key(k)); got != g || err != nil {
			t.Errorf("%s: %+v, %v", g.key(k), got, err)
		}
	}
	other := smallKey()
	other.CPUs++
	for _, key := range []string{k.String(), generationsOf(k), generationsOf(k) + "x", generationsOf(k) + "-1", generationsOf(k) + "1-retired-retired", generation{}.key(other)} {
		if g, err := readGeneration(k, key); err == nil {
			t.Errorf("%s: %+v", key, g)
		}
	}
}

// machines are the generations that a cache has of the small machine.
func machines(w *servicetest.World) (keys []string) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	for id := range w.Entries {
		_, key, _ := strings.Cut(id, "\n")
		keys = append(keys, strings.TrimPrefix(key, generationsOf(smallKey())))
	}
	slices.Sort(keys)
	return keys
}

// saves shares the small machine once more.
func saves(t *testing.T, r *run, says string) {
	t.Helper()
	if note, err := share(t, r); err != nil || !strings.Contains(note, says) {
		t.Errorf("%q, %v; want %q", note, err, says)
	}
}

// fails begins from the cache's machine, which no QEMU can load.
func fails(t *testing.T, r *run, log *strings.Builder, says string) {
	t.Helper()
	if ok, err := r.restore(t.Context()); ok || err != nil || r.result.Snapshot != stateFailed || !strings.Contains(log.String(), says) {
		t.Errorf("%v, %v, %s\n%s", ok, err, r.result.Snapshot, log)
	}
}

// failed is a run that has begun from the cache's machine, and has booted then.
func failed(t *testing.T, w *servicetest.World) *run {
	t.Helper()
	r, log, _ := cacheRun(t, w)
	fails(t, r, log, "did not come back")
	r.result.Boot = time.Second
	return r
}

// found tells whether a run finds a machine in the cache.
func found(t *testing.T, r *run) bool {
	t.Helper()
	e, err := r.fetchSaved(t.Context())
	if err != nil {
		if !errors.Is(err, snapshot.ErrMiss) {
			t.Error(err)
		}
		return false
	}
	return e.Close() == nil
}

func cacheHas(t *testing.T, w *servicetest.World, want ...string) {
	t.Helper()
	if got := machines(w); !slices.Equal(got, want) {
		t.Errorf("the cache has %q, want %q", got, want)
	}
}

// TestSavedIsSuperseded has a machine in the cache that does not come back: the
// run that boots instead saves another one, which later runs find.
func TestSavedIsSuperseded(t *testing.T) {
	for name, tc := range map[string]struct {
		says   string
		damage bool
	}{
		"does not come back": {"The saved machine did not come back", false},
		"damaged":            {"The saved machine can't be used", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := servicetest.New(t)
			saver, _, _ := cacheRun(t, w)
			saves(t, saver, "put into the cache")
			if tc.damage {
				for _, b := range w.Entries {
					b.Data = spoilt(b.Data, len(b.Data)-8)
				}
			}
			r, log, _ := cacheRun(t, w)
			fails(t, r, log, tc.says)
			r.result.Boot = time.Second
			saves(t, r, "put into the cache")
			r.retireSaved(t.Context()) // it is superseded already
			cacheHas(t, w, "0", "1")
			if next, log, _ := cacheRun(t, w); !found(t, next) || next.warm.fetched.number != 1 {
				t.Errorf("the new one is not found\n%s", log)
			}
			saves(t, saver, "the cache has it already")
		})
	}
}

// TestSavedIsRetired has runs that save none in place of one that did not come
// back: the next run does not fetch it, and saves one.
func TestSavedIsRetired(t *testing.T) {
	w := servicetest.New(t)
	saver, _, _ := cacheRun(t, w)
	saves(t, saver, "put into the cache")
	r, log, _ := cacheRun(t, w)
	fails(t, r, log, "did not come back")
	r.retireSaved(t.Context())
	cacheHas(t, w, "0") // nothing has booted here
	r.result.Boot = time.Second
	r.Host.Environ = append(r.Host.Environ, "ACTIONS_CACHE_MODE=read")
	r.retireSaved(t.Context())
	cacheHas(t, w, "0") // it may not
	r.Host.Environ = r.Host.Environ[:len(r.Host.Environ)-1]
	w.Fail("CreateCacheEntry", several(cacheTries, brokenCache)...)
	if _, err := share(t, r); err == nil {
		t.Error("a broken cache has taken it")
	}
	r.retireSaved(t.Context())
	r.retireSaved(t.Context()) // once is enough
	cacheHas(t, w, "0", "1-retired")
	next, log, _ := cacheRun(t, w)
	if found(t, next) || w.Count("get") != 1 || !strings.Contains(log.String(), "did not come back is not used") {
		t.Errorf("%d downloads\n%s", w.Count("get"), log)
	}
	saves(t, next, "put into the cache")
	cacheHas(t, w, "0", "1-retired", "2")
	if last, log, _ := cacheRun(t, w); !found(t, last) {
		t.Errorf("the new one is not found\n%s", log)
	}
}

// TestSavedIsGivenUp: a guest of which no machine comes back is not saved
// for ever, and nothing is fetched for it any more.
func TestSavedIsGivenUp(t *testing.T) {
	w := servicetest.New(t)
	saver, _, _ := cacheRun(t, w)
	saves(t, saver, "put into the cache")
	for range lastGeneration {
		r := failed(t, w)
		saves(t, r, "put into the cache")
		r.retireSaved(t.Context())
	}
	r := failed(t, w)
	saves(t, r, "those before it did not come back")
	r.retireSaved(t.Context())
	cacheHas(t, w, "0", "1", "2", "3", "4-retired")
	fetched := w.Count("get")
	next, log, _ := cacheRun(t, w)
	if found(t, next) || w.Count("get") != fetched || !strings.Contains(log.String(), "warning: The saved machines in the cache are not used: several did not come back") ||
		!strings.Contains(log.String(), generationsOf(smallKey())+" (gh cache") {
		t.Errorf("%d downloads, before %d\n%s", w.Count("get"), fetched, log)
	}
	saves(t, next, "those before it did not come back")
	next.retireSaved(t.Context())
	cacheHas(t, w, "0", "1", "2", "3", "4-retired")
}

// TestSavedIsKept: what has nothing to do with the cache's entry, or is not for
// this run to judge, does not retire it.
func TestSavedIsKept(t *testing.T) {
	t.Run("cuts", func(t *testing.T) {
		w := servicetest.New(t)
		saver, _, _ := cacheRun(t, w)
		saves(t, saver, "put into the cache")
		r, log, _ := cacheRun(t, w)
		for _, b := range w.Entries {
			w.Fail("get", several(cacheTries, cutAnswer(b))...)
		}
		fails(t, r, log, "fetching it from the cache")
		r.result.Boot = time.Second
		r.retireSaved(t.Context())
		saves(t, r, "the cache has it already")
		cacheHas(t, w, "0")
	})
	t.Run("saved under TCG", func(t *testing.T) {
		w := servicetest.New(t)
		saver, _, _ := cacheRun(t, w)
		saves(t, saver, "put into the cache")
		r, log, _ := cacheRun(t, w)
		r.warm.key.Accel = "kvm"
		fails(t, r, log, "did not come back")
		r.result.Boot = time.Second
		r.retireSaved(t.Context())
		cacheHas(t, w, "0")
	})
}

// TestSavedIsSupersededByOthers has runs at once that begin from a machine that
// does not come back: what one of them has saved is not retired by another, and
// what a third one has begun to save, and never ends, is.
func TestSavedIsSupersededByOthers(t *testing.T) {
	w := servicetest.New(t)
	saver, _, _ := cacheRun(t, w)
	saves(t, saver, "put into the cache")
	first, second := failed(t, w), failed(t, w)
	saves(t, first, "put into the cache")
	saves(t, second, "the cache has it already")
	second.retireSaved(t.Context())
	cacheHas(t, w, "0", "1")

	third := failed(t, w)
	w.Entry(generation{number: 2}.key(smallKey()), cacheVersion, nil).Finalized = false
	saves(t, third, "the cache has it already")
	third.retireSaved(t.Context())
	cacheHas(t, w, "0", "1", "2", "2-retired")
}
