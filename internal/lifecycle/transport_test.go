package lifecycle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/dialogue"
)

// script gives a run a console-script.
func script(t *testing.T, r *run, text string) {
	t.Helper()
	r.config.ConsoleScript = text
	if problems := r.readDialogue(); len(problems) > 0 {
		t.Fatal(problems)
	}
}

func TestReadDialogue(t *testing.T) {
	serial := func(c *config.Config) { c.Transport = transportSerial }
	for name, tc := range map[string]struct {
		set  func(*config.Config)
		want []string
	}{
		"nothing":         {func(*config.Config) {}, nil},
		"all lines":       {func(c *config.Config) { c.ConsoleScript = "expct \"x\"\n\nsend 3\n" }, []string{"console-script: line 1: \"expct\" is no statement", "console-script: line 3: \"3\" can't be sent"}},
		"a variable":      {func(c *config.Config) { c.ConsoleScript = "send env SET env NOT_SET" }, []string{"console-script: it sends the variable NOT_SET, which is not set"}},
		"another login":   {func(c *config.Config) { serial(c); c.SSHUser = "demo" }, []string{`ssh-user: "demo": with transport: serial there is no SSH`}},
		"a tar":           {func(c *config.Config) { serial(c); c.Sync = syncTar }, []string{`sync: "tar": a serial console is too slow`}},
		"a saved machine": {func(c *config.Config) { serial(c); c.Snapshot = snapshotRestore }, []string{`snapshot: "restore": a machine whose shell is on its serial console can't be saved`}},
		"serial":          {serial, nil},
		"tar over SSH":    {func(c *config.Config) { c.Sync, c.SSHUser = syncTar, "demo" }, nil},
	} {
		r, _ := newRun()
		r.Host.Environ = []string{"SET=s3cr3t-value"}
		r.config = config.Config{SSHUser: "root", Snapshot: snapshotAuto, Transport: "ssh", Sync: syncAuto}
		tc.set(&r.config)
		problems := r.readDialogue()
		if len(problems) != len(tc.want) {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		for i, p := range problems {
			if !strings.HasPrefix(p.Error(), tc.want[i]) {
				t.Errorf("%s: %v, want %s", name, p, tc.want[i])
			}
		}
		if name == "a variable" && r.mask.String("it is s3cr3t-value") != "it is ***" {
			t.Error("what is sent is not masked")
		}
	}
}

// TestNoSnapshotOverConsole: the run goes on without one, and knows why.
func TestNoSnapshotOverConsole(t *testing.T) {
	r := savable(t)
	r.config.Transport = transportSerial
	if err := r.planSnapshot(); err != nil || r.warm.store != nil || r.warm.why != noSnapshotOverConsole {
		t.Errorf("%v, %q", err, r.warm.why)
	}
}

// talking is a run with a console whose guest is a connection.
func talking(t *testing.T) (r *run, guest net.Conn, log func() string) {
	t.Helper()
	r, out := newRun()
	ours, theirs := net.Pipe()
	r.console = console.New(ours, console.Options{})
	done := make(chan error, 1)
	go func() { done <- r.console.Run(context.Background()) }()
	t.Cleanup(func() {
		_ = theirs.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r, theirs, out.String
}

func print(t *testing.T, guest io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(guest, text); err != nil {
		t.Error(err)
	}
}

// TestGetReady waits for ready-pattern, then holds the user's dialogue; only
// then anything else is done.
func TestGetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, guest, log := talking(t)
		r.Host.Environ = []string{"PASSWORD=s3cr3t-value"}
		script(t, r, "send env PASSWORD \"\\n\"\nexpect \"# \" within 5s\n")
		r.config.ReadyPattern = regexp.MustCompile(`^box login: $`)
		typed := make(chan string, 1)
		go func() {
			print(t, guest, "noise login: \r\nbox lo")
			time.Sleep(time.Minute)
			if why := r.refuseTyping(); why != "" {
				t.Errorf("nobody may type while it boots: %s", why)
			}
			print(t, guest, "gin: ")
			buf := make([]byte, len("s3cr3t-value\n"))
			_, _ = io.ReadFull(guest, buf)
			if r.refuseTyping() == "" {
				t.Error("somebody else may type into the dialogue")
			}
			typed <- string(buf)
			print(t, guest, "\r\nbox# ")
		}()
		did, err := r.getReady(t.Context())
		if err != nil || !did || <-typed != "s3cr3t-value\n" || r.refuseTyping() != "" {
			t.Errorf("%v, %v", did, err)
		}
		if !strings.Contains(log(), "The console says that the guest is ready, after") || !strings.Contains(log(), "box login:") || strings.Contains(log(), "s3cr3t") {
			t.Errorf("the log: %s", log())
		}
	})
}

// TestNotReady shows the pattern, or what was expected, and the console's last lines.
func TestNotReady(t *testing.T) {
	for name, tc := range map[string]struct {
		pattern, script string
		title, says     string
	}{
		"ready-pattern":  {"^up$", "", "The guest did not say that it is ready", `no line of the serial console matches ready-pattern "^up$": boot-timeout was over`},
		"console-script": {"", `expect "ready" within 5s`, "The console-script did not get on", `console-script: line 1: "ready" did not come on the serial console within 5s`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, guest, _ := talking(t)
				script(t, r, tc.script)
				if tc.pattern != "" {
					r.config.ReadyPattern = regexp.MustCompile(tc.pattern)
				}
				print(t, guest, "the last line\r\nbox login: ")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, overTime(time.Minute))
				defer cancel()
				_, err := r.getReady(ctx)
				var failure *Error
				if e := r.notReady(err, context.Cause(ctx)); e != nil {
					failure = e
				} else {
					var said dialogueError
					if !errors.As(err, &said) || !errors.As(r.dialogueFailure(said), &failure) {
						t.Fatalf("err = %v", err)
					}
				}
				if failure.Kind != BootFailed || failure.Title != tc.title || failure.Error() != tc.says {
					t.Errorf("%s: %s: %v", failure.Kind, failure.Title, failure)
				}
				if got := strings.Join(failure.Quote, "|"); got != "the last line|box login:" {
					t.Errorf("quoted %q", got)
				}
			})
		})
	}
}

