package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A port is a Console in simulated time with the guest's end of its line.
type port struct {
	*Console
	guest net.Conn
	done  chan error // Run's result
	stop  context.CancelCauseFunc
}

func newPort(t *testing.T, o Options) *port {
	t.Helper()
	ours, guest := net.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	p := &port{Console: New(ours, o), guest: guest, done: make(chan error, 1), stop: cancel}
	go func() { p.done <- p.Run(ctx) }()
	t.Cleanup(func() { _ = guest.Close(); cancel(nil) })
	return p
}

// says has the guest print something.
func (p *port) says(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(p.guest, text); err != nil {
		t.Errorf("the console does not read: %v", err)
	}
	synctest.Wait()
}

func TestConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var events []string
		p := newPort(t, Options{
			Log:       &log,
			OnLine:    func(l Line) { events = append(events, l.Text) },
			OnFinding: func(f Finding) { events = append(events, "["+string(f.Kind)+"]") },
		})
		start := time.Now()
		time.Sleep(time.Second)
		p.says(t, "GNU Mach 1.8\r\nhel")
		if got := p.Tail(-1); len(got) != 2 || got[1].Text != "hel" || !got[1].Partial || got[0].Partial || got[0].Time != start.Add(time.Second) {
			t.Errorf("Tail = %+v", got)
		}
		time.Sleep(time.Second)
		p.says(t, "lo\r\nlogin: ")
		if got := p.Tail(1); len(got) != 1 || got[0].Text != "login: " {
			t.Errorf("Tail(1) = %+v", got)
		}
		if p.Bytes() != 28 || p.LastByte() != start.Add(2*time.Second) {
			t.Errorf("%d bytes, the last at %s", p.Bytes(), p.LastByte())
		}
		p.says(t, "root\r\n# ")
		_ = p.guest.Close()
		if err := <-p.done; err != nil {
			t.Errorf("Run = %v", err)
		}
		want := "GNU Mach 1.8|[kernel-start]|hello|[login-prompt]|login: root|#"
		if got := strings.Join(events, "|"); got != want {
			t.Errorf("events %s\nwant   %s", got, want)
		}
		if log.String() != "GNU Mach 1.8\r\nhello\r\nlogin: root\r\n# " {
			t.Errorf("log %q", &log)
		}
		if f := p.Findings(); len(f) != 2 || f[1].Line.Text != "login: " || !f[1].Line.Partial {
			t.Errorf("findings %+v", f)
		}
	})
}

// TestPartialLines: the line in progress is passed on with each piece of it, at
// the time of the piece, and a line that is complete no more.
func TestPartialLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var got []string
		p := newPort(t, Options{OnPartial: func(l Line) {
			got = append(got, fmt.Sprintf("%s %q %t", l.Time.Sub(start), l.Text, l.Partial))
		}})
		for _, text := range []string{"start ext2fs.static: ", "Hurd server", " bootstrap\r\n", "whole\r\n", "next\r\nlogin: "} {
			time.Sleep(time.Second)
			p.says(t, text)
		}
		want := []string{`1s "start ext2fs.static: " true`, `2s "start ext2fs.static: Hurd server" true`, `5s "login: " true`}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		p.says(t, "half a li")
		cause := errors.New("timeout of 5m")
		p.stop(cause)
		go func() { _, _ = io.WriteString(p.guest, "ne") }() // what QEMU sends at the end is still taken
		if err := <-p.done; !errors.Is(err, cause) {
			t.Errorf("Run = %v", err)
		}
		if got := p.Tail(1); len(got) != 1 || got[0].Text != "half a line" || got[0].Partial {
			t.Errorf("Tail = %+v", got)
		}
		_, err := p.WaitFinding(t.Context(), Halted)
		if !errors.Is(err, ErrEnded) || !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "waiting for halted on the serial console: the serial console has ended") {
			t.Errorf("err = %v", err)
		}
	})
}

// closer is a connection without deadlines.
type closer struct {
	io.Reader
	io.Writer
	io.Closer
}

func TestRunEndsWithoutDeadlines(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	c := New(closer{r, io.Discard, r}, Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	cause := errors.New("enough")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("Run = %v", err)
	}
}

