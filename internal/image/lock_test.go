package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestLocks(t *testing.T) {
	s := newStore(t)
	take := func(mode lockMode) *lock {
		t.Helper()
		l, err := s.lock(t.Context(), "x", mode, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	release := func(l *lock) {
		t.Helper()
		if err := errors.Join(l.Close(), l.Close()); err != nil { // twice is as good as once
			t.Error(err)
		}
	}
	a, b := take(shared), take(shared)
	if _, err := s.tryLock("x"); !errors.Is(err, ErrInUse) {
		t.Errorf("while two share it: %v", err)
	}
	release(a)
	if _, err := s.tryLock("x"); !errors.Is(err, ErrInUse) {
		t.Errorf("while one has it: %v", err)
	}
	other, err := s.tryLock("y")
	if err != nil {
		t.Errorf("another name: %v", err)
	}
	release(other)
	release(b)
	release(take(exclusive))
}

// TestLockWaits holds that who waits gets the lock when it is freed, also when
// its file was removed in between.
func TestLockWaits(t *testing.T) {
	for _, removed := range []bool{false, true} {
		s := newStore(t)
		held, err := s.lock(t.Context(), "x", exclusive, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		waiting := make(chan struct{})
		go func() {
			l, err := s.lock(t.Context(), "x", exclusive, func() { close(waiting) })
			if err == nil && !isStill(l.f) {
				err = errors.New("the lock is on a file that is not there any more")
			}
			got <- errors.Join(err, l.Close())
		}()
		<-waiting
		if removed {
			if err := os.Remove(filepath.Join(s.Dir, locksDir, "x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := held.Close(); err != nil {
			t.Error(err)
		}
		if err := <-got; err != nil {
			t.Errorf("removed %t: %v", removed, err)
		}
	}
}

// TestLockCanceled holds that a canceled wait leaves nothing behind once the
// lock is free: neither a goroutine nor a lock.
func TestLockCanceled(t *testing.T) {
	s := newStore(t)
	held, err := s.lock(t.Context(), "x", exclusive, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := s.lock(ctx, "x", shared, func() { cancel(stop) }); !errors.Is(err, stop) {
		t.Errorf("error %v, want the cause", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t)
	again, err := s.tryLock("x")
	if err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestTemp holds that a directory of a living maker is not swept away, and
// that of a dead one is.
func TestTemp(t *testing.T) {
	s := newStore(t)
	mine, err := s.temp()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(s.Dir, "tmp", "new-dead")
	if err := os.MkdirAll(filepath.Join(dead, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := s.temp() // sweeps
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine.path); err != nil {
		t.Errorf("a living maker's directory: %v", err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead maker's directory: %v", err)
	}
	mine.remove()
	other.remove()
}
