//go:build faults

package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// rounds is how often each fault is made: FAULT_ROUNDS, or 8.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("FAULT_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 8
}

func faultRun(t *testing.T) *program {
	t.Helper()
	return start(t, setup{args: []string{"run", "--image=selftest", "--accel=tcg", "--memory=512", "--run", "echo in the guest >&2; sleep 1000"}})
}

// somewhen is a moment between the start of a run and the middle of its script.
func somewhen() time.Duration { return time.Duration(rand.Int64N(int64(20 * time.Second))) }

// TestFaultInterrupt interrupts runs at any moment.
func TestFaultInterrupt(t *testing.T) {
	needGuest(t)
	for range rounds() {
		p := faultRun(t)
		after := somewhen()
		time.Sleep(after)
		p.record()
		began := time.Now()
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		status := p.wait()
		t.Logf("SIGINT after %v: status %d in %v", after.Round(time.Millisecond), status, time.Since(began).Round(time.Millisecond))
		if status != 130 || time.Since(began) > 7*time.Second {
			t.Errorf("status %d after %v", status, time.Since(began))
		}
	}
}

// TestFaultKillQEMU kills QEMU at any moment after its start: while it boots it
// is booted again, while the script runs the guest is lost.
func TestFaultKillQEMU(t *testing.T) {
	needGuest(t)
	for range rounds() {
		p := faultRun(t)
		p.stderr.await(t, "QEMU runs as")
		after := somewhen()
		time.Sleep(after)
		if err := syscall.Kill(p.qemu(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		p.stderr.await(t, "warning: Booting again: ", "error: ")
		_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		if status := p.wait(); status != 125 && status != 130 {
			t.Errorf("exit status = %d", status)
		}
	}
}

// TestFaultSilence stops QEMU in the middle of a script: nothing answers any more.
func TestFaultSilence(t *testing.T) {
	needGuest(t)
	p := faultRun(t)
	p.stderr.await(t, "in the guest\n")
	if err := syscall.Kill(p.qemu(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	has(t, "stderr", p.stderr.String(), "does not answer")
}

// TestFaultKilledOutright kills the program itself, which can clean nothing up
// then: QEMU must be gone all the same.
func TestFaultKilledOutright(t *testing.T) {
	needGuest(t)
	p := faultRun(t)
	p.stderr.await(t, "QEMU runs as")
	pid := p.qemu()
	name := processName(pid)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); processName(pid) == name; {
		if time.Now().After(deadline) {
			t.Fatalf("QEMU (process %d) lives on", pid)
		}
	}
}

// TestFaultDiskFull lets a guest write more than the host has room for.
func TestFaultDiskFull(t *testing.T) {
	needGuest(t)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("only root can make a small disk: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	}()
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "RUNNER_TEMP=" + small,
		"INPUT_RUN=dd if=/dev/urandom of=/big bs=1M count=200; sync; echo not reached",
	}})
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	if got := p.outputs()["result"]; got != "guest-lost" {
		t.Errorf("result = %q", got)
	}
	has(t, "the log", p.stdout.String(), "::error title=The host's disk is full", "Free space")
	if left, err := os.ReadDir(small); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