// TestRunReadFails has a line that breaks rather than ends.
func TestRunReadFails(t *testing.T) {
	c := New(closer{Reader: io.MultiReader(strings.NewReader("a\n"), failing{syscall.EIO}), Closer: io.NopCloser(nil)}, Options{})
	err := c.Run(t.Context())
	if !errors.Is(err, syscall.EIO) || err.Error() != "reading the serial console: input/output error" {
		t.Errorf("err = %v", err)
	}
	if got := c.Tail(-1); len(got) != 1 {
		t.Errorf("Tail = %+v", got)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestLogFails: the console is read on, and the failure is not lost.
func TestLogFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{Log: failing{syscall.ENOSPC}})
		p.says(t, "one\ntwo\n")
		if err := p.LogError(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("LogError = %v", err)
		}
		p.says(t, "three\n")
		_ = p.guest.Close()
		err := <-p.done
		if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "writing the serial log (it is incomplete): ") {
			t.Errorf("Run = %v", err)
		}
		if len(p.Tail(-1)) != 3 {
			t.Errorf("Tail = %+v", p.Tail(-1))
		}
	})
}

func TestLogLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPort(t, Options{Log: &log, LogLimit: 10 * units.Bytes(1)})
		p.says(t, "12345")
		p.says(t, "67890ab")
		p.says(t, "more")
		if got := log.String(); got != "1234567890"+logEnd {
			t.Errorf("log %q", got)
		}
	})
}

func TestWaitFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		go func() {
			time.Sleep(time.Minute)
			_, _ = io.WriteString(p.guest, "GNU Mach 1.8\r\nlogin> startup: halting Mach (flags 0x8)...\r\nShutdown completed successfully, now in tight loop.\r\n")
		}()
		f, err := p.WaitFinding(t.Context(), Halted, MachPanic)
		if err != nil || f.Kind != Halted {
			t.Errorf("%+v, %v", f, err)
		}
		f, err = p.WaitFinding(t.Context())
		if err != nil || f.Kind != Halting || !f.Terminal() {
			t.Errorf("the first terminal one: %+v, %v", f, err)
		}
		late := errors.New("no panic in 1s")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, late)
		defer cancel()
		_, err = p.WaitFinding(ctx, MachPanic, LinuxPanic)
		if err == nil || err.Error() != "waiting for mach-panic or linux-panic on the serial console: no panic in 1s" {
			t.Errorf("err = %v", err)
		}
	})
}

// TestWaitTerminal has a guest whose console looks dead twice.
func TestWaitTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		p.says(t, "db> \r\n")
		go func() {
			time.Sleep(time.Minute)
			_, _ = io.WriteString(p.guest, "login> startup: rebooting Mach (flags 0)...\r\n")
		}()
		first, err := p.WaitTerminal(t.Context(), time.Time{})
		if err != nil || first.Kind != MachDebugger {
			t.Errorf("%+v, %v", first, err)
		}
		second, err := p.WaitTerminal(t.Context(), first.Line.Time)
		if err != nil || second.Kind != Rebooting {
			t.Errorf("%+v, %v", second, err)
		}
	})
}

func TestWaitSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		go func() {
			for range 10 {
				time.Sleep(9 * time.Second)
				_, _ = io.WriteString(p.guest, ".")
			}
		}()
		begin := time.Now()
		err := p.WaitSilence(t.Context(), 10*time.Second)
		if took := time.Since(begin); err != nil || took != 100*time.Second {
			t.Errorf("%v after %s", err, took)
		}
		// It has been silent for ten seconds already.
		if err := p.WaitSilence(t.Context(), 10*time.Second); err != nil || time.Since(begin) != 100*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		cause := errors.New("stop")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := p.WaitSilence(ctx, time.Hour); !errors.Is(err, cause) {
			t.Errorf("err = %v", err)
		}
		_ = p.guest.Close()
		if err := p.WaitSilence(t.Context(), time.Hour); !errors.Is(err, ErrEnded) {
			t.Errorf("err = %v", err)
		}
	})
}

// TestDialogue logs in as provisioning does.
func TestDialogue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		guest := &typist{conn: p.guest, echo: true}
		go guest.login()
		for _, step := range []struct{ expect, send string }{
			{`login: $`, "root\r"},
			{`Password: $`, "geheim\r"},
			{`# $`, "uname -s; exit\r"},
		} {
			if _, err := p.Expect(t.Context(), regexp.MustCompile(step.expect)); err != nil {
				t.Fatal(err)
			}
			if err := p.Send(t.Context(), step.send); err != nil {
				t.Fatal(err)
			}
		}
		m, err := p.Expect(t.Context(), regexp.MustCompile(`(?m)^(\w+)\nlogout(x)?$`))
		if err != nil || len(m) != 3 || m[1] != "GNU" || m[2] != "" {
			t.Errorf("%q, %v", m, err)
		}
	})
}

