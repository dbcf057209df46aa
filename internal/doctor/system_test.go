package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// TestSystem: what this machine tells is what the checks take it for.
func TestSystem(t *testing.T) {
	h := System(func(string) string { return "" })
	dir := t.TempDir()
	if err := h.Writable(dir); err != nil {
		t.Error(err)
	}
	if err := h.Socket(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	missing := filepath.Join(dir, "missing")
	if err := h.Writable(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if err := h.Socket(t.Context(), missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if s, err := h.Space(dir); err != nil || s.Total <= 0 || s.Free > s.Total {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := h.Space(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if n, err := h.Node(dir); err != nil || !n.Mode.IsDir() || n.GID != os.Getegid() {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := h.Limit(unix.RLIMIT_NOFILE); err != nil || n == 0 {
		t.Errorf("%d, %v", n, err)
	}
	if out, err := h.Program(t.Context(), "sh", "-c", "echo out; echo err >&2"); err != nil || out != "out\nerr\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := h.Program(t.Context(), "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if f := checkLoopback(t.Context(), newExam(t.Context(), h)); f.Verdict != Fine {
		t.Errorf("%+v", f)
	}
}

// TestListener finds a process by its socket: another one, as ours is not what
// is looked for.
func TestListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat") // has the socket for as long as we don't close its input
	cmd.ExtraFiles = []*os.File{file}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e := newExam(t.Context(), System(func(string) string { return "" }))
	p, err := e.listener(path)
	if err != nil || p.pid != cmd.Process.Pid || p.name == "" {
		t.Errorf("%+v, %v; want process %d", p, err, cmd.Process.Pid)
	}
	if err := errors.Join(in.Close(), cmd.Wait(), file.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := e.listener(path); err == nil {
		t.Error("nobody listens any more")
	}
}

// TestTail reads the end, of a regular file only.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	name, fifo := filepath.Join(dir, "log"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(name, []byte("0123456789\xff"), 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int64]string{4: "789?", 100: "0123456789?", 1: "?"} {
		if got, _, err := tail(name, limit); got != want || err != nil {
			t.Errorf("tail of %d: %q, %v", limit, got, err)
		}
	}
	if _, _, err := tail(fifo, 4); err == nil {
		t.Error("a fifo is no file")
	}
}

func TestConsoleQuote(t *testing.T) {
	w := healthy(t)
	console("one\n\x1b[1mtwo\n\n"+strings.Repeat("x", 300)+"\n::error::hello\nlogin:", 0)(w)
	f := findings(t, w, Options{}, "guest-console")
	if len(f) != 1 || len(f[0].Quote) != 5 || f[0].Quote[1] != "[1mtwo" || f[0].Quote[4] != "login:" || len(f[0].Quote[2]) > 210 {
		t.Errorf("%+v", f)
	}
}

// saying gives a connection at whose other end something is said, in pieces.
func saying(t *testing.T, text string, size int) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = errors.Join(ours.Close(), theirs.Close()) })
	go func() {
		for piece := range slices.Chunk([]byte(text), size) {
			if _, err := theirs.Write(piece); err != nil {
				return // nobody listens any more
			}
		}
	}()
	return ours
}

func TestBannerOfManyPieces(t *testing.T) {
	if line, err := banner(t.Context(), saying(t, "SSH-2.0-x\r\nrest", 1)); err != nil || line != "SSH-2.0-x" {
		t.Errorf("%q, %v", line, err)
	}
	if line, err := banner(t.Context(), saying(t, strings.Repeat("y", 1000), 1000)); err != nil || len(line) != 255 {
		t.Errorf("an endless line: %d bytes, %v", len(line), err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSilent)
	if _, err := banner(ctx, saying(t, "", 1)); !errors.Is(err, errSilent) {
		t.Errorf("the time is over: %v", err)
	}
}

// FuzzTidy holds that no text of a guest can do anything to a terminal or a log.
func FuzzTidy(f *testing.F) {
	f.Add("login: ")
	f.Add("\x1b]0;title\x07\x9b2J\u202e\u2028\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := tidy(text)
		if utf8.RuneCountInString(got) > 201 {
			t.Fatalf("%d characters", utf8.RuneCountInString(got))
		}
		for _, r := range got {
			if unicode.IsControl(r) || r == '\u2028' || r == '\u202e' || r == '\u2066' {
				t.Fatalf("%q has %q", got, r)
			}
		}
	})
}
