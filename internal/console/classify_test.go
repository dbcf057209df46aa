package console

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// recording is the beginning of a recorded console, up to and including a text.
func recording(t *testing.T, name, until string) Evidence {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/serial/" + name + ".log")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if until != "" {
		i := strings.Index(text, until)
		if i < 0 {
			t.Fatalf("%s.log does not hold %q", name, until)
		}
		text = text[:i+len(until)]
	}
	return evidence([]byte(text))
}

func TestClassify(t *testing.T) {
	killed := &Exit{Status: 137, Text: "signal: killed"}
	ended := &Exit{Text: "exit status 0"}
	for _, tc := range []struct {
		name  string
		log   string // a recording
		until string // its end
		with  func(*Evidence)
		// The cause's name, and parts of its title, detail, advice and quote.
		want, title, detail, advice, quote string
	}{
		{name: "panic, QEMU stays up", log: "panic",
			want: "mach-panic", title: "GNU Mach panicked", advice: "bug-hurd", quote: "panic ../kern/debug.c:103: Debugger: Debugger invoked, but there isn't one!"},
		{name: "panic before SIGKILL", log: "panic", with: func(e *Evidence) { e.Exit = killed },
			want: "mach-panic", quote: "panic ../kern/debug.c:103"},
		{name: "no boot modules", log: "panic-bootstrap",
			want: "mach-panic", title: "found nothing to run", quote: "bootstrap_create: No bootstrap code loaded"},
		{name: "a panic in a line that never ended", log: "panic", until: "Debugger invoked, but",
			want: "mach-panic", quote: "Debugger invoked, but"},
		{name: "debugger", log: "panic-kdb", want: "mach-debugger", quote: "Stopped at"},
		{name: "wrong root", log: "noroot", want: "no-root", advice: "root=", quote: "hd3s1: No such device"},
		{name: "Linux without a root, -no-reboot", log: "linux-noroot", with: func(e *Evidence) { e.Exit = ended },
			want: "no-root", quote: "VFS: Cannot open root device"},
		{name: "root server died, then the reboot", log: "ext2fs-died", with: func(e *Evidence) { e.Exit = ended; e.Ready = true },
			want: "essential-died", quote: "essential task ext2fs died"},
		{name: "killed from outside", log: "boot-good", with: func(e *Evidence) { e.Exit = killed; e.Ready = true },
			want: "qemu-failed", title: "QEMU ended: signal: killed", advice: "out-of-memory", quote: "login>"},
		{name: "QEMU's own error", with: func(e *Evidence) {
			e.Exit = &Exit{Status: 1, Text: "exit status 1", Stderr: "qemu-system-i386: -m 64G: cannot set up guest memory 'pc.ram': Cannot allocate memory\n"}
		}, want: "qemu-failed", title: "exit status 1", advice: "memory", quote: "cannot set up guest memory"},
		{name: "QEMU's own error, unknown", with: func(e *Evidence) {
			e.Exit = &Exit{Status: 1, Text: "exit status 1", Stderr: "qemu: \x1b[31mno idea\n"}
		}, want: "qemu-failed", advice: "qemu.log", quote: "qemu: no idea"},
		{name: "the image is locked", with: func(e *Evidence) {
			e.Exit = &Exit{Status: 1, Text: "exit status 1", Stderr: `Failed to get "write" lock`}
		}, want: "qemu-failed", advice: "Another process"},
		{name: "halted by the script", log: "halt", with: func(e *Evidence) { e.Ready = true },
			want: "halted", title: "has halted", advice: "look for halt", quote: "now in tight loop"},
		{name: "halted by us", log: "halt", with: func(e *Evidence) { e.Ready, e.Stopping = true, true },
			want: "lost"},
		{name: "rebooted by the script", log: "reboot", with: func(e *Evidence) { e.Ready, e.Exit = true, ended },
			want: "rebooting", quote: "rebooting Mach"},
		{name: "started over without a word", log: "boot-good", with: func(e *Evidence) {
			e.Ready = true
			second := evidence([]byte("GNU Mach 1.8\nbiosmem: x\n"))
			e.Lines = append(e.Lines, second.Lines...)
			e.Findings = append(e.Findings, second.Findings...)
		}, want: "started-over", title: "started over", quote: "GNU Mach 1.8"},
		{name: "ended without a word", log: "boot-good", until: "rc: start", with: func(e *Evidence) { e.Exit = ended },
			want: "qemu-ended", advice: "triple fault", quote: "rc: start"},
		{name: "no output", with: func(e *Evidence) { e.Waited = 5 * time.Minute },
			want: "no-output", detail: "Nothing has come from the serial console for 5m0s.", advice: "accel: tcg"},
		{name: "only the boot loader", log: "machprobe", until: "Booting `GNU Mach + machprobe, serial console'",
			want: "no-kernel", detail: "The boot loader ran", advice: "console=com0", quote: "Booting `GNU Mach"},
		{name: "something unknown on the console", with: func(e *Evidence) {
			*e = evidence([]byte("\x00\x00garbage\n"))
		}, want: "no-kernel", detail: "no message of a kernel", quote: "garbage"},
		{name: "the loader's prompt", log: "grub-prompt", want: "loader-prompt", quote: "grub>"},
		{name: "the kernel's file is missing", log: "grub-missing-kernel", want: "loader-error", title: "likely", quote: "gnumach.gz' not found"},
		{name: "nothing to boot", log: "no-boot-device", want: "no-boot-device", quote: "No bootable device."},
		{name: "stuck in a module", log: "noroot", until: "start ext2fs.static:",
			want: "stuck-module", title: "while starting ext2fs.static", advice: "boot-attempts", quote: "start ext2fs.static:"},
		{name: "stuck in pci-arbiter", log: "noroot", until: "task loaded: ld.so.1 /hurd/exec\n", with: func(e *Evidence) {
			e.Lines = append(e.Lines, Line{Text: "start pci-arbiter:", Partial: true})
		}, want: "stuck-module", title: "while starting pci-arbiter", advice: "another GRUB"},
		{name: "no start scripts", log: "boot-good", until: "ext2fs.static[device:hd0s1] exec startup proc auth.\n",
			want: "no-userland", quote: "exec startup proc auth."},
		{name: "no SSH at all", log: "boot-good", with: func(e *Evidence) { e.SSH = SSH{StageBanner, 40, "EOF"} },
			want: "ssh-banner", detail: "SSH was tried 40 times, the last time: EOF.", advice: "ssh-port", quote: "login>"},
		{name: "port closed", log: "boot-good", with: func(e *Evidence) { e.SSH.Stage = StageConnect },
			want: "ssh-connect", advice: "qemu.log"},
		{name: "key exchange", log: "boot-good", with: func(e *Evidence) { e.SSH.Stage = StageHandshake },
			want: "ssh-handshake"},
		{name: "no command", log: "boot-good", with: func(e *Evidence) { e.SSH.Stage = StageCommand },
			want: "ssh-command", advice: "shell"},
		{name: "refused key, whatever the console says", log: "readonly-root", with: func(e *Evidence) { e.SSH = SSH{StageAuth, 5, "no"} },
			want: "auth", advice: "authorized"},
		{name: "another host key", with: func(e *Evidence) { e.SSH.Stage = StageHostKey }, want: "host-key", advice: "ssh-host-key"},
		{name: "read-only root", log: "readonly-root", want: "read-only-root", title: "(the likely cause)", advice: "e2fsck", quote: "mtab: Read-only file system"},
		{name: "deaf after running out of memory", log: "boot-good", with: func(e *Evidence) {
			*e = evidence([]byte("rc: start\nlogin> vm_page warning: unable to recycle any page\n"))
			e.Ready = true
		}, want: "memory-full", title: "(the likely cause)", advice: "memory", quote: "unable to recycle"},
		{name: "what was before the script is not the cause", log: "readonly-root", with: func(e *Evidence) {
			for i := range e.Findings {
				e.Findings[i].Line.Time = time.Unix(100, 0)
			}
			e.Ready, e.ReadyAt = true, time.Unix(200, 0)
		}, want: "lost"},
		{name: "deaf without a word", log: "boot-good", with: func(e *Evidence) { e.Ready = true },
			want: "lost", title: "stopped answering", advice: "pfinet", quote: "login>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := Evidence{Waited: time.Minute}
			if tc.log != "" {
				e = recording(t, tc.log, tc.until)
			}
			if tc.with != nil {
				tc.with(&e)
			}
			cause := Classify(e)
			if cause.Name != tc.want {
				t.Fatalf("%s: %s (%s), want %s", cause.Name, cause.Title, cause.Detail, tc.want)
			}
			for _, part := range []struct{ what, text, want string }{
				{"title", cause.Title, tc.title}, {"detail", cause.Detail, tc.detail},
				{"advice", strings.Join(cause.Advice, "\n"), tc.advice}, {"quote", strings.Join(cause.Quote, "\n"), tc.quote},
			} {
				if !strings.Contains(part.text, part.want) {
					t.Errorf("%s %q, want %q in it", part.what, part.text, part.want)
				}
			}
			if cause.Title == "" || cause.Detail == "" || len(cause.Advice) == 0 || cause.Advice[0] == "" {
				t.Errorf("%+v is incomplete", cause)
			}
		})
	}
}

