package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Store keeps saved machines in a directory, whose file system should know
// holes. Its methods may be called by several goroutines, and the directory
// may be used by several processes.
type Store struct {
	Dir string           // made, for the user alone, when it is first written to
	Now func() time.Time // nil means time.Now
}

// What a store and an entry consist of, beside an entry's three files.
const (
	entriesDir   = "entries"
	draftsDir    = "drafts"
	manifestName = "manifest.json"
	usedName     = "used"   // locked by users; its time is that of the last use
	failedName   = "failed" // why the entry is of no use; whoever can removes it
)

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Entry is a saved machine that is held for use: no Prune removes it before
// Close. Any number of machines can be restored from it at once.
type Entry struct {
	Manifest *Manifest

	dir  string
	used *os.File
}

// Name is the entry's name in the store.
func (e *Entry) Name() string { return filepath.Base(e.dir) }

// Path is where one of the files State, RAM and Disk is. Its mode is 0444: it
// is to be opened for reading only.
func (e *Entry) Path(name string) string { return filepath.Join(e.dir, name) }

// Close ends the use of the entry. Only the first call counts.
func (e *Entry) Close() error {
	if err := e.used.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Find takes the first entry of the keys for use, without reading the files:
// Verify must have succeeded before a machine that was restored from it runs,
// and can do its work while QEMU starts. The error is ErrMiss when there is
// none; when there is only one that is of no use it is ErrDamaged, and the
// entry is removed.
func (s *Store) Find(ctx context.Context, keys ...Key) (*Entry, error) {
	return s.first(ctx, keys, func(*Entry) error { return nil })
}

// Open is Find with a Verify of each entry that is found.
func (s *Store) Open(ctx context.Context, keys ...Key) (*Entry, error) {
	return s.first(ctx, keys, func(e *Entry) error { return e.Verify(ctx) })
}

// first returns the first entry of the keys that verify has nothing against.
func (s *Store) first(ctx context.Context, keys []Key, verify func(*Entry) error) (*Entry, error) {
	failure := fmt.Errorf("%w in %s", ErrMiss, s.Dir)
	for _, k := range keys {
		e, err := s.find(ctx, k)
		if err == nil {
			if err = verify(e); err == nil {
				return e, nil
			}
			_ = e.Close() // why it is not used counts
		}
		if errors.Is(err, ErrMiss) {
			continue
		}
		if errors.Is(err, ErrDamaged) {
			// Cleaning: what can't be removed now is found by the next Prune.
			_ = s.giveUp(k.String(), err.Error())
		}
		failure = fmt.Errorf("opening the saved machine %s: %w", k, err)
	}
	return nil, failure
}

// find takes the entry of a key for use.
func (s *Store) find(ctx context.Context, k Key) (*Entry, error) {
	dir := filepath.Join(s.Dir, entriesDir, k.String())
	used, err := openUsed(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err == nil {
			return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, usedName)
		}
		return nil, ErrMiss
	}
	if err != nil {
		return nil, err
	}
	err = shareLock(ctx, used)
	if err == nil && !isStill(used) {
		err = ErrMiss // it was removed while we waited
	}
	e := &Entry{dir: dir, used: used}
	if err == nil {
		e.Manifest, err = readEntry(dir)
	}
	if errors.Is(err, ErrIncompatible) { // another format has other names
		err = fmt.Errorf("%w: %v", ErrDamaged, err) //nolint:errorlint // it can't be both
	}
	if err == nil && e.Manifest.Key.String() != k.String() {
		err = fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, e.Manifest.Key)
	}
	if err != nil {
		_ = used.Close() // the entry's error counts
		return nil, err
	}
	// The time of use only orders what Prune removes; a store that can't be
	// written is not pruned either.
	_ = os.Chtimes(used.Name(), time.Time{}, s.now())
	return e, nil
}

// openUsed opens the lock of an entry. One in a store that can't be written
// can be shared all the same.
func openUsed(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, usedName), os.O_RDWR, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Join(dir, usedName))
	}
	return f, err
}

// readEntry reads the manifest of an entry and looks whether its files are
// there and have the size that it says.
func readEntry(dir string) (*Manifest, error) {
	if why, err := os.ReadFile(filepath.Join(dir, failedName)); err == nil {
		return nil, fmt.Errorf("%w: it was given up: %s", ErrDamaged, why)
	}
	info, err := os.Stat(filepath.Join(dir, manifestName))
	if err == nil && info.Size() > maxManifest {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(filepath.Join(dir, manifestName))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: reading its manifest: %v", ErrDamaged, err) //nolint:errorlint // a missing manifest is no missing entry
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		info, err := os.Lstat(filepath.Join(dir, f.Name))
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrDamaged, err) //nolint:errorlint // as above
		}
		if !info.Mode().IsRegular() || units.Bytes(info.Size()) != f.Size {
			return nil, fmt.Errorf("%w: %s has %d bytes, the manifest says %d", ErrDamaged, f.Name, info.Size(), int64(f.Size))
		}
	}
	return m, nil
}

// Verify reads the files and compares their CRC-32C with the manifest's. The
// error is ErrDamaged when they differ.
func (e *Entry) Verify(ctx context.Context) error { return e.compare(ctx, false) }

// VerifyStrongly is Verify that compares SHA-256 as well.
func (e *Entry) VerifyStrongly(ctx context.Context) error { return e.compare(ctx, true) }

func (e *Entry) compare(ctx context.Context, both bool) error {
	for _, want := range e.Manifest.Files {
		f, err := os.Open(e.Path(want.Name))
		if err != nil {
			return fmt.Errorf("%w: %v", ErrDamaged, err) //nolint:errorlint // as in readEntry
		}
		s, err := sum(ctx, f, both)
		_ = f.Close() // it was only read
		if err != nil {
			return fmt.Errorf("verifying the saved machine: %w", err)
		}
		have := fileOf(want.Name, int64(want.Size), s)
		if !both {
			have.SHA256 = want.SHA256
		}
		if have != want {
			return fmt.Errorf("%w: the contents of %s are not those that were saved", ErrDamaged, e.Path(want.Name))
		}
	}
	return nil
}

// fileOf describes a file with its sums.
func fileOf(name string, size int64, s Sums) File {
	return File{Name: name, Size: units.Bytes(size), Data: s.Data, SHA256: s.SHA256, CRC32C: s.CRC32C}
}

// Evict ends the use of an entry that turned out to be of no use, and removes
// it. When others use it, it is marked, so that nobody begins to, and goes with
// the next Prune or Commit.
func (s *Store) Evict(e *Entry, why string) error {
	return errors.Join(e.Close(), s.giveUp(e.Name(), why))
}

// giveUp gives an entry up.
func (s *Store) giveUp(name, why string) error {
	err := s.Remove(name)
	if errors.Is(err, ErrInUse) {
		err = os.WriteFile(filepath.Join(s.Dir, entriesDir, name, failedName), []byte(strings.ToValidUTF8(why, "?")), 0o600)
	}
	if errors.Is(err, ErrMiss) || errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else has removed it
	}
	return err
}
