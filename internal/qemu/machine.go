package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// exitGrace is how long the other signs of an end may come after the first.
const exitGrace = time.Second

// Phase is where a machine is in its life.
type Phase string

// The phases, in order. Running and Paused may alternate.
const (
	PhaseCold     Phase = "cold"     // started, the guest has not run yet
	PhaseIncoming Phase = "incoming" // waiting for a saved machine to be loaded
	PhaseRunning  Phase = "running"
	PhasePaused   Phase = "paused"
	PhaseStopping Phase = "stopping" // its end was announced
	PhaseExited   Phase = "exited"
)

// Machine is a QEMU process with what belongs to it. Stop must be called in
// any case; it also cleans up after a machine that ended by itself.
type Machine struct {
	cmd         *exec.Cmd
	console     *console
	second      *console // nil: there is none
	monitorConn net.Conn // the monitor's, before monitor exists
	monitor     *qmp.Conn
	transcript  *transcript
	trace       *trace        // nil: none was asked for
	packets     *packets      // nil without a network card
	started     time.Time     // of the process
	socket      string        // of the tools' monitor, "" if there is none
	done        chan struct{} // closed when the process has ended
	faulted     chan struct{} // closed when fault is set
	watching    chan struct{} // closed when no more events come

	mu        sync.Mutex
	phase     Phase
	changed   chan struct{} // closed, and replaced, when phase changes
	announced ExitReason    // from the monitor
	wanted    bool          // Stop was called
	exit      *ExitError
	fault     *FaultError
	threads   []int // that run the guest's processors; nil: nobody has asked yet

	stop     sync.Mutex // held while stopping
	released bool
}

// FaultError says that the machine stands still because QEMU could not read
// or write a disk's file: most often the host's disk is full.
type FaultError struct {
	Disk      string // "disk0", ...
	Operation string // "read" or "write"
	Reason    string
	NoSpace   bool  // the host's disk is full
	Err       error // the cause, when it is known better than by its text; nil: it is not
}

// Error says what to do about a full disk.
func (e *FaultError) Error() string {
	text := fmt.Sprintf("the machine stands still: QEMU could not %s the file of %s: %s", e.Operation, e.Disk, e.Reason)
	if e.NoSpace {
		text += ": free some space on the host's disk"
	}
	return text
}

// Unwrap gives the cause.
func (e *FaultError) Unwrap() error { return e.Err }

func newMachine(s Spec, o StartOptions) *Machine {
	m := &Machine{
		transcript: &transcript{log: o.Log},
		done:       make(chan struct{}),
		faulted:    make(chan struct{}),
		phase:      PhaseCold,
		changed:    make(chan struct{}),
	}
	if s.Incoming != "" {
		m.phase = PhaseIncoming
	}
	return m
}

// PID is the process's; it is no one's after the machine has ended.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Args is the command line, program first.
func (m *Machine) Args() []string { return m.cmd.Args }

// Console is the guest's first serial line. What QEMU wrote before its end
// can be read at any time, also after Stop; then comes io.EOF.
func (m *Machine) Console() net.Conn { return m.console }

// Second is the guest's second serial line, nil when the Spec has none; read as
// Console is.
func (m *Machine) Second() net.Conn {
	if m.second == nil {
		return nil
	}
	return m.second
}

// Monitor is QEMU's monitor. Its connection ends with the machine.
func (m *Machine) Monitor() *qmp.Conn { return m.monitor }

// Socket is the path of the monitor for tools, "" when there is none.
func (m *Machine) Socket() string { return m.socket }

// Done is closed when the process has ended and Err knows how.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err is the *ExitError of a machine that has ended, and nil before.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exit == nil {
		return nil
	}
	return m.exit
}

// Phase tells where the machine is in its life.
func (m *Machine) Phase() Phase {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase
}

// WaitPhase waits until the machine is in a phase, which it may have left
// again by the time of the return. The error is the machine's when it ended,
// or stands still for a fault, and the context's otherwise.
func (m *Machine) WaitPhase(ctx context.Context, want Phase) error {
	for {
		m.mu.Lock()
		phase, changed, exit, fault := m.phase, m.changed, m.exit, m.fault
		m.mu.Unlock()
		switch {
		case phase == want:
			return nil
		case exit != nil:
			return fmt.Errorf("waiting for the machine to be %s: %w", want, exit)
		case fault != nil:
			return fmt.Errorf("waiting for the machine to be %s: %w", want, fault)
		}
		select {
		case <-changed:
		case <-m.faulted:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the machine to be %s, it is %s: %w", want, phase, context.Cause(ctx))
		}
	}
}

