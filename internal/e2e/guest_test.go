package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostileScript prints what a runner would obey, everywhere that it can.
const hostileScript = `echo '::error::from stdout'
echo '##[error]from stdout'
echo '::error::from stderr' >&2
printf 'half a line ##[warning]from stderr' >&2
printf '\r::set-output name=result::forged\n'
echo '::error::from the console' >/dev/console
echo '##[error]from the console' >/dev/console
uname -s
exit 7
`

// TestE2EAction runs a script that fails, as the runner would: its exit
// status, output, outputs and logs arrive, and nothing that the guest prints
// is a command.
func TestE2EAction(t *testing.T) {
	needGuest(t)
	p := start(t, setup{action: true, env: []string{"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=" + hostileScript}})
	if status := p.wait(); status != 7 {
		t.Errorf("exit status = %d, want 7", status)
	}
	out := p.outputs()
	for name, want := range map[string]string{
		"result": "script-failed", "exit-code": "7", "accel": "tcg", "accel-reason": "TCG, as asked for", "boot-attempts": "1",
		"serial-log": ".hurd/run-1/serial.log", "qemu-log": ".hurd/run-1/qemu.log",
	} {
		if out[name] != want {
			t.Errorf("output %s = %q, want %q", name, out[name], want)
		}
	}
	for _, name := range []string{"boot-seconds", "ssh-seconds", "run-seconds"} {
		if d, err := time.ParseDuration(out[name] + "s"); err != nil || d <= 0 {
			t.Errorf("output %s = %q", name, out[name])
		}
	}
	if !strings.HasPrefix(out["guest-uname"], "Linux selftest ") || !strings.Contains(p.stdout.String(), "Linux\n") {
		t.Errorf("guest-uname = %q", out["guest-uname"])
	}
	serial, err := os.ReadFile(filepath.Join(p.workspace, out["serial-log"]))
	if err != nil {
		t.Fatal(err)
	}
	has(t, "the serial log", string(serial), "::error::from the console", "login:")
	if log, err := os.ReadFile(filepath.Join(p.workspace, out["qemu-log"])); err != nil || !strings.Contains(string(log), "-nodefaults") {
		t.Errorf("qemu.log: %v\n%s", err, log)
	}
	if ignore, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/.gitignore")); err != nil || string(ignore) != "*\n" {
		t.Errorf(".gitignore: %q, %v", ignore, err)
	}
	commands := obeyed(p.stdout.String())
	for _, c := range commands {
		if !strings.HasPrefix(c, "::group::") && c != "::endgroup::" && !strings.HasPrefix(c, "::error title=The script failed::exit status 7") {
			t.Errorf("the runner would obey %q", c)
		}
	}
	if len(commands) < 9 || p.stderr.String() != "" {
		t.Errorf("commands %q, stderr %q", commands, p.stderr)
	}
}

// obeyed lists the lines that a runner takes for commands.
func obeyed(output string) []string {
	var commands []string
	stop := ""
	for line := range strings.FieldsFuncSeq(output, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		switch token, stopping := strings.CutPrefix(line, "::stop-commands::"); {
		case stop != "":
			if line == "::"+stop+"::" {
				stop = ""
			}
		case stopping:
			stop = token
		case strings.HasPrefix(line, "::") || strings.Contains(line, "##["):
			commands = append(commands, line)
		}
	}
	return commands
}

// TestE2EShell runs a command from a shell: two streams, arguments intact,
// standard input empty, on the machine of an i386 Hurd.
func TestE2EShell(t *testing.T) {
	needGuest(t)
	p := start(t, setup{args: []string{
		"run", "--image=selftest", "--accel=tcg", "--memory=256", "--machine=pc", "--disk-bus=ide", "--nic=rtl8139",
		"--working-directory=/tmp", "--", "sh", "-c", `cat; pwd; echo "[$1]"; echo oops >&2; date +%Y`, "sh", "it's; $HOME",
	}})
	if status := p.wait(); status != 0 {
		t.Errorf("exit status = %d", status)
	}
	if want := "/tmp\n[it's; $HOME]\n" + time.Now().UTC().Format("2006") + "\n"; p.stdout.String() != want {
		t.Errorf("stdout = %q, want %q", p.stdout, want)
	}
	has(t, "stderr", p.stderr.String(), "\noops\n", "accelerator tcg", "pc-i440fx-", "rtl8139", "SSH after", "The script succeeded")
}

func TestE2ETimeouts(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct{ flag, script, says string }{
		{"--timeout=3s", "while :; do echo busy; sleep 1; done", "ran longer than 3s"},
		{"--idle-timeout=3s", "for i in 1 2 3 4; do echo $i; sleep 1; done; sleep 100", "printed nothing for 3s"},
	} {
		t.Run(tc.flag, func(t *testing.T) {
			t.Parallel()
			p := start(t, setup{args: []string{"run", "--image=selftest", "--accel=tcg", "--memory=512", tc.flag, "--run", tc.script}})
			if status := p.wait(); status != 124 {
				t.Errorf("exit status = %d, want 124", status)
			}
			has(t, "stderr", p.stderr.String(), tc.says)
			if tc.flag == "--idle-timeout=3s" {
				has(t, "stdout", p.stdout.String(), "4\n")
			}
		})
	}
}

