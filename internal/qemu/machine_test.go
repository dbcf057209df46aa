package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// startFake starts the fake and stops it at the end of the test.
func startFake(t *testing.T, o fakeOptions) *Machine {
	t.Helper()
	m, err := Start(deadline(t, 20*time.Second), o.spec(), StartOptions{Binary: fakeBinary(t), RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(context.Background()) })
	return m
}

// exitOf waits for a machine's own end.
func exitOf(t *testing.T, m *Machine) ExitError {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the machine did not end")
	}
	var exit *ExitError
	if !errors.As(m.Err(), &exit) {
		t.Fatalf("Err = %v; want an *ExitError", m.Err())
	}
	return *exit
}

// wantEnd waits for a machine's own end and checks it.
func wantEnd(t *testing.T, m *Machine, reason ExitReason, text string) {
	t.Helper()
	exit := exitOf(t, m)
	if exit.Reason != reason || !strings.Contains(exit.Error(), text) {
		t.Errorf("ended as %s: %v; want %s: %s", exit.Reason, exit.Error(), reason, text)
	}
	if m.Phase() != PhaseExited {
		t.Errorf("phase %s after the end", m.Phase())
	}
}

func TestStartAndStop(t *testing.T) {
	var log bytes.Buffer
	run := t.TempDir()
	m, err := Start(deadline(t, 20*time.Second), fakeOptions{Stderr: "a warning\n"}.spec(),
		StartOptions{Binary: fakeBinary(t), RunDir: run, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if m.Phase() != PhaseRunning || m.Err() != nil || m.Monitor().Version().Major != 99 {
		t.Errorf("phase %s, err %v, version %v", m.Phase(), m.Err(), m.Monitor().Version())
	}
	info, err := os.Stat(m.Socket())
	if err != nil || m.Socket() != filepath.Join(run, SocketName) || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the tools' socket %s: %v, %v", m.Socket(), info, err)
	}
	ctx, cancel := m.Context(t.Context())
	defer cancel()
	pid := m.PID()
	for range 3 {
		if err := m.Stop(t.Context()); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	wantEnd(t, m, ExitStopped, "qemu ended: it was stopped: a warning")
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, m.Err()) {
		t.Errorf("the context's cause is %v", cause)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is there: %v", pid, err)
	}
	if _, err := os.Stat(m.Socket()); !os.IsNotExist(err) {
		t.Errorf("the tools' socket is there: %v", err)
	}
	first, rest, _ := strings.Cut(log.String(), "\n")
	if !strings.HasPrefix(first, m.Args()[0]+" -nodefaults") || rest != "a warning\n" {
		t.Errorf("the log:\n%s", log.String())
	}
}

func TestFailuresToStart(t *testing.T) {
	status := func(n int) *int { return &n }
	for _, tc := range []struct {
		name    string
		fake    fakeOptions
		options StartOptions
		spec    func(*Spec)
		text    string
		exit    bool
	}{
		{name: "exits at once", fake: fakeOptions{Exit: status(1), Stderr: "Slirp: Failed to send packet, ret: -1\nqemu: bad machine\n"},
			text: "starting QEMU: qemu ended: it failed with status 1: qemu: bad machine", exit: true},
		{name: "exits happily", fake: fakeOptions{Exit: status(0)}, text: "it went away with status 0 and no explanation", exit: true},
		{name: "never answers", fake: fakeOptions{Hang: true, IgnoreTerm: true}, options: StartOptions{Ready: 50 * time.Millisecond},
			text: "starting QEMU: waiting for the monitor's greeting: QEMU's monitor did not answer within 50ms"},
		{name: "no such program", options: StartOptions{Binary: "/no/qemu"}, text: "starting QEMU: fork/exec /no/qemu: no such file or directory"},
		{name: "no such disk", spec: func(s *Spec) { s.Disks = []Disk{overlaid(0)}; s.Disks[0].Image.Path = "/no/disk" },
			text: "starting QEMU: opening disk 0: open /no/disk: no such file or directory"},
		{name: "no such kernel", spec: func(s *Spec) { s.Kernel.Path = "/no/kernel" }, text: "starting QEMU: opening kernel: open /no/kernel"},
		{name: "no run directory", options: StartOptions{RunDir: "/no/dir"}, text: "starting QEMU: making the monitor's socket: listen unix /no/dir/qmp.sock"},
		{name: "long run directory", options: StartOptions{RunDir: "/" + strings.Repeat("d", 100)}, text: "has 110 bytes, and a socket's at most 107: use a run directory with a shorter name"},
		{name: "full log", options: StartOptions{Log: brokenWriter{}}, text: "starting QEMU: writing QEMU's log: the disk is full"},
		{name: "no KVM device", options: StartOptions{Access: Access{Open: "/no/kvm"}}, spec: func(s *Spec) { s.Accel = AccelKVM },
			text: "starting QEMU: opening the KVM device: open /no/kvm"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := openFiles(t)
			if tc.options.Binary == "" {
				tc.options.Binary = fakeBinary(t)
			}
			if tc.options.RunDir == "" {
				tc.options.RunDir = t.TempDir()
			}
			s := tc.fake.spec()
			if tc.spec != nil {
				tc.spec(&s)
			}
			_, err := Start(deadline(t, 20*time.Second), s, tc.options)
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("err = %v\nwant %q", err, tc.text)
			}
			var exit *ExitError
			if errors.As(err, &exit) != tc.exit {
				t.Errorf("err is an *ExitError: %v, want %v", !tc.exit, tc.exit)
			}
			if left, err := os.ReadDir(tc.options.RunDir); err == nil && len(left) > 0 {
				t.Errorf("%s was left behind", left[0].Name())
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d files are open, %d were before", after, before)
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestStartCancelled(t *testing.T) {
	cause := errors.New("SIGINT")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	_, err := Start(ctx, fakeOptions{Hang: true}.spec(), StartOptions{Binary: fakeBinary(t)})
	if !errors.Is(err, cause) {
		t.Errorf("err = %v; want the context's cause", err)
	}
}

func TestEnds(t *testing.T) {
	shutdown := func(reason string) string {
		return `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "` + reason + `"}}` + "\nexit"
	}
	for _, tc := range []struct {
		name   string
		script string
		reason ExitReason
		text   string
	}{
		{"reset", shutdown("guest-reset"), ExitGuestReset, "qemu ended: the guest reset the machine"},
		{"power off", shutdown("guest-shutdown"), ExitGuestShutdown, "the guest powered the machine off"},
		{"panic", shutdown("guest-panic"), ExitGuestPanic, "the guest panicked"},
		{"another client's quit", shutdown("host-qmp-quit"), ExitHostQuit, "another client of its monitor"},
		{"signal from outside", shutdown("host-signal"), ExitHostSignal, "a signal from outside"},
		{"QEMU's own error", shutdown("host-error"), ExitFailed, "it failed with status 0"},
		{"a reason of the future", shutdown("guest-dreams"), ExitGuestShutdown, "powered the machine off"},
		{"no reason", `{"event": "SHUTDOWN"}` + "\nexit", ExitUnexplained, "no explanation"},
		{"no event", "exit", ExitUnexplained, "status 0 and no explanation"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := startFake(t, fakeOptions{On: map[string]string{"cont": tc.script}})
			_ = m.Monitor().Execute(deadline(t, 20*time.Second), "cont", nil, nil) // its end is what counts
			wantEnd(t, m, tc.reason, tc.text)
			if err := m.Stop(t.Context()); err != nil {
				t.Errorf("Stop after the end: %v", err)
			}
			if got := exitOf(t, m).Reason; got != tc.reason {
				t.Errorf("Stop changed the reason to %s", got)
			}
		})
	}
}

func TestKilledFromOutside(t *testing.T) {
	m := startFake(t, fakeOptions{Stderr: "last words"})
	ctx, cancel := m.Context(t.Context())
	defer cancel()
	if err := syscall.Kill(m.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	<-ctx.Done()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	wantEnd(t, m, ExitKilled, "it was killed by signal 9 (killed), which the kernel also does when memory runs out: last words")
	if exit := exitOf(t, m); exit.Status != 137 || exit.Signal != syscall.SIGKILL {
		t.Errorf("status %d, signal %v", exit.Status, exit.Signal)
	}
	if err := m.Monitor().Execute(t.Context(), "query-status", nil, nil); !errors.Is(err, qmp.ErrHangup) {
		t.Errorf("the monitor says %v", err)
	}
}

func TestStubbornEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fake  fakeOptions
		texts []string
		least time.Duration
	}{
		{"quit answered, not obeyed", fakeOptions{IgnoreQuit: true}, []string{"asking QEMU to quit: it did not end within 1s"}, quitTime},
		{"monitor dead", fakeOptions{IgnoreAll: true}, []string{"asking QEMU to quit: executing quit: no reply: it did not end within 1s"}, quitTime},
		{"nothing but SIGKILL", fakeOptions{IgnoreAll: true, IgnoreTerm: true},
			[]string{"asking QEMU to quit", "sending QEMU SIGTERM: it did not end within 700ms"}, quitTime + termTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := startFake(t, tc.fake)
			start := time.Now()
			err := m.Stop(t.Context())
			if took := time.Since(start); took < tc.least || took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, text := range tc.texts {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("err = %v; want %q in it", err, text)
				}
			}
			wantEnd(t, m, ExitStopped, "it was stopped")
		})
	}
}

