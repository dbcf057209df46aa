package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// holding is a connection whose first command's session is held.
func holding(t *testing.T, o Options) *Client {
	t.Helper()
	o.Greeting.Hold = true
	c := dialed(t, o)
	if c.held.Load() == nil {
		t.Fatal("no session is held")
	}
	return c
}

// commands is how many the server has run.
func (s *sshServer) commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.groups)
}

// TestHold runs scripts in the session of the first command: they can't tell, and
// neither can who reads their output.
func TestHold(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			harmless(t, "0")
			s := w.in(t)
			s.hurd = true // signals must not depend on the server
			o := s.listen()
			for i, tc := range scriptCases() {
				t.Run(tc.name, func(t *testing.T) {
					o := o
					if i%2 == 0 {
						o.Greeting = Greeting{SetClock: true, Renew: []Beginning{{filepath.Join(t.TempDir(), "key"), []byte("x")}}}
					}
					before := s.commands()
					c := holding(t, o)
					tc.check(t, c)
					if n := s.commands() - before; n != 2 {
						t.Errorf("%d sessions, want one for the first command and the script, and one for its end", n)
					}
					if err := c.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			s.idle()
			if left, err := filepath.Glob(filepath.Join(s.dir, "hurd-qemu-action.*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestHoldLeavesNothing: a script has its arguments, umask, directory, files and
// standard input as in a session of its own, also the second one, which gets one.
func TestHoldLeavesNothing(t *testing.T) {
	harmless(t, "0")
	for _, shell := range []string{"/bin/sh", "/bin/bash", ""} {
		s := newServer(t)
		s.env[len(s.env)-1] = "SHELL=" + shell
		s.env = append(s.env, "was=1", "said=2", "base=3", "status=4", "renewed=5") // names that our programs may like
		o := s.listen()
		o.LoginShell = shell
		o.Greeting = Greeting{SetClock: true, Renew: []Beginning{{filepath.Join(t.TempDir(), "key"), []byte("x")}}}
		c := holding(t, o)
		script, wantFiles := collectedFiles()
		script.Env = append(script.Env, "\nexport SECRET='it''s \"it\"'\n"...)
		script.Text = "echo $# $- $(umask) $PWD \"$SECRET\"\nset | grep -v ^_= | cut -c1-200\nls -l /proc/self/fd | grep -c .\n" + script.Text
		var outputs [2]string
		for i := range outputs {
			var out bytes.Buffer
			r, err := c.RunScript(t.Context(), script, &out, nil)
			if err != nil || r.Status != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			if diff := cmp.Diff(wantFiles, r.Files); diff != "" {
				t.Error(diff)
			}
			for line := range strings.Lines(out.String()) {
				if !strings.Contains(line, "PID=") && !strings.Contains(line, "hurd-qemu-action.") { // what is different each time
					outputs[i] += line
				}
			}
		}
		if diff := cmp.Diff(outputs[1], outputs[0]); diff != "" || !strings.HasPrefix(outputs[0], "0 ") || !strings.Contains(outputs[0], " 0022 "+s.dir+" its \"it\"\n") {
			t.Errorf("login shell %q: in a session of its own, and in the first command's:\n%s", shell, diff)
		}
		if n := s.commands(); n != 4 {
			t.Errorf("%d sessions", n)
		}
	}
}

// TestHoldUser: another user's script is run in the session as well.
func TestHoldUser(t *testing.T) {
	s := newServer(t)
	asRoot(t, s)
	o := s.listen()
	for _, tc := range strangerCases() {
		c := holding(t, o)
		t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
	}
}

// TestHoldNot: what can't be done in the session that is held is done in another.
func TestHoldNot(t *testing.T) {
	for name, tc := range map[string]struct {
		script   Script
		spoil    func(t *testing.T, s *sshServer, c *Client)
		sessions int
	}{
		"a large script": {Script{Text: "echo done\nexit 0\n" + strings.Repeat("#", inlineMost)}, nil, 3},
		"the shell has died": {Script{Text: "echo done"}, func(t *testing.T, s *sshServer, c *Client) {
			if err := exec.Command("kill", "-9", fmt.Sprint(s.groups[0])).Run(); err != nil {
				t.Fatal(err)
			}
			<-c.held.Load().execution.exited
		}, 3},
		"the program does not arrive": {Script{Text: "echo done"}, nil, 4},
		"the directory can't be written": {Script{Text: "echo done"}, func(_ *testing.T, s *sshServer, c *Client) {
			c.told.tmp = []string{"/proc/none", s.dir}
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			bin := t.TempDir()
			first := ":"
			if name == "the program does not arrive" {
				first = "mkdir " + quote(filepath.Join(s.dir, "first")) + " 2>/dev/null && exit"
			}
			writeProgram(t, filepath.Join(bin, "cat"), "#!/bin/sh\n"+first+"\nexec /bin/cat \"$@\"\n")
			s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
			c := holding(t, s.listen())
			if tc.spoil != nil {
				tc.spoil(t, s, c)
			}
			var out, diag bytes.Buffer
			r, err := c.RunScript(t.Context(), tc.script, &out, &diag)
			if err != nil || r.Status != 0 || out.String() != "done\n" || diag.Len() > 0 {
				t.Errorf("%+v, %v, %q, %q", r, err, &out, &diag)
			}
			if n := s.commands(); n != tc.sessions {
				t.Errorf("%d sessions", n)
			}
			_ = c.Close()
			s.idle()
		})
	}
}

// TestHoldOneSession has a server that allows one session at a time.
func TestHoldOneSession(t *testing.T) {
	r := newRealServer(t, func(t *testing.T, r *realServer) []string {
		argv := openSSH(t, r)
		config, err := os.OpenFile(filepath.Join(r.dir, "sshd_config"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.WriteString("MaxSessions 1\n")
		if err := errors.Join(err, config.Close()); err != nil {
			t.Fatal(err)
		}
		return argv
	})
	c := holding(t, r.options)
	var out bytes.Buffer
	if status, err := c.Run(t.Context(), Command{Line: "echo command", Stdout: &out}); err != nil || status.Code != 0 {
		t.Errorf("%+v, %v", status, err)
	}
	res, err := c.RunScript(t.Context(), Script{Text: "echo script"}, &out, nil)
	if err != nil || res.Status != 0 || out.String() != "command\nscript\n" {
		t.Errorf("%+v, %v, %q", res, err, &out)
	}
}

// TestHoldOnce: a script that may have begun is not begun again, though nothing
// was heard of it.
func TestHoldOnce(t *testing.T) {
	s := newServer(t)
	var others atomic.Int32
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !isHello(line) {
			others.Add(1)
			return 1, true
		}
		parts := strings.Split(line, "'")
		_, _ = fmt.Fprintf(ch, "\nuname GNU\ntmp %s\n%s\n", s.dir, parts[len(parts)-2])
		_, _ = io.Copy(io.Discard, ch)
		return 0, true
	}
	s.noStatus = true // the channel just closes
	_, err := holding(t, s.listen()).RunScript(t.Context(), Script{Text: "true"}, nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "preparing the script in the guest: ") || others.Load() != 0 {
		t.Errorf("%v, and %d more commands", err, others.Load())
	}
}

// TestHoldCutOff: a program of which a part is missing does nothing at all.
func TestHoldCutOff(t *testing.T) {
	up, err := setUp(Script{Text: "echo ran", Env: []byte("export A=1\n"), Files: []File{{Name: "x", Content: []byte("y")}}}, filepath.Join(t.TempDir(), "script"), "echo began")
	if err != nil {
		t.Fatal(err)
	}
	program, ok := up.text()
	if !ok {
		t.Fatal("there is no such program")
	}
	whole := strings.TrimRight(program, "\n")
	for _, shell := range []string{"dash", "bash", "busybox"} {
		run := func(text string) string {
			args := []string{"-c", "eval \"$(cat)\""}
			if shell == "busybox" {
				args = append([]string{"sh"}, args...)
			}
			cmd := exec.Command(needed(t, shell), args...)
			cmd.Stdin = strings.NewReader(text)
			out, _ := cmd.Output() // its status does not matter
			return string(out)
		}
		for n := 0; n < len(whole); n += max(1, min(97, len(whole)-n-3)) {
			if out := run(whole[:n]); out != "" {
				t.Fatalf("%s: %d of %d bytes print %q", shell, n, len(whole), out)
			}
			if _, err := os.Stat(up.dir); err == nil {
				t.Fatalf("%s: %d of %d bytes make the directory", shell, n, len(whole))
			}
		}
		if out := run(whole); out != "\n"+up.dir+"\nbegan\n" {
			t.Errorf("%s: %q", shell, out)
		}
		if err := os.RemoveAll(up.dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHoldFails: the first command's failures are what they are without holding.
func TestHoldFails(t *testing.T) {
	harmless(t, "0")
	s := newServer(t)
	o := s.listen()
	o.Greeting = Greeting{Renew: []Beginning{{filepath.Join(t.TempDir(), "no", "such", "directory"), []byte("x")}}}
	var said []string
	for _, hold := range []bool{false, true} {
		o.Greeting.Hold = hold
		_, err := Dial(t.Context(), o)
		var refused *RenewError
		if !errors.As(err, &refused) || refused.Status.Code != 74 {
			t.Fatalf("hold %t: %v", hold, err)
		}
		said = append(said, regexp.MustCompile(`sh: \d+: `).ReplaceAllString(refused.Said, ""))
	}
	if said[0] == "" || said[1] != said[0] {
		t.Errorf("%q, and with a session that is held %q", said[0], said[1])
	}
	// A guest whose first command hangs, and one that says something else.
	for answer, want := range map[string]string{"": "context deadline exceeded", "Go away\n": "the first command exited with status 1: Go away"} {
		s := newServer(t)
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		s.command = func(_ string, ch sshChannel) (uint32, bool) {
			if answer == "" {
				<-hang
			}
			_, _ = ch.Write([]byte(answer))
			return 1, true
		}
		o := s.listen()
		o.Greeting.Hold = true
		d := s.dial(t, o)
		if d == nil || !strings.Contains(d.Error(), want) {
			t.Errorf("%q: %v", answer, d)
		}
	}
}

// dial makes one attempt and returns its error.
func (s *sshServer) dial(t *testing.T, o Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	a := &attempt{answer: time.Minute, login: time.Minute, started: time.Now()}
	a.run(ctx, o, func() {})
	if a.client != nil {
		t.Error("it succeeded")
	}
	return a.err
}

// TestHoldCloses: the shell that waits ends with the connection.
func TestHoldCloses(t *testing.T) {
	s := newServer(t)
	_ = holding(t, s.listen()).Close()
	s.idle()
}

// TestLater: what is printed before there is a script reaches nobody.
func TestLater(t *testing.T) {
	var out bytes.Buffer
	l := &later{}
	if n, err := io.WriteString(l, "noise"); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	l.set(&out)
	if n, err := io.WriteString(l, "script"); n != 6 || err != nil || out.String() != "script" {
		t.Errorf("%d, %v, %q", n, err, &out)
	}
}

// TestHoldStopped ends a script that runs in the session. One that has not begun
// is in TestRunScriptStoppedEarly.
func TestHoldStopped(t *testing.T) {
	s := newServer(t)
	stoppedIn(t, holding(t, s.listen()), s.dir, "exec 9>fifo\ntrap '' TERM\nsleep 1000 &\necho started\nsleep 1000; sleep 1000")
	s.idle()
}
