package metrics

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/console"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", path, diff)
	}
}

// recorded finds a recording of a real machine's console.
func recorded(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("../../testdata/serial", name)
	if name == "selftest.log" {
		path = filepath.Join("testdata", name)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var epoch = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// chunks is a connection on which a text arrives in parts.
type chunks struct {
	text string
	size int
	now  *time.Time
	each time.Duration // what a byte takes
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.text == "" {
		return 0, io.EOF
	}
	n := min(c.size, len(c.text), len(p))
	copy(p, c.text[:n])
	c.text = c.text[n:]
	*c.now = c.now.Add(time.Duration(n) * c.each)
	return n, nil
}

func (*chunks) Write(p []byte) (int, error) { return len(p), nil }

// noPatterns has the console find nothing, which takes its time.
var noPatterns = []console.Pattern{}

// replay has a Boot follow a console on which a millisecond passes with every
// byte, and gives the time of its end.
func replay(t testing.TB, b *Boot, text string, size int) time.Time {
	t.Helper()
	now := epoch
	saw := func(l console.Line) { b.Saw(l.Time, l.Text) }
	c := console.New(&chunks{text, size, &now, time.Millisecond}, console.Options{
		Patterns: noPatterns, Now: func() time.Time { return now }, OnLine: saw, OnPartial: saw,
	})
	if err := c.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return now
}

func describe(phases []Phase) string {
	var b strings.Builder
	for _, p := range phases {
		end := p.Ended
		if !p.Complete {
			end = "not complete"
		}
		fmt.Fprintf(&b, "%-8s from %s took %s: %s to %s\n", p.Name, p.Start, p.Took, p.Began, end)
	}
	return b.String()
}

func names(phases []Phase) []PhaseName {
	var list []PhaseName
	for _, p := range phases {
		list = append(list, p.Name)
	}
	return list
}

// TestRecordedBoots holds the phases of real boots, with an SSH server that
// answers 500 ms after the last byte, and a command 250 ms later.
func TestRecordedBoots(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{"boot-good.log", "debian-gnumach.log", "readonly-root.log", "selftest.log"} {
		boot := NewBoot(epoch, Marks())
		end := replay(t, boot, recorded(t, name), 1)
		boot.Answered(end.Add(500 * time.Millisecond))
		boot.Ready(end.Add(750 * time.Millisecond))
		fmt.Fprintf(&b, "%s\n%s\n", name, describe(boot.Phases(end.Add(time.Hour))))
	}
	golden(t, "boots.golden", b.String())
}

// TestRecordedFailures holds how far boots came that failed, and that only the
// last phase is not complete.
func TestRecordedFailures(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{
		"noroot.log", "panic-bootstrap.log", "machprobe.log", "grub-missing-kernel.log", "grub-prompt.log", "no-boot-device.log", "linux-noroot.log", "panic.log",
	} {
		boot := NewBoot(epoch, Marks())
		end := replay(t, boot, recorded(t, name), 1)
		fmt.Fprintf(&b, "%s, %s long\n%s\n", name, end.Sub(epoch), describe(boot.Phases(end)))
	}
	golden(t, "failures.golden", b.String())
}

// of are the marks of one system, as if there were no other.
func of(s System) []Mark {
	return slices.DeleteFunc(Marks(), func(m Mark) bool { return m.System != s })
}

// TestTheHurdHasItsOwnMarks: with Linux's marks in the place of GNU Mach's nothing
// is seen of a Hurd's kernel and userland, and the other way round.
func TestTheHurdHasItsOwnMarks(t *testing.T) {
	for _, tc := range []struct {
		log  string
		own  System
		want []PhaseName
	}{
		{"boot-good.log", Mach, []PhaseName{Kernel, Userland}},
		{"debian-gnumach.log", Mach, []PhaseName{Kernel, Userland}},
		{"selftest.log", Linux, []PhaseName{Kernel, Userland}},
	} {
		for _, s := range []System{Mach, Linux} {
			b := NewBoot(epoch, of(s))
			end := replay(t, b, recorded(t, tc.log), 1)
			got, want := names(b.Phases(end)), tc.want
			if s != tc.own {
				want = nil
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s with the marks of %s: %v, want %v", tc.log, s, got, want)
			}
		}
	}
}

// TestMarksOfTheOtherSystem: after GNU Mach's banner, what would be Linux's first
// program is just text, and after Linux's what would be a boot module.
func TestMarksOfTheOtherSystem(t *testing.T) {
	for _, tc := range []struct{ banner, other, own string }{
		{"GNU Mach 1.8", "Run /init as init process", "start pci-arbiter: "},
		{"[    0.000000] Linux version 6.1.0", "start pci-arbiter: ", "[    2.259298] Run /init as init process"},
	} {
		b := NewBoot(epoch, Marks())
		b.Saw(epoch.Add(time.Second), tc.banner)
		b.Saw(epoch.Add(2*time.Second), tc.other)
		b.Saw(epoch.Add(4*time.Second), tc.own)
		b.Answered(epoch.Add(5 * time.Second))
		got := b.Phases(epoch.Add(time.Hour))
		if len(got) < 1 || got[0].Name != Kernel || got[0].Took != 3*time.Second {
			t.Errorf("%s: %s", tc.banner, describe(got))
		}
	}
}

// TestEveryMark holds each row of the table against a line that a real program
// printed, and that the rows before it do not know.
func TestEveryMark(t *testing.T) {
	lines := map[string]string{
		"GRUB":                         "GNU GRUB  version 2.14-4",
		"GRUB's boot entry":            "  Booting `GNU Mach + machprobe, serial console'",
		"SYSLINUX":                     "ISOLINUX 6.04 20191223 ETCD Copyright (C) 1994-2015 H. Peter Anvin et al",
		"the unpacking of Linux":       "Decompressing Linux... Parsing ELF... done.",
		"GNU Mach's banner":            "GNU Mach 1.8+git20261028-up-486",
		"Linux's banner":               "[    0.000000] Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)",
		"GNU Mach's first boot module": "start ext2fs.static: ",
		"the Hurd's server bootstrap":  "Hurd server bootstrap: ext2fs.static[device:hd0s1] exec startup proc auth.",
		"the Hurd's start script":      "rc: start",
		"Linux's early console":        "early console in extract_kernel",
		"the Hurd's runsystem":         "runsystem: args: --kernel-task=1 gnumach root=device:hd0s1 console=com0",
		"Linux's first program":        "[    2.259298] Run /init as init process",
		"systemd":                      "[    3.000000] systemd[1]: Inserted module 'autofs4'",
		"sysvinit":                     "INIT: version 3.06 booting",
	}
	for _, m := range Marks() {
		line, ok := lines[m.Name]
		if !ok {
			t.Errorf("there is no line for the mark %q", m.Name)
		}
		delete(lines, m.Name)
		b := NewBoot(epoch, Marks())
		b.Saw(epoch.Add(time.Second), line)
		if got := b.signs[index(m.Begins)]; got.name != m.Name || m.Begins == Firmware || m.Begins == SSH {
			t.Errorf("%q is %q, want %q", line, got.name, m.Name)
		}
	}
	for name := range lines {
		t.Errorf("there is no mark %q", name)
	}
}

// TestPhasesThatCannotBeToldApart are absent, rather than wrong.
func TestPhasesThatCannotBeToldApart(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	type does func(*Boot)
	saw := func(s int, line string) does { return func(b *Boot) { b.Saw(at(s), line) } }
	answered := func(s int) does { return func(b *Boot) { b.Answered(at(s)) } }
	ready := func(s int) does { return func(b *Boot) { b.Ready(at(s)) } }
	const grub, mach, module = "GRUB loading...", "GNU Mach 1.8", "start ext2fs.static:"
	for _, tc := range []struct {
		name string
		does []does
		want string
	}{
		{"nothing", nil, ""},
		{"a silent console", []does{answered(8), ready(9)}, "ssh 8+1"},
		{"no loader", []does{saw(2, mach), saw(3, module), answered(8), ready(9)}, "kernel 2+1, userland 3+5, ssh 8+1"},
		{"no kernel", []does{saw(1, grub), saw(3, module), answered(8), ready(9)}, "firmware 0+1, userland 3+5, ssh 8+1"},
		{"no userland", []does{saw(1, grub), saw(2, mach), answered(8), ready(9)}, "firmware 0+1, loader 1+1, ssh 8+1"},
		{"no SSH", []does{saw(1, grub), saw(2, mach), saw(3, module), ready(9)}, "firmware 0+1, loader 1+1, kernel 2+1, userland 3+6"},
		{"no SSH, and no userland", []does{saw(1, grub), saw(2, mach), ready(9)}, "firmware 0+1, loader 1+1"},
		{"stuck in the loader", []does{saw(1, grub)}, "firmware 0+1, loader 1+9?"},
		{"stuck in the kernel", []does{saw(2, mach)}, "kernel 2+8?"},
		{"stuck in the login", []does{saw(2, mach), saw(3, module), answered(8)}, "kernel 2+1, userland 3+5, ssh 8+2?"},
		{"only the first counts", []does{saw(2, mach), saw(3, mach), saw(3, module), saw(4, module), answered(8), answered(9), ready(9), ready(10)}, "kernel 2+1, userland 3+5, ssh 8+1"},
		{"what comes too late", []does{saw(2, mach), saw(3, grub), saw(4, module), saw(5, mach), answered(8), saw(9, module), ready(9), answered(10)}, "kernel 2+2, userland 4+4, ssh 8+1"},
		{"within a line", []does{saw(2, "echo GNU Mach 1.8"), saw(3, "x start ext2fs: ")}, ""},
		{"a line too long", []does{saw(2, mach+strings.Repeat("x", 10000))}, "kernel 2+8?"},
	} {
		b := NewBoot(epoch, Marks())
		for _, do := range tc.does {
			do(b)
		}
		var got []string
		for _, p := range b.Phases(at(10)) {
			text := fmt.Sprintf("%s %g+%g", p.Name, p.Start.Seconds(), p.Took.Seconds())
			if !p.Complete {
				text += "?"
			}
			got = append(got, text)
		}
		if text := strings.Join(got, ", "); text != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, text, tc.want)
		}
	}
}

