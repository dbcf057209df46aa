package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/diagnostic"
	"github.com/org/hurd-qemu-action/internal/guest"
)

// timeoutError is why a script was stopped.
type timeoutError struct {
	input string
	limit time.Duration
}

func (e timeoutError) Error() string {
	if e.input == "idle-timeout" {
		return fmt.Sprintf("the script printed nothing for %s (idle-timeout)", e.limit)
	}
	return fmt.Sprintf("the script ran longer than %s (timeout)", e.limit)
}

// runScript runs the user's script, or repeats it, and turns its end into the Result.
func (r *run) runScript(ctx context.Context) error {
	ctx, release := r.machine.Context(ctx)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.watchGuest(ctx, cancel)
	r.Log.Fold("Script", strings.Split(strings.TrimRight(r.config.Script, "\n"), "\n"))
	if r.config.Benchmark > 0 {
		return r.repeat(ctx)
	}
	start := time.Now()
	res, err := r.once(ctx, start, watch{})
	if err != nil {
		return err
	}
	r.phase("Script", start, "", nil)
	r.mergeFiles(res.Files)
	return r.ended(res)
}

// watch is told of one run of the script. Any of it may be nil.
type watch struct {
	start, end func()             // see guest.Script
	shown      func(guest.Result) // all of its output is there, and nothing else has been said
}

// once runs the script one time, under its limits. An error says why the script
// came to no end of its own; the step that began at a moment has failed then,
// and the script's files are taken over.
func (r *run) once(ctx context.Context, began time.Time, w watch) (guest.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout, stderr, closeOutput := r.output()
	defer closeOutput()
	if limit := r.config.IdleTimeout; limit > 0 {
		idle := newIdleTimer(limit, func() { cancel(timeoutError{"idle-timeout", limit}) })
		defer idle.stop()
		stdout, stderr = idle.writer(stdout), idle.writer(stderr)
	}
	if limit := r.config.Timeout; limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, timeoutError{"timeout", limit})
		defer stop()
	}
	env, files := r.scriptEnvironment()
	defer r.rekeyLater(ctx)()
	res, err := r.client.RunScript(ctx, guest.Script{
		Text: r.config.Script, Shell: r.config.Shell, Dir: r.scriptDir(), User: r.checkout.user,
		Env: env, Files: files, CollectWithin: collectWithin, KillGraceFor: r.killGrace, OnStart: w.start, OnEnd: w.end,
	}, stdout, stderr)
	closeOutput()
	r.result.Script += res.Duration
	if w.shown != nil {
		w.shown(res)
	}
	if err != nil {
		r.phase("Script", began, "", err)
		r.mergeFiles(res.Files)
		return res, r.scriptFailure(ctx, err)
	}
	return res, nil
}

// ended is the run's result when the script has come to an end of its own.
func (r *run) ended(res guest.Result) error {
	r.result.Kind, r.result.ExitCode = scriptEnd(res.Status, res.Signal)
	if res.Detached {
		r.Log.Printf("The script left a process behind that holds its output open; what that prints is not waited for.")
	}
	return nil
}

// output gives the writers for what the script prints: shown without its
// secrets, and searched for what compilers complain about. The function ends them.
func (r *run) output() (stdout, stderr io.Writer, end func()) {
	out, diag := r.Log.Guest()
	if r.bench != nil {
		out, diag = r.bench.remember(out), r.bench.remember(diag)
	}
	maskedOut, maskedDiag := r.mask.Writer(out), r.mask.Writer(diag)
	r.diagnostics = diagnostic.New(r.sources())
	seenOut, seenDiag := r.diagnostics.Writer(), r.diagnostics.Writer()
	end = sync.OnceFunc(func() {
		// The log keeps its own errors, and the others never fail.
		_ = errors.Join(maskedOut.Close(), maskedDiag.Close(), seenOut.Close(), seenDiag.Close())
	})
	return io.MultiWriter(maskedOut, seenOut), io.MultiWriter(maskedDiag, seenDiag), end
}

// clockTime bounds the setting of the clock, which takes one round trip.
const clockTime = 30 * time.Second

