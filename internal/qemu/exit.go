package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/org/hurd-qemu-action/internal/process"
)

// ExitReason classifies how QEMU ended.
type ExitReason string

// The reasons, from the monitor's events and from how the process ended.
const (
	ExitStopped       ExitReason = "stopped"        // Stop was called
	ExitGuestReset    ExitReason = "guest-reset"    // the guest rebooted: reboot, or a triple fault
	ExitGuestShutdown ExitReason = "guest-shutdown" // the guest powered the machine off
	ExitGuestPanic    ExitReason = "guest-panic"    // the guest reported a panic to the machine
	ExitHostQuit      ExitReason = "host-quit"      // another client of the monitor ended or reset it
	ExitHostSignal    ExitReason = "host-signal"    // someone asked the process to end (SIGTERM, SIGINT, SIGHUP)
	ExitKilled        ExitReason = "killed"         // the process died of a signal
	ExitFailed        ExitReason = "failed"         // QEMU gave up: a non-zero status
	ExitUnexplained   ExitReason = "unexplained"    // status 0, and no word about why
)

// ExitError is QEMU's end; every end is one, a wanted one too.
type ExitError struct {
	Reason ExitReason
	Status int            // exit status; 128+n when killed by signal n
	Signal syscall.Signal // what killed it, 0 if nothing did
	Stderr string         // the end of what QEMU wrote, known noise left out
}

// Error says what happened and quotes QEMU's last words.
func (e *ExitError) Error() string {
	text := "qemu ended: " + e.explain()
	if e.Stderr != "" {
		text += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return text
}

func (e *ExitError) explain() string {
	switch e.Reason {
	case ExitStopped:
		return "it was stopped"
	case ExitGuestReset:
		return "the guest reset the machine (a reboot, or a crash that looks like one)"
	case ExitGuestShutdown:
		return "the guest powered the machine off"
	case ExitGuestPanic:
		return "the guest panicked"
	case ExitHostQuit:
		return "another client of its monitor ended it"
	case ExitHostSignal:
		return "it was asked to end by a signal from outside"
	case ExitKilled:
		text := fmt.Sprintf("it was killed by signal %d (%v)", int(e.Signal), e.Signal)
		switch e.Signal {
		case syscall.SIGKILL:
			text += ", which the kernel also does when memory runs out"
		case syscall.SIGSYS:
			text += ": its sandbox forbids what it tried to do"
		}
		return text
	case ExitFailed:
		return fmt.Sprintf("it failed with status %d", e.Status)
	}
	return fmt.Sprintf("it went away with status %d and no explanation", e.Status)
}

// shutdownReason reads the data of a SHUTDOWN event (QEMU's qapi/run-state.json,
// ShutdownCause).
func shutdownReason(data json.RawMessage) ExitReason {
	var event struct {
		Guest  bool   `json:"guest"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return ExitUnexplained
	}
	switch event.Reason {
	case "guest-reset":
		return ExitGuestReset
	case "guest-shutdown":
		return ExitGuestShutdown
	case "guest-panic":
		return ExitGuestPanic
	case "host-qmp-quit", "host-qmp-system-reset":
		return ExitHostQuit
	case "host-signal":
		return ExitHostSignal
	case "host-error":
		return ExitFailed
	}
	if event.Guest {
		return ExitGuestShutdown
	}
	return ExitUnexplained
}

// newExitError puts together what the events said, whether we wanted it, and
// how the process ended.
func newExitError(state *os.ProcessState, announced ExitReason, wanted bool, stderr string) *ExitError {
	e := &ExitError{Status: process.ExitStatus(state), Stderr: stderr}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	fromGuest := announced == ExitGuestReset || announced == ExitGuestShutdown || announced == ExitGuestPanic
	switch {
	case wanted && !fromGuest: // else the guest was faster than Stop
		e.Reason = ExitStopped
	case e.Signal != 0:
		e.Reason = ExitKilled
	case announced != "" && announced != ExitUnexplained:
		e.Reason = announced
	case e.Status != 0:
		e.Reason = ExitFailed
	default:
		e.Reason = ExitUnexplained
	}
	return e
}
