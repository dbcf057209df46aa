package console

import (
	"fmt"
	"regexp"
	"strings"
)

// A rule recognises one cause. The first that applies wins, so they go from
// what is certain to what is only likely.
type rule struct {
	name  string
	apply func(Evidence) (Cause, bool)
}

func rules() []rule {
	return []rule{
		{"finding", fatalFinding},
		{"qemu-failed", qemuFailed},
		{"ending", endingFinding},
		{"qemu-ended", qemuEnded},
		{"host-key", sshRefused},
		{"started-over", startedOver},
		{"suspect", suspect},
		{"lost", lost},
		{"no-output", noOutput},
		{"no-kernel", noKernel},
		{"stuck-module", stuckModule},
		{"no-userland", noUserland},
		{"no-ssh", noSSH},
	}
}

// fatalFinding: the console said why. What came first caused the rest.
func fatalFinding(e Evidence) (Cause, bool) {
	f, ok := e.first(Fatal)
	if !ok {
		return Cause{}, false
	}
	return e.because(f), true
}

func (e Evidence) because(f Finding) Cause {
	return Cause{Name: string(f.Kind), Title: f.Title, Detail: f.Cause, Advice: []string{f.Advice}, Quote: e.around(f)}
}

// qemuAdvice is what to try for messages of QEMU, one row each.
func qemuAdvice() []struct {
	match  *regexp.Regexp
	advice string
} {
	return []struct {
		match  *regexp.Regexp
		advice string
	}{
		{regexp.MustCompile(`(?i)cannot set up guest memory|cannot allocate memory`), "The host has too little memory for this guest: lower the input memory."},
		{regexp.MustCompile(`(?i)could not access KVM|failed to initialize kvm`), "Use accel: tcg, or give the container access to /dev/kvm."},
		{regexp.MustCompile(`(?i)failed to get "?(?:write|consistent read)"? lock`), "Another process uses this image: wait for it, or give this run a copy."},
		{regexp.MustCompile(`(?i)no space left on device`), "The host's disk is full: free space where the run directory is."},
		{regexp.MustCompile(`(?i)bad system call|seccomp`), "QEMU's sandbox stopped a system call: report this, with QEMU's version."},
		{regexp.MustCompile(`(?i)unsupported machine type|is not a valid device model|unable to find CPU model`), "This QEMU does not know what the inputs machine, nic, disk-bus or cpu-model name: leave them at their defaults."},
	}
}

func qemuFailed(e Evidence) (Cause, bool) {
	if e.Exit == nil || e.Exit.Status == 0 {
		return Cause{}, false
	}
	cause := Cause{Title: "QEMU ended: " + e.Exit.Text, Detail: "The emulator itself has stopped; the guest is gone.", Quote: lastLines(e.Exit.Stderr)}
	if len(cause.Quote) == 0 {
		cause.Quote = e.tail()
	}
	for _, row := range qemuAdvice() {
		if row.match.MatchString(e.Exit.Stderr) {
			cause.Advice = append(cause.Advice, row.advice)
		}
	}
	switch {
	case len(cause.Advice) > 0:
	case e.Exit.Status == 128+9:
		cause.Advice = []string{"Something killed QEMU from outside: the host's out-of-memory killer, usually. Lower the input memory."}
	default:
		cause.Advice = []string{"The command line and everything that QEMU wrote are in qemu.log."}
	}
	return cause, true
}

// endingFinding: the guest halted or started over, and nobody asked it to.
func endingFinding(e Evidence) (Cause, bool) {
	f, ok := e.last(Ending)
	if !ok || e.Stopping {
		return Cause{}, false
	}
	return e.because(f), true
}

func qemuEnded(e Evidence) (Cause, bool) {
	if e.Exit == nil {
		return Cause{}, false
	}
	return Cause{Title: "The machine was switched off or reset itself",
		Detail: "QEMU ended in good order, which means that the guest switched the machine off or reset it; the console does not say why.",
		Advice: []string{"A reset without a word is often a triple fault in the kernel: try the machine and CPU model of the default profile.",
			"If a script ran, look for reboot and poweroff in it."},
		Quote: e.tail()}, true
}

// sshRefused: a server answered and said no. That is certain, whatever the
// console shows.
func sshRefused(e Evidence) (Cause, bool) {
	if e.Ready {
		return Cause{}, false
	}
	switch e.SSH.Stage {
	case StageHostKey:
		return Cause{Name: "host-key", Title: "The guest's SSH server has another host key", Detail: e.situation(),
			Advice: []string{"Something other than this run's guest answers, or the guest replaced the key that was provisioned: see ssh-host-key and provision."}}, true
	case StageAuth:
		return Cause{Name: "auth", Title: "The guest's SSH server refused our key", Detail: e.situation(),
			Advice: []string{"Check that the user (input ssh-user) exists in the guest and may log in with a key: PermitRootLogin, PubkeyAuthentication, and the owner and mode of ~/.ssh/authorized_keys.",
				"With provision: none the image must already hold the public half of ssh-private-key."}}, true
	case StageNone, StageConnect, StageBanner, StageHandshake, StageCommand:
	}
	return Cause{}, false
}

// suspect: no certainty, but something that explains a guest that does not answer.
func suspect(e Evidence) (Cause, bool) {
	f, ok := e.last(Warning)
	if !ok {
		return Cause{}, false
	}
	cause := e.because(f)
	cause.Title += " (the likely cause)"
	cause.Detail += " " + e.situation()
	return cause, true
}

