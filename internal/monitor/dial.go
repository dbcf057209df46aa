package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// greetingTime is how long a monitor may take to greet. QEMU does it at once,
// unless it talks to somebody else.
const greetingTime = 5 * time.Second

// errNoGreeting is the cause of a connection that nobody has greeted.
var errNoGreeting = errors.New("nobody answers on the socket")

// DialError is a monitor that could not be reached.
type DialError struct {
	Path   string
	Advice string
	Err    error
}

// Error says what happened, and what to do.
func (e *DialError) Error() string {
	return fmt.Sprintf("connecting to the monitor at %s: %v: %s", e.Path, e.Err, e.Advice)
}

// Unwrap gives the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Dial connects to the monitor that listens at a Unix socket's path. The
// error, unless ctx has ended, is a *DialError.
func Dial(ctx context.Context, path string) (*qmp.Conn, error) {
	return dial(ctx, path, greetingTime)
}

func dial(ctx context.Context, path string, patience time.Duration) (*qmp.Conn, error) {
	limited, cancel := context.WithTimeoutCause(ctx, patience, errNoGreeting)
	defer cancel()
	conn, err := qmp.Dial(limited, path)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connecting to the monitor at %s: %w", path, context.Cause(ctx))
	case limited.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded): // which is all that a socket says
		err = errNoGreeting
	}
	return nil, &DialError{Path: path, Advice: dialAdvice(err), Err: err}
}

func dialAdvice(err error) string {
	switch {
	case errors.Is(err, errNoGreeting):
		return "another program holds this monitor, which talks to one at a time (ss -xp shows which), or QEMU itself is stopped: end the other program and try again"
	case errors.Is(err, fs.ErrNotExist):
		return "no QEMU has made this socket: check the path, and whether the guest still runs (its run prints the path)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens on this socket any more: its QEMU has ended, and the file is what it left behind"
	case errors.Is(err, fs.ErrPermission):
		return "the socket belongs to another user: run this as that user, or as root"
	case errors.Is(err, qmp.ErrProtocol), errors.Is(err, syscall.EPROTOTYPE):
		return "whoever listens there does not speak QMP: the socket must be QEMU's -qmp, not its -monitor, a serial line, or another program's"
	case errors.Is(err, qmp.ErrHangup):
		return "QEMU ended, or is about to: see the log of its run"
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return "the path of a socket has at most 107 bytes: go to its directory and name it relatively"
	}
	return "check that this is the socket of a QEMU that runs"
}