// A typist is a getty and a shell.
type typist struct {
	conn net.Conn
	echo bool
}

func (g *typist) line() string {
	var line []byte
	for buf := make([]byte, 64); ; {
		n, err := g.conn.Read(buf)
		if err != nil {
			return ""
		}
		if g.echo {
			_, _ = g.conn.Write(bytes.ReplaceAll(buf[:n], []byte("\r"), []byte("\r\n")))
		}
		if line = append(line, buf[:n]...); line[len(line)-1] == '\r' {
			return string(line[:len(line)-1])
		}
	}
}

func (g *typist) login() {
	for _, part := range []string{"\x1b[2JDebian GNU/Hurd\r\n\r\nlog", "in", ": "} { // a match across reads
		_, _ = io.WriteString(g.conn, part)
	}
	user := g.line()
	_, _ = io.WriteString(g.conn, "Password: ")
	g.echo = false
	password := g.line()
	g.echo = true
	if user != "root" || password != "geheim" {
		_, _ = io.WriteString(g.conn, "\r\nLogin incorrect\r\n")
		return
	}
	_, _ = io.WriteString(g.conn, "\r\n\x1b[1m# \x1b[0m")
	if g.line() == "uname -s; exit" {
		_, _ = io.WriteString(g.conn, "GNU\r\nlogout\r\n")
	}
}

// TestExpectConsumes: what was matched is not matched again.
func TestExpectConsumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		p.says(t, "one two\none three\n")
		re := regexp.MustCompile(`one (\w+)`)
		for _, want := range []string{"two", "three"} {
			if m, err := p.Expect(t.Context(), re); err != nil || m[1] != want {
				t.Errorf("%q, %v", m, err)
			}
		}
		late := errors.New("nothing in 5s")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, late)
		defer cancel()
		_, err := p.Expect(ctx, re)
		want := "waiting for \"one (\\\\w+)\" on the serial console (its last line is \"one three\"): nothing in 5s"
		if !errors.Is(err, late) || err.Error() != want {
			t.Errorf("err = %v, want %s", err, want)
		}
		_ = p.guest.Close()
		if _, err := p.Expect(t.Context(), re); !errors.Is(err, ErrEnded) {
			t.Errorf("err = %v", err)
		}
	})
}

// TestExpectBounded: only the last part of what nobody waited for is kept.
func TestExpectBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		p.says(t, "early\n"+strings.Repeat("x\n", flowLimit/2)+"late\n")
		m, err := p.Expect(t.Context(), regexp.MustCompile(`early|late`))
		if err != nil || m[0] != "late" {
			t.Errorf("%q, %v", m, err)
		}
		if len(p.flow) > flowLimit {
			t.Errorf("%d bytes are kept", len(p.flow))
		}
	})
}

// TestSendPaces: a guest that echoes is typed to as fast as it echoes, one that
// does not with pauses, and never more than the FIFO at once.
func TestSendPaces(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration // of the echo; negative: none
		took  time.Duration
	}{
		{"echo at once", 0, 0},
		{"slow echo", 30 * time.Millisecond, 3 * 30 * time.Millisecond},
		{"no echo", -1, 3 * 100 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPort(t, Options{})
				var got []byte
				go func() {
					for buf := make([]byte, 100); ; {
						n, err := p.guest.Read(buf)
						if err != nil {
							return
						}
						if n > typeSize {
							t.Errorf("%d bytes at once", n)
						}
						got = append(got, buf[:n]...)
						if tc.delay >= 0 {
							time.Sleep(tc.delay)
							_, _ = p.guest.Write(buf[:n])
						}
					}
				}()
				text := "0123456789abcdef0123456789abcdef0123456\r"
				begin := time.Now()
				if err := p.Send(t.Context(), text); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != tc.took {
					t.Errorf("took %s, want %s", took, tc.took)
				}
				synctest.Wait()
				if string(got) != text {
					t.Errorf("the guest got %q", got)
				}
			})
		})
	}
}

// TestSendEnds: a machine that takes no input holds nobody up.
func TestSendEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Options{})
		cause := errors.New("login took more than 10s")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, cause)
		defer cancel()
		err := p.Send(ctx, "root\r")
		if !errors.Is(err, cause) || err.Error() != "typing on the serial console: login took more than 10s" {
			t.Errorf("err = %v", err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		go func() { _, _ = p.guest.Read(make([]byte, 10)) }()
		if err := p.Send(t.Context(), "x"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
