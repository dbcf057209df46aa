package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOutput(t *testing.T) {
	out, err := Output(t.Context(), "sh", "-c", "echo hello")
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("Output = %q, %v", out, err)
	}
}

func TestEnvironmentIsMinimal(t *testing.T) {
	t.Setenv("INPUT_TOKEN", "secret")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	out, err := Output(t.Context(), "env")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "secret") || !strings.Contains(string(out), "LC_ALL=C\n") {
		t.Errorf("the program saw:\n%s", out)
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		status       int
		stderr       string
	}{
		{"exit status", "echo one >&2; echo two >&2; exit 3", 3, "one\ntwo"},
		{"signal", "kill -TERM $$", 128 + int(syscall.SIGTERM), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Output(t.Context(), "sh", "-c", tc.script)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v, want *Error", err)
			}
			if e.Status != tc.status || e.Stderr != tc.stderr {
				t.Errorf("status %d, stderr %q; want %d, %q", e.Status, e.Stderr, tc.status, tc.stderr)
			}
		})
	}
	_, err := Output(t.Context(), "no-such-program-here")
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("err = %v, want exec.ErrNotFound", err)
	}
}

// TestCancelKillsTheGroup cancels a shell whose child would live on.
func TestCancelKillsTheGroup(t *testing.T) {
	cause := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := Command(ctx, "sh", "-c", "sleep 1000 & echo started; wait")
	cmd.Stdout = w
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cmd) }()
	buf := make([]byte, 16)
	if _, err := r.Read(buf); err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	select {
	case err := <-done:
		if !errors.Is(err, cause) {
			t.Errorf("err = %v, want the cause of the cancellation", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the program was not killed")
	}
	_ = w.Close()
	// Only the sleeping grandchild could still hold the pipe open.
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(buf); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the grandchild is alive: read %d, %v", n, err)
	}
}

func TestTail(t *testing.T) {
	tail := &Tail{Limit: 5}
	for _, s := range []string{"abc", "def", "", "g"} {
		if n, err := tail.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", s, n, err)
		}
	}
	if tail.String() != "cdefg" || !tail.Truncated() {
		t.Errorf("kept %q, truncated %v", tail, tail.Truncated())
	}
}
