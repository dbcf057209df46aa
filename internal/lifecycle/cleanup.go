package lifecycle

import (
	"context"
	"errors"
	"fmt"
)

// cleanupBudget bounds all cleaning up together of a run that nobody interrupts.
const cleanupBudget = endBudget

// cleanup undoes what a run began, the latest first.
type cleanup struct {
	steps []cleanupStep
}

type cleanupStep struct {
	name string
	undo func(context.Context) error
}

// push remembers how to undo something. It is called before the thing can
// fail half way, so undo must do no harm when there is nothing to undo.
func (c *cleanup) push(name string, undo func(context.Context) error) {
	c.steps = append(c.steps, cleanupStep{name, undo})
}

// run undoes everything that is left.
func (c *cleanup) run(ctx context.Context) error { return c.runTo(ctx, 0) }

// runTo undoes all but the first keep steps, even when a step fails or panics, and joins the errors.
// The context is that of the end of the run, see ending.
func (c *cleanup) runTo(ctx context.Context, keep int) error {
	var errs []error
	for len(c.steps) > keep {
		last := c.steps[len(c.steps)-1]
		c.steps = c.steps[:len(c.steps)-1]
		if err := guarded(ctx, last.undo); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", last.name, err))
		}
	}
	return errors.Join(errs...)
}

// guarded turns a panic of one step into its error: the steps after it matter more.
func guarded(ctx context.Context, undo func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error: %v", r)
		}
	}()
	return undo(ctx)
}
