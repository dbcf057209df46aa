package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// tailLines is how many lines of the console a failure shows.
const tailLines = 40

// drainTime is how long the last console lines of a machine that has ended are waited for.
const drainTime = 500 * time.Millisecond

// startFailure explains a QEMU that did not come up.
func (r *run) startFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if isKind(err, InputInvalid) {
		return err
	}
	e := fail(BootFailed, "QEMU did not start", err, "Look at what QEMU wrote, below and in "+r.result.QEMULog+".")
	var exit *qemu.ExitError
	if errors.As(err, &exit) {
		e.Quote = lines(exit.Stderr)
	}
	return e
}

// bootFailure classifies why a booting guest was given up.
func (r *run) bootFailure(ctx context.Context, err error) error {
	if errors.As(context.Cause(ctx), new(Interrupt)) {
		return context.Cause(ctx)
	}
	if e := diskFault(BootFailed, err, context.Cause(ctx)); e != nil {
		return e
	}
	if e := r.monitorFailure(BootFailed, err, r.machine.Err()); e != nil {
		return e
	}
	r.noteActivity(ctx)
	if e := r.notReady(err, context.Cause(ctx)); e != nil {
		return e
	}
	if e := r.shellLate(err); e != nil {
		return e
	}
	var dialogue dialogueError
	if errors.As(err, &dialogue) && !errors.As(err, new(bootLimit)) && !errors.As(err, new(*qemu.ExitError)) && !errors.As(err, new(findingError)) {
		return r.dialogueFailure(dialogue)
	}
	cause := console.Classify(r.evidence(err))
	e := fail(BootFailed, cause.Title, errors.New(cause.Detail), cause.Advice...)
	e.Quote = cause.Quote
	e = r.culprit(e)
	var limit bootLimit
	if errors.As(err, &limit) {
		e.Err = fmt.Errorf("%w. %s", limit, cause.Detail)
	}
	if errors.As(err, new(*qemu.ExitError)) || limit.retry {
		return retryable{e}
	}
	return e
}

// guestLost classifies why a running guest is gone, and has nobody ask it for
// anything any more: a kernel that has panicked keeps its connections open.
func (r *run) guestLost(ctx context.Context, cause error) error {
	r.checkout.lost = cause
	r.screenshot(ctx)
	// QEMU's end and the connection's end arrive in any order; the former says more.
	select {
	case <-r.machine.Done():
		cause = r.machine.Err()
	case <-time.After(drainTime):
	}
	if e := r.monitorFailure(GuestLost, cause); e != nil {
		return e
	}
	if e := diskFault(GuestLost, cause, r.machine.Faulted()); e != nil {
		return e
	}
	e := r.evidence(cause)
	e.Ready, e.ReadyAt = true, r.readyAt
	c := console.Classify(e)
	failure := fail(GuestLost, c.Title, errors.New(c.Detail), c.Advice...)
	failure.Quote = c.Quote
	return r.culprit(failure)
}

// diskFault recognizes a machine that QEMU has stopped because a file of ours
// could not be read or written: the host's fault, not the guest's.
func diskFault(kind Kind, errs ...error) error {
	for _, err := range errs {
		var fault *qemu.FaultError
		if !errors.As(err, &fault) {
			continue
		}
		if e := cacheFault(kind, err); e != nil {
			return e
		}
		if fault.NoSpace || errors.Is(err, unix.ENOSPC) {
			return fail(kind, "The host's disk is full", err, "Free space where temporary files are kept (RUNNER_TEMP, else TMPDIR), or write less in the guest.")
		}
		return fail(kind, "The guest's disk cannot be used", err, "Look at the host's disk, and at the image file.")
	}
	return nil
}

// cacheFault recognizes a disk that could not be read from the job's cache. That
// there was no room for what came from there is another matter.
func cacheFault(kind Kind, err error) error {
	var remote *remoteError
	if !errors.As(err, &remote) || errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return fail(kind, "The guest's disk cannot be read from the cache", err, "Run the job again. If it happens again, delete the entry "+
		remote.key+" of the cache (gh cache delete), or set image-cache: off.")
}

// activityTime bounds the question what a machine has done, which a machine
// that does not answer must not hold up.
const activityTime = time.Second

