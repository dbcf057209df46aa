package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/nbd"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/results"
)

// remoteDisk is what a run knows of the prepared disk in the job's cache, from
// which a job whose store is empty runs while most of it has not been fetched.
type remoteDisk struct {
	identity image.Identity
	known    bool           // what the image is, without it
	local    image.Prepared // the disk in the store, when it is there
	spoiled  bool           // what the cache has is of no use, and is to be replaced

	disk    *image.OnDemand // nil: the disk is in the store
	key     string          // of the cache's entry
	connect func() (*os.File, error)
	fill    func()       // begins to fetch the rest, once
	close   func() error // ends all of it; may be called more than once

	machine atomic.Pointer[qemu.Machine] // that runs from it
	mu      sync.Mutex
	err     error // why it can't be read any more
	damaged bool  // a part of it is not what it should be

	// replaced says that what is of no use is not the cache's newest entry any more.
	replaced atomic.Bool

	sharing  chan struct{} // closed when the local disk is in the cache, or is not; nil: it is not to be
	shared   string        // what became of it; read after sharing is closed, like shareErr
	shareErr error
}

// remoteError is why a disk in the cache can't be read.
type remoteError struct {
	key string
	err error
}

func (e *remoteError) Error() string {
	return fmt.Sprintf("the entry %s of the cache: %v", e.key, e.err)
}
func (e *remoteError) Unwrap() error { return e.err }

// diskVersion keeps the entries apart from all others; see cacheVersion.
var diskVersion = fmt.Sprintf("hurd-qemu-action disk format %d", image.PackedFormat)

// diskPrefix begins the keys of the entries that have the disk that was made
// from an image as this run wants it. The newest one counts: entries can't be
// changed, and one that is damaged is replaced by another one.
func (r *run) diskPrefix() string {
	sum := sha256.Sum256([]byte(r.remote.identity.String() + "\n" + r.prepareKey()))
	return fmt.Sprintf("hurd-qemu-action-disk-v%d-%s-", image.PackedFormat, hex.EncodeToString(sum[:16]))
}

// An entry whose key ends so says that there is none: those before it are of no use.
const (
	retiredSuffix = "-retired"
	retired       = "hurd-qemu-action: the entries before this one are of no use\n"
)

func isRetired(key string) bool { return strings.HasSuffix(key, retiredSuffix) }

// diskCache is the cache in which prepared disks are kept, nil if it is not to be.
func (r *run) diskCache() *results.Cache {
	if r.config.ImageCache == "off" || !r.remote.known {
		return nil
	}
	return r.cache()
}

// findDisk looks for a disk that was prepared from the image without the image:
// in the store, and then in the job's cache. It tells whether there is one.
func (r *run) findDisk(ctx context.Context, store *image.Store) (note string, ok bool, err error) {
	d := &r.remote
	if d.identity, d.known, err = store.Identify(ctx, r.source, r.want()); err != nil {
		return "", false, fail(ImageFailed, "No image", err) // it can't be obtained either
	}
	if !d.known {
		return "", false, nil
	}
	if prepared, ok := store.FindPrepared(ctx, d.identity, r.prepareKey()); ok {
		r.Log.Printf("%s: %s, %s", prepared.Origin, prepared.VirtualSize.Human(), prepared.Verified)
		return "", true, r.useDisk(prepared)
	}
	c := r.diskCache()
	if c == nil || store.Has(ctx, d.identity) {
		return "", false, nil
	}
	asking, cancel := cacheContext(ctx, cacheAskTime)
	defer cancel()
	disk, m, err := r.openRemote(asking, store, c)
	switch {
	case ctx.Err() != nil:
		return "", false, context.Cause(ctx)
	case errors.Is(err, results.ErrMiss):
		return "", false, nil
	case errors.Is(err, results.ErrUnsupported), errors.Is(err, results.ErrWriteOnly), errors.Is(err, results.ErrRanges):
		r.Log.Printf("Cache: %v", err)
		return "", false, nil
	case err != nil:
		d.spoiled = errors.Is(err, image.ErrPacked) || errors.Is(err, image.ErrPackedFormat) || errors.Is(err, image.ErrOther)
		r.warn("The disk in the cache can't be used", err.Error()+"; the image is fetched from where it is published")
		return "", false, nil
	}
	if r.impatient == nil {
		c.Service.Tries, c.Service.Stall = remoteTries, remoteStall
	}
	r.serveRemote(ctx, disk)
	_, all := disk.Received()
	r.Log.Printf("%s: %s, from the job's cache as the guest reads it (%s packed)", disk.Origin, disk.VirtualSize.Human(), all.Human())
	return "on demand", true, r.useBase(disk.Prepared, m)
}