// FuzzBoot holds that phases follow each other whatever a console says and in
// whatever pieces, and that no more than the last is not complete.
func FuzzBoot(f *testing.F) {
	f.Add(recorded(f, "boot-good.log")[2000:], 7)
	f.Add("GNU GRUB  version 2\nLinux version 6\n\n[  1.0] Run /init as init process\n", 200)
	f.Add("GRUB loading...\r\nGNU Mach 1.8\nstart x: Linux version 6\nRun /init as init process\n", 1)
	marks := Marks()
	f.Fuzz(func(t *testing.T, text string, size int) {
		text = text[:min(len(text), 1000)]
		for _, size := range []int{max(size, 1), 1000} {
			b := NewBoot(epoch, marks)
			end := replay(t, b, text, size)
			at := time.Duration(0)
			phases := b.Phases(end)
			for i, p := range phases {
				if p.Start < at || p.Took < 0 || p.Start+p.Took > end.Sub(epoch) || p.Began == "" || p.Complete == (p.Ended == "") || !p.Complete && i != len(phases)-1 {
					t.Fatalf("%q in pieces of %d:\n%s", text, size, describe(phases))
				}
				at = p.Start + p.Took
			}
		}
	})
}

// BenchmarkSaw has a line that is written byte by byte, of a boot whose kernel runs.
func BenchmarkSaw(b *testing.B) {
	const line = "[    0.243988] ACPI: RSDT 0x000000007FFE22AD 000038 (v01 BOCHS  BXPC     00000001 BXPC 00000001)"
	boot := NewBoot(epoch, Marks())
	boot.Saw(epoch, "Linux version 6.1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		boot.Saw(epoch, line[:1+i%len(line)])
	}
}
