package lifecycle

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/cloudinit"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/process"
)

// userData is what is done over SSH for a guest whose cloud-init will not do it.
type userData struct {
	plan cloudinit.Plan
	mark string
	sudo string // what goes before a command, so that root runs it
}

// planUserData reads user-data and meta-data for a guest without cloud-init,
// before it boots: a mistake should not cost a boot.
func (r *run) planUserData() error {
	mark := "hurd-qemu-action." + strings.ToLower(rand.Text())
	plan, err := cloudinit.Parse(r.config.UserData, r.config.MetaData, cloudinit.Options{User: r.config.SSHUser, Mark: mark})
	if err != nil {
		return fail(InputInvalid, "Invalid input", errors.Join(prefixed("user-data: ", separate(err))...))
	}
	r.userData = userData{plan: plan, mark: mark}
	r.Log.Printf("No cloud-init in the guest: user-data is carried out over SSH, before the script.")
	if len(plan.Ignored) > 0 {
		r.Log.Annotate(actions.Warning, "Parts of user-data are not used", strings.Join(plan.Ignored, ", ")+" (the guest has no cloud-init; use runcmd instead)")
	}
	return nil
}

// prefixed says of each error what it is about.
func prefixed(what string, errs []error) []error {
	for i, err := range errs {
		if !strings.HasPrefix(err.Error(), what) {
			errs[i] = fmt.Errorf("%s%w", what, err)
		}
	}
	return errs
}

// carryOut does what user-data asks for, or waits until cloud-init has. The first
// step that fails ends it, but all commands of a list are run, as cloud-init does it.
func (r *run) carryOut(ctx context.Context) error {
	wait := r.seed != "" && r.config.UserData+r.config.MetaData != ""
	if len(r.userData.plan.Steps) == 0 && !wait {
		return nil
	}
	return r.step(ctx, "User data", func(ctx context.Context) (string, error) {
		if wait {
			return "", r.watched(ctx, r.awaitCloudInit)
		}
		return "", r.watched(ctx, r.userDataSteps)
	})
}

// watched does what user-data asks for as long as the guest lives, and within
// the limit that the script has.
func (r *run) watched(ctx context.Context, do func(context.Context) error) error {
	ctx, release := r.machine.Context(ctx)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.watchGuest(ctx, cancel)
	if limit := r.config.Timeout; limit > 0 { // as for the script, with a clock of its own
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, userDataTimeout(limit))
		defer stop()
	}
	r.setClock(ctx) // apt minds a clock that is behind
	return do(ctx)
}