// How patient we are with the cache when a guest runs from it: nothing may come
// for a shorter time, as the guest waits, and it is asked again for longer, half
// a minute, as the guest is lost without it.
const (
	remoteStall = 15 * time.Second
	remoteTries = 6
)

// openRemote opens the newest entry of the cache.
func (r *run) openRemote(ctx context.Context, store *image.Store, c *results.Cache) (*image.OnDemand, manifest, error) {
	prefix := r.diskPrefix()
	hit, err := c.Find(ctx, prefix, []string{prefix}, diskVersion)
	if err != nil {
		return nil, manifest{}, err
	}
	if isRetired(hit.Key) {
		r.Log.Printf("The disk in the cache was found to be damaged, and is replaced.")
		r.remote.spoiled = true
		r.remote.replaced.Store(true)
		return nil, manifest{}, results.ErrMiss
	}
	r.remote.key = hit.Key
	beginning := make([]byte, image.Beginning)
	blob, n, err := c.Open(ctx, hit, 0, beginning)
	if err != nil {
		return nil, manifest{}, err
	}
	disk, err := store.OpenOnDemand(ctx, r.remote.identity, r.prepareKey(), filepath.Join(r.dir, "base.raw"), beginning[:n], blob)
	if err != nil {
		return nil, manifest{}, err
	}
	m, err := readManifest(disk.Prepared)
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", image.ErrPacked, err)
	case m.Method != provision.MethodExt2 || m.Prepared == nil || m.Prepared.Version != provision.Version || m.Content != disk.Digest():
		// A saved machine names the contents that it needs by this digest, and
		// all that is fetched is compared with the index that has it.
		err = fmt.Errorf("%w: it is said to hold %s and holds %s", image.ErrOther, m.Content, disk.Digest())
	default:
		return disk, m, nil
	}
	return nil, manifest{}, errors.Join(err, disk.Close())
}

// serveRemote gets a disk ready for machines to run from.
func (r *run) serveRemote(ctx context.Context, disk *image.OnDemand) {
	d := &r.remote
	d.disk = disk
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	users := &users{}
	d.connect = func() (*os.File, error) {
		ours, theirs, err := connection()
		if err != nil {
			return nil, err
		}
		users.start(func() {
			if err := nbd.Serve(ctx, ours, served{disk, d}); err != nil {
				r.Log.Printf("The disk of the machine: %v", err)
			}
		})
		return theirs, nil
	}
	d.fill = sync.OnceFunc(func() {
		users.start(func() {
			switch err := disk.Fill(ctx); {
			case err == nil:
				r.Log.Printf("The disk has been fetched, and is kept for later runs.")
			case ctx.Err() == nil: // what the machine needs of it is another matter
				d.note(err)
				r.Log.Printf("The disk is not kept for later runs: %v", err)
			}
		})
	})
	d.close = sync.OnceValue(func() error {
		cancel()
		users.end()
		return disk.Close()
	})
	r.cleanup.push("releasing the disk from the cache", func(limit context.Context) error {
		closed := make(chan error, 1)
		go func() { closed <- d.close() }()
		select {
		case err := <-closed:
			return err
		case <-limit.Done(): // a slow disk; a later run removes what is left
			return context.Cause(limit)
		}
	})
}

// users are what uses the disk.
type users struct {
	mu    sync.Mutex
	ended bool
	all   sync.WaitGroup
}

// start begins a use, unless there are to be no more.
func (u *users) start(use func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		u.all.Go(use)
	}
}