// TestClassifyAlwaysSaysSomething: for no evidence as well.
func TestClassifyAlwaysSaysSomething(t *testing.T) {
	for _, e := range []Evidence{{}, {Ready: true}, {Bytes: 1}, {SSH: SSH{Stage: "new"}, Bytes: units.MiB, Findings: []Finding{{Kind: LoginPrompt}}}} {
		if c := Classify(e); c.Name == "" || c.Title == "" || c.Detail == "" || len(c.Advice) == 0 {
			t.Errorf("%+v gives %+v", e, c)
		}
	}
}

// TestClassifyLeavesTheEvidence: the caller's slices are not written to.
func TestClassifyLeavesTheEvidence(t *testing.T) {
	e := recording(t, "panic", "Debugger invoked, but")
	spare := append(e.Findings, Finding{Kind: "spare"})
	e.Findings = spare[:len(spare)-1]
	Classify(e)
	if spare[len(spare)-1].Kind != "spare" || !e.Lines[len(e.Lines)-1].Partial {
		t.Error("the evidence was changed")
	}
}

func TestQuoteIsBounded(t *testing.T) {
	e := evidence([]byte("GNU Mach 1.8\n" + strings.Repeat("y", 4000) + "\n\n\n"))
	for _, line := range Classify(e).Quote {
		if len(line) > quoteWidth+3 {
			t.Errorf("a line of %d bytes is quoted", len(line))
		}
	}
}
