package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/results"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// cacheVersion keeps our entries apart from those of other programs, and of
// versions of this one that pack in another way. To the service it is opaque.
var cacheVersion = fmt.Sprintf("hurd-qemu-action snapshot format %d", snapshot.Format)

// How much of a run's time a cache gets that does not work as it should. What it
// saves is a boot, which takes ten seconds to a few minutes.
const (
	cacheTries   = 3
	cacheMaxWait = 15 * time.Second // that it may ask for
	cacheStall   = 20 * time.Second // of silence

	cacheAskTime   = 30 * time.Second // to say whether it has an entry
	cacheFetchTime = 3 * time.Minute
	cacheShareTime = 5 * time.Minute // most of it while the script runs
)

// cacheContext bounds what is done with the cache.
func cacheContext(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
}

// cache is the job's cache service, nil where there is none.
func (r *run) cache() *results.Cache {
	if r.Host.ResultsURL == "" {
		return nil
	}
	s := &results.Service{
		URL: r.Host.ResultsURL, Token: r.Host.getenv("ACTIONS_RUNTIME_TOKEN"),
		Tries: cacheTries, MaxWait: cacheMaxWait, Stall: cacheStall,
		Notify: func(note string) { r.Log.Printf("Cache: %s", note) },
	}
	if r.impatient != nil {
		r.impatient(s)
	}
	return &results.Cache{Service: s, Mode: results.Mode(r.Host.getenv("ACTIONS_CACHE_MODE"))}
}

// fetchSaved looks for a saved machine in the job's cache and brings it into the
// store. A cache that does not work is as good as none, and said so.
func (r *run) fetchSaved(ctx context.Context) (*snapshot.Entry, error) {
	c := r.cache()
	if c == nil {
		return nil, snapshot.ErrMiss
	}
	for _, k := range r.warm.key.Usable() {
		hit, g, err := newestSaved(ctx, c, k)
		switch {
		case errors.Is(err, results.ErrMiss):
			continue
		case errors.Is(err, results.ErrUnsupported), errors.Is(err, results.ErrWriteOnly):
			r.Log.Printf("Cache: %v", err)
			return nil, snapshot.ErrMiss
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil: // nobody knows whether there is one
			r.warn("The cache could not be asked for a saved machine", err.Error()+"; the machine is booted")
			return nil, snapshot.ErrMiss
		case g.retired:
			r.sayRetired(k, g)
			continue
		}
		if k.String() == r.warm.key.String() { // another one is not this run's to judge
			r.warm.fetched = &fetchedEntry{generation: g}
		}
		var entry *snapshot.Entry
		err = r.step(ctx, "Fetch saved machine", func(ctx context.Context) (note string, err error) {
			entry, note, err = r.download(ctx, c, hit)
			return note, err
		})
		return entry, err
	}
	return nil, snapshot.ErrMiss
}

func (r *run) download(ctx context.Context, c *results.Cache, hit *results.Hit) (*snapshot.Entry, string, error) {
	path := filepath.Join(r.dir, "fetched"+snapshot.Extension)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(path)) }() // the run directory goes as a whole later
	began := time.Now()
	limited, cancel := cacheContext(ctx, cacheFetchTime)
	defer cancel()
	size, err := c.Download(limited, hit, f, int64(r.config.SnapshotMaxSize), nil)
	if err != nil {
		return nil, "", fmt.Errorf("fetching it from the cache: %w", err)
	}
	r.meter.downloaded = units.Bytes(size)
	took := time.Since(began)
	entry, err := r.warm.store.Unpack(ctx, f, snapshot.Admission{Wanted: r.warm.key.Usable(), MaxData: r.config.SnapshotMaxSize})
	if err != nil {
		return nil, "", fmt.Errorf("unpacking what the cache has: %w", err)
	}
	return entry, fmt.Sprintf("%s in %s", units.Bytes(size).Human(), actions.Seconds(took)), nil
}

// shareSaved puts an entry into the job's cache, for jobs that have not this
// host's store.
func (r *run) shareSaved(ctx context.Context, entry *snapshot.Entry) (string, error) {
	c := r.cache()
	if c == nil {
		return "", nil
	}
	if err := c.Writable(); err != nil {
		return fmt.Sprintf("not put into the cache: %v", err), nil
	}
	g, why, err := r.newGeneration(ctx, c)
	if err != nil {
		return "", fmt.Errorf("putting it into the cache: %w", err)
	}
	if why != "" {
		return why, nil
	}
	path := filepath.Join(r.dir, "packed"+snapshot.Extension)
	if err := entry.Export(ctx, path); err != nil {
		return "", fmt.Errorf("packing it for the cache: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("packing it for the cache: %w", err)
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(path)) }() // the run directory goes as a whole later
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("packing it for the cache: %w", err)
	}
	began := time.Now()
	ctx, cancel := cacheContext(ctx, cacheShareTime)
	defer cancel()
	_, err = c.Save(ctx, g.key(r.warm.key), cacheVersion, f, info.Size(), nil)
	if err == nil {
		r.warm.superseded.Store(true) // what exists may be an upload that never ends: retireSaved asks
	}
	switch {
	case errors.Is(err, results.ErrExists):
		return "the cache has it already", nil
	case errors.Is(err, results.ErrUnsupported), errors.Is(err, results.ErrReadOnly):
		return fmt.Sprintf("not put into the cache: %v", err), nil
	case err != nil:
		return "", fmt.Errorf("putting it into the cache: %w", err)
	}
	r.warm.uploaded = units.Bytes(info.Size())
	return fmt.Sprintf("%s put into the cache in %s", units.Bytes(info.Size()).Human(), actions.Seconds(time.Since(began))), nil
}
