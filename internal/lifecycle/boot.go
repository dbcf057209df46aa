package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/monitor"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// pace is what depends on how fast the guest runs.
type pace struct {
	boot    time.Duration // default of boot-timeout
	first   time.Duration // until the first byte on a console that we know to be on
	silence time.Duration // of the console while booting, and no SSH
	deaf    time.Duration // of a running guest: no answer to keepalives
}

// paces were chosen from measured boots: a Hurd under TCG speaks within 1 s,
// is silent for at most 6 s in a row and up in 13 s on two idle cores; a busy
// runner with a Debian image takes up to 165 s.
func paceOf(accel qemu.Accel) pace {
	if accel == qemu.AccelKVM {
		return pace{boot: 5 * time.Minute, first: 20 * time.Second, silence: 90 * time.Second, deaf: 30 * time.Second}
	}
	return pace{boot: 15 * time.Minute, first: time.Minute, silence: 4 * time.Minute, deaf: 90 * time.Second}
}

// retryable marks the end of a boot attempt after which another may help.
type retryable struct{ failure *Error }

func (e retryable) Error() string { return e.failure.Error() }
func (e retryable) Unwrap() error { return e.failure }

// bootLimit is a limit after which a boot attempt is given up.
type bootLimit struct {
	text  string
	retry bool // another attempt may help
}

func (l bootLimit) Error() string { return l.text }

func overTime(d time.Duration) bootLimit {
	return bootLimit{text: fmt.Sprintf("no command ran in the guest within boot-timeout (%s)", d)}
}

// findingError gives a boot attempt up because of what the console says.
type findingError struct{ console.Finding }

func (e findingError) Error() string { return e.Title + ": " + e.Line.Text }

// dialogueError is a login on the serial console that did not go as it should.
type dialogueError struct {
	doing string
	error
}

func (e dialogueError) Unwrap() error { return e.error }

// boot starts machines until one of them answers over SSH.
func (r *run) boot(ctx context.Context) (string, error) {
	limit := r.config.BootTimeout
	if limit == 0 {
		limit = paceOf(r.accel.Accel).boot
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, overTime(limit))
	defer cancel()
	for attempt := 1; ; attempt++ {
		r.result.Attempts = attempt
		err := r.attempt(ctx, attempt)
		if err == nil {
			break
		}
		if cause := context.Cause(ctx); errors.As(cause, new(bootLimit)) && !isKind(err, BootFailed) {
			err = fail(BootFailed, "No guest in time", fmt.Errorf("%w: %w", cause, err), "Raise boot-timeout.")
		}
		var again retryable
		if !errors.As(err, &again) || attempt == r.config.BootAttempts || ctx.Err() != nil {
			return "", err
		}
		r.Log.Annotate(actions.Warning, "Booting again", fmt.Sprintf("attempt %d of %d failed: %s: %v", attempt, r.config.BootAttempts, again.failure.Title, again))
	}
	r.Log.Printf("%s", r.result.Uname)
	what := "SSH"
	if r.overConsole() {
		what = "a shell on the console"
	}
	return fmt.Sprintf("%s after %s, attempt %d", what, actions.Seconds(r.result.Boot), r.result.Attempts), nil
}

// attempt boots one machine from a fresh overlay. When it fails, the machine
// is gone before attempt returns, unless it is the one that debug keeps.
func (r *run) attempt(ctx context.Context, n int) error {
	overlay, err := r.overlay(ctx, n)
	if err != nil {
		return err
	}
	r.overlayPath, r.savedOverlay = overlay, ""
	r.commands.past = nil
	s := r.spec(qemu.Image{Path: overlay, Format: "qcow2", Base: r.baseImage()})
	if s.RAM, err = r.saveableMemory(); err != nil {
		return fail(Internal, "No memory for the guest", err)
	}
	m, err := r.launch(ctx, s)
	if err != nil {
		return r.startFailure(ctx, err)
	}
	err = r.reach(ctx, m)
	if err == nil {
		r.picture = nil // of an attempt before
		return nil
	}
	r.screenshot(ctx)
	failure := r.bootFailure(ctx, err)
	if last := n == r.config.BootAttempts || !errors.As(failure, new(retryable)) || ctx.Err() != nil; last && r.mayHold() && !r.remoteBroken() {
		return failure // the cleanup ends it
	}
	r.stopSamples()
	r.stopSamples = func() {}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupBudget)
	defer cancel()
	return errors.Join(failure, m.Stop(stop), os.Remove(overlay))
}

