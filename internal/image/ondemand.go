package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/hurd-qemu-action/internal/image/packed"
	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// What is wrong with a packed disk: it is not what was packed, or nothing that
// this version has packed.
var (
	ErrPacked       = packed.ErrDamaged
	ErrPackedFormat = packed.ErrFormat
)

// ErrOther says that a packed disk is sound, and not the one that is wanted.
var ErrOther = errors.New("the packed disk is that of another image")

// PackedFormat is the version of what Pack writes.
const PackedFormat = packed.Format

// note goes into the index of a packed disk.
type note struct {
	Origin         string
	SHA256, SHA512 string // as in manifest
	Base, Key      string
	Extra          []byte
	Allocated      units.Bytes // that the disk takes
}

// DigestOf is the digest of a raw disk; OnDemand.Digest is the same.
func DigestOf(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	return packed.DigestOf(ctx, f)
}

// Pack writes a prepared disk and all that is known of it to a new file, for
// OpenOnDemand. It returns the file's size, which a limit other than 0 bounds;
// beyond it the error is ErrTooLarge, and the file is not there.
func (s *Store) Pack(ctx context.Context, p Prepared, path string, limit units.Bytes) (units.Bytes, error) {
	size, err := s.pack(ctx, p, path, limit)
	if err != nil {
		_ = os.Remove(path) // what was written of it is of no use
		return 0, explain("packing", p.Origin, err)
	}
	return size, nil
}

// ErrTooLarge says that a packed disk is larger than allowed.
var ErrTooLarge = packed.ErrTooLarge

func (s *Store) pack(ctx context.Context, p Prepared, path string, limit units.Bytes) (size units.Bytes, err error) {
	src, err := os.Open(p.Path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = src.Close() }() // it was only read
	info, err := src.Stat()
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(note{
		Origin: p.Origin, SHA256: p.sums.sha256, SHA512: p.sums.sha512, Base: p.Digest, Key: p.key,
		Extra: p.Manifest, Allocated: sparse.Allocated(info),
	})
	if err != nil {
		return 0, fmt.Errorf("describing the disk: %w", err)
	}
	dst, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	done, err := packed.Pack(ctx, dst, src, text, limit)
	return done.Size, err
}

// Remote is a file elsewhere, that is read by parts. ReadAt fills p or fails, and
// may be called by several goroutines.
type Remote interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, offset int64) error
}

// OnDemand is a prepared disk that is elsewhere, in the packed form. What is read
// of it is fetched, compared with the index, and kept in the store's temporary
// files; a disk that is complete becomes an entry of the store. Its methods are
// safe for use by several goroutines.
type OnDemand struct {
	// Prepared has, as its Path, a link to the file that has what was fetched,
	// and holes where nothing was: Ensure before anybody reads it.
	Prepared

	store  *Store
	remote Remote
	index  *packed.Index
	note   note
	temp   *temp
	file   *os.File
	entry  Base // of the store, when the disk is complete

	mu       sync.Mutex
	quiet    *sync.Cond // no demand any more
	pieces   []piece
	demands  int           // that wait for what is fetched for them
	since    time.Time     // while there are demands
	waited   time.Duration // by earlier demands
	cursor   int           // behind what was demanded last
	received units.Bytes
}

// piece is a piece of the disk.
type piece struct {
	present bool
	flight  chan struct{} // not nil while it is being fetched, closed at the end
}

// Beginning is how much of a packed disk OpenOnDemand is best given: for most
// disks that is the whole index.
const Beginning = 256 << 10

// OpenOnDemand opens a packed disk, of which the caller has read the beginning,
// when it was made from an image under a key. link is a path that is free, in a
// directory of the caller's. The error is ErrOther for another disk, and
// ErrPacked for a damaged one.
func (s *Store) OpenOnDemand(ctx context.Context, id Identity, key, link string, beginning []byte, remote Remote) (*OnDemand, error) {
	d, err := s.openOnDemand(ctx, id, key, beginning, remote)
	if err == nil {
		if err = d.stage(link); err != nil {
			err = errors.Join(err, d.Close())
		}
	}
	if err != nil {
		return nil, explain("opening", "the packed disk of "+id.Origin, err)
	}
	return d, nil
}

