package guest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// goingDown answers the command that brings a simulated guest down, and tells it.
func goingDown(s *sshServer, status uint32) (told chan string) {
	told = make(chan string, 1)
	s.command = func(line string, _ sshChannel) (uint32, bool) {
		if isHello(line) {
			return 0, false
		}
		told <- line
		return status, true
	}
	return told
}

// TestPowerOffHurd plays the console of a Hurd that was told to halt. QEMU
// stays up for ever: the line on the console is the only sign.
func TestPowerOffHurd(t *testing.T) {
	log, err := os.ReadFile("../../testdata/serial/halt.log")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	told := goingDown(s, 0)
	c := dialed(t, s.listen())
	lines := make(chan string)
	said := make(chan string, 1)
	go func() {
		command := <-told
		said <- command
		for line := range strings.Lines(string(log)) {
			select {
			case lines <- strings.TrimSuffix(line, "\n"):
			case <-t.Context().Done():
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := c.PowerOff(ctx, platform.Hurd, Witness{Lines: lines, Exited: make(chan struct{})}); err != nil {
		t.Errorf("err = %v", err)
	}
	if got := <-said; !strings.HasSuffix(got, "sync; halt || halt-hurd") {
		t.Errorf("the Hurd was told %q; it ignores what ACPI would do", got)
	}
}

// TestPowerOffHurdNeedsItsLine plays the same log up to the login prompt.
func TestPowerOffHurdNeedsItsLine(t *testing.T) {
	s := newServer(t)
	goingDown(s, 0)
	c := dialed(t, s.listen())
	lines := make(chan string, 3)
	lines <- "login> startup: notifying random of halt...done"
	lines <- "startup: halting Hurd..."
	close(lines)
	late := errors.New("shutdown took more than 300ms")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, late)
	defer cancel()
	err := c.PowerOff(ctx, platform.Hurd, Witness{Lines: lines, Exited: make(chan struct{})})
	want := `bringing the guest down (waiting for "Shutdown completed successfully, now in tight loop" on the console): shutdown took more than 300ms`
	if !errors.Is(err, late) || err.Error() != want {
		t.Errorf("err = %v", err)
	}
}

// TestPowerOffLinux ends when QEMU does, although the connection is lost first.
func TestPowerOffLinux(t *testing.T) {
	s := newServer(t)
	exited := make(chan struct{})
	s.command = func(line string, _ sshChannel) (uint32, bool) {
		if isHello(line) {
			return 0, false
		}
		if !strings.HasSuffix(line, "; sync; poweroff") {
			t.Errorf("a Linux guest was told %q", line)
		}
		s.drop()
		time.AfterFunc(100*time.Millisecond, func() { close(exited) })
		return 0, true
	}
	c := dialed(t, s.listen())
	if err := c.PowerOff(t.Context(), platform.Linux, Witness{Exited: exited}); err != nil {
		t.Errorf("err = %v", err)
	}
	select {
	case <-exited:
	default:
		t.Error("returned before QEMU had ended")
	}
}

// TestPowerOffCommandFails reports what the guest said when it can't go down.
func TestPowerOffCommandFails(t *testing.T) {
	s := newServer(t)
	goingDown(s, 127)
	c := dialed(t, s.listen())
	err := c.PowerOff(t.Context(), platform.Linux, Witness{Exited: make(chan struct{})})
	if err == nil || !strings.Contains(err.Error(), `sync; poweroff" exited with status 127`) {
		t.Errorf("err = %v", err)
	}
}

// TestPowerOffLost does not wait for a guest that was never told.
func TestPowerOffLost(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	s.drop()
	<-c.Lost()
	if err := c.PowerOff(t.Context(), platform.Hurd, Witness{Exited: make(chan struct{})}); !errors.Is(err, ErrLost) {
		t.Errorf("err = %v", err)
	}
}
