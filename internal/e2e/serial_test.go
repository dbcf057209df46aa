package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/ext2"
)

// The selftest guest with a getty on its second serial line.
const (
	gettysTab = `::sysinit:/etc/init.d/rcS
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
ttyS1::respawn:/sbin/getty -L ttyS1 115200 vt100
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/rcK
`
	sshTab = gettysTab + "::respawn:/etc/init.d/ssh\n"
	// rootPassword is what the guide's example types: root.
	rootPassword = `root:$6$selftest$37z0Euu8.YKdM9Mxu2z5PNmblGfF3L0j5x7hE34L1Y7swm4vwEhl4mULCA.MuVO/u1QkwuEOYPu56dS8yAPOq1:19000:0:99999:7:::
sshd:*:19000:0:99999:7:::
`
)

// guestWith is the selftest guest with other files; without those that are empty.
func guestWith(t *testing.T, files map[string]string) string {
	t.Helper()
	raw := selftestDisk(t)
	editDisk(t, raw, func(_ *ext2.FS, batch *ext2.Batch) error {
		for name, text := range files {
			var err error
			if text == "" {
				err = batch.Remove(name)
			} else {
				err = batch.WriteFile(name, []byte(text), ext2.Attr{Mode: 0o644})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return raw
}

// needClients skips without the clients of serial ports, or fails where they must be.
func needClients(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip(err)
		}
	}
}

// runClient runs a shell command, for no longer than the test may wait.
func runClient(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "timeout", "60", "bash", "-c", command).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

var servedOn = regexp.MustCompile(`served on 127\.0\.0\.1:(\d+) `)

// secondPort is where the log says that the second serial port is.
func secondPort(t *testing.T, log *watched) string {
	t.Helper()
	log.await(t, "served on 127.0.0.1:")
	m := servedOn.FindStringSubmatch(log.String())
	if m == nil {
		t.Fatalf("no address of the serial port:\n%s", log)
	}
	return m[1]
}

const serialDialogue = `# as a person would log in
expect "login:" within 2m
send "root\n"
expect /[Pp]assword: $/
send env CONSOLE_PASSWORD "\n"
expect "selftest guest of hurd-qemu-action"
`

const serialScript = `echo to-stdout; echo to-stderr >&2
test ! -t 1 || echo a terminal
if pidof sshd; then echo sshd runs; fi
pwd; cat a.txt; echo made >made.txt; echo "[$GREETING] [$CONSOLE_PASSWORD]"
echo "answer=forty two" >>"$GITHUB_OUTPUT"
echo "::error::not a command"
echo waiting; n=0
while ! test -e /tmp/done && test $n -lt 60; do sleep 1; n=$((n+1)); done
kill -TERM $$
`

// guideExpect is the example of the guide's section "Send Console Commands",
// with another port and a command that the script in the guest waits for.
const guideExpect = `expect <<EOF
set timeout 30
spawn telnet localhost PORT
expect "login:"
send "root\r"
expect "Password:"
send "root\r"
expect "#"
send "uname -a\r"
expect "#"
send "touch /tmp/done\r"
expect "#"
send "exit\r"
expect "login:"
EOF`

// TestE2ETransportSerial runs a script in a guest without SSH: the user's
// dialogue logs in, the workspace is there, and outputs and status come back.
// Meanwhile the guide's telnet example is at work on the second serial port.
func TestE2ETransportSerial(t *testing.T) {
	needGuest(t)
	needClients(t, "telnet", "expect")
	image := guestWith(t, map[string]string{"/etc/inittab": gettysTab, "/etc/shadow": rootPassword})
	p := start(t, setup{action: true, files: map[string]string{"a.txt": "from the host\n"}, env: []string{
		"INPUT_IMAGE=" + image, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_TRANSPORT=serial", "INPUT_SERIAL-PORT=0 telnet",
		"INPUT_CONSOLE-SCRIPT=" + serialDialogue, "CONSOLE_PASSWORD=root", "INPUT_READY-PATTERN=selftest login:",
		"INPUT_ENV=GREETING=hello\nCONSOLE_PASSWORD", "INPUT_RUN=" + serialScript,
	}})
	p.keep = []string{"a.txt", "made.txt"}
	port := secondPort(t, p.stdout)
	p.stdout.await(t, "waiting\n", "::error title")
	said := runClient(t, strings.Replace(guideExpect, "PORT", port, 1))
	has(t, "what expect saw", said, "login:", "Linux selftest ")
	if status := p.wait(); status != 143 {
		t.Errorf("exit status = %d, want 143", status)
	}
	log := p.stdout.String()
	has(t, "the log", log,
		"The console says that the guest is ready, after", "The console-script was held in", "A shell of the user *** runs on the serial console",
		"\nto-stdout\nto-stderr\n/github/workspace\nfrom the host\n[hello] [***]\n", "by signal 15 (TERM)")
	for _, not := range []string{"a terminal", "sshd runs"} {
		if strings.Contains(log, "\n"+not) {
			t.Errorf("the guest says %q", not)
		}
	}
	out := p.outputs()
	if out["result"] != "script-signaled" || out["answer"] != "forty two" || out["snapshot"] != "cold" || !strings.HasPrefix(out["guest-uname"], "Linux selftest") {
		t.Errorf("outputs %q", out)
	}
	if text, err := os.ReadFile(filepath.Join(p.workspace, "made.txt")); err != nil || string(text) != "made\n" {
		t.Errorf("made.txt: %q, %v", text, err)
	}
	second, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/serial2.log"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, "the log of the second port", string(second), "selftest login:", "touch /tmp/done")
	first, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/serial.log"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, "the log of the console", string(first), "are typed here, not shown]", "to-stdout")
	if strings.Contains(string(first), "GREETING") {
		t.Errorf("the script's environment is in the log of the console")
	}
	for _, c := range obeyed(log) {
		if strings.Contains(c, "not a command") {
			t.Errorf("the runner would obey %q", c)
		}
	}
}

// TestE2ETransportSerialTimeout logs in by itself where no SSH server is
// installed (whose boot entry has to be told of the console all the same), and ends a script that takes
// too long in the guest, with what it had printed and made.
func TestE2ETransportSerialTimeout(t *testing.T) {
	needGuest(t)
	image := guestWith(t, map[string]string{"/etc/inittab": gettysTab, "/usr/sbin/sshd": ""})
	p := start(t, setup{args: []string{
		"run", "--image=" + image, "--accel=tcg", "--memory=512", "--transport=serial", "--network=none", "--timeout=4s", "--run",
		"echo begun; trap 'echo told to end; exit 0' TERM; while :; do echo busy; sleep 1 || :; done",
	}})
	p.keep = []string{"made.txt"}
	if status := p.wait(); status != 124 {
		t.Errorf("exit status = %d, want 124", status)
	}
	has(t, "stdout", p.stdout.String(), "begun\nbusy\nbusy\n", "told to end")
	has(t, "stderr", p.stderr.String(), "ran longer than 4s", "a shell on the console after")
	if noise := regexp.MustCompile(`(?m)^(.*\[1\].*|[0-9a-f]{64}.*)$`).FindString(p.stdout.String()); noise != "" {
		t.Errorf("the output has %q of the dialogue:\n%s", noise, p.stdout)
	}
}

// TestE2ETransportSerialExport: the disk that comes out of a guest that was talked
// to over its console has nothing of the talk.
func TestE2ETransportSerialExport(t *testing.T) {
	needGuest(t)
	image := guestWith(t, map[string]string{"/etc/inittab": gettysTab})
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=" + image, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_TRANSPORT=serial", "INPUT_IMAGE-OUTPUT=next.qcow2",
		// This guest's /tmp is not on the disk.
		"INPUT_CONSOLE-SCRIPT=expect \"login:\" within 2m\nsend \"root\\n\"\nexpect \"# \"\nsend \"TMPDIR=/root; export TMPDIR\\n\"\n",
		"INPUT_RUN=ls -d /root/hqa.*; echo built >/root/result",
	}})
	p.keep = []string{"next.qcow2"}
	if status := p.wait(); status != 0 {
		t.Fatalf("exit status = %d", status)
	}
	has(t, "the log", p.stdout.String(), "\n/root/hqa.")
	raw := filepath.Join(t.TempDir(), "next.img")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "raw", filepath.Join(p.workspace, "next.qcow2"), raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	editDisk(t, raw, func(root *ext2.FS, _ *ext2.Batch) error {
		if text, err := root.ReadFile("/root/result"); err != nil || string(text) != "built\n" {
			t.Errorf("%q, %v", text, err)
		}
		entries, err := root.ReadDir("/root")
		for _, e := range entries {
			if strings.HasPrefix(e.Name, "hqa.") {
				t.Errorf("/root/%s is left", e.Name)
			}
		}
		return err
	})
}

