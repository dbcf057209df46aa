package provision

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/dialogue"
)

// memoryConsole is a console whose guest is a function.
type memoryConsole struct {
	mu    sync.Mutex
	buf   string
	fresh chan struct{} // closed when there is more in buf
	typed chan string   // lines without their end
	sent  []string
}

func newMemoryConsole() *memoryConsole {
	return &memoryConsole{fresh: make(chan struct{}), typed: make(chan string, 1000)}
}

func (c *memoryConsole) print(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf += text
	close(c.fresh)
	c.fresh = make(chan struct{})
}

func (c *memoryConsole) Expect(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		c.mu.Lock()
		fresh := c.fresh
		if m := re.FindStringSubmatchIndex(c.buf); m != nil {
			var groups []string
			for i := 0; i < len(m); i += 2 {
				if m[i] < 0 {
					groups = append(groups, "")
				} else {
					groups = append(groups, c.buf[m[i]:m[i+1]])
				}
			}
			c.buf = c.buf[m[1]:]
			c.mu.Unlock()
			return groups, nil
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-fresh:
		}
	}
}

func (c *memoryConsole) Send(_ context.Context, text string) error {
	c.mu.Lock()
	c.sent = append(c.sent, text)
	c.mu.Unlock()
	for line := range strings.Lines(text) {
		c.typed <- strings.TrimSuffix(line, "\n")
	}
	return nil
}

// guest answers typed lines until the test ends.
type guest func(c *memoryConsole, line string)

// echoing is a terminal that shows what is typed.
func echoing(g guest) guest {
	return func(c *memoryConsole, line string) {
		c.print(line + "\r\n")
		g(c, line)
	}
}

const guestKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsdGX4/bVEfdxO0C1wNJqZ8yoF9j8CuX1TgYZOJ8BhD root@box"

// marks finds the commands that the dialogue types.
var marks = regexp.MustCompile(`^echo "(\w+)"-b(\d+); (.*); echo "(\w+)"-e(\d+) \$\?$`)

// shell is a guest's shell: answers gives the output and status of a command.
func shell(answer func(command string) (string, int)) guest {
	return func(c *memoryConsole, line string) {
		if m := regexp.MustCompile(`echo "(\w+)"-ready$`).FindStringSubmatch(line); m != nil {
			c.print(m[1] + "-ready\r\n")
		}
		if m := marks.FindStringSubmatch(line); m != nil {
			output, status := answer(m[3])
			c.print(fmt.Sprintf("%s-b%s\r\n%s%s-e%s %d\r\n", m[1], m[2], output, m[4], m[5], status))
		}
	}
}

// usual is a shell in which everything works.
func usual(command string) (string, int) {
	if strings.HasPrefix(command, "cat /etc/ssh/") {
		return guestKey + "\r\n", 0
	}
	return "", 0
}

// login is a login prompt that leads to a shell.
func login(prompt, name string, then guest) guest {
	in := false
	return func(c *memoryConsole, line string) {
		switch {
		case in:
			then(c, line)
		case line == name:
			in = true
			c.print("Last login: Mon Nov 23 on console\r\nGNU box 0.9\r\n\x1b[?2004hroot@box:~# ")
		default:
			c.print("\r\n" + prompt)
		}
	}
}

// talk runs a dialogue with a guest in simulated time.
func talk(t *testing.T, d Dialogue, first string, g guest) (keys []ssh.PublicKey, sent []string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newMemoryConsole()
		d.Console = c
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.print(first)
			for {
				select {
				case <-ctx.Done():
					return
				case line := <-c.typed:
					g(c, line)
				}
			}
		}()
		start := time.Now()
		keys, err = d.Run(ctx)
		took = time.Since(start)
		cancel()
		<-done
		sent = c.sent
	})
	return keys, sent, took, err
}

