package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// What an Entry is.
const (
	EntryImage    = "image"    // as its publisher made it
	EntryPrepared = "prepared" // made from an image
	EntryDownload = "download" // received in part
	EntryPin      = "pin"      // a published hash
)

// Entry is something in the store.
type Entry struct {
	Type        string
	Name        string // unique among those of its type; Find takes its beginning
	Origin      string
	Digest      string      // of the file as it was published; "" for downloads
	Size        units.Bytes // on the disk
	VirtualSize units.Bytes // of the disk image; 0 for others
	Created     time.Time
	Used        time.Time // last
	InUse       bool      // by a run that is going on
	Problem     string    // why it can't be used; "" when it can

	dir string // images, prepared, downloads or pins
}

// ErrNoEntry says that the store has nothing of a name.
var ErrNoEntry = errors.New("no such entry in the image store")

// List returns what is in the store, the last used first. A store that is not
// there is empty.
func (s *Store) List() ([]Entry, error) {
	var all []Entry
	for _, dir := range []string{imagesDir, preparedDir, downloadsDir, pinsDir} {
		found, err := os.ReadDir(filepath.Join(s.Dir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, explain("listing", s.Dir, err)
		}
		for _, f := range found {
			if e, ok := s.entry(dir, f.Name()); ok {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	return all, nil
}

// entry describes one entry; it is false for what vanishes or belongs to another one.
func (s *Store) entry(dir, name string) (Entry, bool) {
	info, err := os.Stat(filepath.Join(s.Dir, dir, name))
	if err != nil {
		return Entry{}, false
	}
	e := Entry{Name: name, Created: info.ModTime(), Used: info.ModTime(), Size: sparse.Allocated(info), dir: dir}
	switch dir {
	case downloadsDir:
		e.Type = EntryDownload
		return e, !strings.HasSuffix(name, ".json")
	case pinsDir:
		e.Type, e.Name = EntryPin, strings.TrimSuffix(name, ".json")
		p, err := readPin(filepath.Join(s.Dir, dir, name))
		if err != nil {
			e.Problem = err.Error()
		}
		e.Origin, e.Digest = p.List+" "+p.File, digestOf(p)
		return e, strings.HasSuffix(name, ".json")
	}
	s.describe(&e)
	return e, true
}

func digestOf(p pin) string {
	if p.SHA512 != "" {
		return "sha512:" + p.SHA512
	}
	return "sha256:" + p.SHA256
}

// describe completes an entry that is an image or a prepared disk.
func (s *Store) describe(e *Entry) {
	e.Type = EntryImage
	if e.dir == preparedDir {
		e.Type = EntryPrepared
	}
	m, err := s.read(e.dir, e.Name)
	if err != nil {
		e.Problem = err.Error()
	}
	e.Origin, e.VirtualSize, e.Digest = m.Origin, m.VirtualSize, "sha256:"+m.SHA256
	if m.Base != "" {
		e.Digest = m.Base
	}
	if !m.Created.IsZero() {
		e.Created = m.Created
	}
	if info, err := os.Stat(filepath.Join(s.Dir, e.dir, e.Name, usedName)); err == nil {
		e.Used = info.ModTime()
	}
	files, err := os.ReadDir(filepath.Join(s.Dir, e.dir, e.Name))
	if err != nil {
		e.Problem = err.Error()
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			e.Size += sparse.Allocated(info)
		}
	}
	l, err := s.tryLock(e.dir + "-" + e.Name)
	if e.InUse = errors.Is(err, ErrInUse); err == nil {
		_ = l.Close() // it was only looked at
	}
}

// Verify reads the disk of an entry and compares it with what was noted when
// it was made. Prepared disks have no digest: of them size and time of change
// are compared.
func (s *Store) Verify(ctx context.Context, e Entry) error {
	err := s.verify(ctx, e)
	return explain("verifying", e.Origin, err)
}

func (s *Store) verify(ctx context.Context, e Entry) error {
	if e.dir != imagesDir && e.dir != preparedDir {
		return nil // a download is verified at its end, a pin holds nothing but itself
	}
	b, m, err := s.hold(ctx, e.dir, e.Name)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only its use ends
	if m.Content == "" {
		return nil
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	have, err := sparse.Sum(ctx, f)
	if err != nil {
		return err
	}
	if have != m.Content {
		return fmt.Errorf("%w: the contents of %s are not those that were written (digest %s, noted %s)", ErrDamaged, b.Path, have, m.Content)
	}
	return nil
}

// Find returns the entries whose name begins with the given text, or whose
// origin, digest or preset it is.
func (s *Store) Find(text string) ([]Entry, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []Entry
	for _, e := range all {
		if strings.HasPrefix(e.Name, text) || strings.HasPrefix(e.Digest, text) || e.Origin == text || strings.HasPrefix(e.Origin, text+" ") {
			found = append(found, e)
		}
	}
	if len(found) == 0 || text == "" {
		return nil, &Error{Op: "looking for", Source: text, Err: ErrNoEntry, Hint: "hurd-qemu-action image list shows what there is"}
	}
	return found, nil
}

// Remove removes an entry, unless it is in use: then the error is ErrInUse.
func (s *Store) Remove(e Entry) error {
	return explain("removing", cmp.Or(e.Origin, e.Name), s.remove(e.dir, e.Name))
}

func (s *Store) remove(dir, name string) error {
	switch dir {
	case pinsDir:
		return os.Remove(filepath.Join(s.Dir, dir, name+".json"))
	case downloadsDir:
		l, err := s.tryLock("fetching-" + name)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }() // it has no more use
		path := filepath.Join(s.Dir, dir, name)
		return errors.Join(os.Remove(path), ignoreMissing(os.Remove(path+".json")))
	}
	l, err := s.tryLock(dir + "-" + name)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // it has no more use
	// First out of the way at once, then piece by piece.
	t, err := s.temp()
	if err != nil {
		return err
	}
	defer t.remove()
	if err := os.Rename(filepath.Join(s.Dir, dir, name), filepath.Join(t.path, name)); err != nil {
		return err
	}
	if err := os.RemoveAll(t.path); err != nil {
		return err
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Pruned is what Prune has done.
type Pruned struct {
	Removed []Entry
	Freed   units.Bytes
	Kept    units.Bytes // what the store takes now
}

// Prune removes what was not used for longer than unused (0 for no limit), and
// then, the least recently used first, whatever is above size (0 for no
// limit). What is in use stays, and so do pins, which take no space to speak of.
func (s *Store) Prune(ctx context.Context, unused time.Duration, size units.Bytes) (Pruned, error) {
	var p Pruned
	s.sweep()
	all, err := s.List()
	if err != nil {
		return p, err
	}
	for _, e := range all {
		p.Kept += e.Size
	}
	slices.Reverse(all)
	for _, e := range all {
		old := unused > 0 && s.now().Sub(e.Used) > unused
		large := size > 0 && p.Kept > size
		if e.Type == EntryPin || !old && !large {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return p, err
		}
		err := s.Remove(e)
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err != nil {
			return p, err
		}
		p.Removed = append(p.Removed, e)
		p.Freed += e.Size
		p.Kept -= e.Size
	}
	s.forgetLocal(unused)
	s.forgetLocks()
	return p, nil
}

// forgetLocks removes the lock files that nobody holds. Who waits for one
// notices and makes it anew.
func (s *Store) forgetLocks() {
	for _, name := range s.entries(locksDir) {
		if l, err := s.tryLock(name); err == nil && l.f != nil {
			_ = os.Remove(l.f.Name()) // else it stays, and is no harm
			_ = l.Close()
		}
	}
}

// forgetLocal removes remembered hashes of local files. They are tiny and made
// again when needed, so nothing depends on it.
func (s *Store) forgetLocal(unused time.Duration) {
	for _, name := range s.entries(localDir) {
		path := filepath.Join(s.Dir, localDir, name)
		if info, err := os.Stat(path); err == nil && unused > 0 && s.now().Sub(info.ModTime()) > unused {
			_ = os.Remove(path)
		}
	}
}

// readOnly tells the errors of a file system or directory that can't be
// written to.
func readOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}
