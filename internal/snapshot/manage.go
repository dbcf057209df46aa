package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Info is what List tells of an entry.
type Info struct {
	Name     string
	Manifest *Manifest   // nil when it can't be read
	Size     units.Bytes // on the disk
	Created  time.Time
	Used     time.Time // last
	InUse    bool      // by a run that is going on
	Problem  string    // why it can't be used; "" when it can, as far as is seen without reading the files

	damaged bool // as opposed to: of another version of this program
}

// List returns what is in the store, the last used first. A store that is not
// there is empty.
func (s *Store) List() ([]Info, error) {
	found, err := os.ReadDir(filepath.Join(s.Dir, entriesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing saved machines: %w", err)
	}
	var all []Info
	for _, f := range found {
		if i, ok := s.info(f.Name()); ok {
			all = append(all, i)
		}
	}
	slices.SortStableFunc(all, func(a, b Info) int { return b.Used.Compare(a.Used) })
	return all, nil
}

// info describes one entry; it is false for what has just vanished.
func (s *Store) info(name string) (Info, bool) {
	dir := filepath.Join(s.Dir, entriesDir, name)
	stat, err := os.Stat(dir)
	if err != nil {
		return Info{}, false
	}
	i := Info{Name: name, Created: stat.ModTime(), Used: stat.ModTime()}
	if i.Manifest, err = readEntry(dir); err != nil {
		i.Problem, i.damaged = err.Error(), errors.Is(err, ErrDamaged)
	} else {
		i.Created = i.Manifest.Created
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		i.Problem = err.Error()
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			i.Size += allocated(info)
			if f.Name() == usedName {
				i.Used = info.ModTime()
			}
		}
	}
	if used, err := openUsed(dir); err == nil {
		i.InUse = errors.Is(tryFlock(used, unix.LOCK_EX), ErrInUse)
		_ = used.Close() // it was only looked at
	}
	return i, true
}

// allocated is the space that a file takes.
func allocated(info os.FileInfo) units.Bytes {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return units.Bytes(st.Blocks * 512) // st_blocks counts 512 bytes whatever the file system's block
	}
	return units.Bytes(info.Size())
}

// Remove removes an entry by its name. The error is ErrInUse when it is in
// use, and ErrMiss when there is none.
func (s *Store) Remove(name string) error {
	if err := s.remove(name); err != nil {
		return fmt.Errorf("removing the saved machine %s: %w", name, err)
	}
	return nil
}

func (s *Store) remove(name string) error {
	if !validName(name) {
		return ErrMiss
	}
	dir := filepath.Join(s.Dir, entriesDir, name)
	used, err := os.OpenFile(filepath.Join(dir, usedName), os.O_RDWR, 0)
	if err == nil {
		defer func() { _ = used.Close() }() // it has no more use
		if err := tryFlock(used, unix.LOCK_EX); err != nil {
			return err
		}
		if !isStill(used) {
			return ErrMiss // somebody else has just removed it
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// First out of the way at once, then piece by piece.
	d, err := s.begin()
	if err != nil {
		return err
	}
	defer d.Discard()
	err = os.Rename(dir, filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrMiss
	}
	return err
}

// Pruned is what Prune has done.
type Pruned struct {
	Removed []Info
	Freed   units.Bytes
	Kept    units.Bytes // what the store takes now
}

// Prune removes what is damaged, what was not used for longer than unused (0
// for no limit), and then, the least recently used first, whatever is above
// size (0 for no limit). What is in use stays.
func (s *Store) Prune(ctx context.Context, unused time.Duration, size units.Bytes) (Pruned, error) {
	var p Pruned
	s.sweep()
	s.sweepParts()
	all, err := s.List()
	if err != nil {
		return p, err
	}
	for _, i := range all {
		p.Kept += i.Size
	}
	slices.Reverse(all)
	// What is damaged goes before anything that can.
	slices.SortStableFunc(all, func(a, b Info) int { return rank(a) - rank(b) })
	for _, i := range all {
		old := unused > 0 && s.now().Sub(i.Used) > unused
		large := size > 0 && p.Kept > size
		if !i.damaged && !old && !large {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return p, err
		}
		err := s.Remove(i.Name)
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err != nil && !errors.Is(err, ErrMiss) {
			return p, err
		}
		p.Removed = append(p.Removed, i)
		p.Freed += i.Size
		p.Kept -= i.Size
	}
	return p, nil
}

func rank(i Info) int {
	if i.damaged {
		return 0
	}
	return 1
}
