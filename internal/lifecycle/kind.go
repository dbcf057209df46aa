// Package lifecycle makes the one pass of a run: it takes a validated Config
// through its steps, ends everything that it began, in reverse, whatever
// happens, and says how it ended.
package lifecycle

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
)

// Kind classifies how a run ended. It decides the annotation, the output
// result and the exit status.
type Kind string

// The ends of a run, in the words of the output result.
const (
	Success      Kind = "success"
	ScriptFailed Kind = "script-failed"   // the script ended with a status other than 0
	Signaled     Kind = "script-signaled" // a signal killed the script in the guest
	Timeout      Kind = "timeout"         // the script was stopped: timeout or idle-timeout
	Canceled     Kind = "canceled"        // SIGINT, SIGTERM, or nobody reads the output any more
	GuestLost    Kind = "guest-lost"      // the running guest died, rebooted, panicked or went silent
	BootFailed   Kind = "boot-failed"     // no usable guest within attempts and time
	ImageFailed  Kind = "image-failed"    // no image to boot
	Service      Kind = "service-failed"  // a service that this action talks to failed
	InputInvalid Kind = "input-invalid"   // what was asked for cannot be
	Internal     Kind = "internal-error"  // a defect of this action, or of the machine that it runs on
)

// Exit statuses that are not the script's own, as timeout(1) and docker(1) have them.
const (
	statusTimeout = 124
	statusOurs    = 125
)

// Error is what ended a run that did not succeed.
type Error struct {
	Kind   Kind
	Title  string   // a few words, for the annotation
	Advice []string // what to do, one sentence each
	Quote  []string // lines from elsewhere that show it
	Err    error    // the cause
}

// Error gives the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Title
	}
	return e.Err.Error()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// fail is an error of a kind whose title and cause say enough.
func fail(kind Kind, title string, err error, advice ...string) *Error {
	return &Error{Kind: kind, Title: title, Err: err, Advice: advice}
}

// isKind tells whether an error is, or wraps, an Error of the kind.
func isKind(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// Interrupt is the cause of a canceled run.
type Interrupt struct {
	Signal syscall.Signal
}

// Error names the signal.
func (i Interrupt) Error() string {
	return fmt.Sprintf("canceled by signal %d (%s)", i.Signal, i.Signal)
}

// statusOf is the exit status of an end that the script did not decide.
func statusOf(kind Kind, cause error) int {
	switch kind {
	case Success:
		return 0
	case Timeout:
		return statusTimeout
	case Canceled:
		var i Interrupt
		if errors.As(cause, &i) {
			return 128 + int(i.Signal)
		}
		return 128 + int(syscall.SIGINT)
	}
	return statusOurs
}

// scriptEnd is the kind and exit status of a script that came to an end.
func scriptEnd(status, signal int) (Kind, int) {
	switch {
	case signal != 0:
		return Signaled, 128 + signal
	case status != 0:
		return ScriptFailed, status
	}
	return Success, 0
}

// signalName writes a guest's signal for people. The numbers up to 15 are the
// same on Linux and the Hurd but for 7, 10 and 12, which POSIX leaves open.
func signalName(n int) string {
	names := map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 8: "FPE", 9: "KILL", 11: "SEGV", 13: "PIPE", 14: "ALRM", 15: "TERM"}
	if name, ok := names[n]; ok {
		return strconv.Itoa(n) + " (" + name + ")"
	}
	return strconv.Itoa(n)
}
