package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// How long each way of asking QEMU to end may take. Their sum, with the
// time for reading the console to its end, stays under 3 s.
const (
	quitTime = 1000 * time.Millisecond
	termTime = 700 * time.Millisecond
	killTime = 700 * time.Millisecond
)

// Stop ends the machine and leaves nothing of it: no process, no socket, no
// descriptor, no goroutine. QEMU is asked by its monitor, then by SIGTERM,
// then killed; when ctx ends it is killed at once. The error joins what did
// not go as it should, which need not mean that QEMU is still there. Stop may
// be called again, and from several goroutines; only the first does anything.
func (m *Machine) Stop(ctx context.Context) error {
	m.stop.Lock()
	defer m.stop.Unlock()
	if m.released {
		return nil
	}
	err := m.end(ctx)
	select {
	case <-m.done:
		m.release()
	default: // it survives SIGKILL: keep what a second Stop would need
	}
	return err
}

func (m *Machine) end(ctx context.Context) error {
	m.mu.Lock()
	if m.exit == nil {
		m.wanted = true
		m.phase = PhaseStopping
	}
	m.mu.Unlock()
	var failed []error
	for _, try := range []struct {
		what  string
		limit time.Duration
		do    func(context.Context) error
		ctx   context.Context
	}{
		{"asking QEMU to quit", quitTime, m.quit, ctx},
		{"sending QEMU SIGTERM", termTime, m.signal(syscall.SIGTERM), ctx},
		{"killing QEMU", killTime, m.signal(syscall.SIGKILL), context.WithoutCancel(ctx)},
	} {
		if m.hasEnded() {
			break
		}
		if try.ctx.Err() != nil {
			continue
		}
		if err := m.attempt(try.ctx, try.limit, try.do); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", try.what, err))
		}
	}
	return errors.Join(failed...)
}

func (m *Machine) hasEnded() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// attempt does one thing and waits for the end that it should bring.
func (m *Machine) attempt(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v", limit))
	defer cancel()
	if err := do(ctx); err != nil && !m.hasEnded() {
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Machine) quit(ctx context.Context) error {
	m.mu.Lock()
	monitor := m.monitor
	m.mu.Unlock()
	if monitor == nil {
		return errors.New("it has no monitor yet")
	}
	return monitor.Execute(ctx, "quit", nil, nil)
}

func (m *Machine) signal(s syscall.Signal) func(context.Context) error {
	return func(context.Context) error {
		if err := m.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return nil
	}
}
