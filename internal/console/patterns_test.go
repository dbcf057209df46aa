package console

import (
	"os"
	"strings"
	"testing"
	"time"
)

func find(line string) []Finding {
	return newScanner(allPatterns).scan(Line{Text: line})
}

// TestPatternsFind has a line for every row of the table that the recordings
// do not show.
func TestPatternsFind(t *testing.T) {
	for _, tc := range []struct {
		line  string
		kind  Kind
		title string
	}{
		{"panic {cpu0} ../i386/i386/trap.c:42: kernel_trap: x", MachPanic, "GNU Mach panicked"},
		{"panic: zalloc", MachPanic, "GNU Mach panicked"},
		{"login> panic ../kern/slab.c:9: kmem_error: x", MachPanic, "GNU Mach panicked"},
		{"exec startup procpanic ../kern/slab.c:9: kmem_error: x", "", ""},
		{"exec startup proc.panic ../kern/slab.c:9: kmem_error: x", MachPanic, "GNU Mach panicked"},
		{"../i386/i386/apic.c:312: hpet_init: Assertion `hpet_addr != 0' failed.panic ../kern/debug.c:103: Debugger: x", MachPanic, "GNU Mach needs the HPET"},
		{"{cpu0} ../kern/ipc_port.c:88: f: Assertion `a' failed.", MachPanic, "An assertion of GNU Mach failed"},
		{"Kernel Page fault trap, eip 0xc1000a44, code 0, cr2 0", "mach-trap", "GNU Mach trapped in the kernel"},
		{"db{0}> ", MachDebugger, "GNU Mach stopped in its kernel debugger"},
		{"vm_page warning: unable to recycle any page", MemoryFull, "The guest's memory is exhausted"},
		{"hd0: lost interrupt", "mach-missing-interrupt", "A disk interrupt was lost"},
		{"start pci-arbiter:", Bootstrap, "GNU Mach started a boot module"},
		{"/hurd/startup: Crashing system; essential task /hurd/exec died", TaskDied, "A server that the Hurd can't live without has died"},
		{"ext2fs: part:1:device:wd0: Input/output error", RootIO, "The Hurd can't read its root disk"},
		{"start ext2fs: ext2fs: part:2:device:wd0: Input/output error", RootIO, "The Hurd can't read its root disk"},
		{"ext2fs: part:5:device:wd0: No such device or address", NoRoot, "The root device does not exist"},
		{"ext2fs.static: device:hd0s1: panic: main: block size 1024 isn't supported", "root-panic", "The root file system's server failed"},
		{"ext2fs: /dev/hd1: panic: main: block size 1024 isn't supported", "filesystem-panic", "A file system's server failed"},
		{"ext2fs: part:2:device:wd0: warning: FILESYSTEM NOT UNMOUNTED CLEANLY; PLEASE fsck", "unclean", "The file system was not unmounted cleanly"},
		{"ext2fs: part:2:device:wd0: warning: MOUNTED READ-ONLY; MUST USE `fsysopts --writable'", ReadOnlyRoot, "The root file system is read-only"},
		{"/dev/wd0s2: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", Fsck, "The file system check stopped the boot"},
		{"/dev/wd0s2 was not cleanly unmounted, check forced.", "unclean", "The file system was not unmounted cleanly"},
		{"Give root password for maintenance", Maintenance, "The boot stopped at a maintenance shell"},
		{"tar: big: Cannot write: No space left on device", DiskFull, "A disk of the guest is full"},
		{"INIT: version 3.06 booting", Userland, "The guest's start scripts run"},
		{"[    1.234567] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", LinuxPanic, "Linux panicked"},
		{"[12345.678901] Out of memory: Killed process 77 (cc1) total-vm:1kB", OutOfMemory, "Linux killed a process for want of memory"},
		{"[    5.000000] EXT4-fs (sda1): Remounting filesystem read-only", "root-remounted", "A file system became read-only"},
		{"[    2.1] Run /init as init process", Userland, "Linux started its first program"},
		{"(initramfs) ", Maintenance, "The boot stopped in the initramfs"},
		{"[   30.5] reboot: System halted", Halted, "The guest has halted"},
		{"[   30.5] reboot: Power down", Halting, "The guest is switching off"},
		{"[   30.5] reboot: Restarting system", Rebooting, "The guest is rebooting"},
		{"selftest login: ", LoginPrompt, "The guest asks for a login"},
		{"(none) login: ", LoginPrompt, "The guest asks for a login"},
		{"grub rescue> ", LoaderPrompt, "GRUB stopped at its prompt"},
		{"error: no such partition.", LoaderError, "GRUB could not read something"},
		{"error: ../../grub-core/kern/fs.c:122:unknown filesystem.", LoaderError, "GRUB could not read something"},
		{"No bootable device.", NoBoot, "There is nothing to boot"},
		{"Booting `GNU'", Loader, "The boot loader started"},
	} {
		found := find(tc.line)
		switch {
		case tc.kind == "" && len(found) > 0:
			t.Errorf("%q: found %s", tc.line, found[0].Kind)
		case tc.kind == "":
		case len(found) == 0:
			t.Errorf("%q: found nothing, want %s", tc.line, tc.kind)
		case !hasFinding(found, tc.kind, tc.title):
			t.Errorf("%q: found %s (%s), want %s (%s)", tc.line, found[0].Kind, found[0].Title, tc.kind, tc.title)
		}
	}
}

