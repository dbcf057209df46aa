package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu"
)

// runPrefix begins the names of run directories.
const runPrefix = "hurd-qemu-action-"

// ErrNoGuest says that no guest runs here.
var ErrNoGuest = errors.New("no guest of hurd-qemu-action runs here")

// Running lists the run directories in temp whose guests run. Only those of
// users whose directories this one can read are found.
func Running(ctx context.Context, temp string) ([]string, error) {
	sockets, err := filepath.Glob(filepath.Join(temp, runPrefix+"*", qemu.SocketName))
	if err != nil {
		return nil, fmt.Errorf("looking for guests: %w", err)
	}
	var dirs []string
	for _, s := range sockets {
		if listens(ctx, s) {
			dirs = append(dirs, filepath.Dir(s))
		}
	}
	return dirs, nil
}

// MonitorSocket is where the monitor for tools listens of the guest with a run directory.
func MonitorSocket(dir string) string { return filepath.Join(dir, qemu.SocketName) }

// listens tells a socket from what a killed run has left behind.
func listens(ctx context.Context, socket string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.Is(err, syscall.EAGAIN) // others wait there already
	}
	_ = conn.Close() // nothing was said
	return true
}

// FindRunning is the run directory of the guest that is meant: the one that
// which names (a run directory, the end of its name, or its monitor's socket),
// or the only one that runs. The error wraps ErrNoGuest when there is none.
func FindRunning(ctx context.Context, temp, which string) (string, error) {
	if info, err := os.Stat(which); which != "" && err == nil {
		if info.IsDir() {
			return which, nil
		}
		return filepath.Dir(which), nil
	}
	dirs, err := Running(ctx, temp)
	if err != nil {
		return "", err
	}
	var found []string
	for _, d := range dirs {
		if which == "" || strings.HasSuffix(d, which) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(dirs) == 0:
		return "", fmt.Errorf("%w: %s has no run directory with a monitor that answers; a guest runs for as long as its run does (keep it with a script that sleeps, or with --debug=on-failure)", ErrNoGuest, temp)
	case len(found) == 0:
		return "", fmt.Errorf("no guest is called %q: there are %s", which, strings.Join(dirs, ", "))
	}
	return "", fmt.Errorf("several guests run; name one of them with --guest: %s", strings.Join(found, ", "))
}