// startedOver: the kernel's banner came twice. The first boot's prompt is
// between, so that it was reported twice.
func startedOver(e Evidence) (Cause, bool) {
	var last Finding
	n := 0
	for _, f := range e.Findings {
		if f.Kind == KernelStart {
			last, n = f, n+1
		}
	}
	if n < 2 {
		return Cause{}, false
	}
	return Cause{Title: "The guest started over", Detail: "The kernel's banner appears a second time: the machine was reset, and the console does not say why.",
		Advice: []string{"A reset without a word is often a triple fault in the kernel: try the machine and CPU model of the default profile."},
		Quote:  e.around(last)}, true
}

func lost(e Evidence) (Cause, bool) {
	if !e.Ready {
		return Cause{}, false
	}
	return Cause{Title: "The guest stopped answering", Detail: "A command had run in the guest before; now it is deaf, and its console does not say why. " + e.situation(),
		Advice: []string{"A guest that runs out of memory goes deaf without a word: raise the input memory, or run fewer jobs at once (make -j2 works in 2G where -j4 does not).",
			"A script that kills pfinet, startup, init or ext2fs silences a Hurd at once."},
		Quote: e.tail()}, true
}

func noOutput(e Evidence) (Cause, bool) {
	if e.Bytes != 0 {
		return Cause{}, false
	}
	return Cause{Title: "No output on the serial console at all", Detail: e.situation() + " Even the firmware and the boot loader are usually heard.",
		Advice: []string{"If SSH works in the end, raise boot-timeout. If not: the image may have no boot loader, or the accelerator does not run (try accel: tcg)."}}, true
}

func noKernel(e Evidence) (Cause, bool) {
	if e.found(KernelStart) || e.found(Userland) || e.found(LoginPrompt) || e.found(Bootstrap) {
		return Cause{}, false
	}
	what := "The console shows no message of a kernel."
	if e.found(Loader) {
		what = "The boot loader ran; no message of a kernel followed."
	}
	return Cause{Title: "No kernel spoke on the serial console", Detail: what + " " + e.situation(),
		Advice: []string{"The boot entry must send the kernel's messages to the serial line: console=com0 for GNU Mach, console=ttyS0 for Linux. provision: ext2 adds it.",
			"If it is there, the boot loader waits or failed: look at its last lines."},
		Quote: e.tail()}, true
}

// stuckModule: GNU Mach started a module and was never heard of again.
func stuckModule(e Evidence) (Cause, bool) {
	tail := e.tail()
	if e.found(Userland) || len(tail) == 0 {
		return Cause{}, false
	}
	name, rest, ok := strings.Cut(strings.TrimPrefix(tail[len(tail)-1], "start "), ":")
	if !ok || !strings.HasPrefix(tail[len(tail)-1], "start ") || strings.TrimSpace(rest) != "" {
		return Cause{}, false
	}
	advice := []string{"Try again: this is sometimes a race (boot-attempts).", "Use the machine, disk bus and network card of the default profile."}
	if name == "pci-arbiter" {
		advice = append(advice, "Images booted with another GRUB than their own are known to stop here: boot the image's own loader.")
	}
	return Cause{Title: fmt.Sprintf("The boot stopped while starting %s", name), Detail: e.situation(), Advice: advice, Quote: tail}, true
}

func noUserland(e Evidence) (Cause, bool) {
	if e.found(Userland) || e.found(LoginPrompt) {
		return Cause{}, false
	}
	return Cause{Title: "The kernel started, and the system did not", Detail: "The kernel's messages are there, and none of the start scripts. " + e.situation(),
		Advice: []string{"If the last lines are about disks: the root disk was not found. Use the disk bus of the default profile (the Hurd knows neither virtio nor NVMe).",
			"If the boot was merely slow, raise boot-timeout; without KVM it can take minutes."},
		Quote: e.tail()}, true
}

// noSSH: the system is up as far as the console tells.
func noSSH(e Evidence) (Cause, bool) {
	cause := Cause{Title: "The system started; no command could be run over SSH", Detail: e.situation(), Quote: e.tail()}
	switch e.SSH.Stage {
	case StageConnect:
		cause.Name = "ssh-connect"
		cause.Advice = []string{"QEMU's forwarded port does not accept connections: see qemu.log."}
	case StageHandshake:
		cause.Name = "ssh-handshake"
		cause.Advice = []string{"An SSH server answers, and the key exchange fails or takes too long: raise boot-timeout, or look for sshd's messages on the console."}
	case StageCommand:
		cause.Name = "ssh-command"
		cause.Advice = []string{"The login works and no command does: look at the user's shell and at what the start scripts still do."}
	default:
		cause.Name = "ssh-banner"
		cause.Advice = []string{"No SSH server answers: check that the image starts one, on the port of ssh-port.",
			"The network card may have no driver: e1000 for Debian's Hurd (netdde), rtl8139 for drivers in GNU Mach. Use the profile's nic.",
			"If the guest is merely slow, raise boot-timeout: the first boot makes host keys."}
	}
	return cause, true
}

// lastLines are the last lines of a program's messages.
func lastLines(text string) []string {
	lines := strings.Split(strings.TrimSpace(Clean([]byte(text))), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines[max(0, len(lines)-quoteLines):]
}
