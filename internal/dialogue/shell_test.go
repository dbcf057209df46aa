package dialogue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/dialogue"
	"github.com/org/hurd-qemu-action/internal/guest"
)

// openTerminal makes a terminal; a guest's serial line seen from both ends.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	if err := raw.Control(func(fd uintptr) {
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
	}); err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// world is a shell on a terminal, in place of a guest.
type world struct {
	console *console.Console
	log     *bytes.Buffer // what would be serial.log; read after the end
	dir     string        // of the guest's temporary files
	line    *os.File      // our end of it
	ran     chan error    // closed after the console's end
	noise   noisy
}

// noisy is a line into which the guest's kernel prints at any moment: every so
// many bytes, in the middle of whatever else is being printed.
type noisy struct {
	*os.File
	every atomic.Int64 // 0: never
	since int
	hits  atomic.Int64
}

const kernelMessage = "[   12.345678] random: crng init done\r\n"

func (n *noisy) Read(p []byte) (int, error) {
	got, err := n.File.Read(p[:len(p)-len(kernelMessage)])
	every := int(n.every.Load())
	if n.since += got; every > 0 && n.since >= every && got > 1 {
		n.since = 0
		n.hits.Add(1)
		rest := append([]byte(kernelMessage), p[got/2:got]...)
		got = got/2 + copy(p[got/2:], rest)
	}
	return got, err
}

