package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
	"github.com/org/hurd-qemu-action/internal/units"
)

// deadlineAfter is for cleanups, when the test's own context has ended.
func deadlineAfter(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestE2EMachine(t *testing.T) {
	before := openFiles(t)
	spec, options := realSpec(t, firmware("hello from the guest\r\n", echo))
	var log bytes.Buffer
	options.Log = &log
	m, err := Start(deadline(t, 60*time.Second), spec, options)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, m, "hello from the guest", 30*time.Second)
	if _, err := m.Console().Write([]byte("typed\n")); err != nil {
		t.Error(err)
	}
	waitFor(t, m, "typed", 30*time.Second)
	if m.Phase() != PhaseRunning {
		t.Errorf("phase %s", m.Phase())
	}
	port, err := m.ForwardedPort(deadline(t, 20*time.Second), 22)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Errorf("QEMU does not listen on the forwarded port: %v", err)
	} else {
		_ = conn.Close()
	}
	checkTools(t, m)
	checkDomain(t, m)
	checkScreen(t, m)
	start := time.Now()
	if err := m.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Stop took %v", took)
	}
	wantEnd(t, m, ExitStopped, "it was stopped")
	if left, err := os.ReadDir(options.RunDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
	if !strings.HasPrefix(log.String(), m.Args()[0]+" -nodefaults -no-user-config") {
		t.Errorf("the log:\n%s", log.String())
	}
}

// checkTools uses the second monitor while the first is in use.
func checkTools(t *testing.T, m *Machine) {
	t.Helper()
	for range 2 { // a tool may come again
		tool, err := qmp.Dial(deadline(t, 20*time.Second), m.Socket())
		if err != nil {
			t.Fatalf("the monitor for tools: %v", err)
		}
		var name struct{ Name string }
		if err := tool.Execute(deadline(t, 20*time.Second), "query-name", nil, &name); err != nil || name.Name != "test" {
			t.Errorf("query-name = %+v, %v", name, err)
		}
		if err := tool.Close(); err != nil {
			t.Error(err)
		}
	}
}

func checkScreen(t *testing.T, m *Machine) {
	t.Helper()
	for range 2 {
		data, err := m.Screendump(deadline(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		config, err := png.DecodeConfig(bytes.NewReader(data))
		if err != nil || config.Width < 300 || config.Height < 200 {
			t.Errorf("a screen of %d x %d, %v", config.Width, config.Height, err)
		}
	}
	var sets []struct{ FDs []any }
	if err := m.Monitor().Execute(deadline(t, 20*time.Second), "query-fdsets", nil, &sets); err != nil {
		t.Error(err)
	}
	for _, s := range sets {
		if len(s.FDs) > 0 {
			t.Errorf("QEMU keeps the descriptor of a screen: %v", s.FDs)
		}
	}
}

// status reads the fields of /proc/PID/status.
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// TestE2ELeastPrivilege looks at the running process from outside, and lets
// its monitor try what a guest that broke out of its machine would.
func TestE2ELeastPrivilege(t *testing.T) {
	for _, tc := range []struct {
		name   string
		access Access
		groups string
	}{{"started as the user", Access{}, ""}, {"started as root", Access{Late: true}, "65534"}} {
		t.Run(tc.name, func(t *testing.T) {
			spec, options := realSpec(t, firmware("", idle))
			options.Access = tc.access
			m := startReal(t, spec, options)
			have, want := status(t, m.PID()), map[string]string{"Seccomp": "2", "NoNewPrivs": "1"}
			if os.Geteuid() == 0 {
				want = map[string]string{
					"Seccomp": "2", "NoNewPrivs": "1", "Groups": tc.groups,
					"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534",
					"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000",
				}
			}
			for name, value := range want {
				if have[name] != value {
					t.Errorf("%s is %q, want %q", name, have[name], value)
				}
			}
			checkFiles(t, m.PID())
			checkBreakout(t, m)
		})
	}
}

// checkBreakout has QEMU open a file by its path, and run a program. For the
// latter some versions are killed by their sandbox and some are told no.
func checkBreakout(t *testing.T, m *Machine) {
	t.Helper()
	ctx := deadline(t, 20*time.Second)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		node := map[string]any{"driver": "file", "node-name": "stolen", "filename": secret}
		if err := m.Monitor().Execute(ctx, "blockdev-add", node, nil); err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("opening another user's file: %v", err)
		}
	}
	dir := publicDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	run := map[string]string{"uri": "exec:touch " + filepath.Join(dir, "made")}
	switch err := m.Monitor().Execute(ctx, "migrate", run, nil); {
	case errors.Is(err, qmp.ErrHangup):
		wantEnd(t, m, ExitKilled, "its sandbox forbids what it tried to do")
	case err == nil || !strings.Contains(err.Error(), "Operation not permitted"):
		t.Errorf("running a program: %v", err)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("a program has run: %v, %v", made, err)
	}
}

