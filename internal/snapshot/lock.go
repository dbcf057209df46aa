package snapshot

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Locks are those of flock(2): the kernel frees them when their holder dies,
// however it dies. An entry's lock is on a file in it, so that it comes and
// goes with the entry; who uses an entry shares it, who removes one has it alone.

// tryFlock takes a lock or returns ErrInUse at once.
func tryFlock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrInUse
		}
		return err
	}
}

// Somebody who removes an entry, or looks whether it is in use, has its lock
// alone for no more than a rename.
const (
	lockEvery = 2 * time.Millisecond
	lockLimit = 2 * time.Second
)

// shareLock takes a lock together with others.
func shareLock(ctx context.Context, f *os.File) error {
	err := tryFlock(f, unix.LOCK_SH)
	if !errors.Is(err, ErrInUse) {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockLimit, ErrInUse)
	defer cancel()
	ticker := time.NewTicker(lockEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			if err := tryFlock(f, unix.LOCK_SH); !errors.Is(err, ErrInUse) {
				return err
			}
		}
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
