package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/results"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// generation is one of the entries that the job's cache has for a saved machine.
// Entries can't be changed, so one that did not come back is superseded by the
// next one; the service finds the newest.
type generation struct {
	number  int  // from 0
	retired bool // there is no machine in it: those before it are of no use
}

// lastGeneration is how often a saved machine is superseded or retired. A guest of which
// none comes back would else be fetched, booted and saved by every run.
const lastGeneration = 3

func (g generation) next() generation { return generation{number: g.number + 1} }

// spent tells whether no further machine is saved.
func (g generation) spent() bool { return g.number > lastGeneration }

// generationsOf begins the keys of all entries of a saved machine.
func generationsOf(k snapshot.Key) string { return k.String() + "-" }

func (g generation) key(k snapshot.Key) string {
	suffix := ""
	if g.retired {
		suffix = retiredSuffix
	}
	return generationsOf(k) + strconv.Itoa(g.number) + suffix
}

// readGeneration reads what key has made.
func readGeneration(k snapshot.Key, key string) (generation, error) {
	text, ok := strings.CutPrefix(key, generationsOf(k))
	text, retired := strings.CutSuffix(text, retiredSuffix)
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 0 {
		return generation{}, fmt.Errorf("the entry %q of the cache is none of a saved machine", key)
	}
	return generation{n, retired}, nil
}

// newestSaved is the newest entry of the cache for a saved machine, which may
// be retired. The errors are those of results.Cache.Find.
func newestSaved(ctx context.Context, c *results.Cache, k snapshot.Key) (*results.Hit, generation, error) {
	ctx, cancel := cacheContext(ctx, cacheAskTime)
	defer cancel()
	hit, err := c.Find(ctx, generationsOf(k), []string{generationsOf(k)}, cacheVersion)
	if err != nil {
		return nil, generation{}, err
	}
	g, err := readGeneration(k, hit.Key)
	return hit, g, err
}

// fetchedEntry is the cache's entry that a run has begun from, or has tried to.
type fetchedEntry struct {
	generation
	spoiled bool // it is of no use, and is to be superseded
}

// spoil remembers that what was fetched from the cache is of no use.
func (w *warm) spoil() {
	if w.fetched != nil {
		w.fetched.spoiled = true
	}
}

// isSpoiled tells whether the cache's newest entry is of no use.
func (w *warm) isSpoiled() bool { return w.fetched != nil && w.fetched.spoiled && !w.superseded.Load() }

// newGeneration is the generation under which a machine that was saved is put
// into the cache; a text says why it is not to be.
func (r *run) newGeneration(ctx context.Context, c *results.Cache) (generation, string, error) {
	if r.warm.isSpoiled() {
		g := r.warm.fetched.next()
		return g, spentText(g), nil
	}
	_, g, err := newestSaved(ctx, c, r.warm.key)
	switch {
	case errors.Is(err, results.ErrMiss), errors.Is(err, results.ErrWriteOnly):
		return generation{}, "", nil
	case errors.Is(err, results.ErrUnsupported):
		return g, fmt.Sprintf("not put into the cache: %v", err), nil
	case err != nil:
		return g, "", err
	case !g.retired:
		return g, "the cache has it already", nil
	}
	g = g.next()
	return g, spentText(g), nil
}

// spentText says why a generation is not made; empty: it may be.
func spentText(g generation) string {
	if !g.spent() {
		return ""
	}
	return "not put into the cache: those before it did not come back"
}

// sayRetired says that the cache has no saved machine that is of use.
func (r *run) sayRetired(k snapshot.Key, g generation) {
	if g.next().spent() {
		r.warn("The saved machines in the cache are not used", fmt.Sprintf("several did not come back. To have one saved there again, delete each entry that begins with %s (gh cache list, gh cache delete)",
			generationsOf(k)))
		return
	}
	r.Log.Printf("Cache: a saved machine that did not come back is not used (%s).", g.key(k))
}

// retireSaved retires an entry of the cache that was found to be of no use and
// was not superseded, for whatever reason: else the next run would fetch it again.
func (r *run) retireSaved(ctx context.Context) {
	c := r.cache()
	if !r.warm.isSpoiled() || c == nil || c.Writable() != nil || r.result.Boot == 0 { // a host on which nothing boots says nothing of it
		return
	}
	ctx, stop := r.ending.context(ctx, cacheAskTime, stopReserve)
	defer stop()
	if _, newest, err := newestSaved(ctx, c, r.warm.key); err == nil && newest != r.warm.fetched.generation {
		return // another run has superseded or retired it
	}
	g := r.warm.fetched.next()
	g.retired = true
	_, err := c.Save(ctx, g.key(r.warm.key), cacheVersion, strings.NewReader(retired), int64(len(retired)), nil)
	if err != nil && !errors.Is(err, results.ErrExists) {
		r.warn("The saved machine in the cache could not be retired", err.Error())
		return
	}
	r.warm.superseded.Store(true)
	r.Log.Printf("The saved machine in the cache (%s) is not used any more.", r.warm.fetched.key(r.warm.key))
}