// untilAnswered logs in on a serial line as root and types a command, as often as
// it takes: what comes before a getty, or a login, is ready is lost.
func untilAnswered(t *testing.T, command, answer string, typed func(line string) (heard string)) string {
	t.Helper()
	said := typed("root")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(said, answer); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s came, but:\n%s", answer, said)
		}
		line := command
		if strings.HasSuffix(strings.TrimSpace(said), "login:") {
			line = "root"
		}
		said += typed(line)
	}
	return said
}

// TestE2ESerialPort has real clients on the second serial port and on the
// console of a guest that is reached over SSH, and on those of a restored one.
func TestE2ESerialPort(t *testing.T) {
	needGuest(t)
	needClients(t, "socat")
	image := guestWith(t, map[string]string{"/etc/inittab": sshTab})
	cache, err := makeScratch("hurd-e2e-serial-")
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"saved", "restored"} {
		p := start(t, setup{warm: true, cache: cache, args: []string{
			"run", "--image=" + image, "--accel=tcg", "--memory=512", "--serial-port=0", "--ready-pattern=login: ?$", "--run",
			"n=0; while ! test -e /tmp/done && test $n -lt 60; do sleep 1; n=$((n+1)); done; test -e /tmp/done; echo " + state,
		}})
		port := secondPort(t, p.stderr)
		p.stderr.await(t, "Script", "error: ")
		address := "TCP:localhost:" + port
		// As in the guide: one-shot tools, of which one sends and another one reads.
		said := untilAnswered(t, "ls -la /etc/inittab; echo answer-$((40 + 2))", "answer-42", func(line string) string {
			heard := runClient(t, "printf '%s\\n' '"+line+"' | socat - "+address)
			return heard + runClient(t, "socat -T 2 - "+address+",readbytes=1024 </dev/null")
		})
		has(t, "the second port", said, "-rw-r--r--")

		untilAnswered(t, "echo console-$((40 + 3)); touch /tmp/done", "console-43", func(line string) string {
			console := exec.CommandContext(t.Context(), "/proc/self/exe", "console")
			console.Env = []string{asProgram + "=1", "RUNNER_TEMP=" + p.temp, "HOME=" + cache}
			console.Stdin = strings.NewReader(line + "\n")
			heard, err := console.CombinedOutput()
			if err != nil {
				t.Errorf("console: %v\n%s", err, heard)
			}
			return string(heard)
		})
		if status := p.wait(); status != 0 || !strings.Contains(p.stdout.String(), state) {
			t.Errorf("exit status %d, stdout %q", status, p.stdout)
		}
		if log := p.stderr.String(); state == "restored" != strings.Contains(log, "Restore: ") {
			t.Errorf("the machine should be %s:\n%s", state, log)
		}
	}
}