// userDataSteps does one step after the other, as root.
func (r *run) userDataSteps(ctx context.Context) error {
	if err := r.becomeRoot(ctx); err != nil {
		return err
	}
	for _, s := range r.userData.plan.Steps {
		if err := r.userDataStep(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// awaitLine waits for the end of cloud-init, which is still at work when the
// guest lets us in. What else reads a seed disk has no such program.
const awaitLine = "command -v cloud-init >/dev/null 2>&1 || exit 0; exec cloud-init status --wait"

// The exit statuses of cloud-init status.
// Source: cloud-init's documentation, "CLI commands", status.
const (
	cloudInitFailed   = 1
	cloudInitDegraded = 2 // done, with errors that it could go on after
)

// awaitCloudInit waits until cloud-init has carried user-data out.
func (r *run) awaitCloudInit(ctx context.Context) error {
	status, err := r.client.Run(ctx, guest.Command{Line: awaitLine, Stdout: r.userDataLog(), Stderr: r.userDataLog()})
	switch {
	case err != nil:
		return r.userDataFailure(ctx, err)
	case status.Code == cloudInitFailed:
		return fail(InputInvalid, "user-data could not be carried out", errors.New("user-data: cloud-init in the guest reports an error"),
			"Print /var/log/cloud-init-output.log of the guest, or run cloud-init status --long in it.")
	case status.Code == cloudInitDegraded:
		r.Log.Annotate(actions.Warning, "user-data was carried out with errors", "cloud-init status --long in the guest names them")
	case status.Code != 0:
		r.Log.Printf("cloud-init status %s; it is not waited for.", status)
	}
	return nil
}

// userDataTimeout is why user-data was given up.
type userDataTimeout time.Duration

func (t userDataTimeout) Error() string {
	return fmt.Sprintf("carrying out user-data took longer than %s (timeout)", time.Duration(t))
}

// userDataFailure explains why a step did not come to an end of its own.
func (r *run) userDataFailure(ctx context.Context, err error) error {
	var limit userDataTimeout
	switch {
	case errors.As(context.Cause(ctx), &limit):
		return fail(Timeout, "Timeout", limit, "Raise or remove timeout, or see above what user-data was doing.")
	case errors.As(err, new(*guest.ShellError)), errors.As(err, new(*guest.TemplateError)):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("user-data: its first line names an interpreter: %w", err))
	}
	return r.scriptFailure(ctx, err)
}

// becomeRoot finds out how commands are run as root.
func (r *run) becomeRoot(ctx context.Context) error {
	status, err := r.client.Run(ctx, guest.Command{Line: `test "$(id -u)" = 0`})
	if err != nil {
		return r.userDataFailure(ctx, err)
	}
	if status.Code == 0 {
		return nil
	}
	status, err = r.client.Run(ctx, guest.Command{Line: "sudo -n true"})
	if err != nil {
		return r.userDataFailure(ctx, err)
	}
	if status.Code != 0 {
		return fail(InputInvalid, "Invalid input", fmt.Errorf("user-data: %s is not root in the guest and may not use sudo without a password, and the guest has no cloud-init that could do it", r.config.SSHUser),
			"Use ssh-user: root, or leave user-data out.")
	}
	r.userData.sudo = "sudo -n "
	return nil
}

// userDataLog is where its output goes: the log, since the output of the program
// is that of the script.
func (r *run) userDataLog() io.Writer {
	_, log := r.Log.Guest()
	return log
}

// stepOutput bounds what is kept of a step's output for its error.
const stepOutput = 512

// step does one step and reports it in one line.
func (r *run) userDataStep(ctx context.Context, s cloudinit.Step) error {
	begin := time.Now()
	if s.Line == "" {
		return r.commandStep(ctx, s, begin)
	}
	out := r.userDataLog()
	tail := &process.Tail{Limit: stepOutput}
	status, err := r.client.Run(ctx, guest.Command{
		Line: "exec " + r.userData.sudo + s.Line, Stdin: bytes.NewReader(s.Stdin), Stdout: io.MultiWriter(out, tail), Stderr: io.MultiWriter(out, tail),
	})
	if err != nil {
		return r.userDataFailure(ctx, err)
	}
	if status.Code != 0 {
		r.Log.Printf("%s: %s: failed, it %s", s.Part, s.Title, status)
		e := fail(InputInvalid, "user-data could not be carried out", fmt.Errorf("user-data: %s: %s: the command for it %s", s.Part, s.Title, status))
		e.Advice = []string{"Look at what it printed, above."}
		if text := strings.TrimSpace(tail.String()); text != "" {
			e.Err = fmt.Errorf("%w: %s", e.Err, actions.Printable(text[strings.LastIndexByte(text, '\n')+1:]))
		}
		return e
	}
	r.Log.Printf("%s: %s: done after %s", s.Part, s.Title, actions.Seconds(time.Since(begin)))
	return nil
}

// commandStep runs a script of the user's, command by command if it is a list.
func (r *run) commandStep(ctx context.Context, s cloudinit.Step, begin time.Time) error {
	out := r.userDataLog()
	var failed []error
	ended, last := 0, begin
	marks := cloudinit.NewMarks(r.userData.mark, out, func(status int) {
		if ended >= len(s.Commands) {
			return // a command has printed the mark
		}
		part, title := fmt.Sprintf("%s[%d]", s.Part, ended), s.Commands[ended]
		ended++
		took := time.Since(last)
		last = time.Now()
		if status == 0 {
			r.Log.Printf("%s: %s: done after %s", part, title, actions.Seconds(took))
			return
		}
		r.Log.Printf("%s: %s: failed with status %d", part, title, status)
		failed = append(failed, fmt.Errorf("user-data: %s: %s: exit status %d", part, title, status))
	})
	res, err := r.client.RunScript(ctx, guest.Script{Text: s.Text, Shell: r.userData.sudo + s.Shell, Dir: "/"}, marks, out)
	if flushed := marks.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		return r.userDataFailure(ctx, err)
	}
	switch {
	case s.Commands == nil && res.Status != 0:
		failed = append(failed, fmt.Errorf("user-data: the script ended with status %d", res.Status))
	case s.Commands == nil:
		r.Log.Printf("%s: %s: done after %s", s.Part, s.Title, actions.Seconds(time.Since(begin)))
	case ended < len(s.Commands):
		failed = append(failed, fmt.Errorf("user-data: %s[%d]: %s: it ended the shell of all commands, with status %d; %d more were not run",
			s.Part, ended, s.Commands[ended], res.Status, len(s.Commands)-ended-1))
	}
	if len(failed) > 0 {
		return fail(InputInvalid, "user-data could not be carried out", errors.Join(failed...),
			"Mend the command, or append || true to one that may fail. What it printed is above.",
			"Write commands for this guest: Debian GNU/Hurd has sysvinit and no systemd.")
	}
	return nil
}
