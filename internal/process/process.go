// Package process runs the programs that this one relies on (QEMU's tools,
// e2fsprogs, decompressors) so that none of them can outlive it or see what it
// should not: each gets its own process group, dies with its parent, starts
// with a minimal environment (no INPUT_*, no tokens) and the C locale.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stderrLimit bounds what Error keeps of a program's standard error.
const stderrLimit = 4 << 10

// waitDelay bounds the wait for a killed program's pipes to close.
const waitDelay = 2 * time.Second

// Error says that a program could not be started or ended with a failure.
type Error struct {
	Program string // as given to Command
	Status  int    // exit status; 128+n when killed by signal n, -1 when not started
	Stderr  string // the end of its standard error, trimmed
	Err     error  // what os/exec reported, or the context's cause
}

// Error names the program, how it ended and the last line that it wrote.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", e.Program, e.Err)
	if e.Stderr != "" {
		text += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return text
}

// Unwrap gives the cause, so that errors.Is finds exec.ErrNotFound and context errors.
func (e *Error) Unwrap() error { return e.Err }

// Command prepares a program that is killed, with its whole process group,
// when ctx ends, and by the kernel when this process dies.
func Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Env = Environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	return cmd
}

// Environment is what a program needs and nothing that it should not see.
func Environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Output runs a program to its end and returns its standard output. The
// error, if any, is an *Error.
func Output(ctx context.Context, name string, arg ...string) ([]byte, error) {
	var stdout bytes.Buffer
	cmd := Command(ctx, name, arg...)
	cmd.Stdout = &stdout
	err := Run(ctx, cmd)
	return stdout.Bytes(), err
}

// Run runs a prepared program to its end, keeping the end of its standard
// error (also passed on, when cmd.Stderr is set). The error, if any, is an *Error.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	tail := &Tail{Limit: stderrLimit}
	if cmd.Stderr == nil {
		cmd.Stderr = tail
	} else {
		cmd.Stderr = &tee{cmd.Stderr, tail}
	}
	if err := cmd.Run(); err != nil {
		return failure(ctx, cmd, tail, err)
	}
	return nil
}

func failure(ctx context.Context, cmd *exec.Cmd, tail *Tail, err error) *Error {
	status := -1
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = ExitStatus(exit.ProcessState)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &Error{Program: cmd.Args[0], Status: status, Stderr: strings.TrimSpace(tail.String()), Err: err}
}

// ExitStatus is a shell's view of how a program ended: its exit status, or
// 128+n when signal n killed it.
func ExitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