func (s *Store) openOnDemand(ctx context.Context, id Identity, key string, beginning []byte, remote Remote) (*OnDemand, error) {
	n, err := packed.HeadSize(beginning)
	if err != nil {
		return nil, err
	}
	head := make([]byte, n)
	if have := copy(head, beginning); int64(have) < n {
		if err := remote.ReadAt(ctx, head[have:], int64(have)); err != nil {
			return nil, err
		}
	}
	index, err := packed.ParseIndex(head)
	if err != nil {
		return nil, err
	}
	if index.FileSize() != remote.Size() {
		return nil, fmt.Errorf("%w: it has %d bytes, its index says %d", ErrPacked, remote.Size(), index.FileSize())
	}
	d := &OnDemand{store: s, remote: remote, index: index, pieces: make([]piece, index.Pieces()), received: units.Bytes(max(n, int64(len(beginning))))}
	d.quiet = sync.NewCond(&d.mu)
	if err := json.Unmarshal(index.Note, &d.note); err != nil {
		return nil, fmt.Errorf("%w: reading its note: %w", ErrPacked, err)
	}
	if !id.expect.matches(sums{d.note.SHA256, d.note.SHA512}) || d.note.Base != "sha256:"+d.note.SHA256 || d.note.Key != key {
		return nil, fmt.Errorf("%w: it was made from %s (%s), wanted is %s (%s)", ErrOther, d.note.Base, d.note.Key, id, key)
	}
	for i := range d.pieces {
		d.pieces[i].present = index.Zero(i)
	}
	d.Prepared = Prepared{Manifest: d.note.Extra, key: key, Base: Base{
		Format: Raw, Digest: d.note.Base, VirtualSize: index.Size, Origin: id.Origin, Verified: id.expect.verification(), Preset: id.Preset,
		sums: sums{d.note.SHA256, d.note.SHA512},
	}}
	return d, nil
}

// stage makes the file for what is fetched, and the link to it.
func (d *OnDemand) stage(link string) error {
	if err := d.store.reserve(d.note.Allocated); err != nil {
		return err
	}
	var err error
	if d.temp, err = d.store.temp(); err != nil {
		return err
	}
	path, err := filepath.Abs(filepath.Join(d.temp.path, diskName+string(Raw)))
	if err != nil {
		return err
	}
	if d.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if err := d.file.Truncate(int64(d.index.Size)); err != nil {
		return err
	}
	d.Path = link
	return os.Symlink(path, link)
}

// Close forgets the disk, unless it is complete. Nobody may use it any more.
func (d *OnDemand) Close() error {
	var errs []error
	if d.file != nil {
		errs = append(errs, d.file.Close())
	}
	if d.temp != nil {
		d.temp.remove()
	}
	return errors.Join(append(errs, d.entry.Close())...)
}

// Digest is the digest of the disk by its index, with which all that is fetched
// is compared.
func (d *OnDemand) Digest() string { return d.index.Digest() }

// sector is the unit of a disk's size.
const sector = 512

// Size is the disk's, in whole sectors.
func (d *OnDemand) Size() int64 { return (int64(d.index.Size) + sector - 1) &^ (sector - 1) }

// Received is how much of the packed disk was received, and of how much.
func (d *OnDemand) Received() (have, all units.Bytes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.received, units.Bytes(d.remote.Size())
}

// Waited is the time for which somebody has waited for what was to be fetched.
func (d *OnDemand) Waited() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.demands == 0 {
		return d.waited
	}
	return d.waited + time.Since(d.since)
}

// ReadAt reads a part of the disk, when it has been fetched.
func (d *OnDemand) ReadAt(ctx context.Context, p []byte, offset int64) error {
	if err := d.Ensure(ctx, offset, int64(len(p))); err != nil {
		return err
	}
	n := max(min(int64(len(p)), int64(d.index.Size)-offset), 0)
	clear(p[n:])
	if _, err := d.file.ReadAt(p[:n], offset); err != nil {
		return fmt.Errorf("reading what was fetched: %w", err)
	}
	return nil
}

// Ensure fetches a part of the disk, unless it has been.
func (d *OnDemand) Ensure(ctx context.Context, offset, length int64) error {
	first := offset / packed.PieceSize
	for i := first; i < int64(len(d.pieces)) && i*packed.PieceSize < offset+length; i++ {
		if err := d.ensure(ctx, int(i)); err != nil {
			return fmt.Errorf("fetching a part of the disk: %w", err)
		}
	}
	return nil
}

// How much one request asks for: on demand little, as somebody waits for it, and
// the next one may want something else.
const (
	demandPieces, demandBytes = 4, 2 << 20
	fillPieces, fillBytes     = 8, 4 << 20
)

