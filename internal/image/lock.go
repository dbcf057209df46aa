package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// lock is a held lock on a file of the store. Locks are those of flock(2): the
// kernel frees them when their holder dies, however it dies.
type lock struct {
	once sync.Once
	f    *os.File // nil in a store that can't be written, whose entries nobody removes
	err  error
}

// Close frees the lock.
func (l *lock) Close() error {
	l.once.Do(func() {
		if l.f != nil {
			l.err = l.f.Close()
		}
	})
	return l.err
}

// locksDir holds the files that locks are on.
const locksDir = "locks"

// How a lock is taken: unix.LOCK_EX for the only user, unix.LOCK_SH for one of
// several.
type lockMode int

const (
	exclusive lockMode = unix.LOCK_EX
	shared    lockMode = unix.LOCK_SH
)

// ErrInUse says that another run uses, or makes, something.
var ErrInUse = errors.New("in use by another run")

// lock takes the lock of a name. When somebody else has it, waiting is called
// (unless it is nil) before the wait; an end of ctx ends the wait.
func (s *Store) lock(ctx context.Context, name string, mode lockMode, waiting func()) (*lock, error) {
	for {
		f, err := s.openLock(name)
		if err != nil || f == nil {
			return &lock{}, err
		}
		err = flock(f, mode|unix.LOCK_NB)
		if errors.Is(err, ErrInUse) {
			if waiting != nil {
				waiting()
				waiting = nil
			}
			err = flockWait(ctx, f, mode)
		}
		if err != nil {
			_ = f.Close() // the lock's error counts
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if isStill(f) {
			return &lock{f: f}, nil
		}
		_ = f.Close() // it was removed by Prune while we waited; make it anew
	}
}

// tryLock takes a lock for its only user, or returns ErrInUse at once.
func (s *Store) tryLock(name string) (*lock, error) {
	f, err := s.openLock(name)
	if err != nil || f == nil {
		return &lock{}, err
	}
	if err := flock(f, exclusive|unix.LOCK_NB); err != nil {
		_ = f.Close() // the lock's error counts
		return nil, err
	}
	if !isStill(f) {
		_ = f.Close() // somebody else has just removed it
		return nil, ErrInUse
	}
	return &lock{f: f}, nil
}

// openLock opens the file of a lock, or returns nil when the store can't be
// written and has none.
func (s *Store) openLock(name string) (*os.File, error) {
	path := filepath.Join(s.Dir, locksDir, name)
	if err := s.mkdir(locksDir); err != nil && !readOnly(err) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if readOnly(err) || errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening a lock of the image store: %w", err)
	}
	return f, nil
}

func flock(f *os.File, mode lockMode) error {
	for {
		err := unix.Flock(int(f.Fd()), int(mode))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrInUse
		}
		return err
	}
}

// flockWait waits for a lock. The system call can't be interrupted: after an
// end of ctx its goroutine stays until the other process frees the lock, takes
// it and closes the duplicate at once.
func flockWait(ctx context.Context, f *os.File, mode lockMode) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dup := os.NewFile(uintptr(fd), f.Name()) // a descriptor is small and positive
	done := make(chan error, 1)
	go func() {
		err := flock(dup, mode)
		// The lock belongs to the open file, which f shares: closing the
		// duplicate frees it only if f is closed as well.
		_ = dup.Close()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isStill tells whether an open file is still the one at its path.
func isStill(f *os.File) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	want, err := os.Stat(f.Name())
	return err == nil && os.SameFile(have, want)
}
