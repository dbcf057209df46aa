package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/monitor"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// qmpLog is the log with one JSON object for each command of the input qmp.
const qmpLog = "qmp.jsonl"

// screenshotName is the picture that a failed boot leaves.
const screenshotName = "screenshot.png"

// commandTime is how long QEMU may take for a command, besides typing.
const commandTime = 30 * time.Second

// commands is the input qmp at work.
type commands struct {
	script monitor.Script
	log    io.Writer // qmp.jsonl; nil without a script

	// mu is held while commands are carried out, and by whoever must have the
	// machine for itself meanwhile.
	mu       sync.Mutex
	session  *monitor.Session           // with the machine that runs
	fired    []bool                     // which steps of on-console are done, by their index
	last     atomic.Pointer[carriedOut] // the last command that can end a machine
	warnings []string                   // of steps on-console

	past  []int          // steps of on-console that a saved machine has behind it
	saved []int          // those that are behind the machine that was saved
	watch *console.Watch // for the steps of on-console
	end   func()         // stops watching; nil: nobody watches
	wrong *wrong         // of the steps on-console, with the machine that runs
}

// wrong is what a run cannot go on after.
type wrong struct {
	known chan struct{} // closed when err is set
	err   *commandError
}

// carriedOut is a command, and when.
type carriedOut struct {
	step monitor.Step
	at   time.Time
}

// commandError is a command of the input qmp that the run cannot go on after.
type commandError struct {
	step   monitor.Step
	text   string
	advice []string
}

func (e *commandError) Error() string { return fmt.Sprintf("qmp: %s: %s", e.step, e.text) }

// failure is the error of the run.
func (e *commandError) failure() *Error {
	return fail(InputInvalid, "Invalid input", e, e.advice...)
}

// readMonitor validates the input qmp.
func (r *run) readMonitor() []error {
	script, problems := monitor.ParseScript(r.config.QMP)
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("qmp: %w", p))
	}
	for _, step := range script {
		if step.Command.Picture == screenshotName {
			errs = append(errs, fmt.Errorf("qmp: line %d: %s is the picture of a boot that failed: choose another name", step.Line, screenshotName))
		}
	}
	r.commands.script = script
	return errs
}

// beginMonitor makes the log of the commands, if there are any.
func (r *run) beginMonitor() (err error) {
	if len(r.commands.script) > 0 {
		r.commands.log, err = r.log(qmpLog)
	}
	return err
}

// bootCommands are those that are carried out while the machine boots, which
// what is saved of it depends on.
func (r *run) bootCommands() string {
	var b strings.Builder
	for _, step := range r.commands.script {
		if step.Moment == monitor.BeforeBoot || step.Moment == monitor.OnConsole {
			b.WriteString(step.Text + "\n")
		}
	}
	return b.String()
}

// wantsMenu tells whether keys are pressed when a line of the console matches:
// then a boot menu must not be over before it was there.
func (r *run) wantsMenu() bool {
	return slices.ContainsFunc(r.commands.script.At(monitor.OnConsole), func(step monitor.Step) bool { return step.Command.Presses() })
}

// attach takes over the machine that was just started.
func (r *run) attach(ctx context.Context, m *qemu.Machine) {
	c := &r.commands
	c.session = &monitor.Session{Conn: m.Monitor(), Keep: r.keepPicture}
	c.last.Store(nil)
	c.wrong = &wrong{known: make(chan struct{})}
	steps := c.script.At(monitor.OnConsole)
	if len(steps) == 0 {
		return
	}
	ctx, release := m.Context(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.followConsole(ctx, steps)
	}()
	c.end = func() {
		release()
		<-done
	}
	r.cleanup.push("ending the commands of on-console", func(context.Context) error {
		r.detach()
		return nil
	})
}

// detach ends what waits for lines of the console, and what is being done for one.
func (r *run) detach() {
	c := &r.commands
	if c.end == nil {
		return
	}
	c.end()
	c.end = nil
	r.result.Warnings = append(r.result.Warnings, c.warnings...)
	c.warnings = nil
}

// watchFor has a console look out for the lines of on-console.
func (r *run) watchFor(from *console.Console) {
	r.detach() // from the machine of an attempt before
	c := &r.commands
	steps := c.script.At(monitor.OnConsole)
	patterns := make([]*regexp.Regexp, len(steps))
	c.fired = make([]bool, len(steps))
	for i, step := range steps {
		c.fired[i] = slices.Contains(c.past, i)
		if !c.fired[i] {
			patterns[i] = step.Pattern
		}
	}
	c.watch = from.Watch(patterns)
}

