// Package initproc is the init of a container whose process 1 is this program:
// it starts the program again as its child, passes signals on, and reaps every
// process that is left to it. os/exec and a reaper cannot share one process:
// the one would take the exit statuses that the other waits for.
package initproc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that mean something to the program.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// statusBroken is what docker(1) ends with when it cannot start a program.
const statusBroken = 125

// Needed tells whether this process is the init of its PID namespace.
func Needed() bool { return os.Getpid() == 1 }

// Run starts the program with the given path, arguments and environment, and
// returns its exit status (128+n when signal n killed it) after everything
// that it left behind has been killed and reaped.
func Run(path string, argv, env []string) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(forwarded, syscall.SIGCHLD)...)
	defer signal.Stop(signals)
	child, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return statusBroken, fmt.Errorf("starting %s: %w", path, err)
	}
	for sig := range signals {
		if sig != syscall.SIGCHLD {
			// An error means that the child is gone, which SIGCHLD tells too.
			_ = syscall.Kill(child, sig.(syscall.Signal))
			continue
		}
		status, done, err := reap(child)
		if err != nil {
			return statusBroken, err
		}
		if done {
			return status, killRest()
		}
	}
	return statusBroken, errors.New("waiting for signals: the channel closed")
}

// reap takes every ended process; done tells that child was among them.
func reap(child int) (status int, done bool, err error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD) || err == nil && pid == 0:
			return status, done, nil
		case err != nil:
			return status, done, fmt.Errorf("waiting for processes: %w", err)
		}
		if pid != child {
			continue
		}
		done = true
		status = ws.ExitStatus()
		if ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
	}
}

// killRest ends what the program left running. Only an init may do that: -1
// means every process of its PID namespace there, of the whole machine elsewhere.
func killRest() error {
	if !Needed() {
		return nil
	}
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing what is left: %w", err)
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return nil // no child is left
		}
	}
}