func hasFinding(found []Finding, kind Kind, title string) bool {
	for _, f := range found {
		if f.Kind == kind && f.Title == title {
			return true
		}
	}
	return false
}

// TestPatternsIgnore has ordinary text: what programs and their tests print.
func TestPatternsIgnore(t *testing.T) {
	for _, line := range []string{
		"Last login: Mon Nov 23 10:06:46 UTC 2026 on console",
		"checking for panic... no",
		"test: ../src/a.c:9: main: Assertion failure tests",
		"prog: a.c:9: main: Assertion `x' failed.",
		"test 12: panic: recovers from a panic ... ok",
		"goroutine panic: runtime error: index out of range",
		"don't panic: it is only a test",
		"PASS: tests/login: 3",
		"If it stopped at 0x100 the debugger prints 'Stopped at'",
		"checking whether ext2fs reports: No such device or address",
		"echo 'No space left on device' | grep -q space: No space left on device",
		"ok 3 - write() fails with ENOSPC: 'No space left on device'",
		"configure: error: no such file",
		"error: file not found",
		"error: no such option: --foo",
		"PASS: out-of-memory test: Out of memory: Killed process 3",
		"grub-install: error: unknown filesystem.",
		"The following prints grub> in a terminal",
		"read-only file systems: Read-only file system",
		"cannot create regular file 'x': Read-only file system",
		"Boot failed: not a bootable disk", // the next one may be
		"# restarting GNU Mach 1.8",
		"see startup: halting Mach for details",
		"usage: reboot: Restarting system",
		"GNU bash, version 5.2",
		"GNU 0.9",
		strings.Repeat("a", scanLimit) + " panic ../a/b.c:1: f: x",
	} {
		for _, f := range find(line) {
			t.Errorf("%q: found %s", line, f.Kind)
		}
	}
}

// TestPatternsTable checks what every row must have.
func TestPatternsTable(t *testing.T) {
	for _, p := range Patterns() {
		if p.Kind == "" || p.Match == nil || p.Title == "" {
			t.Errorf("%+v is incomplete", p)
		}
		if p.Severity != Milestone && (p.Cause == "" || p.Advice == "") {
			t.Errorf("%s (%s) does not say what happened and what to do", p.Kind, p.Title)
		}
		if p.Severity == Milestone && p.Advice != "" {
			t.Errorf("%s is good news and needs no advice", p.Kind)
		}
		if p.Match.MatchString("") {
			t.Errorf("%s matches an empty line", p.Kind)
		}
		for _, text := range []string{p.Cause, p.Advice} {
			if text != "" && !strings.HasSuffix(text, ".") {
				t.Errorf("%s: %q is no sentence", p.Kind, text)
			}
		}
	}
	if s := Severity(9).String(); s != "unknown" {
		t.Errorf("Severity(9) = %q", s)
	}
}

// TestScannerRepeats: a guest that repeats itself does not fill the memory.
func TestScannerRepeats(t *testing.T) {
	s := newScanner(allPatterns)
	n := 0
	for range 1000 {
		n += len(s.scan(Line{Text: "panic ../a/b.c:1: f: x"})) + len(s.scan(Line{Text: "hd0: lost interrupt"}))
	}
	if n != 2*perKind {
		t.Errorf("%d findings", n)
	}
}

// FuzzScan: whatever the guest prints, scanning ends quickly, and a prompt found
// in a line in progress is found in the line that it becomes.
func FuzzScan(f *testing.F) {
	for _, path := range logs(f) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f.Add(strings.TrimSuffix(line, "\n"), " more")
		}
	}
	f.Add(strings.Repeat("start a: ", 500), "panic")
	f.Fuzz(func(t *testing.T, line, more string) {
		begin := time.Now()
		partial := newScanner(allPatterns).scan(Line{Text: line, Partial: true})
		if took := time.Since(begin); took > 2*time.Second {
			t.Fatalf("took %s for %d bytes", took, len(line))
		}
		if strings.HasSuffix(line, " ") && len(line) < scanLimit { // a prompt's blank is there
			for _, p := range partial {
				if !hasFinding(find(line+more), p.Kind, p.Title) && !hasKind(find(line+more), p.Kind) {
					t.Fatalf("%s in %q, not in %q", p.Kind, line, line+more)
				}
			}
		}
	})
}

func hasKind(found []Finding, kind Kind) bool {
	for _, f := range found {
		if f.Kind == kind {
			return true
		}
	}
	return false
}

func BenchmarkScan(b *testing.B) {
	text, err := os.ReadFile("../../testdata/serial/linux-noroot.log")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		c := New(nil, Options{})
		c.take(text)
	}
}

// allPatterns are compiled once for all tests.
var allPatterns = Patterns()