// followConsole carries out what is due when a line has matched.
func (r *run) followConsole(ctx context.Context, steps monitor.Script) {
	c := &r.commands
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.watch.Signal():
		}
		if ctx.Err() != nil {
			return
		}
		matches := c.watch.Take()
		err := r.exclusively(func() error { return r.onConsole(ctx, steps, matches) })
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.As(err, &c.wrong.err):
			close(c.wrong.known)
			return
		default:
			r.Log.Printf("qmp: %v", err) // the monitor is gone: the machine's end says more
		}
	}
}

// onConsole carries out the commands of the lines that have matched.
func (r *run) onConsole(ctx context.Context, steps monitor.Script, matches []console.Match) error {
	for _, m := range matches {
		step := steps[m.Index]
		r.Log.Printf("qmp: line %d: the console says %s", step.Line, r.mask.String(strings.TrimSpace(m.Line.Text)))
		r.commands.fired[m.Index] = true
		err := r.carryOutCommand(ctx, step)
		var refused *commandError
		if errors.As(err, &refused) && r.ready.Load() {
			text := r.mask.String(refused.Error())
			r.commands.warnings = append(r.commands.warnings, refusedTitle+": "+actions.Printable(text))
			r.Log.Annotate(actions.Warning, refusedTitle, text)
		} else if err != nil {
			return err
		}
	}
	if len(matches) == 0 {
		return nil
	}
	return r.runs(ctx, steps[matches[len(matches)-1].Index])
}

const refusedTitle = "A command of qmp was refused"

// exclusively does something while no command is carried out by others.
func (r *run) exclusively(do func() error) error {
	r.commands.mu.Lock()
	defer r.commands.mu.Unlock()
	return do()
}

// runs is nil when the machine does; else the last step is to blame.
func (r *run) runs(ctx context.Context, last monitor.Step) error {
	if endsQEMU(last.Command) {
		if err := r.awaitEnd(); err != nil {
			return err
		}
	}
	running, state, err := r.commands.session.Status(ctx)
	if err != nil || running {
		return err
	}
	return &commandError{last, fmt.Sprintf("the machine stands still after it (%s), and no command lets it go on", state),
		[]string{"Add a line with the command cont for the same moment."}}
}

// watchCommands ends what the run is at when a command on-console went wrong.
func (r *run) watchCommands(ctx context.Context, end context.CancelCauseFunc) {
	if r.commands.end == nil {
		return
	}
	wrong := r.commands.wrong
	go func() {
		select {
		case <-wrong.known:
			end(wrong.err)
		case <-ctx.Done():
		}
	}()
}

// beforeBoot carries out what is due before the machine runs, or, when its
// saved state is yet to be loaded, before that: QEMU is what it was then.
func (r *run) beforeBoot(ctx context.Context) error {
	return r.exclusively(func() error {
		for _, step := range r.commands.script.At(monitor.BeforeBoot) {
			err := r.carryOutCommand(ctx, step)
			switch {
			case errors.As(err, new(*commandError)):
				return err
			case err == nil && !endsQEMU(step.Command):
				continue
			}
			if end := r.awaitEnd(); end != nil {
				return end
			}
			if err != nil {
				return &commandError{step: step, text: err.Error()}
			}
		}
		return nil
	})
}

// afterBoot carries out what is due when the guest answers.
func (r *run) afterBoot(ctx context.Context) error {
	steps := r.commands.script.At(monitor.AfterBoot)
	if len(steps) == 0 {
		return nil
	}
	return r.step(ctx, "QMP after-boot", func(ctx context.Context) (string, error) {
		ctx, release := r.machine.Context(ctx)
		defer release()
		err := r.exclusively(func() error {
			if err := r.carryOutAll(ctx, steps); err != nil {
				return err
			}
			return r.runs(ctx, steps[len(steps)-1])
		})
		var wrong *commandError
		switch {
		case errors.As(err, &wrong):
			return "", wrong.failure()
		case err != nil:
			return "", r.guestLost(ctx, err)
		}
		return "", nil
	})
}

// afterRunTime bounds what is due after the script when nobody interrupts it.
const afterRunTime = 10 * time.Minute