// end waits until nobody uses the disk any more.
func (u *users) end() {
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	u.all.Wait()
}

// connection makes two ends of one connection.
func connection() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "disk server")
	theirs = os.NewFile(uintptr(fds[1]), "disk")
	ours, err = net.FileConn(file)
	_ = file.Close() // ours has its own
	if err != nil {
		_ = theirs.Close() // it was never used
		return nil, nil, err
	}
	return ours, theirs, nil
}

// served is the disk as a machine reads it.
type served struct {
	*image.OnDemand
	remote *remoteDisk
}

// ReadAt has the machine stand still for what can't be read.
func (s served) ReadAt(ctx context.Context, p []byte, offset int64) error {
	err := s.OnDemand.ReadAt(ctx, p, offset)
	if err != nil && ctx.Err() == nil {
		s.remote.fault(err)
	}
	return err
}

// note remembers that a part of the disk is not what it should be.
func (d *remoteDisk) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.damaged = d.damaged || errors.Is(err, image.ErrPacked)
}

// failed remembers why a part of the disk can't be read, and says so.
func (d *remoteDisk) failed(err error) error {
	d.note(err)
	return &remoteError{d.key, err}
}

// fault notes that the disk can't be read, before the machine is told.
func (d *remoteDisk) fault(err error) {
	err = d.failed(err)
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	err = d.err
	d.mu.Unlock()
	if m := d.machine.Load(); m != nil {
		m.Fault(qemu.FaultError{Disk: "disk0", Operation: "read", Reason: err.Error(), Err: err})
	}
}

// broken is why the disk can't be read any more.
func (d *remoteDisk) broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// runs notes the machine that runs from the disk.
func (d *remoteDisk) runs(m *qemu.Machine) {
	d.machine.Store(m)
	if err := d.broken(); err != nil {
		m.Fault(qemu.FaultError{Disk: "disk0", Operation: "read", Reason: err.Error(), Err: err})
	}
}

// waited is the time for which machines have waited for the cache.
func (d *remoteDisk) waited() time.Duration {
	if d.disk == nil {
		return 0
	}
	return d.disk.Waited()
}

// fetchSlots fetches what our tools read of the disk when they put keys into it.
func (r *run) fetchSlots(ctx context.Context, p *provision.Prepared) error {
	if r.remote.disk == nil {
		return nil
	}
	for _, slot := range p.Slots {
		for _, at := range slot.Pieces {
			if err := r.remote.disk.Ensure(ctx, int64(at.Offset), int64(at.Length)); err != nil {
				if ctx.Err() == nil {
					r.remote.fault(err)
				}
				return fail(BootFailed, "The disk cannot be read from the cache", err)
			}
		}
	}
	return nil
}

// replaceRemote gets the disk from the image where it is published, once, when
// what the cache has can't be read.
func (r *run) replaceRemote(ctx context.Context) error {
	d := &r.remote
	r.warn("The disk in the cache can't be used", d.broken().Error()+"; the image is fetched from where it is published")
	if err := d.close(); err != nil {
		return fail(Internal, "The image store cannot be used", err)
	}
	// Nobody else looks at it any more.
	d.disk, d.err, d.spoiled = nil, nil, d.damaged
	return r.step(ctx, "Image from its source", func(ctx context.Context) (string, error) {
		if err := r.makeDisk(ctx, NewStore(r.storeDir(), r.progress())); err != nil {
			return "", err
		}
		if r.warm.store != nil {
			r.warm.key = r.snapshotKey() // the same, if it was the same disk
		}
		return "", nil
	})
}

// bootOnce boots the machine, and once more from the image where that is
// published, when what the cache has of it can't be read.
func (r *run) bootOnce(ctx context.Context) error {
	boot := func() error { return r.step(ctx, "Boot", r.boot) }
	if r.remote.disk == nil {
		return boot()
	}
	if r.remote.broken() == nil {
		r.remote.fill() // a boot reads much of it
		if err := boot(); err == nil || r.remote.broken() == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := r.replaceRemote(ctx); err != nil {
		return err
	}
	return boot()
}
