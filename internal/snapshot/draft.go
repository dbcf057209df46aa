package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Draft is an entry that is being made, in a private directory on the store's
// file system. It ends with Commit or Discard.
type Draft struct {
	store *Store
	path  string
	moved bool     // it has become an entry
	dir   *os.File // locked, so that what a killed process left can be told from what is in work
}

// Begin makes a draft, after removing those of dead processes.
func (s *Store) Begin() (*Draft, error) {
	d, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("writing to the snapshot store: %w", err)
	}
	return d, nil
}

func (s *Store) begin() (*Draft, error) {
	if s.Dir == "" {
		return nil, errors.New("it has no directory: set cache-dir")
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, draftsDir), 0o700); err != nil {
		return nil, err
	}
	s.sweep()
	for {
		path, err := os.MkdirTemp(filepath.Join(s.Dir, draftsDir), "new-")
		if err != nil {
			return nil, err
		}
		dir, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has swept it away, not knowing that it is new
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
		if err := tryFlock(dir, unix.LOCK_EX); err == nil && isStill(dir) {
			return &Draft{store: s, path: path, dir: dir}, nil
		}
		_ = dir.Close() // as above, or about to be
	}
}

// sweep removes drafts whose makers are dead. It is only cleaning: what fails
// now is tried again the next time.
func (s *Store) sweep() {
	left, err := filepath.Glob(filepath.Join(s.Dir, draftsDir, "new-*"))
	if err != nil {
		return
	}
	for _, path := range left {
		dir, err := os.Open(path)
		if err != nil {
			continue
		}
		if tryFlock(dir, unix.LOCK_EX) == nil {
			_ = os.RemoveAll(path)
		}
		_ = dir.Close()
	}
}

// Path is where one of the files State, RAM and Disk belongs.
func (d *Draft) Path(name string) string { return filepath.Join(d.path, name) }

// Create makes one of the files State, RAM and Disk, empty and open for
// reading and writing.
func (d *Draft) Create(name string) (*os.File, error) {
	// Nobody but QEMU can open it, whom we hand a descriptor: the directory is private.
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a draft of a saved machine: %w", err)
	}
	return f, nil
}

// Copy makes one of the files from another one, as CopySparse does. The
// machine must stand still for it, and may go on when it returns.
func (d *Draft) Copy(ctx context.Context, name string, src *os.File) error {
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	if err := errors.Join(CopySparse(ctx, f, src), f.Close()); err != nil {
		return fmt.Errorf("copying the saved machine's %s: %w", name, err)
	}
	return nil
}

// Discard removes the draft, unless it has become an entry. It may always be
// called at the end.
func (d *Draft) Discard() {
	if !d.moved {
		// What can't be removed now is found by the next sweep.
		_ = os.RemoveAll(d.path)
	}
	_ = d.dir.Close()
}

// Commit sums the files, completes the manifest's Format and Files, and makes
// the draft the entry of the manifest's key, which it takes for use. When
// another process was first, its entry is taken and the draft is discarded.
// Nothing is synced to the disk: what a crash of the host takes from an entry
// is noticed when it is opened.
func (d *Draft) Commit(ctx context.Context, m Manifest) (*Entry, error) {
	defer d.Discard()
	m.Format, m.Files = Format, nil
	for _, name := range names {
		f, err := d.describe(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("keeping the saved machine: %w", err)
		}
		m.Files = append(m.Files, f)
	}
	e, err := d.publish(ctx, &m)
	if err != nil {
		return nil, fmt.Errorf("keeping the saved machine: %w", err)
	}
	return e, nil
}

func (d *Draft) describe(ctx context.Context, name string) (File, error) {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	s, err := Sum(ctx, f)
	return fileOf(name, info.Size(), s), err
}

// publish makes a draft with complete files the entry of its manifest.
func (d *Draft) publish(ctx context.Context, m *Manifest) (*Entry, error) {
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := d.seal(m); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.Path(manifestName), data, 0o600); err != nil {
		return nil, err
	}
	used, err := os.OpenFile(d.Path(usedName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// Held from the first moment on, so that no Prune takes what was just made.
	err = tryFlock(used, unix.LOCK_SH)
	if err == nil {
		now := d.store.now()
		err = os.Chtimes(used.Name(), now, now)
	}
	if err == nil {
		err = d.move(ctx, m)
	}
	if err != nil {
		_ = used.Close() // the first error counts
		if errors.Is(err, fs.ErrExist) {
			return d.store.Open(ctx, m.Key)
		}
		return nil, err
	}
	return &Entry{Manifest: m, dir: filepath.Join(d.store.Dir, entriesDir, m.Key.String()), used: used}, nil
}

// move gives the draft its place. An entry that is there already is an error
// that is fs.ErrExist, unless it is of no use.
func (d *Draft) move(ctx context.Context, m *Manifest) error {
	if err := os.MkdirAll(filepath.Join(d.store.Dir, entriesDir), 0o700); err != nil {
		return err
	}
	place := filepath.Join(d.store.Dir, entriesDir, m.Key.String())
	err := os.Rename(d.path, place)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		e, openErr := d.store.Open(ctx, m.Key)
		if openErr == nil {
			_ = e.Close() // it is opened again when our lock is gone
			return fs.ErrExist
		}
		if err := d.store.Remove(m.Key.String()); err != nil && !errors.Is(err, ErrMiss) {
			return err
		}
		err = os.Rename(d.path, place)
	}
	if err != nil {
		return err
	}
	d.moved = true
	return nil
}

// seal makes the files read-only for everybody. QEMU's user reads them through
// descriptors; others do not get into the directory.
func (d *Draft) seal(m *Manifest) error {
	f, err := os.Open(d.Path(Disk))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := checkOverlay(f, m.Key.Disks[0]); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Chmod(d.Path(name), 0o444); err != nil { //nolint:gosec // see above
			return err
		}
	}
	return nil
}