// boot starts a shell as the console's getty would.
func boot(t *testing.T, shell ...string) *world {
	t.Helper()
	path, err := exec.LookPath(shell[0])
	if err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ours, theirs := openTerminal(t)
	w := &world{log: &bytes.Buffer{}, dir: t.TempDir(), ran: make(chan error, 1)}
	args := shell[1:]
	if !slices.Contains(args, "-c") {
		args = append(args, "-i")
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "PS1=box# ", "TERM=vt100", "TMPDIR=" + w.dir}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close() // the process has it
	w.line, w.noise.File = ours, ours
	w.console = console.New(&w.noise, console.Options{Log: w.log, Patterns: []console.Pattern{}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { w.ran <- w.console.Run(ctx) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cancel()
		if err := <-w.ran; err != nil {
			t.Logf("the console's end: %v", err) // a terminal's other end fails in several ways
		}
	})
	return w
}

// TestShellAfterLogin logs in where nobody is: on a Hurd's own prompt, behind all
// that a real one prints while it boots, and on Debian's.
func TestShellAfterLogin(t *testing.T) {
	for name, getty := range map[string]string{
		"hurd": `cat ../../testdata/serial/boot-good.log
while read -r word user; do
	test "$word $user" != "login root" || exec dash -i
	printf "sh: %s: not found\nlogin> " "$word"
done`,
		"debian": `printf "\nDebian GNU/Hurd 13 box console\n\nbox login: "
while read -r user; do
	test "$user" != root || { printf "Last login: Tue on console\n"; exec dash -i; }
	printf "Login incorrect\nbox login: "
done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := boot(t, "dash", "-c", getty).client(t, false)
			var out bytes.Buffer
			status, err := c.Run(t.Context(), guest.Command{Line: "echo here; exit 3", Stdout: &out})
			if err != nil || status.Code != 3 || out.String() != "here\n" {
				t.Errorf("%v, %v, %q", status, err, out.String())
			}
		})
	}
}

// client logs in and gives what the rest of the program uses.
func (w *world) client(t *testing.T, poke bool) *guest.Client {
	t.Helper()
	s := &dialogue.Session{Console: w.console, Step: 20 * time.Second, Poke: poke}
	if err := s.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	sh, err := dialogue.OpenShell(t.Context(), w.console, s)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := exec.Command("id", "-un").Output(); err != nil || sh.User() != strings.TrimSpace(string(want)) {
		t.Errorf("user %q, want %q, %v", sh.User(), want, err)
	}
	c, err := guest.Over(t.Context(), sh, guest.Options{User: sh.User()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// allBytes is every byte, in an order that no encoding likes.
func allBytes() []byte {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	return append(all, "\r\n'!%s%%\\n\\-- end without a newline"...)
}

// TestShell runs commands over a terminal as over SSH: with input, two outputs
// and a status, byte for byte, in the shells that guests have.
func TestShell(t *testing.T) {
	for _, shell := range [][]string{{"dash"}, {"bash", "--norc", "--noprofile"}, {"busybox", "sh"}} {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			w := boot(t, shell...)
			c := w.client(t, true)
			if !strings.HasPrefix(c.Uname(), "Linux ") {
				t.Errorf("uname %q", c.Uname())
			}
			in := bytes.Repeat(allBytes(), 20) // more than one piece
			var out, diag bytes.Buffer
			status, err := c.Run(t.Context(), guest.Command{Line: "cat; printf 'oops\\n' >&2; exit 7", Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &diag})
			if err != nil || status.Code != 7 || !bytes.Equal(out.Bytes(), in) || diag.String() != "oops\n" {
				t.Errorf("status %v, %v, %d bytes of %d, %q", status, err, out.Len(), len(in), diag.String())
			}
			if err := c.Alive(t.Context()); err != nil {
				t.Error(err)
			}
			testScript(t, c)
			if text := w.log.String(); strings.Contains(text, "printf '\\000") || !strings.Contains(text, "are typed here, not shown]") {
				t.Errorf("the log shows what was typed:\n%s", text)
			}
			if left, _ := filepath.Glob(w.dir + "/hqa.*/*"); len(left) > 0 {
				t.Errorf("files are left in the guest: %q", left)
			}
		})
	}
}

// testScript runs a script live: what it prints comes as it does, without what
// the dialogue types and says around it.
func testScript(t *testing.T, c *guest.Client) {
	t.Helper()
	var out bytes.Buffer
	res, err := c.RunScript(t.Context(), guest.Script{
		Text: "test -t 1 && echo 'a terminal'\necho out\necho err >&2\nprintf '\\033[1mtabs\\tand\\r\\nends\\n'\n" +
			"echo \"$SECRET\" >\"$OUT\"\nkill -INT $$; printf 'no newline'\n",
		Shell: "sh {0}", Env: []byte("export SECRET=hunter2222 OUT=\"$hurd_files/out\"\n"),
		Files: []guest.File{{Name: "out", Collect: 100}},
	}, &out, &out)
	if err != nil || res.Status != 130 || res.Signal != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	if want := "out\nerr\n\x1b[1mtabs\tand\r\nends\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if got := string(res.Files["out"].Content); got != "hunter2222\n" {
		t.Errorf("collected %q", got)
	}
}

// TestShellTells lets a script that takes too long have its last words.
func TestShellTells(t *testing.T) {
	t.Parallel()
	c := boot(t, "dash").client(t, true)
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("too late")
	out := &waiter{text: "busy\nbusy\n", found: func() { cancel(late) }}
	_, err := c.RunScript(ctx, guest.Script{
		Text:      "echo begun; trap 'echo told to end; exit 0' TERM; while :; do echo busy; sleep 0.2 || :; done",
		KillGrace: 10 * time.Second,
	}, out, out)
	if !errors.Is(err, late) || !strings.HasSuffix(out.String(), "\ntold to end\n") {
		t.Errorf("%v, %q", err, out.String())
	}
}

// TestShellStops ends a script that does not want to, with all its output until then.
func TestShellStops(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	c := w.client(t, true)
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("too late")
	out := &waiter{text: "\n40\n", found: func() { cancel(late) }}
	begin := time.Now()
	_, err := c.RunScript(ctx, guest.Script{
		Text:  "trap '' TERM; echo $$ >" + w.dir + "/pid; i=0; while :; do i=$((i+1)); echo $i; done",
		Shell: "sh {0}", KillGraceFor: func(cause error) time.Duration {
			if !errors.Is(cause, late) {
				t.Errorf("the grace is for %v", cause)
			}
			return time.Second
		}, CollectWithin: func(error) time.Duration { return 10 * time.Second },
	}, out, out)
	if !errors.Is(err, late) || time.Since(begin) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the script lives: %v", err)
	}
	lines := strings.Split(out.String(), "\n")
	for i := range 40 {
		if lines[i] != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q", i+1, lines[i])
		}
	}
	if noise := regexp.MustCompile(`(?m)^[0-9a-f]{64}|Done |[A-Z2-7]{10}-[lx]`).FindString(out.String()); noise != "" {
		t.Errorf("the output has %q of the dialogue", noise)
	}
	// The shell is as good as before.
	var again bytes.Buffer
	if status, err := c.Run(t.Context(), guest.Command{Line: "echo again", Stdout: &again}); err != nil || status.Code != 0 || again.String() != "again\n" {
		t.Errorf("%v, %v, %q", status, err, again.String())
	}
}

// TestShellNoise: what a kernel prints among it all damages nothing; at most it
// takes longer.
func TestShellNoise(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	s := &dialogue.Session{Console: w.console, Step: time.Second, Poke: true}
	if err := s.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.noise.every.Store(7000)
	sh, err := dialogue.OpenShell(t.Context(), w.console, s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := guest.Over(t.Context(), sh, guest.Options{User: sh.User(), Silence: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	in := bytes.Repeat(allBytes(), 20)
	for i := range 3 {
		var out, diag bytes.Buffer
		status, err := c.Run(t.Context(), guest.Command{Line: "cat; echo oops >&2; exit 7", Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &diag})
		if err != nil || status.Code != 7 || !bytes.Equal(out.Bytes(), in) || diag.String() != "oops\n" {
			t.Errorf("%d: status %v, %v, %d bytes of %d, %q", i, status, err, out.Len(), len(in), diag.String())
		}
	}
	if n := w.noise.hits.Load(); n < 10 {
		t.Errorf("the kernel has printed only %d times", n)
	}
}

// waiter calls a function when a text has been written.
type waiter struct {
	bytes.Buffer
	text  string
	found func()
}

func (w *waiter) Write(p []byte) (int, error) {
	defer func() {
		if w.found != nil && strings.Contains(w.String(), w.text) {
			w.found()
			w.found = nil
		}
	}()
	return w.Buffer.Write(p)
}

// TestShellEnds: when the guest is gone, whoever waits for it is told.
func TestShellEnds(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	c := w.client(t, true)
	out := &waiter{text: "begun", found: func() { _ = w.line.Close() }}
	_, err := c.RunScript(t.Context(), guest.Script{Text: "echo begun; sleep 5 </dev/null >/dev/null 2>&1", Shell: "sh {0}"}, out, out)
	if !errors.Is(err, guest.ErrLost) {
		t.Errorf("err = %v", err)
	}
	select {
	case <-c.Lost():
	case <-time.After(10 * time.Second):
		t.Error("nobody is told")
	}
}

// TestShellLacks names what a guest does not have.
func TestShellLacks(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	s := &dialogue.Session{Console: w.console, Poke: true}
	if err := s.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), "PATH="+w.dir); err != nil {
		t.Fatal(err)
	}
	_, err := dialogue.OpenShell(t.Context(), w.console, s)
	if want := "preparing the shell on the serial console: the guest lacks cat, dd, od, rm, sha256sum, tr, wc"; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
}