// ensure fetches a piece, or waits for who does.
func (d *OnDemand) ensure(ctx context.Context, i int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pieces[i].present {
		return nil
	}
	if d.demands++; d.demands == 1 {
		d.since = time.Now()
	}
	defer func() {
		if d.demands--; d.demands == 0 {
			d.waited += time.Since(d.since)
			d.quiet.Broadcast()
		}
	}()
	for !d.pieces[i].present {
		flight := d.pieces[i].flight
		if flight == nil {
			end := d.claim(i, demandPieces, demandBytes)
			d.cursor = end
			d.mu.Unlock()
			err := d.fetch(ctx, i, end)
			d.mu.Lock()
			if err != nil {
				return err
			}
			continue
		}
		d.mu.Unlock()
		var err error
		select {
		case <-flight:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		d.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// claim takes the piece at first, which nobody has, and some behind it, and
// returns their end. d.mu is held.
func (d *OnDemand) claim(first, pieces int, size int64) int {
	end := first
	for end < len(d.pieces) && end < first+pieces && !d.pieces[end].present && d.pieces[end].flight == nil {
		if _, n := d.index.Packed(first, end+1); n > size && end > first {
			break
		}
		d.pieces[end].flight = make(chan struct{})
		end++
	}
	return end
}

// land notes what became of a piece that was claimed.
func (d *OnDemand) land(i int, present bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &d.pieces[i]
	p.present = present
	close(p.flight)
	p.flight = nil
}

// fetch fetches pieces that were claimed. Those that are wrong are fetched once
// more: the way here may be to blame.
func (d *OnDemand) fetch(ctx context.Context, first, end int) error {
	at := first
	err := d.fetchOnce(ctx, &at, end)
	if errors.Is(err, ErrPacked) {
		err = d.fetchOnce(ctx, &at, end)
	}
	for ; at < end; at++ {
		d.land(at, false)
	}
	return err
}

// fetchOnce moves at on with each piece that is there.
func (d *OnDemand) fetchOnce(ctx context.Context, at *int, end int) error {
	offset, n := d.index.Packed(*at, end)
	data := make([]byte, n)
	if err := d.remote.ReadAt(ctx, data, offset); err != nil {
		return err
	}
	d.mu.Lock()
	d.received += units.Bytes(n)
	d.mu.Unlock()
	buffer := make([]byte, 0, packed.PieceSize)
	for ; *at < end; *at++ {
		_, n := d.index.Packed(*at, *at+1)
		raw, err := d.index.Unpack(*at, data[:n], buffer)
		if err != nil {
			return err
		}
		data = data[n:]
		start := int64(*at) * packed.PieceSize
		if err := packed.Runs(raw, func(off int, run []byte) error {
			_, err := d.file.WriteAt(run, start+int64(off))
			return err
		}); err != nil {
			return fmt.Errorf("keeping what was fetched: %w", err)
		}
		d.land(*at, true)
	}
	return nil
}

// fillers is how many requests Fill makes at once.
const fillers = 2

// Fill fetches all that has not been fetched, whenever nobody waits for another
// part, and makes the disk an entry of the store. An end of ctx ends it.
func (d *OnDemand) Fill(ctx context.Context) error {
	g, groupCtx := errgroup.WithContext(ctx)
	defer context.AfterFunc(groupCtx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.quiet.Broadcast()
	})()
	for range fillers {
		g.Go(func() error {
			for {
				first, end, err := d.next(groupCtx)
				if err != nil || first == end {
					return err
				}
				if err := d.fetch(groupCtx, first, end); err != nil {
					return err
				}
			}
		})
	}
	err := g.Wait()
	if err == nil {
		err = d.Ensure(ctx, 0, int64(d.index.Size)) // what is on its way to others
	}
	if err == nil {
		err = d.admit(ctx)
	}
	if err != nil {
		return fmt.Errorf("fetching the rest of the disk: %w", err)
	}
	return nil
}

// next claims what is to be fetched next: what follows what was demanded last
// may be demanded next.
func (d *OnDemand) next(ctx context.Context) (first, end int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.demands > 0 && ctx.Err() == nil {
		d.quiet.Wait()
	}
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	for n := range d.pieces {
		i := (d.cursor + n) % len(d.pieces)
		if p := d.pieces[i]; !p.present && p.flight == nil {
			return i, d.claim(i, fillPieces, fillBytes), nil
		}
	}
	return 0, 0, nil
}

// admit makes the complete disk an entry of the store, and has the link lead there.
func (d *OnDemand) admit(ctx context.Context) error {
	m := manifest{
		Created: d.store.now(), Origin: d.note.Origin, Verified: d.Verified, SHA256: d.note.SHA256, SHA512: d.note.SHA512,
		Format: Raw, VirtualSize: d.index.Size, Base: d.note.Base, Key: d.note.Key, Extra: d.note.Extra,
	}
	entry, err := d.store.publish(ctx, d.temp, preparedDir, preparedName(m.Base, m.Key), m)
	if err != nil {
		return err
	}
	d.entry = entry
	if entry.Reused { // another process was first; this run goes on with its own
		return nil
	}
	next := d.Path + ".new"
	if err := os.Symlink(entry.Path, next); err != nil {
		return err
	}
	return os.Rename(next, d.Path)
}