// checkFiles holds that QEMU has no file that it was not given.
func checkFiles(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		switch {
		case strings.HasPrefix(target, "socket:"), strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "anon_inode:"),
			strings.HasPrefix(target, "/memfd:"), target == "/dev/null":
		default:
			t.Errorf("QEMU has %s open as %s", target, e.Name())
		}
	}
}

func TestE2EEnds(t *testing.T) {
	signal := func(s syscall.Signal) func(*testing.T, *Machine) {
		return func(t *testing.T, m *Machine) {
			if err := syscall.Kill(m.PID(), s); err != nil {
				t.Error(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		then   []byte
		do     func(*testing.T, *Machine)
		reason ExitReason
		text   string
	}{
		{"the guest resets", reset, nil, ExitGuestReset, "the guest reset the machine"},
		{"kill -9", idle, signal(syscall.SIGKILL), ExitKilled, "killed by signal 9"},
		{"kill", idle, signal(syscall.SIGTERM), ExitHostSignal, "a signal from outside"},
		{"a tool quits it", idle, func(t *testing.T, m *Machine) {
			tool, err := qmp.Dial(deadline(t, 20*time.Second), m.Socket())
			if err != nil {
				t.Error(err)
				return
			}
			_ = tool.Execute(deadline(t, 20*time.Second), "quit", nil, nil) // its end is what counts
			_ = tool.Close()
		}, ExitHostQuit, "another client of its monitor"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec, options := realSpec(t, firmware("ready\n", tc.then))
			spec.Paused = true // so that the guest ends when we are there to see it
			m := startReal(t, spec, options)
			if m.Phase() != PhasePaused {
				t.Errorf("phase %s", m.Phase())
			}
			ctx, cancel := m.Context(deadline(t, 20*time.Second))
			defer cancel()
			if err := m.Monitor().Execute(ctx, "cont", nil, nil); err != nil && !errors.Is(context.Cause(ctx), m.Err()) {
				t.Fatal(err)
			}
			waitFor(t, m, "ready", 20*time.Second)
			start := time.Now()
			if tc.do != nil {
				tc.do(t, m)
			}
			<-ctx.Done()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %v to notice", took)
			}
			wantEnd(t, m, tc.reason, tc.text)
			var exit *ExitError
			if !errors.As(context.Cause(ctx), &exit) {
				t.Errorf("the context's cause is %v", context.Cause(ctx))
			}
		})
	}
}

// TestE2EBadMachine has the real QEMU refuse a command line.
func TestE2EBadMachine(t *testing.T) {
	spec, options := realSpec(t, firmware("", idle))
	spec.Extra = []string{"-device", "warp-drive"}
	_, err := Start(deadline(t, 60*time.Second), spec, options)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 1 || !strings.Contains(err.Error(), "'warp-drive' is not a valid device model name") {
		t.Errorf("err = %v; want QEMU's own words", err)
	}
}

// TestE2ELocking pins that a disk cannot be written by two machines, and that
// it can be used again when the first is gone.
func TestE2ELocking(t *testing.T) {
	spec, options := realSpec(t, firmware("", idle))
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Disks = []Disk{{Image: Image{Path: path, Format: "raw"}}}
	first := startReal(t, spec, options)
	options.RunDir = t.TempDir()
	_, err := Start(deadline(t, 60*time.Second), spec, options)
	if err == nil || !strings.Contains(err.Error(), `Failed to get "write" lock`) {
		t.Errorf("a second machine on the same disk: %v", err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	startReal(t, spec, options)
}

// TestE2EDiesWithUs kills a process that has started a QEMU.
func TestE2EDiesWithUs(t *testing.T) {
	needQEMU(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self, "-parent", *qemuFlag)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatalf("the parent did not start a QEMU: %v", err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(process) }()
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 5000)
	if n != 1 || err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("QEMU outlives its parent: %d, %v", n, err)
	}
}

// parentOfQEMU is the main program of TestE2EDiesWithUs's other process.
func parentOfQEMU(binary string) int {
	spec := Spec{
		Hardware: Hardware{Machine: "pc", CPUModel: "qemu64", CPUs: 1, Memory: 64 << 20, DiskBus: BusIDE},
		Accel:    AccelTCG, Firmware: firmware("", idle),
	}
	m, err := Start(context.Background(), spec, StartOptions{Binary: binary})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(m.PID())
	<-m.Done()
	return 0
}

// TestE2EMach boots the real GNU Mach from a disk under an overlay, on the
// machine's own controller and on one that is added.
func TestE2EMach(t *testing.T) {
	needProgram(t, "qemu-img", "qemu-utils")
	for _, tc := range []struct{ bus, device string }{{BusIDE, "PROBE dev hd0 ok"}, {BusAHCI, "PROBE dev sd0 ok"}} {
		t.Run(tc.bus, func(t *testing.T) {
			t.Parallel()
			spec, options := realSpec(t, Blob{})
			overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
			if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", overlay, "64M").CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v\n%s", err, out)
			}
			spec.Hardware = Plan(hurdKernel, Overrides{DiskBus: tc.bus, Memory: 256 << 20}, options.Features)
			spec.Disks = []Disk{{Image: Image{Path: overlay, Format: "qcow2", Base: &Image{Path: *machFlag, Format: "qcow2"}}}}
			m := startReal(t, spec, options)
			waitFor(t, m, tc.device, 120*time.Second)
			waitFor(t, m, "PROBE READY", 20*time.Second)
			if a, err := m.Activity(deadline(t, 20*time.Second)); err != nil || a.Read < 100*units.KiB {
				t.Errorf("Activity = %+v, %v; GNU Mach was read from the disk", a, err)
			}
		})
	}
}

