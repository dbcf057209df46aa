package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// A Witness sees the guest go down, which SSH can't: the connection ends long
// before the disks are in order.
type Witness struct {
	// Lines are the console's lines as they come; nil where there is none. Nobody
	// receives before or after PowerOff, so whoever sends must not wait for that.
	Lines  <-chan string
	Exited <-chan struct{} // closed when QEMU has ended
}

// An ending is how a family of guests is brought down.
type ending struct {
	command string
	said    []string // beginnings of the console lines of which each means that it is down
	exits   bool     // whether QEMU ends by itself
}

// endings knows the families. The Hurd ignores ACPI: it says that it has halted,
// and QEMU stays up for the caller to quit. (With "startup: halting Mach" its file
// systems are written; what follows is the kernel's.)
func endings(family platform.Family) ending {
	hurd := []string{"Shutdown completed successfully, now in tight loop", "startup: halting Mach"}
	linux := []string{"reboot: Power down", "reboot: System halted"}
	// Not every SSH server's PATH has the directories of these programs.
	const begin = "PATH=$PATH:/usr/sbin:/sbin; sync; "
	switch family {
	case platform.Hurd:
		// Debian's halt is sysvinit's; the Hurd's own has another name there.
		return ending{command: begin + "halt || halt-hurd", said: hurd}
	case platform.Linux:
		return ending{command: begin + "poweroff", said: linux[1:], exits: true}
	case platform.Unknown:
	}
	return ending{command: begin + "poweroff || halt", said: append(hurd, linux...), exits: true}
}

// PowerOff brings the guest down in order and returns when the witness has seen
// it: for a Linux guest when QEMU has ended (or Linux has halted, where it can't
// switch off), for a Hurd when its console says so, after which QEMU is the
// caller's to quit. The error wraps ctx's cause and says what was waited for.
func (c *Client) PowerOff(ctx context.Context, family platform.Family, w Witness) error {
	e := endings(family)
	if err := c.Err(); err != nil {
		return fmt.Errorf("bringing the guest down: %w", err) // nobody would tell it
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var diag bounded
	ran := make(chan error, 1)
	go func() {
		status, err := c.Run(ctx, Command{Line: e.command, Stdout: &diag, Stderr: &diag})
		if err == nil && status.Code > 0 && status.Code != 255 {
			err = fmt.Errorf("%q %s: %s", e.command, status, printable(strings.TrimSpace(diag.String())))
		} else if errors.Is(err, ErrLost) || errors.Is(err, ErrNoStatus) {
			err = nil // the network goes down before the system does
		}
		ran <- err
	}()
	for {
		select {
		case <-w.Exited:
			return nil
		case line, ok := <-w.Lines:
			if !ok {
				w.Lines = nil
			} else if e.down(line) {
				return nil
			}
		case err := <-ran:
			ran = nil
			if err != nil {
				return fmt.Errorf("bringing the guest down: %w", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("bringing the guest down (waiting for %s): %w", e.sign(), context.Cause(ctx))
		}
	}
}

// down tells whether the console's line means that the guest is down. The line
// may begin with a prompt or a time stamp.
func (e ending) down(line string) bool {
	for _, said := range e.said {
		if strings.Contains(line, said) {
			return true
		}
	}
	return false
}

// sign is what PowerOff waits for, in words.
func (e ending) sign() string {
	if len(e.said) == 0 || e.exits {
		return "QEMU to end"
	}
	return fmt.Sprintf("%q on the console", e.said[0])
}
