package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scriptCases are run in every world, and against the real servers.
func scriptCases() []scriptCase {
	cases := []scriptCase{
		{name: "empty"},
		{name: "output", text: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
		{name: "no final newline", text: "printf '%s' x", stdout: "x"},
		{name: "stdin is empty", text: "cat\necho after", stdout: "after\n"},
		{name: "a command that reads does not swallow the rest", text: "read -r line || true\nhead -c 5 || true\necho rest", stdout: "rest\n"},
		{name: "quoting", text: "cat <<'EOF'\n'\"$`\\ $(x) {0} %s \nEOF\n", stdout: "'\"$`\\ $(x) {0} %s \n"},
		{name: "utf-8", text: "echo 'grüße 🐃'", stdout: "grüße 🐃\n"},
		{name: "stops at the first error", text: "false\necho not reached", status: 1},
		{name: "exits with 137 by itself", text: "exit 137", status: 137},
		{name: "exits with 143 by itself", text: "exit 143", status: 143},
		{name: "exits with 130 by itself, as shells do after SIGINT", text: "exit 130", status: 130, signal: 2},
		{name: "exits with the status of a killed child", text: "sh -c 'kill -9 $$'", status: 137, anyStderr: true},
	}
	for _, status := range []int{0, 1, 3, 7, 126, 127, 255} {
		cases = append(cases, scriptCase{name: fmt.Sprint("exit ", status), text: fmt.Sprint("exit ", status), status: status})
	}
	for _, signal := range []int{1, 2, 6, 9, 11, 13, 15} {
		cases = append(cases, scriptCase{
			name: fmt.Sprint("signal ", signal), text: fmt.Sprintf("echo before\nkill -%d $$\nsleep 2", signal),
			stdout: "before\n", status: 128 + signal, signal: signal,
		})
	}
	return cases
}

type scriptCase struct {
	name, text, stdout, stderr string
	status, signal             int
	anyStderr                  bool
	user                       string
}

func (tc scriptCase) check(t *testing.T, c *Client) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	r, err := c.RunScript(t.Context(), Script{Text: tc.text, User: tc.user}, &stdout, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != tc.status || r.Signal != tc.signal || r.Detached {
		t.Errorf("result %+v, want status %d, signal %d", r, tc.status, tc.signal)
	}
	if stdout.String() != tc.stdout || stderr.String() != tc.stderr && !tc.anyStderr {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
}

// TestScriptTime: OnStart comes when all is prepared and nothing has run, OnEnd
// when it has; the Duration is what lies between.
func TestScriptTime(t *testing.T) {
	c := dialed(t, worlds()[0].in(t).listen())
	var out bytes.Buffer
	var events []string
	var began, ended time.Time
	r, err := c.RunScript(t.Context(), Script{
		Text:    "echo ran",
		OnStart: func() { began = time.Now(); events = append(events, "start after "+out.String()) },
		OnEnd:   func() { ended = time.Now(); events = append(events, "end after "+out.String()) },
	}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(events, "|"); got != "start after |end after ran\n" {
		t.Errorf("events %q", got)
	}
	if d := ended.Sub(began); r.Duration <= 0 || r.Duration > d || d-r.Duration > 2*time.Second {
		t.Errorf("the duration is %v, and it was %v from the start to the end", r.Duration, d)
	}
}

func TestRunScript(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			s.hurd = true // signals must not depend on the server
			c := dialed(t, s.listen())
			for _, tc := range scriptCases() {
				t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
			}
			t.Run("default shell", func(t *testing.T) {
				var out bytes.Buffer
				text := `if test -n "$BASH_VERSION"; then echo bash; else echo sh; fi`
				if _, err := c.RunScript(t.Context(), Script{Text: text}, &out, nil); err != nil || out.String() != w.shell+"\n" {
					t.Errorf("ran by %q, want %s; %v", &out, w.shell, err)
				}
			})
			left, err := filepath.Glob(filepath.Join(s.dir, "hurd-qemu-action.*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestRunScriptFile checks what a script can see of itself: a file that only
// its user can read, in a directory that only its user can enter, and its text
// in no process's arguments.
func TestRunScriptFile(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	var out bytes.Buffer
	text := "#secret\nd=$(dirname \"$0\")\nstat -c %a \"$d\" \"$0\"\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '#secre[t]' || true\necho $((0)) >&2\n"
	if _, err := c.RunScript(t.Context(), Script{Text: text}, &out, nil); err != nil || out.String() != "700\n600\n0\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestRunScriptBinary(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	text := "tail -c 300 \"$0\" | od -An -v -tu1 | tr -s ' \\n' ' '\nexit 0\n" + strings.Repeat("\x00\n#'", 11)
	var all []string
	var blob []byte
	for i := range 300 {
		blob = append(blob, byte(i))
		all = append(all, fmt.Sprint(byte(i)))
	}
	var out bytes.Buffer
	_, err := c.RunScript(t.Context(), Script{Text: text + string(blob), Shell: "sh {0}"}, &out, nil)
	if got := strings.TrimSpace(out.String()); err != nil || got != strings.Join(all, " ") {
		t.Errorf("the script did not arrive as it is: %v\n%s", err, got)
	}
}

func TestRunScriptDir(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			for _, d := range []string{"sub dir", "-x", "~odd"} {
				if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			c := dialed(t, s.listen())
			for dir, want := range map[string]string{
				"": s.dir, "~": s.dir, "sub dir": s.dir + "/sub dir", "~/sub dir": s.dir + "/sub dir",
				s.dir + "/-x": s.dir + "/-x", "-x": s.dir + "/-x", "./~odd": s.dir + "/~odd", "/": "/",
			} {
				var out bytes.Buffer
				if _, err := c.RunScript(t.Context(), Script{Text: "pwd", Dir: dir}, &out, nil); err != nil || out.String() != want+"\n" {
					t.Errorf("in %q: %q, %v", dir, &out, err)
				}
			}
			_, err := c.RunScript(t.Context(), Script{Text: "pwd", Dir: "no/such dir"}, nil, nil)
			var missing *DirError
			if !errors.As(err, &missing) || missing.Error() != `the working directory "no/such dir" does not exist in the guest or can't be entered` {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestRunScriptShell(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	for _, tc := range []struct{ shell, text, want string }{
		{"sh {0}", "false; echo on", "on\n"},
		{"cat {0}", "just text\n", "just text\n"},
		{`sh -c 'printf "%s|" "$@"' x 'a b' "c'd" {0}x`, "", "a b|c'd|DIR/script.shx|"},
		{"env A={0} sh -c 'echo \"$A\"'", "", "DIR/script.sh\n"},
		{"{0}", "#!/bin/sh\necho direct", "direct\n"},
	} {
		var out bytes.Buffer
		_, err := c.RunScript(t.Context(), Script{Text: tc.text, Shell: tc.shell}, &out, nil)
		got := out.String()
		if i := strings.Index(got, s.dir); i >= 0 {
			end := strings.Index(got[i:], "/script.sh")
			got = got[:i] + "DIR" + got[i+end:]
		}
		if err != nil || got != tc.want {
			t.Errorf("shell %q: %q, %v", tc.shell, got, err)
		}
	}
	_, err := c.RunScript(t.Context(), Script{Text: "x", Shell: "no-such-shell -e {0}"}, nil, nil)
	var missing *ShellError
	if !errors.As(err, &missing) || missing.Error() != `the guest has no program "no-such-shell" to run the script with: install it, or choose another shell` {
		t.Errorf("err = %v", err)
	}
	_, err = c.RunScript(t.Context(), Script{Text: "x", Shell: "bash -e"}, nil, nil)
	var template *TemplateError
	if !errors.As(err, &template) {
		t.Errorf("err = %v", err)
	}
}

// TestRunScriptDetached leaves a process behind that holds the output open.
func TestRunScriptDetached(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	var out bytes.Buffer
	r, err := c.RunScript(t.Context(), Script{Text: "sleep 3 &\necho done\nexit 3"}, &out, nil)
	if err != nil || r.Status != 3 || !r.Detached || out.String() != "done\n" {
		t.Errorf("%+v, %v, %q", r, err, &out)
	}
}

// TestRunScriptFullDisk runs a script that finds its own directory full: the
// record of its end was allocated before.
func TestRunScriptFullDisk(t *testing.T) {
	s := newServer(t)
	// A directory in which no file can be made or grow any more: as on a full
	// disk, what exists can be overwritten.
	c := dialed(t, s.listen())
	text := "cd \"$(dirname \"$0\")\"\nulimit -f 0\ntrap '' XFSZ\necho x >new 2>/dev/null && test -s new && exit 99\nkill -9 $$"
	r, err := c.RunScript(t.Context(), Script{Text: text}, nil, nil)
	if err != nil || r.Signal != 9 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestRunScriptNoise has a login shell that prints something of its own first.
func TestRunScriptNoise(t *testing.T) {
	s := newServer(t)
	bin := t.TempDir()
	writeProgram(t, bin+"/sh", "#!/bin/sh\necho Welcome to GNU\necho Have fun\nexec /bin/sh \"$@\"\n")
	s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
	c := dialed(t, s.listen())
	r, err := c.RunScript(t.Context(), Script{Text: "kill -9 $$"}, nil, nil)
	if err != nil || r.Signal != 9 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRunScriptNoTemporaryDirectory(t *testing.T) {
	s := newServer(t)
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !strings.Contains(line, "/run.sh") {
			return 0, false
		}
		_, _ = ch.Stderr().Write([]byte("sh: can't create all: Read-only file system\n"))
		return 74, true
	}
	c := dialed(t, s.listen())
	_, err := c.RunScript(t.Context(), Script{Text: "true"}, nil, nil)
	want := "preparing the script in the guest: the guest could not store it (exited with status 74): sh: can't create all: Read-only file system"
	if err == nil || err.Error() != want {
		t.Errorf("err = %v", err)
	}
}

// TestRunScriptHostileDirectory has the guest answer with a path of its choice.
func TestRunScriptHostileDirectory(t *testing.T) {
	s := newServer(t)
	s.hello("uname GNU\ntmp etc\n")
	o := s.listen()
	c := dialed(t, o)
	want := "preparing the script in the guest: no directory for temporary files can be written: tried $TMPDIR, /tmp, /var/tmp, $HOME and /dev/shm"
	if _, err := c.RunScript(t.Context(), Script{Text: "true"}, nil, nil); err == nil || err.Error() != want {
		t.Errorf("err = %v", err)
	}
	// A directory that can't be written after all, and one with a name that no
	// shell may touch.
	strange := filepath.Join(s.dir, "$(touch x); 'it'")
	if err := os.Mkdir(strange, 0o700); err != nil {
		t.Fatal(err)
	}
	s.hello("uname GNU\ntmp /proc/none\ntmp " + strange + "\n")
	var out bytes.Buffer
	text := "dirname \"$0\" | sed 's/hurd-qemu-action.*//'"
	if _, err := dialed(t, o).RunScript(t.Context(), Script{Text: text}, &out, nil); err != nil || out.String() != strange+"/\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

// TestRunScriptWrapperKilled has a script that kills the shell that runs it:
// there is no record, and no guess is made.
func TestRunScriptWrapperKilled(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	_, err := c.RunScript(t.Context(), Script{Text: "kill -9 $PPID; sleep 0.3"}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), `its record in the guest says "running", and the SSH server: was killed by signal KILL`) {
		t.Errorf("err = %v", err)
	}
}

// TestRunScriptStopped ends the context of scripts that resist in various
// ways; none of their processes may live on.
func TestRunScriptStopped(t *testing.T) {
	for _, w := range worlds() {
		for name, text := range map[string]string{
			"obedient":   "exec 9>fifo\necho started\nsleep 1000",
			"deaf":       "exec 9>fifo\ntrap '' TERM\necho started\nsleep 1000; sleep 1000",
			"background": "exec 9>fifo\nsleep 1000 &\n(sleep 1000; sleep 1000) &\nsh -c 'trap \"\" TERM; echo started; sleep 1000; sleep 1000'",
		} {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				stopped(t, w.in(t), text)
			})
		}
	}
}

func stopped(t *testing.T, s *sshServer, text string) {
	stoppedIn(t, dialed(t, s.listen()), s.dir, text)
	if left, _ := filepath.Glob(filepath.Join(s.dir, "hurd-qemu-action.*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// stoppedIn runs a script that opens the file fifo of dir, and ends its context
// when it writes something.
func stoppedIn(t *testing.T, c *Client, dir, text string) {
	t.Helper()
	stoppedAs(t, c, dir, text, "")
}

// stoppedAs does so as a user of the guest.
func stoppedAs(t *testing.T, c *Client, dir, text, user string) {
	t.Helper()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that opening it does not wait
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer func() { _ = reader.Close() }()

	cause := errors.New("timeout after 1s")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	_, err = c.RunScript(ctx, Script{Text: text, User: user, KillGrace: 500 * time.Millisecond}, writerFunc(func(p []byte) (int, error) {
		cancel(cause)
		return len(p), nil
	}), nil)
	if !errors.Is(err, cause) {
		t.Errorf("err = %v, want the cause", err)
	}
	// Every process of the script has the fifo open: it ends with the last of them.
	if err := reader.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a process of the script lives on (%v)", err)
	}
}

// TestRunScriptGuestDeaf ends a script in a guest that has stopped answering.
func TestRunScriptGuestDeaf(t *testing.T) {
	s := newServer(t)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !strings.Contains(line, "/run.sh") && !strings.Contains(line, "stop.sh") {
			return 0, false
		}
		if _, dir, ok := strings.Cut(line, "set -- '"); ok && strings.Contains(line, "ready") {
			dir, _, _ = strings.Cut(dir, "'")
			_, _ = ch.Write([]byte("\n" + dir + "\nx"))
		}
		<-hang
		return 0, true
	}
	c := dialed(t, s.listen())
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	begin := time.Now()
	_, err := c.RunScript(ctx, Script{Text: "true", KillGrace: 200 * time.Millisecond}, writerFunc(func(p []byte) (int, error) {
		cancel(cause)
		return len(p), nil
	}), nil)
	if took := time.Since(begin); !errors.Is(err, cause) || took > 3200*time.Millisecond {
		t.Errorf("after %s: %v", took, err)
	}
}

func TestRunScriptLost(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	_, err := c.RunScript(t.Context(), Script{Text: "echo started; sleep 2"}, writerFunc(func(p []byte) (int, error) {
		s.drop()
		return len(p), nil
	}), nil)
	var lost *LostError
	if !errors.As(err, &lost) || !strings.HasPrefix(err.Error(), "running the script in the guest: the connection to the guest was lost: ") {
		t.Errorf("err = %v", err)
	}
}