// TestE2ESampler samples a guest that spins, while other commands go over the
// same monitor.
func TestE2ESampler(t *testing.T) {
	spec, options := realSpec(t, firmware("spinning\n", []byte{0xeb, 0xfe})) // jmp to itself
	m := startReal(t, spec, options)
	waitFor(t, m, "spinning", 30*time.Second)
	s := &Sampler{Interval: 50 * time.Millisecond, Limit: 16}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, m.Usage) }()
	for ctx.Err() == nil {
		if err := m.Monitor().Execute(deadline(t, 20*time.Second), "query-name", nil, nil); err != nil {
			t.Errorf("another command: %v", err)
			break
		}
	}
	<-done
	samples := s.Samples()
	if len(samples) < 3 || len(samples) > 16 {
		t.Fatalf("%d samples", len(samples))
	}
	first, last := samples[0], samples[len(samples)-1]
	if last.At <= first.At || last.CPU-first.CPU < (last.At-first.At)/20 {
		t.Errorf("a guest that spins used %v of CPU in %v", last.CPU-first.CPU, last.At-first.At)
	}
	if guest := last.GuestCPU - first.GuestCPU; guest < (last.At-first.At)/20 || last.GuestCPU > last.CPU {
		t.Errorf("its processor used %v in %v, QEMU in all %v", guest, last.At-first.At, last.CPU-first.CPU)
	}
	if last.Resident < 10*units.MiB || last.Peak < last.Resident || last.Peak > 4*units.GiB {
		t.Errorf("memory: %+v", last)
	}
}

// TestE2EGuestCPU: what QEMU does for our questions is not the guest's time,
// which stands still with its processor.
func TestE2EGuestCPU(t *testing.T) {
	spec, options := realSpec(t, firmware("halted\n", idle))
	m := startReal(t, spec, options)
	waitFor(t, m, "halted", 30*time.Second)
	ask := func() Usage {
		u, err := m.Usage(deadline(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	before, after, n := ask(), Usage{}, 0
	for began := time.Now(); time.Since(began) < 20*time.Second; n++ {
		if after = ask(); after.CPU-before.CPU >= 200*time.Millisecond {
			break
		}
	}
	t.Logf("%d questions in %v, for which QEMU needed %v of CPU", n, after.At-before.At, after.CPU-before.CPU)
	if guest, all := after.GuestCPU-before.GuestCPU, after.CPU-before.CPU; all < 200*time.Millisecond || guest > all/4 {
		t.Errorf("a halted processor used %v, QEMU in all %v", guest, all)
	}
}
