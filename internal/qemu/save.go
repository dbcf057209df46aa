package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ignoreShared leaves memory that is a shared file out of a saved machine's
// stream (qapi/migration.json; still marked as experimental in QEMU 10). Both
// sides must have it.
const ignoreShared = "x-ignore-shared"

// pollEvery is how often a migration is asked for its state: loading takes some
// ten milliseconds, and the question next to nothing.
const pollEvery = 4 * time.Millisecond

// Save stops the machine and writes the state of its devices to a file, whose
// content it replaces. When it returns the guest stands still: its memory (the
// file of a Spec with RAM.Shared) and its disks are complete and do not change
// until Resume, and belong together with the state. Without RAM.Shared the
// memory is in the state as well. The error is the machine's when it ended.
func (m *Machine) Save(ctx context.Context, state *os.File) error {
	if err := m.save(ctx, state); err != nil {
		return fmt.Errorf("saving the machine: %w", m.orExit(err))
	}
	return nil
}

func (m *Machine) save(ctx context.Context, state *os.File) error {
	if err := m.monitor.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := errors.Join(state.Truncate(0), rewind(state)); err != nil {
		return err
	}
	if err := m.prepareMigration(ctx, state); err != nil {
		return err
	}
	if err := m.monitor.Execute(ctx, "migrate", map[string]any{"uri": "fd:" + stateFD}, nil); err != nil {
		return err
	}
	return m.awaitMigration(ctx)
}

// Load reads the state of a saved machine into one that was started with
// Spec.Incoming "defer", and leaves it standing still. Resume lets it run.
func (m *Machine) Load(ctx context.Context, state *os.File) error {
	if err := m.load(ctx, state); err != nil {
		return fmt.Errorf("loading the saved machine: %w", m.orExit(err))
	}
	return nil
}

func (m *Machine) load(ctx context.Context, state *os.File) error {
	if err := rewind(state); err != nil {
		return err
	}
	if err := m.prepareMigration(ctx, state); err != nil {
		return err
	}
	if err := m.monitor.Execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:" + stateFD}, nil); err != nil {
		return err
	}
	return m.awaitMigration(ctx)
}

// Pause stops the guest, which notices nothing but the time; Resume lets it go on.
func (m *Machine) Pause(ctx context.Context) error {
	if err := m.monitor.Execute(ctx, "stop", nil, nil); err != nil {
		return fmt.Errorf("pausing the machine: %w", m.orExit(err))
	}
	return nil
}

// Resume lets a machine go on that stands still after Save, Load or Pause.
func (m *Machine) Resume(ctx context.Context) error {
	if err := m.monitor.Execute(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("resuming the machine: %w", m.orExit(err))
	}
	return m.WaitPhase(ctx, PhaseRunning)
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, 0)
	return err
}

// stateFD is what QEMU calls the descriptor of the state.
const stateFD = "state"

// prepareMigration sets what both sides must have set alike, and hands the
// file over. QEMU closes its copy when the migration has ended.
func (m *Machine) prepareMigration(ctx context.Context, state *os.File) error {
	capabilities := map[string]any{"capabilities": []map[string]any{{"capability": ignoreShared, "state": true}}}
	if err := m.monitor.Execute(ctx, "migrate-set-capabilities", capabilities, nil); err != nil {
		return err
	}
	// A machine that does not run has nothing to be throttled for.
	unlimited := map[string]any{"max-bandwidth": int64(1) << 40}
	if err := m.monitor.Execute(ctx, "migrate-set-parameters", unlimited, nil); err != nil {
		return err
	}
	return m.monitor.ExecuteFile(ctx, "getfd", map[string]any{"fdname": stateFD}, nil, state)
}

// migration is what query-migrate says (qapi/migration.json).
type migration struct {
	Status string `json:"status"`
	Error  string `json:"error-desc"`
}

// awaitMigration waits for the end of a migration in either direction.
func (m *Machine) awaitMigration(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		var now migration
		if err := m.monitor.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			if now.Error == "" {
				now.Error = "QEMU does not say why"
			}
			return fmt.Errorf("the migration %s: %s", now.Status, now.Error)
		}
		select {
		case <-ticker.C:
		case <-m.done:
			return m.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
