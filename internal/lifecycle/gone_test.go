package lifecycle

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/guest"
)

// TestCollectWithin: only a script that took too long leaves time for its files.
func TestCollectWithin(t *testing.T) {
	for _, tc := range []struct {
		cause error
		want  time.Duration
	}{
		{timeoutError{"timeout", time.Second}, collectTime},
		{fmt.Errorf("the script was stopped: %w", timeoutError{"idle-timeout", time.Second}), collectTime},
		{Interrupt{syscall.SIGINT}, time.Second},
		{findingError{}, time.Second},
		{guest.ErrLost, time.Second},
		{nil, time.Second},
	} {
		if got := collectWithin(tc.cause); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.cause, got, tc.want)
		}
	}
}

// TestGone: a guest that is known to be lost is not asked, whatever its
// connection says.
func TestGone(t *testing.T) {
	r := &run{}
	r.checkout.lost = errors.New("the kernel panicked")
	if err := r.gone(); !errors.Is(err, r.checkout.lost) {
		t.Errorf("gone() = %v", err)
	}
	if err := r.letGo(t.Context()); !errors.Is(err, r.checkout.lost) { // there is no connection to ask
		t.Errorf("letGo() = %v", err)
	}
}
