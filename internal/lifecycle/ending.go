package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// endBudget is from an interrupt to the end of the run, all that comes back
// from the guest and all cleaning up included. The runner sends SIGINT, 7.5 s
// later SIGTERM, and kills 2.5 s after that (actions/runner, ProcessInvoker.cs).
const endBudget = 6500 * time.Millisecond

// stopReserve is what of it is kept for ending QEMU and removing what is left.
const stopReserve = 1200 * time.Millisecond

// ending knows when a run was interrupted.
type ending struct {
	mu   sync.Mutex
	at   time.Time     // of the interrupt; zero: there was none
	told chan struct{} // closed then; nil: nobody has asked yet
}

// signal is closed when the run is interrupted.
func (e *ending) signal() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.told == nil {
		e.told = make(chan struct{})
		if !e.at.IsZero() {
			close(e.told)
		}
	}
	return e.told
}

// interrupted remembers the time of the interrupt; only the first counts.
func (e *ending) interrupted(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at.IsZero() {
		e.at = now
		if e.told != nil {
			close(e.told)
		}
	}
}

// deadline is when an interrupted run must have ended.
func (e *ending) deadline() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at.IsZero() {
		return time.Now().Add(endBudget) // it is being interrupted now
	}
	return e.at.Add(endBudget)
}

// soon tells when an interrupted run must end; false: nobody has interrupted it.
func (e *ending) soon() (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at.Add(endBudget - stopReserve), !e.at.IsZero()
}

// budgetError is why something at the end of an interrupted run was given up.
type budgetError struct{}

func (budgetError) Error() string {
	return fmt.Sprintf("the run was interrupted, and the %s that the runner leaves were over", endBudget)
}

// context is for what is done at the end of a run whose own context may have
// ended. It is bounded by limit, and from an interrupt on, be it now or later,
// by what remains of the budget when reserve is kept for what comes after.
func (e *ending) context(ctx context.Context, limit, reserve time.Duration) (context.Context, context.CancelFunc) {
	limited, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it took longer than %s", limit))
	out, cancel := context.WithCancelCause(limited)
	go func() {
		select {
		case <-out.Done():
			return
		case <-e.signal():
		}
		timer := time.NewTimer(time.Until(e.deadline().Add(-reserve)))
		defer timer.Stop()
		select {
		case <-out.Done():
		case <-timer.C:
			cancel(budgetError{})
		}
	}()
	return out, func() {
		cancel(nil)
		stop()
	}
}
