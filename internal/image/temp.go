package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// temp is a directory in which an entry is made. Its maker holds a lock on it,
// so that what a killed process left can be told from what is in work.
type temp struct {
	path string // "" when it has become an entry
	dir  *os.File
}

// temp makes a new temporary directory, after removing those of dead processes.
func (s *Store) temp() (*temp, error) {
	if err := s.mkdir("tmp"); err != nil {
		return nil, fmt.Errorf("writing to the image store: %w", err)
	}
	s.sweep()
	for {
		path, err := os.MkdirTemp(filepath.Join(s.Dir, "tmp"), "new-")
		if err != nil {
			return nil, fmt.Errorf("writing to the image store: %w", err)
		}
		dir, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has swept it away, not knowing that it is new
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
		if err := flock(dir, exclusive|unix.LOCK_NB); err == nil && isStill(dir) {
			return &temp{path: path, dir: dir}, nil
		}
		_ = dir.Close() // as above, or about to be
	}
}

// remove deletes the directory; when it has become an entry only its lock is
// freed. It is always called.
func (t *temp) remove() {
	if t.path != "" {
		// What can't be removed now is found by the next sweep.
		_ = os.RemoveAll(t.path)
	}
	_ = t.dir.Close()
}

// sweep removes temporary directories whose makers are dead. It is only
// cleaning: what fails now is tried again the next time.
func (s *Store) sweep() {
	left, err := filepath.Glob(filepath.Join(s.Dir, "tmp", "new-*"))
	if err != nil {
		return
	}
	for _, path := range left {
		dir, err := os.Open(path)
		if err != nil {
			continue
		}
		if flock(dir, exclusive|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = dir.Close()
	}
}
