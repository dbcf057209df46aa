package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	if !strings.Contains(c.Uname(), "Linux") {
		t.Errorf("Uname = %q", c.Uname())
	}
	for _, tc := range []struct {
		name, line, stdin, stdout, stderr string
		code                              int
	}{
		{name: "streams", line: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
		{name: "stdin", line: "cat", stdin: "some input", stdout: "some input"},
		{name: "no stdin", line: "cat; echo end", stdout: "end\n"},
		{name: "unread stdin", line: "exit 4", stdin: strings.Repeat("x", 1<<20), code: 4},
		{name: "1", line: "exit 1", code: 1},
		{name: "3", line: "exit 3", code: 3},
		{name: "127", line: "exit 127", code: 127},
		{name: "255", line: "exit 255", code: 255},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := Command{Line: tc.line, Stdout: &stdout, Stderr: &stderr}
			if tc.stdin != "" {
				cmd.Stdin = strings.NewReader(tc.stdin)
			}
			status, err := c.Run(t.Context(), cmd)
			if err != nil {
				t.Fatal(err)
			}
			if status != (ExitStatus{Code: tc.code}) || stdout.String() != tc.stdout || stderr.String() != tc.stderr {
				t.Errorf("%+v, stdout %q, stderr %q", status, &stdout, &stderr)
			}
		})
	}
}

func TestRunSignal(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	status, err := c.Run(t.Context(), Command{Line: "kill -KILL $$"})
	if err != nil || status != (ExitStatus{Code: -1, Signal: "KILL"}) || status.String() != "was killed by signal KILL" {
		t.Errorf("%+v (%s), %v", status, status, err)
	}
}

// TestRunLargeOutput moves far more than a window and checks every byte.
func TestRunLargeOutput(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	const size = 10 << 20
	var count counter
	status, err := c.Run(t.Context(), Command{Line: fmt.Sprintf("yes | head -c %d", size), Stdout: &count})
	if err != nil || status.Code != 0 || count.n != size || count.bad != 0 {
		t.Errorf("%+v, %v: %d bytes, %d wrong", status, err, count.n, count.bad)
	}
}

type counter struct{ n, bad int }

func (c *counter) Write(p []byte) (int, error) {
	for i, b := range p {
		if want := "y\n"[(c.n+i)%2]; b != want {
			c.bad++
		}
	}
	c.n += len(p)
	return len(p), nil
}

// TestRunOrder has the server write to one stream only when the other has
// arrived here: the order of arrival must be the order of the writes.
func TestRunOrder(t *testing.T) {
	s := newServer(t)
	var mu sync.Mutex
	var got []string
	arrived := make(chan struct{}, 1)
	note := func(stream string) io.Writer {
		return writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, stream+string(p))
			arrived <- struct{}{}
			return len(p), nil
		})
	}
	var want []string
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if line != "order" {
			return 0, false
		}
		for i := range 50 {
			name, w := "out", io.Writer(ch)
			if i%3 == 0 {
				name, w = "err", ch.Stderr()
			}
			want = append(want, fmt.Sprint(name, i))
			_, _ = fmt.Fprint(w, i)
			<-arrived
		}
		return 0, true
	}
	c := dialed(t, s.listen())
	if _, err := c.Run(t.Context(), Command{Line: "order", Stdout: note("out"), Stderr: note("err")}); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRunNoStatus(t *testing.T) {
	s := newServer(t)
	o := s.listen()
	c := dialed(t, o)
	s.noStatus = true
	_, err := c.Run(t.Context(), Command{Line: "true"})
	if !errors.Is(err, ErrNoStatus) || errors.Is(err, ErrLost) {
		t.Errorf("err = %v", err)
	}
}

func TestRunWriterFails(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	full := errors.New("no space left")
	status, err := c.Run(t.Context(), Command{
		Line:   "yes | head -c 5000000; exit 3",
		Stdout: writerFunc(func([]byte) (int, error) { return 0, full }),
	})
	if !errors.Is(err, full) || status.Code != 3 {
		t.Errorf("%+v, %v: want status 3 and the writer's error", status, err)
	}
}

// TestRunDetached leaves a process behind that holds the output open.
func TestRunDetached(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	var out bytes.Buffer
	status, err := c.Run(t.Context(), Command{Line: "sleep 100 & echo done; exit 7", Stdout: &out})
	if err != nil || status != (ExitStatus{Code: 7, Detached: true}) || out.String() != "done\n" {
		t.Errorf("%+v, %v, %q", status, err, &out)
	}
}

func TestRunContext(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	cause := errors.New("qemu exited")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := c.Run(ctx, Command{Line: "echo started; exec sleep 100", Stdout: writerFunc(func(p []byte) (int, error) {
		cancel(cause)
		return len(p), nil
	})})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), `running "echo started; exec sleep 100" in the guest`) {
		t.Errorf("err = %v", err)
	}
	if _, err := c.Run(ctx, Command{Line: "true"}); !errors.Is(err, cause) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if status, err := c.Run(t.Context(), Command{Line: "true"}); err != nil || status.Code != 0 {
		t.Errorf("the connection was lost with the command: %v", err)
	}
}

func TestRunLost(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	begin := time.Now()
	_, err := c.Run(t.Context(), Command{Line: "echo started; exec sleep 100", Stdout: writerFunc(func(p []byte) (int, error) {
		s.drop()
		return len(p), nil
	})})
	var lost *LostError
	if !errors.As(err, &lost) || !errors.Is(err, ErrLost) {
		t.Errorf("err = %v, want a *LostError", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("noticed after %s", took)
	}
	<-c.Lost()
	if _, err := c.Run(t.Context(), Command{Line: "true"}); !errors.Is(err, ErrLost) {
		t.Errorf("on a lost connection: %v", err)
	}
}