// noteActivity asks a machine that did not boot whether it did anything at all.
func (r *run) noteActivity(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), activityTime)
	defer cancel()
	a, err := r.machine.Activity(ctx)
	if err != nil {
		return // it has ended, which says more
	}
	r.Log.Printf("The machine is %s; the guest has read %s from its disks and written %s.", a.Status, a.Read.Human(), a.Written.Human())
}

// evidence is all that is known of the machine.
func (r *run) evidence(err error) console.Evidence {
	e := console.Evidence{
		Findings: r.console.Findings(), Lines: r.console.Tail(-1), Bytes: r.console.Bytes(),
		Waited: time.Since(r.started), Silence: time.Since(r.console.LastByte()),
	}
	var exit *qemu.ExitError
	if errors.As(err, &exit) {
		e.Exit = &console.Exit{Status: exit.Status, Text: strings.TrimPrefix(exit.Error(), "qemu ended: "), Stderr: exit.Stderr}
	}
	var dial *guest.DialError
	if errors.As(err, &dial) {
		e.SSH = console.SSH{Stage: console.Stage(dial.Stage), Attempts: dial.Attempts}
		if dial.Last != nil {
			e.SSH.Error = dial.Last.Error()
		}
	}
	return e
}

// report says how the run ended: in the log, as an annotation, as outputs.
func (r *run) report(err error) {
	var e *Error
	if errors.As(err, &e) {
		r.reportFailure(e)
	} else if err != nil {
		r.Log.Annotate(actions.Error, "Internal error", err.Error())
	}
	r.sayBenchmark()
	res := r.result
	switch which, took := r.bench.last(res.Script); res.Kind {
	case Success:
		r.Log.Printf("The script succeeded after %s.", actions.Seconds(res.Script))
	case ScriptFailed:
		r.Log.Annotate(actions.Error, "The script failed", fmt.Sprintf("%sexit status %d after %s", which, res.ExitCode, actions.Seconds(took)))
	case Signaled:
		r.Log.Annotate(actions.Error, "The script was killed", fmt.Sprintf("%sby signal %s in the guest, after %s", which, signalName(res.ExitCode-128), actions.Seconds(took)))
	}
	if err := r.setOutputs(); err != nil {
		r.Log.Annotate(actions.Error, "The outputs are not complete", err.Error())
	}
}

// reportFailure prints all that is known about a failure, and one annotation.
func (r *run) reportFailure(e *Error) {
	if e.Kind == InputInvalid {
		for _, p := range separate(e.Err) {
			r.Log.Annotate(actions.Error, e.Title, p.Error())
		}
		for _, a := range e.Advice {
			r.Log.Printf("What to try: %s", a)
		}
		return
	}
	if r.console != nil && (e.Kind == BootFailed || e.Kind == GuestLost) {
		r.showMachine()
	}
	if len(e.Quote) > 0 {
		r.Log.Printf("What shows it:")
		r.Log.Quote(e.Quote)
	}
	for _, a := range e.Advice {
		r.Log.Printf("What to try: %s", a)
	}
	r.Log.Annotate(actions.Error, e.Title, e.Error())
}

// separate takes an error that holds several problems apart, at any depth.
func separate(err error) []error {
	if err == nil {
		return nil
	}
	var errs []error
	if problems, ok := err.(config.Problems); ok { //nolint:errorlint // the error itself is taken apart, not searched
		for _, p := range problems {
			errs = append(errs, p)
		}
		return errs
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return []error{err} // also one with several causes and words of its own
	}
	for _, e := range joined.Unwrap() {
		errs = append(errs, separate(e)...)
	}
	return errs
}

// showMachine prints the end of the serial log and what QEMU wrote.
func (r *run) showMachine() {
	tail := r.console.Tail(tailLines)
	text := make([]string, len(tail))
	for i, l := range tail {
		text[i] = r.mask.String(l.Text)
	}
	r.Log.Fold(fmt.Sprintf("The last %d lines of the serial console (all: %s)", len(text), r.result.SerialLog), text)
	command := r.machine.Args()[0] + " " // the log begins with the command line, which is no message
	stderr := slices.DeleteFunc(lines(r.qemuTail.String()), func(l string) bool { return strings.HasPrefix(l, command) })
	if len(stderr) == 0 {
		r.Log.Printf("QEMU wrote no message (%s).", r.result.QEMULog)
		return
	}
	r.Log.Fold(fmt.Sprintf("What QEMU wrote (all: %s)", r.result.QEMULog), stderr)
}

func lines(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
