package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/dialogue"
	"github.com/org/hurd-qemu-action/internal/guest"
)

// The ways of the script into the guest, as the input transport has them.
const transportSerial = "serial"

// overConsole tells whether the guest is reached over its serial console.
func (r *run) overConsole() bool { return r.config.Transport == transportSerial }

// readDialogue validates console-script, and registers the secrets that it
// sends; and what cannot be together with transport: serial.
func (r *run) readDialogue() []error {
	var problems []error
	script, errs := dialogue.ParseScript(r.config.ConsoleScript)
	for _, err := range errs {
		problems = append(problems, fmt.Errorf("console-script: %w", err))
	}
	for _, name := range script.Variables() {
		value, ok := r.Host.lookup(name)
		if !ok {
			problems = append(problems, fmt.Errorf("console-script: it sends the variable %s, which is not set; set it in the step's env", name))
		}
		r.mask.Mask(value)
	}
	r.dialogue = script
	if !r.overConsole() {
		return problems
	}
	if r.config.SSHUser != "root" {
		problems = append(problems, fmt.Errorf("ssh-user: %q: with transport: serial there is no SSH: whoever logs in on the console runs the script; name another with the input user", r.config.SSHUser))
	}
	if r.config.Sync == syncTar {
		problems = append(problems, errors.New(`sync: "tar": a serial console is too slow for it; use sync: disk or none with transport: serial`))
	}
	if s := r.config.Snapshot; s == snapshotSave || s == snapshotRestore {
		problems = append(problems, fmt.Errorf("snapshot: %q: %s", s, noSnapshotOverConsole))
	}
	return problems
}

const noSnapshotOverConsole = "a machine whose shell is on its serial console can't be saved (transport: serial)"

// notReadyError is a boot in which ready-pattern never came.
type notReadyError struct {
	pattern *regexp.Regexp
	error
}

func (e notReadyError) Unwrap() error { return e.error }

// What is said on the console, in the words of errors.
const (
	holdingScript = "holding the console-script"
	gettingShell  = "getting to a shell"
	usingShell    = "using the shell" // that somebody is logged in to
)

// getReady waits until the console says that the guest is ready, and holds the
// user's dialogue with it. It tells whether it did anything.
func (r *run) getReady(ctx context.Context) (bool, error) {
	did := false
	if re := r.config.ReadyPattern; re != nil {
		line, err := r.console.WaitLine(ctx, re)
		if err != nil {
			return false, notReadyError{re, err}
		}
		r.Log.Printf("The console says that the guest is ready, after %s: %s", actions.Seconds(time.Since(r.started)), r.mask.String(actions.Printable(line.Text)))
		did = true
	}
	if len(r.dialogue) == 0 {
		return did, nil
	}
	defer r.speak("the console-script speaks on this console")()
	begin := time.Now()
	value := func(name string) string { v, _ := r.Host.lookup(name); return v }
	if err := r.dialogue.Run(ctx, r.console, value); err != nil {
		return false, dialogueError{holdingScript, err}
	}
	r.Log.Printf("The console-script was held in %s.", actions.Seconds(time.Since(begin)))
	return true, nil
}

// shellStep bounds the answer to one typed line. An emulated guest that is busy
// can take seconds; one that does not answer is asked again.
const shellStep = 20 * time.Second

// openShell logs in on the console, unless a shell is there already, and runs
// everything else in that shell.
func (r *run) openShell(ctx context.Context, poke bool) error {
	begin := time.Now()
	end := r.speak("the script runs on this console (transport: serial), and nothing else can be typed")
	s := &dialogue.Session{Console: r.console, Step: shellStep, Poke: poke}
	client, err := r.overShell(ctx, s)
	if err != nil {
		end()
		return err
	}
	r.haveClient(client)
	r.result.SSH = time.Since(begin)
	r.Log.Printf("A shell of the user %s runs on the serial console. The script's two outputs are one there, with what else the console prints. "+
		"There are no saved machines, and no sync: tar; results of the script beside the workspace come back up to 4 MiB.", r.shell.User())
	return nil
}

func (r *run) overShell(ctx context.Context, s *dialogue.Session) (*guest.Client, error) {
	if err := s.Enter(ctx); err != nil {
		return nil, dialogueError{gettingShell, err}
	}
	sh, err := dialogue.OpenShell(ctx, r.console, s)
	if err != nil {
		return nil, dialogueError{usingShell, err}
	}
	r.shell = sh
	client, err := guest.Over(ctx, sh, guest.Options{User: sh.User(), Silence: paceOf(r.accel.Accel).deaf, Greeting: guest.Greeting{SetClock: true}})
	if err != nil {
		return nil, dialogueError{usingShell, err}
	}
	return client, nil
}