// launch starts QEMU, and all that watches it.
func (r *run) launch(ctx context.Context, s qemu.Spec) (*qemu.Machine, error) {
	s.VNC = r.config.Debug == debugOnFailure && r.features.VNC
	m, err := qemu.Start(ctx, s, qemu.StartOptions{
		Binary: r.Host.QEMU, Features: r.features, RunDir: r.dir, Access: r.accel.Access,
		Log: io.MultiWriter(r.qemu, r.qemuTail), Processors: r.resources.processors, Trace: r.resources.traceLog,
	})
	if err != nil {
		if e := r.resourceFailure(err); e != nil && ctx.Err() == nil {
			return nil, e
		}
		return nil, err
	}
	r.started, r.machine = m.Started(), m
	r.meter.began(m.Started(), s.Incoming != "")
	r.remote.runs(m)
	r.watchConsole(ctx, m)
	r.attachLines(m)
	r.cleanup.push("stopping QEMU", m.Stop) // before the console is read to its end
	r.attach(ctx, m)
	r.stopSamples = r.observe(ctx, m)
	r.Log.Printf("QEMU runs as process %d; its monitor is %s", m.PID(), m.Socket())
	if err := r.showForwards(ctx, m); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupBudget)
		defer cancel()
		return nil, errors.Join(err, m.Stop(stop))
	}
	return m, nil
}

// baseImage is what lies below the overlays of all runs.
func (r *run) baseImage() *qemu.Image {
	base := &qemu.Image{Path: r.disk.base.Path, Format: string(r.disk.base.Format)}
	if r.remote.disk != nil {
		base.Connect = r.remote.connect
	}
	return base
}

// spec is the machine with a first disk.
func (r *run) spec(first qemu.Image) qemu.Spec {
	s := qemu.Spec{
		Name: "hurd-qemu-action", Hardware: r.hardware, Accel: r.accel.Accel,
		Forwards: r.forwardsOf(), Isolated: r.config.Network == networkRestricted,
		HugePage: r.resources.hugePage, Trace: r.resources.trace, Extra: r.resources.extra,
		SecondSerial: r.config.SerialPort.Set,
		NoSandbox:    !r.features.Sandbox, Paused: len(r.commands.script.At(monitor.BeforeBoot)) > 0,
		Disks: append([]qemu.Disk{{Image: first}}, r.spareDrive()...),
	}
	for i := range s.Disks {
		s.Disks[i].Cache, s.Disks[i].AIO = qemu.Cache(r.config.DiskCache), qemu.AIO(r.config.DiskAIO)
	}
	if r.seed != "" {
		s.Disks = append(s.Disks, qemu.Disk{Image: qemu.Image{Path: r.seed, Format: "raw"}, CDROM: true, ReadOnly: true})
	}
	return s
}

// consoleBacklog is how many lines are kept for whoever begins to wait for one.
const consoleBacklog = 64

// watchConsole reads the serial console for as long as the machine lives.
func (r *run) watchConsole(ctx context.Context, m *qemu.Machine) {
	out, _ := r.Log.Guest()
	last := make(chan string, consoleBacklog)
	r.consoleLines = last
	saw := r.meter.boot.Saw
	c := console.New(m.Console(), console.Options{
		Log:       r.serial,
		OnPartial: func(l console.Line) { saw(l.Time, l.Text) },
		OnLine: func(l console.Line) {
			saw(l.Time, l.Text)
			select {
			case last <- l.Text:
			default: // nobody waits for them, but when the guest is brought down
				select {
				case <-last:
				default:
				}
				select {
				case last <- l.Text:
				default:
				}
			}
			if !r.ready.Load() {
				r.showBooting(out, l)
			}
		},
	})
	r.console = c
	r.watchFor(c)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() { done <- c.Run(ctx) }()
	r.cleanup.push("reading the console to its end", func(limit context.Context) error {
		defer cancel()
		select {
		case err := <-done:
			return err
		case <-limit.Done():
			return context.Cause(limit)
		}
	})
}

// redrawWidth keeps the line that shows a boot on one line of a terminal.
const redrawWidth = 72

// showBooting shows a line of the console while the guest boots: all of them in
// a folded group of a job's log, the last one to a person at a terminal.
func (r *run) showBooting(out io.Writer, l console.Line) {
	text := actions.Printable(r.mask.String(l.Text))
	switch {
	case r.Log.Commands():
		fmt.Fprintf(out, "    %s\n", text)
	case r.Host.Progress && strings.TrimSpace(text) != "":
		if runes := []rune(text); len(runes) > redrawWidth {
			text = string(runes[:redrawWidth])
		}
		r.Log.Redraw(fmt.Sprintf("%3.0f s  %s", time.Since(r.started).Seconds(), text))
	}
}