func TestDialogueLogsIn(t *testing.T) {
	quiet := func(c *memoryConsole, line string) { usualShell(c, line) }
	for name, tc := range map[string]struct {
		first string
		guest guest
		typed string // the first thing that is typed
	}{
		"debian":           {"\r\nGNU 0.9 (box) (console)\r\n\r\nbox login: ", login("login: ", "root", usualShell), "root\n"},
		"with echo":        {"\r\nlogin: ", echoing(login("login: ", "root", usualShell)), "root\n"},
		"with colours":     {"\x1b[H\x1b[2J\x1b[1mbox login: \x1b[0m", login("login: ", "root", usualShell), "root\n"},
		"upstream hurd":    {"\r\nUse `login USER' to login.\r\nlogin> ", login("login> ", "login root", usualShell), "login root\n"},
		"a shell at once":  {"starting\r\n# ", quiet, "exec /bin/sh\n"},
		"a coloured shell": {"\r\n\x1b[01;32mroot@box\x1b[00m:\x1b[01;34m~\x1b[00m# \x1b[0m", quiet, "exec /bin/sh\n"},
		"a spaced shell":   {"\r\n[root@box ~]# ", quiet, "exec /bin/sh\n"},
		"silent at first":  {"", login("login: ", "root", usualShell), "\n"},
		"prompt scrolled":  {"\r\nlog", login("login: ", "root", usualShell), "\n"},
		"boot messages":    {"# CPU 0\r\nsmp: 1 # \r\nno login yet\r\n", login("login: ", "root", usualShell), "\n"},
	} {
		keys, sent, _, err := talk(t, Dialogue{Keys: runKeys().Authorized}, tc.first, tc.guest)
		if err != nil || len(keys) != 1 || !strings.HasPrefix(guestKey, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(keys[0])))) {
			t.Errorf("%s: %v, %v", name, keys, err)
			continue
		}
		if sent[0] != tc.typed {
			t.Errorf("%s: first %q was typed", name, sent[0])
		}
		if last := sent[len(sent)-1]; last != "exit\n" {
			t.Errorf("%s: last %q was typed", name, last)
		}
		for _, text := range sent {
			for line := range strings.Lines(text) {
				if len(line) > dialogue.MaxLine {
					t.Errorf("%s: a line of %d characters was typed: %q", name, len(line), line)
				}
			}
		}
	}
}

var usualShell = shell(usual)