// typingGrace is what a script that takes too long gets between TERM and KILL
// over a console: on an emulated machine the typing alone takes a second.
const typingGrace = 10 * time.Second

// killGrace is guest.Script.KillGraceFor: an interrupt leaves no time for more
// than the usual.
func (r *run) killGrace(cause error) time.Duration {
	if r.overConsole() && errors.As(cause, new(timeoutError)) {
		return typingGrace
	}
	return 0
}

// dialogueFailure explains a dialogue on the console that did not go as it should.
func (r *run) dialogueFailure(e dialogueError) error {
	if e.doing == holdingScript {
		return r.quoting(fail(BootFailed, "The console-script did not get on", fmt.Errorf("console-script: %w", e.error),
			"Compare what is expected with the last lines of the console, above; what an earlier expect has matched is not seen again."))
	}
	err := fmt.Errorf("%s: %w", e.doing, e.error)
	switch {
	case errors.Is(e, dialogue.ErrPassword):
		return fail(BootFailed, "The serial console asks for a password", err,
			"Log in with the input console-script: expect \"login:\", send \"root\\n\", expect \"assword:\", send env PASSWORD \"\\n\".",
			"Or use another way to provision, or an image whose console lets root in without a password.")
	case errors.As(e, new(dialogue.LoginError)):
		return fail(BootFailed, "No login on the serial console", err,
			"Use another way to provision, an image whose console lets root in without a password, or the input console-script.")
	case e.doing == usingShell:
		return r.quoting(fail(BootFailed, "The shell on the serial console cannot be used", err,
			"Somebody is logged in there, and the last lines of the console, above, are what the shell says. It must be a POSIX shell "+
				"with the usual programs in its PATH, and have a directory for temporary files that can be written.",
			"Without transport: serial none of this is needed, but an SSH server is."))
	}
	return r.quoting(fail(BootFailed, "The key could not be put into the guest", err,
		"Somebody is logged in on the serial console, and its last lines, above, are what the shell says. It must be root's, in a guest with an SSH server.",
		"Or use another way to provision."))
}

// quoting adds the console's last lines to an error.
func (r *run) quoting(e *Error) *Error {
	e.Quote = r.lastWords()
	return e
}

// shellLate explains a boot whose time was over before there was a shell on the
// console; nil: something else was the matter.
func (r *run) shellLate(err error) *Error {
	var said dialogueError
	var limit bootLimit
	if !r.overConsole() || !errors.As(err, &said) || !errors.As(err, &limit) || limit.retry {
		return nil
	}
	text := limit.Error() + ": " + said.doing
	if n := len(r.console.Tail(-1)); n == 0 {
		text += "; the console is empty: the guest may not use its serial line"
	}
	if said.doing == usingShell {
		return r.quoting(fail(BootFailed, "The shell on the serial console did not answer in time", errors.New(text),
			"Look at the last lines of the console, above: something else may print or read there.", "Raise boot-timeout if the guest is slow."))
	}
	return r.quoting(fail(BootFailed, "No shell on the serial console in time", errors.New(text),
		"Look at the last lines of the console, above: what waits there can be answered by the input console-script.",
		"Raise boot-timeout if the guest was still booting."))
}

// consoleQuote is how many lines of the console an error quotes.
const consoleQuote = 8

// lastWords are the last lines of the console.
func (r *run) lastWords() []string {
	var texts []string
	for _, l := range r.console.Tail(consoleQuote) {
		if text := strings.TrimSpace(l.Text); text != "" {
			texts = append(texts, r.mask.String(actions.Printable(text)))
		}
	}
	return texts
}

// notReady explains a boot in which ready-pattern never came; nil: something
// else than time ended it.
func (r *run) notReady(err, cause error) *Error {
	var ready notReadyError
	var limit bootLimit
	if !errors.As(err, &ready) || !errors.As(cause, &limit) {
		return nil
	}
	why := "boot-timeout was over"
	if limit.retry {
		why = limit.text
	}
	return r.quoting(fail(BootFailed, "The guest did not say that it is ready",
		fmt.Errorf("no line of the serial console matches ready-pattern %q: %s", ready.pattern, why),
		"Compare ready-pattern with the last lines of the console, above; it is tried on each line, and on one that has not ended.",
		"Raise boot-timeout if the guest was still booting."))
}
