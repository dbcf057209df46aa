package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Part is the place of a packed entry that is being fetched. It outlives its
// process, so that a later one goes on where it stopped, and is one process's
// at a time.
type Part struct {
	path string
	dir  *os.File // locked
}

const (
	partsDir = "parts"
	partName = "packed"

	// partTime is how long something that nobody goes on with is kept.
	partTime = 24 * time.Hour
	// partEvery is how often who waits for another process looks again.
	partEvery = 50 * time.Millisecond
)

// Part takes the place of a packed entry with a digest, and waits for another
// process that has it. The digest is a word of letters and digits.
func (s *Store) Part(ctx context.Context, digest string) (*Part, error) {
	p, err := s.part(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("making a place in the snapshot store: %w", err)
	}
	return p, nil
}

func (s *Store) part(ctx context.Context, digest string) (*Part, error) {
	if s.Dir == "" || digest == "" || word(digest, len(digest)) != digest {
		return nil, errors.New("it has no directory, or what is fetched has no digest")
	}
	path := filepath.Join(s.Dir, partsDir, digest)
	for {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
		dir, err := os.Open(path)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // somebody has just removed it
			}
			return nil, err
		}
		err = tryFlock(dir, unix.LOCK_EX)
		if err == nil && isStill(dir) {
			return &Part{path: path, dir: dir}, nil
		}
		_ = dir.Close() // it is another's, or was removed
		if err != nil && !errors.Is(err, ErrInUse) {
			return nil, err
		}
		timer := time.NewTimer(partEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// Path is where the packed entry belongs. Files whose names begin with it
// belong to it as well.
func (p *Part) Path() string { return filepath.Join(p.path, partName) }

// Open opens the packed entry for reading.
func (p *Part) Open() (*os.File, error) { return os.Open(p.Path()) }

// Close lets go of the place and keeps what is there.
func (p *Part) Close() {
	_ = os.Remove(p.path) // works only where nothing is
	_ = p.dir.Close()     // nothing is written through it
}

// Remove removes what is there and lets go of the place.
func (p *Part) Remove() error {
	defer p.Close()
	return os.RemoveAll(p.path)
}

// sweepParts removes what nobody goes on with.
func (s *Store) sweepParts() {
	left, err := filepath.Glob(filepath.Join(s.Dir, partsDir, "*"))
	if err != nil {
		return
	}
	for _, path := range left {
		info, err := os.Stat(filepath.Join(path, partName))
		if err == nil && s.now().Sub(info.ModTime()) < partTime {
			continue
		}
		if dir, err := os.Open(path); err == nil {
			if tryFlock(dir, unix.LOCK_EX) == nil {
				_ = os.RemoveAll(path) // what can't be removed now is found by the next Prune
			}
			_ = dir.Close() // it was only locked
		}
	}
}

// Reserve checks that need bytes can be written to the store. The error is
// ErrSize when they can't.
func (s *Store) Reserve(need units.Bytes) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	return s.reserve(need)
}