// enter changes the phase; the machine is locked.
func (m *Machine) enter(p Phase) {
	if m.phase != p {
		m.phase = p
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

// Context gives a context that also ends when the machine does, or when it
// stands still for a *FaultError, with that as its cause. The function
// releases it, as every context's.
func (m *Machine) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case <-m.done:
			cancel(m.Err())
		case <-m.faulted:
			m.mu.Lock()
			fault := m.fault
			m.mu.Unlock()
			cancel(fault)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// watch follows the monitor's events from now on.
func (m *Machine) watch(conn *qmp.Conn) {
	events := conn.Subscribe()
	watching := make(chan struct{})
	m.mu.Lock()
	m.monitor, m.watching = conn, watching
	m.mu.Unlock()
	go func() {
		defer close(watching)
		for e := range events.Events() {
			m.note(e)
		}
	}()
}

// note updates what is known of the machine.
func (m *Machine) note(e qmp.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "RESUME":
		m.enter(PhaseRunning)
	case "STOP":
		if m.phase != PhaseStopping {
			m.enter(PhasePaused)
		}
	case "SHUTDOWN":
		m.enter(PhaseStopping)
		m.announce(shutdownReason(e.Data))
	case "GUEST_PANICKED":
		m.announce(ExitGuestPanic)
	case "BLOCK_IO_ERROR":
		m.noteFault(e.Data)
	}
}

// announce keeps the first reason: a later one is only its consequence.
func (m *Machine) announce(r ExitReason) {
	if m.announced == "" {
		m.announced = r
	}
}

// noteFault keeps the first error that made QEMU stop the machine
// (qapi/block-core.json, BLOCK_IO_ERROR).
func (m *Machine) noteFault(data json.RawMessage) {
	var event struct {
		Node      string `json:"node-name"`
		Operation string `json:"operation"`
		Action    string `json:"action"`
		NoSpace   bool   `json:"nospace"`
		Reason    string `json:"reason"`
	}
	if json.Unmarshal(data, &event) != nil || event.Action != "stop" {
		return
	}
	m.setFault(FaultError{Disk: event.Node, Operation: event.Operation, Reason: event.Reason, NoSpace: event.NoSpace})
}

// Fault makes the machine one that stands still for a fault, for whoever serves
// a disk and knows better than QEMU why it can't be read. The first fault counts.
func (m *Machine) Fault(fault FaultError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setFault(fault)
}

// Faulted is the *FaultError of a machine that stands still for one, and nil
// for all others.
func (m *Machine) Faulted() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == nil {
		return nil
	}
	return m.fault
}

func (m *Machine) setFault(fault FaultError) {
	if m.fault == nil {
		m.fault = &fault
		close(m.faulted)
	}
}

// setInitial takes over the first state, which was reached before there was
// anyone to get an event.
func (m *Machine) setInitial(status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != PhaseCold && m.phase != PhaseIncoming {
		return // an event was faster
	}
	switch status {
	case "running":
		m.enter(PhaseRunning)
	case "paused", "prelaunch":
		m.enter(PhasePaused)
	}
}

// ended is called once, by the owner of the process, when that has ended.
func (m *Machine) ended() {
	m.mu.Lock()
	watching := m.watching
	m.mu.Unlock()
	if watching != nil {
		// The monitor's last words are in the socket, followed by its end.
		timer := time.NewTimer(exitGrace)
		select {
		case <-watching:
		case <-timer.C:
		}
		timer.Stop()
	}
	if m.packets != nil {
		m.packets.await(exitGrace)
	}
	if m.trace != nil {
		m.trace.await(exitGrace)
	}
	stderr := m.transcript.tail()
	m.mu.Lock()
	m.exit = newExitError(m.cmd.ProcessState, m.announced, m.wanted, stderr)
	m.enter(PhaseExited)
	m.mu.Unlock()
	close(m.done)
}

// release closes and removes what belongs to a machine whose process is gone.
func (m *Machine) release() {
	if m.released {
		return
	}
	m.released = true
	if m.monitor != nil {
		_ = m.monitor.Close() // QEMU's end of it is closed already
	} else if m.monitorConn != nil {
		_ = m.monitorConn.Close() // as above
	}
	for _, line := range []*console{m.console, m.second} {
		if line != nil {
			line.finish()
		}
	}
	if m.packets != nil {
		m.packets.close()
	}
	if m.trace != nil {
		m.trace.close()
	}
	if m.socket != "" {
		_ = os.Remove(m.socket) // the run directory goes as a whole later
	}
}