// TestImpatientStop has a caller whose time is up: the process dies at once.
func TestImpatientStop(t *testing.T) {
	m := startFake(t, fakeOptions{IgnoreAll: true, IgnoreTerm: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if err := m.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(start); took > quitTime {
		t.Errorf("it took %v", took)
	}
	wantEnd(t, m, ExitStopped, "it was stopped")
}

func TestConcurrentStops(t *testing.T) {
	m := startFake(t, fakeOptions{})
	results := make(chan error)
	for range 5 {
		go func() { results <- m.Stop(t.Context()) }()
	}
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestConsoleIsReadToItsEnd pins that Stop takes nothing from a reader,
// whether it is at work or comes later.
func TestConsoleIsReadToItsEnd(t *testing.T) {
	last := strings.Repeat("the guest's last line\r\n", 2000)
	for _, atWork := range []bool{true, false} {
		m := startFake(t, fakeOptions{Serial: last})
		read := make(chan string, 1)
		reader := func() {
			data, err := io.ReadAll(m.Console())
			if err != nil {
				t.Errorf("reading the console: %v", err)
			}
			read <- string(data)
		}
		if atWork {
			go reader()
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if !atWork {
			reader()
		}
		if got := <-read; got != last {
			t.Errorf("reader at work %v: %d bytes were read of %d", atWork, len(got), len(last))
		}
		if _, err := m.Console().Write([]byte("x")); err == nil {
			t.Error("the console's socket is still open")
		}
	}
}

// TestGuestIsFasterThanStop has a guest that resets just before Stop.
func TestGuestIsFasterThanStop(t *testing.T) {
	m := startFake(t, fakeOptions{On: map[string]string{
		"quit": `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\n" +
			`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}` + "\n",
	}})
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	wantEnd(t, m, ExitGuestReset, "the guest reset the machine")
}

func TestPhases(t *testing.T) {
	event := func(name string) string { return `{"event": "` + name + `"}` + "\n" }
	m := startFake(t, fakeOptions{Status: "paused", On: map[string]string{
		"cont": event("RESUME"), "stop": event("STOP"), "system_powerdown": event("SHUTDOWN") + event("STOP"),
	}})
	if m.Phase() != PhasePaused {
		t.Errorf("phase %s; want paused", m.Phase())
	}
	for _, step := range []struct {
		command string
		want    Phase
	}{{"cont", PhaseRunning}, {"stop", PhasePaused}, {"cont", PhaseRunning}, {"system_powerdown", PhaseStopping}} {
		if err := m.Monitor().Execute(deadline(t, 20*time.Second), step.command, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := m.WaitPhase(deadline(t, 20*time.Second), step.want); err != nil {
			t.Errorf("after %s: %v", step.command, err)
		}
	}
	spec := fakeOptions{Status: "inmigrate"}.spec()
	spec.Incoming = "defer"
	m, err := Start(deadline(t, 20*time.Second), spec, StartOptions{Binary: fakeBinary(t)})
	if err != nil {
		t.Fatal(err)
	}
	if m.Phase() != PhaseIncoming || m.Socket() != "" {
		t.Errorf("phase %s; want incoming; socket %q", m.Phase(), m.Socket())
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWaitPhaseInVain waits for what will not come.
func TestWaitPhaseInVain(t *testing.T) {
	m := startFake(t, fakeOptions{})
	patience := errors.New("that was long enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(patience)
	err := m.WaitPhase(ctx, PhasePaused)
	if !errors.Is(err, patience) || !strings.Contains(err.Error(), "waiting for the machine to be paused, it is running: ") {
		t.Errorf("err = %v", err)
	}
	waiting := make(chan error)
	go func() { waiting <- m.WaitPhase(deadline(t, 20*time.Second), PhasePaused) }()
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	var exit *ExitError
	if err := <-waiting; !errors.As(err, &exit) {
		t.Errorf("err = %v; want the machine's end", err)
	}
}

func TestFault(t *testing.T) {
	report := `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "operation": "write", "action": "report", "reason": "Input/output error"}}` + "\n"
	stop := `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device"}}` + "\n"
	m := startFake(t, fakeOptions{On: map[string]string{"cont": report + stop + stop}})
	ctx, cancel := m.Context(t.Context())
	defer cancel()
	if err := m.Monitor().Execute(deadline(t, 20*time.Second), "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	var fault *FaultError
	if !errors.As(context.Cause(ctx), &fault) || !fault.NoSpace || fault.Disk != "disk0" {
		t.Fatalf("cause = %v", context.Cause(ctx))
	}
	want := "the machine stands still: QEMU could not write the file of disk0: No space left on device: free some space on the host's disk"
	if fault.Error() != want {
		t.Errorf("got %q\nwant %q", fault, want)
	}
	if err := m.WaitPhase(t.Context(), PhasePaused); !errors.As(err, &fault) {
		t.Errorf("WaitPhase = %v; want the fault", err)
	}
	if m.Err() != nil {
		t.Errorf("the machine has not ended, yet Err = %v", m.Err())
	}
}

// TestFaultFromOutside pins that who serves a disk is believed, and the first one.
func TestFaultFromOutside(t *testing.T) {
	stop := `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "operation": "read", "action": "stop", "reason": "Input/output error"}}` + "\n"
	m := startFake(t, fakeOptions{On: map[string]string{"cont": stop}})
	ctx, cancel := m.Context(t.Context())
	defer cancel()
	cause := errors.New("the server is gone")
	if m.Faulted() != nil {
		t.Error("a fault before the first")
	}
	m.Fault(FaultError{Disk: "disk0", Operation: "read", Reason: cause.Error(), Err: cause})
	if err := m.Monitor().Execute(deadline(t, 20*time.Second), "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	m.Fault(FaultError{Disk: "disk1"})
	if !errors.Is(m.Faulted(), cause) {
		t.Errorf("the fault is %v", m.Faulted())
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, cause) || err.Error() != "the machine stands still: QEMU could not read the file of disk0: the server is gone" {
		t.Errorf("cause = %v", err)
	}
}

// TestContextOfItsParent pins that the machine's context is its parent's too.
func TestContextOfItsParent(t *testing.T) {
	m := startFake(t, fakeOptions{})
	cause := errors.New("the step timed out")
	parent, end := context.WithCancelCause(t.Context())
	ctx, cancel := m.Context(parent)
	defer cancel()
	end(cause)
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), cause) {
		t.Errorf("cause = %v", context.Cause(ctx))
	}
}

func TestForwardedPort(t *testing.T) {
	m := startFake(t, fakeOptions{Usernet: usernet72})
	if port, err := m.ForwardedPort(deadline(t, 20*time.Second), 22); err != nil || port != 36289 {
		t.Errorf("ForwardedPort = %d, %v", port, err)
	}
	_, err := m.ForwardedPort(deadline(t, 20*time.Second), 80)
	if err == nil || !strings.Contains(err.Error(), "finding the port that leads to the guest's tcp port 80: QEMU forwards none; it says") {
		t.Errorf("err = %v", err)
	}
}
