package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/monitor"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// canEnd tells whether a command can end the machine, or make the guest do it.
func canEnd(c monitor.Command) bool {
	text, _ := c.Arguments["command-line"].(string)
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch {
	case slices.Contains([]string{"quit", "system_reset", "system_powerdown", "inject-nmi"}, c.Name):
		return true
	case slices.Contains([]string{"q", "quit", "system_reset", "system_powerdown", "nmi"}, word):
		return true
	case word == "sendkey":
		return strings.Contains(rest, "ctrl-alt-delete")
	}
	return slices.ContainsFunc(c.Chords, func(keys monitor.Chord) bool { return slices.Equal(keys, monitor.Chord{"ctrl", "alt", "delete"}) })
}

// endsQEMU tells whether a command ends the machine as soon as it is answered.
func endsQEMU(c monitor.Command) bool {
	text, _ := c.Arguments["command-line"].(string)
	return slices.Contains([]string{"quit", "system_reset"}, c.Name) || slices.Contains([]string{"q", "quit", "system_reset"}, strings.TrimSpace(text))
}

// endTime is how long QEMU may take to be gone when it has said that it goes.
const endTime = time.Second

// awaitEnd gives a machine that ends the time to; nil: it did not end.
func (r *run) awaitEnd() error {
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-r.machine.Done():
		return r.machine.Err()
	case <-timer.C:
		return nil
	}
}

// monitorFailure recognizes what came through a monitor: a command of the input
// qmp that went wrong, or a machine that one ended or stopped.
func (r *run) monitorFailure(kind Kind, errs ...error) *Error {
	for _, err := range errs {
		var wrong *commandError
		if errors.As(err, &wrong) {
			return wrong.failure()
		}
		var exit *qemu.ExitError
		if errors.As(err, &exit) && exit.Reason == qemu.ExitHostQuit {
			return r.endedBy(kind)
		}
	}
	if r.machine.Phase() == qemu.PhasePaused && !r.checkout.stopped && r.machine.Faulted() == nil {
		return fail(kind, "The machine stands still", errors.New("its processor was stopped through a monitor, and nobody let it go on"),
			"Look for the command stop in what talks to "+r.machine.Socket()+", and let cont follow it.")
	}
	return nil
}

// endedBy tells who ended the machine through a monitor.
func (r *run) endedBy(kind Kind) *Error {
	if last := r.commands.last.Load(); last != nil {
		return fail(kind, "A command of the input qmp ended the machine", fmt.Errorf("qmp: %s: QEMU ended, and the guest with it", last.step),
			"Use quit and system_reset at after-run, when all has come back from the guest.",
			"A reset ends QEMU here, as a guest's reboot does. For a machine that boots again, put before-boot: set-action reboot=reset before it.")
	}
	return fail(kind, "Another program ended the machine", errors.New("QEMU was told to quit, or to reset the machine, through the monitor at "+r.machine.Socket()),
		"Look for quit and system_reset in what talks to that monitor.")
}

// culpritTime is how long a guest may take to do what a command asks it for.
const culpritTime = time.Minute

// culprit completes an error with the command that the guest may have obeyed.
func (r *run) culprit(e *Error) *Error {
	if last := r.commands.last.Load(); last != nil && time.Since(last.at) < culpritTime {
		e.Err = fmt.Errorf("%w (qmp: %s came %s before)", e.Err, last.step, actions.Seconds(time.Since(last.at)))
	}
	return e
}
