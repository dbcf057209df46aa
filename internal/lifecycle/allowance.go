package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu"
)

// restoreTime bounds a restore until a command has run over SSH: it takes 0.6 to
// 1.3 s, and one that does not work must not cost much before the boot. The time
// for which the host had no processor for the machine or for us does not count,
// up to starvedTime: a saved machine is not to be given up for its host being
// busy. Without that time, four at once beside a load of four on two processors
// took up to 4.7 s, part of which this process waited as well.
const (
	restoreTime = 4 * time.Second
	starvedTime = 30 * time.Second
)

// allowance is how long a machine may take to come back.
type allowance struct {
	limit, most time.Duration                // without and with the time that does not count
	starved     func() time.Duration         // that time, so far, for want of a processor
	waited      func() time.Duration         // and for the job's cache
	machine     atomic.Pointer[qemu.Machine] // what the default of starved looks at
}

func restoreAllowance(limit time.Duration) *allowance {
	p := &allowance{limit: limit, most: starvedTime, waited: func() time.Duration { return 0 }}
	before := qemu.StarvedHere()
	p.starved = func() time.Duration {
		// Most of the time one waits for the other.
		total := max(qemu.StarvedHere()-before, 0)
		if m := p.machine.Load(); m != nil {
			total += m.Starved()
		}
		return total
	}
	return p
}

// lateError is why a machine that did not come back within its allowance is
// given up.
type lateError struct{ within, waited time.Duration }

func (e *lateError) Error() string {
	text := fmt.Sprintf("no command ran over SSH within %s", e.within.Round(100*time.Millisecond))
	if e.slowCache() {
		text += fmt.Sprintf(", %s of which its disk was waited for", e.waited.Round(100*time.Millisecond))
	}
	return text
}

// slowCache tells whether the job's cache, from which the machine's disk comes,
// was so slow that nothing is known of the machine.
func (e *lateError) slowCache() bool { return e.waited >= starvedTime/2 }

// caused puts the cause of a context's end before an error that came of it.
func caused(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// leastExtension is what is not worth waiting on for.
const leastExtension = 50 * time.Millisecond

// context ends with the allowance.
func (p *allowance) context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		timer := time.NewTimer(p.limit)
		defer timer.Stop()
		given := time.Duration(0)
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			waited := p.waited()
			more := min(p.starved()+waited, p.most) - given
			if more < leastExtension {
				cancel(&lateError{p.limit + given, waited})
				return
			}
			given += more
			timer.Reset(more)
		}
	}()
	return ctx, func() { cancel(nil) }
}