// TestConsoleWantsPassword tells how to give it.
func TestConsoleWantsPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, guest, _ := talking(t)
		go func() {
			print(t, guest, "box login: ")
			_, _ = io.ReadFull(guest, make([]byte, len("root\n")))
			print(t, guest, "Password: ")
		}()
		err := r.openShell(t.Context(), false)
		var said dialogueError
		if !errors.As(err, &said) || !errors.Is(err, dialogue.ErrPassword) {
			t.Fatalf("err = %v", err)
		}
		var failure *Error
		if !errors.As(r.dialogueFailure(said), &failure) || !strings.Contains(strings.Join(failure.Advice, " "), "send env PASSWORD") {
			t.Errorf("%+v", failure)
		}
		if r.refuseTyping() != "" {
			t.Error("the console is still spoken for")
		}
	})
}

// TestAfterLogin: what fails when somebody is logged in is no missing login.
func TestAfterLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		lacks string        // what the shell answers to the question for programs
		wait  bool          // or it does not answer
		limit time.Duration // boot-timeout
		title string
		says  string
	}{
		"a lack":    {"od tr ", false, time.Hour, "The shell on the serial console cannot be used", "the guest lacks od, tr"},
		"no answer": {"", true, time.Hour, "The shell on the serial console cannot be used", `":" did not end within 5s on the serial console`},
		"no time":   {"", true, 10 * time.Second, "The shell on the serial console did not answer in time", "within boot-timeout (10s): using the shell"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, guest, _ := talking(t)
				r.config.Transport = transportSerial
				go aShell(guest, tc.lacks, tc.wait)
				ctx, cancel := context.WithTimeoutCause(t.Context(), tc.limit, overTime(tc.limit))
				defer cancel()
				err := r.openShell(ctx, false)
				var said dialogueError
				var failure *Error
				if late := r.shellLate(err); late != nil {
					failure = late
				} else if !errors.As(err, &said) || !errors.As(r.dialogueFailure(said), &failure) {
					t.Fatalf("err = %v", err)
				}
				if failure.Kind != BootFailed || failure.Title != tc.title || len(failure.Quote) == 0 {
					t.Errorf("%s: %v (%q)", failure.Title, failure, failure.Quote)
				}
				if !strings.HasSuffix(failure.Error(), tc.says) {
					t.Errorf("it says %v", failure)
				}
			})
		})
	}
	r, guest, _ := talking(t)
	print(t, guest, "sh: mkdir: read-only file system\r\n")
	var failure *Error
	key := dialogueError{"putting the key into the guest", &dialogue.CommandError{Command: "mkdir", Status: "1"}}
	if !errors.As(r.dialogueFailure(key), &failure) || failure.Title != "The key could not be put into the guest" {
		t.Errorf("%+v", failure)
	}
}

// aShell is a guest with a shell that tells which programs it lacks, or does not
// answer.
func aShell(guest net.Conn, lacks string, wait bool) {
	marks := regexp.MustCompile(`"(\w+)"-b(\d+);`)
	_, _ = io.WriteString(guest, "\r\nbox# ")
	for lines := bufio.NewScanner(guest); lines.Scan(); {
		line := lines.Text()
		if _, token, ok := strings.Cut(line, `echo "`); ok && strings.HasSuffix(line, "-ready") {
			_, _ = io.WriteString(guest, strings.Replace(token, `"`, "", 1)+"\r\n")
		}
		if m := marks.FindStringSubmatch(line); m != nil && !wait {
			_, _ = fmt.Fprintf(guest, "%[1]s-b%[2]s\r\n<=%[3]s=>\r\n%[1]s-e%[2]s 0\r\n", m[1], m[2], lacks)
		}
	}
}

// TestNoShellInTime does not speak of SSH.
func TestNoShellInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, guest, _ := talking(t)
		r.config.Transport = transportSerial
		go func() { _, _ = io.Copy(io.Discard, guest) }()
		print(t, guest, "still booting\r\n")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, overTime(time.Minute))
		defer cancel()
		failure := r.shellLate(r.openShell(ctx, false))
		if failure == nil || failure.Kind != BootFailed || strings.Contains(failure.Error(), "SSH") ||
			!strings.HasPrefix(failure.Error(), "no command ran in the guest within boot-timeout (1m0s): getting to a shell") || len(failure.Quote) != 1 {
			t.Errorf("%+v", failure)
		}
		r.config.Transport = "ssh"
		if r.shellLate(r.openShell(ctx, false)) != nil {
			t.Error("over SSH something else is to be said")
		}
	})
}

// TestPrepareOverConsole: an image may be edited otherwise when it is reached
// over its console, so the prepared disk is another one.
func TestPrepareOverConsole(t *testing.T) {
	a, b := savable(t), savable(t)
	b.config.Transport = transportSerial
	if a.prepareKey() == b.prepareKey() {
		t.Error("one prepared disk for both transports")
	}
}
