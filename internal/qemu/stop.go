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
		m.enter(PhaseStopping)
	}
	m.mu.Unlock()
	var failed []error
	for _, try := range m.tries() {
		patience := ctx
		if try.forced {
			patience = context.WithoutCancel(ctx)
		}
		if m.hasEnded() || patience.Err() != nil {
			continue
		}
		if err := m.attempt(patience, try); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", try.what, err))
		}
	}
	return errors.Join(failed...)
}

// try is one way of making QEMU end.
type try struct {
	what   string
	limit  time.Duration
	do     func(context.Context) error
	forced bool // done even when the caller's patience has ended
}

// tries are the ways, in order.
func (m *Machine) tries() []try {
	var list []try
	if m.monitor != nil {
		list = append(list, try{what: "asking QEMU to quit", limit: quitTime, do: m.quit})
	}
	return append(list,
		try{what: "sending QEMU SIGTERM", limit: termTime, do: m.signal(syscall.SIGTERM)},
		try{what: "killing QEMU", limit: killTime, do: m.signal(syscall.SIGKILL), forced: true})
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
func (m *Machine) attempt(ctx context.Context, t try) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.limit, fmt.Errorf("it did not end within %v", t.limit))
	defer cancel()
	if err := t.do(ctx); err != nil && !m.hasEnded() {
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
	return m.monitor.Execute(ctx, "quit", nil, nil)
}

func (m *Machine) signal(s syscall.Signal) func(context.Context) error {
	return func(context.Context) error {
		if err := m.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return nil
	}
}