// TestE2EKilled kills QEMU during a script, after doctor has looked at it: when
// it was well, and when it was stopped.
func TestE2EKilled(t *testing.T) {
	needGuest(t)
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=echo in the guest; sleep 1000",
	}})
	p.stdout.await(t, "\nin the guest\n")
	pid := p.qemu()
	finds(t, p.doctor(), [][3]string{
		{"start", "fine", "monitor answers"}, {"tools", "fine", "qemu-img"}, {"loopback", "fine", ""}, {"images", "fine", "in use by a run"},
		{"guest-process", "fine", fmt.Sprintf("process %d", pid)}, {"guest-monitor", "fine", "is running"},
		{"guest-ssh", "fine", "port 22, answers: SSH-2.0-"}, {"guest-console", "fine", "login:"}, {"leftovers", "fine", ""},
	})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	finds(t, p.doctor(), [][3]string{{"guest-process", "broken", "is stopped"}, {"guest-monitor", "broken", "says nothing"}})
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	if got := p.outputs()["result"]; got != "guest-lost" {
		t.Errorf("result = %q", got)
	}
	has(t, "the log", p.stdout.String(), "lines of the serial console", "login:", "qemu.log", "killed by signal 9", "::error title=")
}

// TestE2EInterrupted interrupts a run in each of its steps.
func TestE2EInterrupted(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		name, await string
		signal      syscall.Signal
		fresh       bool // with an empty cache, so that the step has something to do
	}{
		{"accelerator", "==> Accelerator", syscall.SIGINT, true},
		{"image", "==> Image", syscall.SIGTERM, true},
		{"boot", "==> Boot", syscall.SIGINT, false},
		{"machine", "QEMU runs as", syscall.SIGTERM, false},
		{"script", "in the guest", syscall.SIGINT, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := setup{args: []string{"run", "--image=selftest", "--memory=512", "--run", "echo in the guest >&2; sleep 1000"}}
			if tc.fresh {
				s.cache = t.TempDir()
			} else {
				s.args = append(s.args, "--accel=tcg")
			}
			p := start(t, s)
			p.stderr.await(t, tc.await)
			p.record()
			began := time.Now()
			if err := p.cmd.Process.Signal(tc.signal); err != nil {
				t.Fatal(err)
			}
			if status := p.wait(); status != 128+int(tc.signal) {
				t.Errorf("exit status = %d, want %d", status, 128+int(tc.signal))
			}
			if took := time.Since(began); took > 7*time.Second {
				t.Errorf("it took %v to end", took)
			}
			has(t, "stderr", p.stderr.String(), "canceled by signal")
			if _, err := os.Stat(filepath.Join(p.workspace, ".hurd/run-1/serial.log")); err != nil {
				t.Errorf("the logs are gone: %v", err)
			}
			if leftovers, _ := filepath.Glob(filepath.Join(s.cache, "hurd-qemu-action/images/*/*.tmp*")); len(leftovers) > 0 {
				t.Errorf("half made: %v", leftovers)
			}
		})
	}
}

// TestE2EStalledReader interrupts a run whose output nobody reads any more.
func TestE2EStalledReader(t *testing.T) {
	needGuest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	p := start(t, setup{stdout: w, args: []string{"run", "--image=selftest", "--accel=tcg", "--memory=512", "--run", "echo in the guest >&2; yes"}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.stderr.await(t, "in the guest")
	// Some of it is read, so that the pipe is full of what came after.
	if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
		t.Fatal(err)
	}
	p.record()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 143 {
		t.Errorf("exit status = %d, want 143", status)
	}
	if took := time.Since(began); took > 7*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

// TestE2EProvisioning logs in by the other ways.
func TestE2EProvisioning(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		method string
		args   []string
	}{
		{"console", nil},
		{"nocloud", []string{"--user-data", "#cloud-config\nhostname: seeded\n"}},
	} {
		t.Run(tc.method, func(t *testing.T) {
			args := append([]string{"run", "--image=selftest", "--accel=tcg", "--memory=512", "--provision=" + tc.method}, tc.args...)
			p := start(t, setup{args: append(args, "--", "hostname; id -un")})
			if status := p.wait(); status != 0 {
				t.Errorf("exit status = %d", status)
			}
			want := "selftest\nroot\n"
			if tc.method == "nocloud" {
				want = "seeded\nroot\n"
			}
			if p.stdout.String() != want {
				t.Errorf("stdout = %q, want %q", p.stdout, want)
			}
			has(t, "stderr", p.stderr.String(), "Login: "+tc.method)
		})
	}
}