// reach waits until a command has run in the guest, and gives up as soon as it
// is clear that none will.
func (r *run) reach(ctx context.Context, m *qemu.Machine) error {
	ctx, release := m.Context(ctx)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if len(r.commands.script.At(monitor.BeforeBoot)) > 0 {
		if err := r.beforeBoot(ctx); err != nil {
			return err
		}
		if err := m.Resume(ctx); err != nil {
			return err
		}
	}
	r.watchBoot(ctx, cancel)
	r.watchCommands(ctx, cancel)
	talked, err := r.getReady(ctx)
	if err != nil {
		return err
	}
	if r.overConsole() {
		return r.openShell(ctx, talked)
	}
	pinned := r.keys.pinned
	if r.disk.manifest.Method == provision.MethodConsole {
		keys, err := r.typeKeys(ctx, talked)
		if err != nil {
			return err
		}
		pinned = keys
		r.keys.pinned = keys // debug tells them to people
	}
	return r.dial(ctx, m, pinned, guest.Greeting{Hold: r.untouched()})
}

// untouched tells whether nothing is done to a booted guest before the script that
// may change what a login makes of it, nor that a session must not be there for.
func (r *run) untouched() bool {
	return r.seed == "" && !r.maySave() && r.config.Prepare == "" && len(r.userData.plan.Steps) == 0
}

// dialAgain connects to a guest whose connection was closed.
func (r *run) dialAgain(ctx context.Context) error {
	ctx, release := r.machine.Context(ctx)
	defer release()
	boot, took := r.result.Boot, r.result.SSH
	err := r.dial(ctx, r.machine, r.keys.pinned, guest.Greeting{Hold: true})
	r.result.Boot, r.result.SSH = boot, took
	return err
}

// dial connects to the guest until a command has run there, which gives it our
// time, and what else the greeting says.
func (r *run) dial(ctx context.Context, m *qemu.Machine, pinned []ssh.PublicKey, greeting guest.Greeting) error {
	greeting.SetClock = true
	port, err := m.ForwardedPort(ctx, r.config.SSHPort)
	if err != nil {
		return err
	}
	boot := r.meter.boot // of this machine, whatever becomes of it
	client, err := guest.Dial(ctx, guest.Options{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), User: r.config.SSHUser,
		Signer: r.keys.signer, HostKeys: pinned,
		Emulated: r.accel.Accel == qemu.AccelTCG, Silence: paceOf(r.accel.Accel).deaf,
		LoginShell: r.loginShell, Greeting: greeting,
		OnAnswer: func() { boot.Answered(time.Now()) },
	})
	if err != nil {
		return err
	}
	r.haveClient(client)
	r.result.SSH = client.Took()
	return nil
}

// haveClient takes over a connection over which a command has run.
func (r *run) haveClient(client *guest.Client) {
	r.cleanup.push("closing the connection to the guest", func(context.Context) error { return client.Close() })
	r.client = client
	r.ready.Store(true)
	r.readyAt = time.Now()
	r.result.Boot = r.readyAt.Sub(r.started)
	r.loginShell = client.LoginShell()
	if uname := client.Uname(); uname != "" { // else it is what it was when it was saved
		r.result.Uname = uname
	}
	r.meter.boot.Ready(r.readyAt)
	if !r.overConsole() {
		r.meter.clients = append(r.meter.clients, client)
	}
}

// watchBoot ends a boot that cannot succeed any more.
func (r *run) watchBoot(ctx context.Context, end context.CancelCauseFunc) {
	p, c := paceOf(r.accel.Accel), r.console
	go func() {
		if f, err := c.WaitFinding(ctx); err == nil {
			end(findingError{f})
		}
	}()
	if r.disk.manifest.Prepared == nil {
		return // a silent console says nothing about a guest that does not use it
	}
	go func() {
		timer := time.NewTimer(p.first)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if c.Bytes() == 0 {
			end(bootLimit{fmt.Sprintf("the machine printed nothing in its first %s", p.first), true})
			return
		}
		if c.WaitSilence(ctx, p.silence) == nil {
			end(bootLimit{fmt.Sprintf("the machine printed nothing for %s and ran no command", p.silence), true})
		}
	}()
}

// typeKeys logs in on the serial console and puts our key into the guest.
func (r *run) typeKeys(ctx context.Context, poke bool) ([]ssh.PublicKey, error) {
	defer r.speak("the SSH key is typed on this console")()
	keys, err := provision.Dialogue{Console: r.console, User: r.config.SSHUser, Keys: []string{r.keys.login}, Poke: poke}.Run(ctx)
	if err != nil {
		return nil, dialogueError{"putting the key into the guest", err}
	}
	return keys, nil
}
