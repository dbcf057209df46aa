package results

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retry does something again after failures that may pass: lost connections,
// silence, 429 and 5xx. Each try has a context of its own that a silence ends;
// touch tells that something was sent or received.
func (s *Service) retry(ctx context.Context, what string, do func(ctx context.Context, touch func()) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.Multiplier, wait.RandomizationFactor = time.Second, 30*time.Second, 2, 0.25
	wait.Reset()
	for try := 1; ; try++ {
		err := s.once(ctx, do)
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%s: %w", what, cause)
		}
		if !passing(err) {
			return err
		}
		if try >= s.tries() {
			return fmt.Errorf("%w (tried %d times)", err, try)
		}
		if err := s.pause(ctx, what, err, wait.NextBackOff()); err != nil {
			return err
		}
	}
}

func (s *Service) tries() int {
	if s.Tries > 0 {
		return s.Tries
	}
	return defaultTries
}

// pause waits before the next try, or returns the error that ends trying.
func (s *Service) pause(ctx context.Context, what string, failure error, wait time.Duration) error {
	longest := s.MaxWait
	if longest == 0 {
		longest = defaultMaxWait
	}
	var refused *APIError
	if errors.As(failure, &refused) && refused.RetryAfter > 0 {
		if refused.RetryAfter > longest {
			return failure
		}
		wait = max(refused.RetryAfter, wait)
	}
	if deadline, ok := ctx.Deadline(); ok && s.now().Add(wait).After(deadline) {
		return fmt.Errorf("%w; no time is left for another try", failure)
	}
	wait = wait.Round(time.Millisecond)
	s.notify("%v; trying again in %s", failure, wait.Round(100*time.Millisecond))
	sleep := s.Sleep
	if sleep == nil {
		sleep = sleepByClock
	}
	if err := sleep(ctx, wait); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func sleepByClock(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// once is one try. Silence for s.Stall ends it.
func (s *Service) once(ctx context.Context, do func(ctx context.Context, touch func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := s.stall()
	dog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("%w (%s)", ErrStalled, stall)) })
	defer dog.Stop()
	err := do(ctx, func() { dog.Reset(stall) })
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return plain(err)
	}
	return nil
}

// lasting marks an error that another try would only repeat.
type lasting struct{ error }

func (l lasting) Unwrap() error { return l.error }

// passing tells the errors that may not come again. What is no refusal comes
// from the network.
func passing(err error) bool {
	var refused *APIError
	if errors.As(err, &refused) {
		return refused.retryable()
	}
	var l lasting
	return !errors.As(err, &l)
}

// succeeded tells the statuses that mean yes.
func succeeded(status int) bool {
	return status >= http.StatusOK && status < http.StatusMultipleChoices
}
