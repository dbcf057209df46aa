// Package domain puts digitalocean/go-qemu's view of a machine, its Domain
// and the types of its answers, on our own monitor connection. go-qemu's own
// transport stops at replies of 64 KiB, knows no deadline, and lets a slow
// reader of events hold up every command.
package domain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	goqmp "github.com/digitalocean/go-qemu/qmp"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// defaultTimeout bounds a command of go-qemu's, whose methods take no context.
const defaultTimeout = 5 * time.Second

// Options of a Domain.
type Options struct {
	Name    string        // the machine's name, for go-qemu's own use
	Timeout time.Duration // for each command; 0 means 5 s
}

// New makes a go-qemu Domain of a connection, which stays the caller's:
// closing the domain ends its events and nothing else.
func New(conn *qmp.Conn, o Options) (*qemu.Domain, error) {
	d, err := qemu.NewDomain(NewMonitor(conn, o.Timeout), o.Name)
	if err != nil {
		return nil, fmt.Errorf("making a go-qemu domain: %w", err)
	}
	return d, nil
}

// Monitor is a connection as go-qemu wants it.
type Monitor struct {
	conn    *qmp.Conn
	timeout time.Duration
}

var _ goqmp.Monitor = (*Monitor)(nil)

// NewMonitor wraps a connection. Every command may take as long as timeout; 0
// means 5 s.
func NewMonitor(conn *qmp.Conn, timeout time.Duration) *Monitor {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Monitor{conn, timeout}
}

// Connect only tells whether the connection lives: it was made before.
func (m *Monitor) Connect() error {
	select {
	case <-m.conn.Done():
		return m.conn.Err()
	default:
		return nil
	}
}

// Disconnect does nothing: the connection belongs to whoever made it.
func (m *Monitor) Disconnect() error { return nil }

// Run sends a command, {"execute": ..., "arguments": ...}, and returns the
// reply, {"return": ...}. QEMU's refusal is a *qmp.Error.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	var c struct {
		Execute   string          `json:"execute"`
		Arguments json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, fmt.Errorf("decoding a command: %w", err)
	}
	var args any
	if c.Arguments != nil {
		args = c.Arguments
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), m.timeout, errors.New("QEMU took too long"))
	defer cancel()
	var reply struct {
		Return json.RawMessage `json:"return"`
	}
	if err := m.conn.Execute(ctx, c.Execute, args, &reply.Return); err != nil {
		return nil, err
	}
	return json.Marshal(reply)
}

// Events delivers events until the context or the connection ends. An event
// whose data is not a JSON object is delivered without data.
func (m *Monitor) Events(ctx context.Context) (<-chan goqmp.Event, error) {
	events := m.conn.Subscribe()
	out := make(chan goqmp.Event)
	go func() {
		defer close(out)
		defer events.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, open := <-events.Events():
				if !open {
					return
				}
				select {
				case out <- convert(e):
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

func convert(e qmp.Event) goqmp.Event {
	out := goqmp.Event{Event: e.Name}
	if json.Unmarshal(e.Data, &out.Data) != nil {
		out.Data = nil
	}
	if !e.Time.IsZero() {
		out.Timestamp.Seconds = e.Time.Unix()
		out.Timestamp.Microseconds = int64(e.Time.Nanosecond() / 1000)
	}
	return out
}
