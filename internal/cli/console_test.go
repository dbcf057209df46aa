package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/serial"
)

func TestKeyboard(t *testing.T) {
	for keys, want := range map[string]string{
		"ls\r":                 "ls\r",
		"a\x1d\x1db":           "a\x1db",
		"a\x1drb":              "asizeb",
		"a\x1d?b\x03":          "ab\x03",
		"a\x1dqb":              "a!",
		"ls\x1d.":              "ls!",
		"\x1d\x1d\x1d\x1d\x1d": "\x1d\x1d",
	} {
		for _, cut := range []int{0, 1, 2} {
			var k keyboard
			helped := 0
			actions := keyboardActions{size: func() string { return "size" }, help: func() { helped++ }}
			cut = min(cut, len(keys))
			text, left := k.press([]byte(keys[:cut]), actions)
			if !left {
				var rest []byte
				rest, left = k.press([]byte(keys[cut:]), actions)
				text = append(text, rest...)
			}
			got := string(text)
			if left {
				got += "!"
			}
			if got != want || (helped == 1) != strings.Contains(keys, "?") {
				t.Errorf("%q cut at %d: %q, help %d; want %q", keys, cut, got, helped, want)
			}
		}
	}
}

// aGuest is a run directory whose console answers each line.
func aGuest(t *testing.T) (dir string, typed *lockedBuffer) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "hurd-qemu-action-1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h := serial.NewHub(serial.Options{Replay: true, LingerQuiet: 20 * time.Millisecond})
	typed = &lockedBuffer{}
	h.Attach(func(_ context.Context, p []byte) error {
		_, _ = typed.Write(p)
		fmt.Fprintf(h, "<%q>", p)
		return nil
	})
	_, _ = io.WriteString(h, "box login: ")
	if err := h.ListenUnix(t.Context(), filepath.Join(dir, lifecycle.ConsoleSocket)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return dir, typed
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestConsolePiped: standard input is typed, and the answer printed until the
// guest says no more.
func TestConsolePiped(t *testing.T) {
	dir, typed := aGuest(t)
	var out, diag bytes.Buffer
	status := Command{Stdin: strings.NewReader("root\n"), Stdout: &out, Stderr: &diag, Args: []string{"console", "--guest", dir}}.Main()
	if want := `box login: <"root\n">`; status != 0 || out.String() != want || diag.String() != "" || typed.String() != "root\n" {
		t.Errorf("status %d, %q, %q, typed %q", status, out.String(), diag.String(), typed.String())
	}
	status = Command{Stdout: &out, Stderr: &diag, Args: []string{"console", "--second", "--guest", dir}}.Main()
	if status != 125 || !strings.Contains(diag.String(), "no second serial port: give its run the input serial-port") {
		t.Errorf("status %d, %q", status, diag.String())
	}
}

// TestConsoleInJob: in a job the runner takes nothing that the guest says for a
// command, and hears the commands that follow.
func TestConsoleInJob(t *testing.T) {
	dir, _ := aGuest(t)
	var out, diag bytes.Buffer
	status := Command{
		Stdin: strings.NewReader("root\n"), Stdout: &out, Stderr: &diag, Environ: []string{"GITHUB_ACTIONS=true"}, Args: []string{"console", "--guest", dir},
	}.Main()
	form := regexp.MustCompile(`\A::stop-commands::(\w+)\nbox login: <"root\\n">\n::(\w+)::\n\z`)
	if m := form.FindStringSubmatch(out.String()); status != 0 || m == nil || m[1] != m[2] || diag.String() != "" {
		t.Errorf("status %d, %q, %q", status, out.String(), diag.String())
	}
}

// TestConsoleTerminal: a terminal is the guest's until the person leaves, and
// then, or when a signal ends it, what it was.
func TestConsoleTerminal(t *testing.T) {
	dir, typed := aGuest(t)
	for _, end := range []string{"\x1dq", "signal"} {
		ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := otherEnd(t, ours)
		before, err := term.GetState(int(theirs.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		var shown lockedBuffer
		go func() { _, _ = io.Copy(&shown, ours) }()
		status := make(chan int, 1)
		go func() {
			status <- Command{Stdin: theirs, Stdout: theirs, Stderr: theirs, Args: []string{"console", "--guest", dir}}.Main()
		}()
		await(t, &shown, "box login: ")
		if now, err := term.GetState(int(theirs.Fd())); err != nil || fmt.Sprint(*now) == fmt.Sprint(*before) {
			t.Errorf("the terminal is not raw: %v", err)
		}
		_, _ = io.WriteString(ours, "id\r\x1dr")
		await(t, typed, "id\rstty rows 24 cols 81\r")
		want := 0
		if end == "signal" {
			want = 128 + int(syscall.SIGHUP)
			_ = syscall.Kill(os.Getpid(), syscall.SIGHUP)
		} else {
			_, _ = io.WriteString(ours, end)
		}
		if got := <-status; got != want {
			t.Errorf("%q: status %d, want %d", end, got, want)
		}
		if now, err := term.GetState(int(theirs.Fd())); err != nil || fmt.Sprint(*now) != fmt.Sprint(*before) {
			t.Errorf("%q: the terminal is not what it was: %v", end, err)
		}
		await(t, &shown, "Ctrl-] q leaves")
		await(t, &shown, `<"id\r`)
		_ = theirs.Close()
		_ = ours.Close()
		typed.buf.Reset()
	}
}

func await(t *testing.T, b *lockedBuffer, text string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(b.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q did not come, but %q", text, b.String())
		}
	}
}

// otherEnd opens a pseudoterminal's other end, which has 24 lines of 81 columns.
func otherEnd(t *testing.T, ours *os.File) *os.File {
	t.Helper()
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	if controlErr := raw.Control(func(fd uintptr) {
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 81})
		}
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return theirs
}