// setClock gives the guest our time: an emulated machine drifts while it
// boots, a restored one has the time of its saving, and make minds either.
//
// It was set when the guest was reached, a moment ago: what became of that is
// told once.
func (r *run) setClock(ctx context.Context) {
	if r.clockOf != r.client {
		r.clockOf = r.client
		r.tellClock(r.client.Clock())
		return
	}
	limited, cancel := context.WithTimeoutCause(ctx, clockTime, fmt.Errorf("the guest did not answer within %s", clockTime))
	defer cancel()
	if skew, err := r.client.SetClock(limited); ctx.Err() == nil { // else the script will find out, and say why
		r.tellClock(skew, err)
	}
}

// tellClock says what is worth knowing of the setting of the clock. That a
// restored guest had the time of its saving is not.
func (r *run) tellClock(skew time.Duration, err error) {
	switch {
	case err != nil:
		r.Log.Annotate(actions.Warning, "The guest's clock was not set", err.Error())
	case skew.Abs() >= 2*time.Second && r.result.Snapshot != stateRestored:
		r.Log.Printf("The guest's clock was off by %s and has been set.", skew.Round(time.Second))
	}
}

// confirmTime bounds the question to a guest whose console looks dead: short
// for a kernel that says that it gave up, longer for signs that a guest which
// is merely busy could show as well.
func confirmTime(f console.Finding) time.Duration {
	switch f.Kind {
	case console.MachPanic, console.LinuxPanic, console.MachDebugger:
		return 2 * time.Second
	}
	return 15 * time.Second
}

// watchGuest ends the script's context when the guest is lost. A console can
// print anything, so a panic there only counts when the guest no longer
// answers over SSH either.
func (r *run) watchGuest(ctx context.Context, lost context.CancelCauseFunc) {
	client, since := r.client, r.readyAt // others when the machine has been saved
	r.watchCommands(ctx, lost)
	go func() {
		select {
		case <-client.Lost():
			lost(client.Err())
		case <-ctx.Done():
		}
	}()
	go func() {
		for {
			f, err := r.console.WaitTerminal(ctx, since)
			if err != nil {
				return
			}
			ask, cancel := context.WithTimeout(ctx, confirmTime(f))
			err = client.Alive(ask)
			cancel()
			if err != nil {
				lost(findingError{f})
				return
			}
			// No annotation: what it would quote is the guest's own text.
			r.Log.Printf("The console says %q, but the guest still answers.", f.Line.Text)
			since = f.Line.Time
		}
	}()
}

// scriptFailure explains why the script did not come to an end of its own.
func (r *run) scriptFailure(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	var timeout timeoutError
	var missing *guest.DirError
	var shell *guest.ShellError
	switch {
	case errors.As(cause, &timeout):
		return fail(Timeout, "Timeout", timeout, "Raise or remove "+timeout.input+", or see above what the script was doing.")
	case errors.As(cause, new(Interrupt)):
		return fail(Canceled, "Canceled", cause)
	case errors.As(err, &missing):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("working-directory: %w", err), "Create the directory in the script, or name one that exists in the guest.")
	case errors.As(err, new(*guest.TemplateError)):
		return fail(InputInvalid, "Invalid input", err)
	case errors.As(err, new(*guest.UserError)):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("user: %w", err))
	case errors.As(err, &shell):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("shell: %w", err), "Name a shell that is installed in the guest.")
	case cause != nil || errors.Is(err, guest.ErrLost):
		if cause == nil {
			cause = err
		}
		return r.guestLost(ctx, cause)
	}
	return fail(Internal, "The script could not be run", err)
}

// idleTimer fires when nothing was written for a time.
type idleTimer struct {
	limit time.Duration
	mu    sync.Mutex
	timer *time.Timer
}

func newIdleTimer(limit time.Duration, fire func()) *idleTimer {
	return &idleTimer{limit: limit, timer: time.AfterFunc(limit, fire)}
}

func (t *idleTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
}

func (t *idleTimer) writer(w io.Writer) io.Writer { return idleWriter{t, w} }

type idleWriter struct {
	t *idleTimer
	w io.Writer
}

func (w idleWriter) Write(p []byte) (int, error) {
	w.t.mu.Lock()
	if w.t.timer.Stop() { // once fired, it stays fired
		w.t.timer.Reset(w.t.limit)
	}
	w.t.mu.Unlock()
	return w.w.Write(p)
}