// afterRun carries out what is due when all has come back from the guest.
func (r *run) afterRun(ctx context.Context) {
	steps := r.commands.script.At(monitor.AfterRun)
	switch {
	case len(steps) == 0 || r.machine == nil:
		return
	case r.machine.Err() != nil:
		r.Log.Printf("The commands of after-run are not carried out: the machine is gone.")
		return
	}
	ctx, stop := r.ending.context(ctx, afterRunTime, stopReserve)
	defer stop()
	err := r.step(ctx, "QMP after-run", func(ctx context.Context) (string, error) {
		return "", guarded(ctx, func(ctx context.Context) error {
			return r.exclusively(func() error { return r.carryOutAll(ctx, steps) })
		})
	})
	if err == nil && r.config.ImageOutput != "" && r.machine.Phase() == qemu.PhasePaused {
		r.warn("The machine stands still", "qmp: after-run: it goes on so that its disk can be exported; add after-run: cont")
		err = r.machine.Resume(ctx)
	}
	if err != nil {
		r.warn("Not all commands of after-run were carried out", err.Error())
	}
}

// carryOutAll carries steps out; a refusal is a warning. The caller is exclusive.
func (r *run) carryOutAll(ctx context.Context, steps monitor.Script) error {
	for _, step := range steps {
		err := r.carryOutCommand(ctx, step)
		var refused *commandError
		switch {
		case errors.As(err, &refused):
			r.warn(refusedTitle, refused.Error())
		case err != nil:
			return err
		}
	}
	return nil
}

// carryOutCommand carries one step out, and shows and keeps the answer. A
// refusal is a *commandError. The caller is exclusive.
func (r *run) carryOutCommand(ctx context.Context, step monitor.Step) error {
	command := step.Command
	r.Log.Printf("qmp: %s", step)
	limit := commandTime + 4*command.Hold*time.Duration(len(command.Chords))
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("QEMU's monitor did not answer within %s", limit))
	defer cancel()
	if canEnd(command) {
		r.commands.last.Store(&carriedOut{step, time.Now()})
	}
	answer, err := r.commands.session.Do(limited, command)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if err := r.keepAnswer(step, answer); err != nil {
		r.Log.Printf("%s: %v", qmpLog, err)
	}
	if !answer.Failed {
		return nil
	}
	text := "QEMU refuses it: " + string(answer.JSON())
	if answer.Error != nil {
		text = "QEMU refuses it: " + answer.Error.Text
	}
	return &commandError{step, text, answer.Notes}
}

// maxAnswer bounds what the log shows of an answer; qmp.jsonl has all of it.
const maxAnswer = 2000

// keepAnswer shows an answer, fenced: some of it may be the guest's text.
func (r *run) keepAnswer(step monitor.Step, answer monitor.Answer) error {
	text := r.mask.String(string(answer.JSON()))
	if len(text) > maxAnswer {
		text = strings.ToValidUTF8(text[:maxAnswer], "") + "... (all: " + r.logs.path(qmpLog) + ")"
	}
	r.Log.Quote([]string{text})
	for _, note := range answer.Notes {
		r.Log.Printf("qmp: %s", note)
	}
	line, err := json.Marshal(step.Record(time.Now().UTC(), answer))
	if err == nil {
		_, err = r.commands.log.Write(append(line, '\n'))
	}
	return err
}

// maxPictures bounds the search for a free name.
const maxPictures = 1000

// keepPicture keeps a picture beside the logs. A boot that is tried again does
// not overwrite what the one before has left.
func (r *run) keepPicture(name string, picture []byte) (string, error) {
	base, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	for n := 2; ; n++ {
		err := r.keep(name, picture)
		if err == nil || !errors.Is(err, fs.ErrExist) || n > maxPictures {
			return r.logs.path(name), err
		}
		name = fmt.Sprintf("%s-%d%s", base, n, ext)
	}
}

// warnUnmatched tells of steps that never came to be due.
func (r *run) warnUnmatched() {
	if r.result.Kind == Canceled || r.result.Kind == InputInvalid {
		return // it did not get that far
	}
	for i, step := range r.commands.script.At(monitor.OnConsole) {
		if i < len(r.commands.fired) && !r.commands.fired[i] {
			r.warn("A command of qmp was not due", fmt.Sprintf("qmp: line %d: no line of the console has matched %q", step.Line, step.Pattern))
		}
	}
}

// behind are the steps of on-console that are done.
func (c *commands) behind() []int {
	var done []int
	for i, fired := range c.fired {
		if fired {
			done = append(done, i)
		}
	}
	return done
}
