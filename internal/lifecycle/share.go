package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/results"
)

// shareDisk begins to put the prepared disk into the job's cache, if that does
// not have it, while the script runs. No key of any run is in it: those go into
// the overlay.
func (r *run) shareDisk(ctx context.Context) {
	d, m := &r.remote, r.disk.manifest
	c := r.diskCache()
	if c == nil || d.disk != nil || m.Method != provision.MethodExt2 || m.Content == "" {
		return
	}
	if err := c.Writable(); err != nil {
		return // said of the saved machine, or of no interest to who saves none
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.sharing = make(chan struct{})
	r.cleanup.push("giving up the disk for the cache", func(context.Context) error {
		cancel()
		<-d.sharing
		return nil
	})
	go func() {
		defer close(d.sharing)
		if saving := r.warm.saving; saving != nil { // which is worth more, and packed by the same processors
			select {
			case <-saving:
			case <-ctx.Done():
				return
			}
		}
		d.shared, d.shareErr = r.putDisk(ctx, c)
	}()
}

// putDisk puts the prepared disk into the cache.
func (r *run) putDisk(ctx context.Context, c *results.Cache) (string, error) {
	key := r.diskPrefix() + "0" // of two runs at once, one gets it
	if r.remote.spoiled {
		key = r.nextKey()
	} else {
		asking, cancel := cacheContext(ctx, cacheAskTime)
		hit, err := c.Find(asking, r.diskPrefix(), []string{r.diskPrefix()}, diskVersion)
		cancel()
		switch {
		case err == nil && isRetired(hit.Key):
			key = r.nextKey()
		case err == nil:
			return "", nil // the cache has it
		case errors.Is(err, results.ErrUnsupported):
			return "", nil // said before
		case !errors.Is(err, results.ErrMiss) && !errors.Is(err, results.ErrWriteOnly):
			return "", err
		}
	}
	path := filepath.Join(r.dir, "base.packed")
	began := time.Now()
	size, err := (&image.Store{Dir: r.storeDir()}).Pack(ctx, r.remote.local, path, r.config.SnapshotMaxSize)
	if errors.Is(err, image.ErrTooLarge) {
		return fmt.Sprintf("not put into the cache: packed it has more than snapshot-max-size (%s)", r.config.SnapshotMaxSize.Human()), nil
	}
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("packing it for the cache: %w", err)
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(path)) }() // the run directory goes as a whole later
	took := time.Since(began)
	ctx, cancel := cacheContext(ctx, cacheShareTime)
	defer cancel()
	_, err = c.Save(ctx, key, diskVersion, f, int64(size), nil)
	if err == nil || errors.Is(err, results.ErrExists) {
		r.remote.replaced.Store(true)
	}
	switch {
	case errors.Is(err, results.ErrExists):
		return "the cache has it by now", nil
	case errors.Is(err, results.ErrUnsupported), errors.Is(err, results.ErrReadOnly):
		return fmt.Sprintf("not put into the cache: %v", err), nil
	case err != nil:
		return "", fmt.Errorf("putting it into the cache: %w", err)
	}
	return fmt.Sprintf("%s packed in %s, and put into the cache in %s (%s)",
		size.Human(), actions.Seconds(took), actions.Seconds(time.Since(began)-took), key), nil
}

// nextKey is the key of an entry that replaces those before it.
func (r *run) nextKey() string { return fmt.Sprintf("%s%d", r.diskPrefix(), time.Now().UnixMilli()) }

// awaitDisk waits until the prepared disk is in the cache, and says what became
// of it.
func (r *run) awaitDisk(ctx context.Context) {
	d := &r.remote
	if d.sharing == nil {
		return
	}
	ctx, stop := r.ending.context(ctx, keepTime, stopReserve)
	defer stop()
	select {
	case <-d.sharing:
	case <-ctx.Done():
		r.warn("The disk is not in the cache", context.Cause(ctx).Error())
		return
	}
	if d.shared != "" {
		r.Log.Printf("Disk: %s", d.shared)
	}
	if d.shareErr != nil {
		r.warn("The disk is not in the cache", d.shareErr.Error())
	}
}

// isDamaged tells whether a part of the disk was found to be wrong.
func (d *remoteDisk) isDamaged() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.damaged
}

// retireDisk retires an entry that was found to be of no use and was not
// replaced, for whatever reason: else the next run would find it again.
func (r *run) retireDisk(ctx context.Context) {
	c := r.diskCache()
	if !r.remote.spoiled && !r.remote.isDamaged() || r.remote.replaced.Load() || c == nil || c.Writable() != nil {
		return
	}
	ctx, stop := r.ending.context(ctx, cacheAskTime, stopReserve)
	defer stop()
	_, err := c.Save(ctx, r.nextKey()+retiredSuffix, diskVersion, strings.NewReader(retired), int64(len(retired)), nil)
	if err != nil {
		r.warn("The damaged entry of the cache could not be replaced", err.Error())
		return
	}
	r.remote.replaced.Store(true)
	r.Log.Printf("The entry %s of the cache is damaged; a later run makes another one.", r.remote.key)
}

// fillDelay is how long a script runs before the rest of its guest's disk is
// fetched: most scripts of a restored guest end sooner, and need little of it.
const fillDelay = 10 * time.Second

// fetchRest fetches the rest of a disk that is in the cache beside the script,
// if that takes longer.
func (r *run) fetchRest() {
	d := &r.remote
	if d.disk == nil {
		return
	}
	have, all := d.disk.Received()
	r.Log.Printf("The guest has read %s of its disk's %s from the cache.", have.Human(), all.Human())
	timer := time.AfterFunc(fillDelay, d.fill)
	r.cleanup.push("not fetching the rest of the disk", func(context.Context) error {
		timer.Stop()
		return nil
	})
}