func TestDialogueLoginFails(t *testing.T) {
	for name, tc := range map[string]struct {
		first string
		guest guest
		is    error
		says  string
	}{
		"a password": {"\r\nlogin: ", func(c *memoryConsole, _ string) { c.print("Password: ") }, dialogue.ErrPassword, "logging in on the serial console: the serial console asks for a password"},
		"sudo-like":  {"\r\nlogin: ", func(c *memoryConsole, _ string) { c.print("[x] password for root: ") }, dialogue.ErrPassword, ""},
		"refused":    {"\r\nlogin: ", func(c *memoryConsole, _ string) { c.print("Login incorrect\r\n\r\nlogin: ") }, nil, "the login prompt comes back: root may not log in here"},
		"silence":    {"", func(*memoryConsole, string) {}, dialogue.ErrNoPrompt, "no login prompt came on the serial console within 5m0s"},
		"noise":      {"", func(c *memoryConsole, _ string) { c.print("login\r\nprompt # later\r\n") }, dialogue.ErrNoPrompt, ""},
		"deaf shell": {"\r\n# ", func(c *memoryConsole, line string) { c.print(line + "\r\n# ") }, dialogue.ErrNoPrompt, ""},
	} {
		_, _, took, err := talk(t, Dialogue{Boot: 5 * time.Minute}, tc.first, tc.guest)
		if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
		if limit := errors.Is(err, dialogue.ErrNoPrompt); limit != (took == 5*time.Minute) {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

// TestDialogueEchoIsNoOutput: a terminal that only echoes answers nothing.
func TestDialogueEchoIsNoOutput(t *testing.T) {
	in := false
	_, _, took, err := talk(t, Dialogue{Step: 10 * time.Second}, "\r\n# ", func(c *memoryConsole, line string) {
		c.print(line + "\r\n")
		if m := regexp.MustCompile(`echo "(\w+)"-ready$`).FindStringSubmatch(line); m != nil && !in {
			in = true
			c.print(m[1] + "-ready\r\n")
		}
	})
	if err == nil || !strings.Contains(err.Error(), "did not end within 10s on the serial console") || took != 10*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
}

func TestDialogueCommandFails(t *testing.T) {
	_, _, _, err := talk(t, Dialogue{Keys: []string{"key"}}, "\r\n# ", shell(func(command string) (string, int) {
		if strings.HasPrefix(command, "mkdir") {
			return "mkdir: \x1b[31mRead-only file system\x1b[0m\r\n" + strings.Repeat("x", 1000), 30
		}
		return "", 0
	}))
	var failed *dialogue.CommandError
	if !errors.As(err, &failed) || failed.Status != "30" || len(failed.Output) != 500 ||
		!strings.Contains(err.Error(), `installing the key over the serial console: "mkdir -p $d" failed with status 30 on the serial console: "mkdir: Read-only file system\n`) {
		t.Errorf("%v", err)
	}
}

func TestDialogueHostKeys(t *testing.T) {
	other := "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
	for name, tc := range map[string]struct {
		answers map[string]string // output by the command's beginning; others fail
		keys    int
		err     error
	}{
		"openssh":          {map[string]string{"cat /etc/ssh/": guestKey + "\r\n" + other + " x\r\n"}, 2, nil},
		"kernel messages":  {map[string]string{"cat /etc/ssh/": "wd0: hello " + guestKey[:50] + "wd0: oops\r\n" + other + "[  1.0] x\r\n"}, 1, nil},
		"dropbear":         {map[string]string{"for f in /etc/dropbear": "Public key portion is:\r\n" + guestKey + "\r\nFingerprint: SHA256:x\r\n"}, 1, nil},
		"made by keygen":   {map[string]string{"ssh-keygen": "", "cat /etc/ssh/!": guestKey}, 1, nil},
		"made by dropbear": {map[string]string{"mkdir -p /etc/dropbear; dropbearkey": "", "for f in /etc/dropbear!": guestKey}, 1, nil},
		"none":             {nil, 0, ErrNoHostKey},
		"none, but made":   {map[string]string{"ssh-keygen": ""}, 0, ErrNoHostKey},
	} {
		made := false
		keys, _, _, err := talk(t, Dialogue{}, "\r\n# ", shell(func(command string) (string, int) {
			for prefix, output := range tc.answers {
				prefix, later := strings.CutSuffix(prefix, "!") // only after a key was made
				if strings.HasPrefix(command, prefix) && (!later || made) {
					made = made || output == ""
					return output, 0
				}
			}
			if strings.Contains(command, "/etc/") || strings.Contains(command, "ssh-keygen") {
				return "not found\r\n", 127
			}
			return "", 0
		}))
		if len(keys) != tc.keys || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
}

// TestDialogueTypesLongKeys: a key longer than a line arrives whole.
func TestDialogueTypesLongKeys(t *testing.T) {
	key := `command="echo 'a b' \"$x\" ` + "`y`" + `",no-pty ssh-rsa ` + strings.Repeat("AAAABBBB", 100) + " who"
	_, sent, _, err := talk(t, Dialogue{Keys: []string{key}}, "\r\n# ", usualShell)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, text := range sent {
		for line := range strings.Lines(text) {
			if len(line) > dialogue.MaxLine {
				t.Errorf("%d characters: %q", len(line), line)
			}
			if m := marks.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				if quoted, ok := strings.CutPrefix(m[3], `k="$k"'`); ok {
					got.WriteString(strings.ReplaceAll(strings.TrimSuffix(quoted, "'"), `'"'"'`, "'"))
				}
			}
		}
	}
	if got.String() != key {
		t.Errorf("it arrives as %q", got.String())
	}
}

func TestDialogueRefuses(t *testing.T) {
	for name, d := range map[string]Dialogue{
		`is no user name that can be typed`:    {User: "root; reboot"},
		`an authorized key holds a line break`: {Keys: []string{"a\nb"}},
	} {
		if _, _, _, err := talk(t, d, "\r\n# ", usualShell); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

func TestDialogueCanceled(t *testing.T) {
	cause := errors.New("qemu exited")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := (Dialogue{Console: newMemoryConsole()}).Run(ctx); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}
