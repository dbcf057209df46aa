package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

var sequences = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])`)

// serial reads a recorded console, whose lines get times from a moment on.
func serial(t testing.TB, name string, from, to time.Duration) []Line {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../testdata/serial", name))
	if err != nil {
		t.Fatal(err)
	}
	data = sequences.ReplaceAll(data, nil) // as the console's splitter does
	texts := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	var lines []Line
	for i, text := range texts {
		at := from + (to-from)*time.Duration(i)/time.Duration(len(texts))
		lines = append(lines, Line{at.Truncate(time.Millisecond), strings.TrimRight(text, "\r")})
	}
	return lines
}

// found makes a finding of the first line that has a text.
func found(t testing.TB, lines []Line, text, kind string, severity Severity, title string) Finding {
	t.Helper()
	for _, l := range lines {
		if strings.Contains(l.Text, text) {
			return Finding{At: l.At, Kind: kind, Severity: severity, Title: title, Line: l.Text}
		}
	}
	t.Fatalf("no line with %q", text)
	return Finding{}
}

// used makes samples of a machine that boots and compiles.
func used(from, to, every time.Duration) []Sample {
	var samples []Sample
	var s Sample
	for at := from; at <= to; at += every {
		x := float64(at-from) / float64(to-from)
		wave := 0.5 + 0.5*math.Sin(40*x)
		s.At = at
		samples = append(samples, s)
		s.CPU += time.Duration(float64(every) * (0.35 + 0.6*wave*wave)).Truncate(10 * time.Millisecond)
		s.Resident = units.Bytes(float64(500*units.MiB)*(1-math.Exp(-6*x))) / units.KiB * units.KiB
		s.Read += units.Bytes(float64(4*units.MiB)*math.Exp(-3*x)*wave) * units.Bytes(every/time.Millisecond) / 1000
		s.Written += units.Bytes(float64(units.MiB)*x*(1-wave)) * units.Bytes(every/time.Millisecond) / 1000
	}
	return samples
}

const s = time.Second

// common is what most runs know.
func common() Report {
	return Report{
		Began: time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC), Took: 95*s + 400*time.Millisecond,
		Accel: "tcg", AccelReason: "/dev/kvm is not there", Attempts: 1,
		Image:   Image{"debian", "sha256:5a0b6e1d4f3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a392"},
		Machine: Machine{"q35", "qemu64", 1, 2 * units.GiB, "ahci", "e1000"},
		Usage: Usage{
			Peak: 512 * units.MiB, Own: 41 * units.MiB, CPU: 80 * s, GuestCPU: 71 * s, Read: 143 * units.MiB, Written: 31 * units.MiB,
			Overlay: 36 * units.MiB, Disk: 4 * units.GiB, Image: 1300 * units.MiB, Sent: 38 * units.KiB, Received: 120 * units.KiB, NetSent: 150 * units.KiB, NetGot: 60 * units.KiB,
		}, Snapshot: "cold",
		Version: "v1.2.0",
		Inputs:  []Input{{Name: "memory", Value: "2G"}, {Name: "run", Value: "./configure\nmake -j1 check"}, {Name: "ssh-private-key", Value: "PRIVATE", Secret: true}},
		Links:   []Link{{"serial.log", "serial.log"}, {"All logs", "https://github.com/o/r/actions/runs/1/artifacts/2"}},
	}
}

// bootPhases are those that a Hurd's boot by GRUB can have.
func bootPhases() []Phase {
	return []Phase{
		{Name: "firmware", Took: 640 * time.Millisecond}, {Name: "loader", Start: 640 * time.Millisecond, Took: 1200 * time.Millisecond},
		{Name: "kernel", Start: 1840 * time.Millisecond, Took: 3600 * time.Millisecond}, {Name: "userland", Start: 5440 * time.Millisecond, Took: 14600 * time.Millisecond},
		{Name: "ssh", Start: 20040 * time.Millisecond, Took: 1300 * time.Millisecond},
	}
}

// repeated is a benchmark whose times go up and down. One that has fewer
// repetitions than were wanted ends with one that failed.
func repeated(wanted, had int) *Benchmark {
	b := &Benchmark{Wanted: wanted, Resolution: 61 * time.Millisecond}
	for i := range had {
		b.Times = append(b.Times, Repetition{Took: 500*time.Millisecond + time.Duration(40*math.Sin(float64(i))+float64(i%7))*time.Millisecond})
	}
	good := slices.Sorted(slices.Values(b.good()))
	b.Min, b.Quartile1, b.Median, b.Quartile3, b.Max = good[0], good[had/4], good[had/2], good[3*had/4], good[had-1]
	b.MAD = (b.Quartile3 - b.Quartile1) / 2
	if had < wanted {
		b.Times = append(b.Times, Repetition{1200 * time.Millisecond, true})
	}
	return b
}

func cases(t testing.TB) map[string]Report {
	t.Helper()
	screen, err := os.ReadFile("testdata/screen.png")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Report{"unknown": {}}

	r := common()
	r.Result, r.Script, r.Run, r.Boot, r.SSH = "success", &Script{}, 61*s+200*time.Millisecond, 21*s+340*time.Millisecond, 1800*time.Millisecond
	r.Uname = "GNU hurd 0.9 GNU-Mach 1.8+git20250731-amd64/Hurd-0.9 x86_64 GNU"
	r.Phases = []Phase{
		{"Accelerator", 0, 300 * time.Millisecond, "tcg", false}, {"Image", 300 * time.Millisecond, 3 * s, "debian, from the store", false},
		{"Boot", 3300 * time.Millisecond, 21340 * time.Millisecond, "attempt 1", false}, {"Copy in", 24700 * time.Millisecond, 1300 * time.Millisecond, "disk: 2,000 files", false},
		{"Script", 26 * s, 61200 * time.Millisecond, "exit status 0", false}, {"Copy back", 87200 * time.Millisecond, 3 * s, "14 files", false},
	}
	r.CopyIn, r.CopyBack = &Copy{2000, 50 * units.MiB, 1300 * time.Millisecond, nil}, &Copy{14, 3 * units.MiB, 3 * s, nil}
	r.Serial = serial(t, "boot-good.log", 3500*time.Millisecond, 24*s)
	r.Findings = []Finding{found(t, r.Serial, "GNU Mach 1.8", "kernel", Milestone, "The kernel runs"), found(t, r.Serial, "login>", "login", Milestone, "A login prompt")}
	r.Samples = used(3300*time.Millisecond, 90*s, s)
	r.BootPhases = bootPhases()
	all["success"] = r

	measured := r
	measured.Benchmark = repeated(12, 12)
	all["benchmark"] = measured

	r.Result, r.Script, r.ExitStatus, r.Errors, r.Warnings = "script-failed", &Script{Status: 2}, 2, 3, 12
	r.Cause = "exit status 2 after 61.2 s"
	r.Hints = []Hint{{"The Hurd has no limit on the length of a path, so PATH_MAX does not exist there.", "https://www.gnu.org/software/hurd/hurd/porting/guidelines.html"}}
	r.Phases = append([]Phase(nil), r.Phases...)
	r.Phases[4].Note, r.Phases[4].Failed = "exit status 2", true
	r.Benchmark = repeated(100, 83)
	r.CopyBack = &Copy{13, 2 * units.MiB, 3 * s, []string{`"../x" was refused: it leads out of the workspace`}}
	all["script-failed"] = r

	r = common()
	r.Result, r.Attempts, r.Took = "boot-failed", 2, 80*s
	r.BootPhases = bootPhases()[:3]
	r.BootPhases[2].Failed = true
	r.Title, r.Cause = "No boot device", "The firmware found nothing to boot on any disk."
	r.Advice = []string{"Check that the image is a disk image with a boot loader.", "Try another disk-bus: this one may have no driver in the firmware."}
	r.Phases = []Phase{{"Image", 0, 2 * s, "", false}, {"Boot", 2 * s, 38 * s, "attempt 1", true}, {"Boot", 40 * s, 40 * s, "attempt 2", true}}
	r.Serial, r.Screenshot = serial(t, "no-boot-device.log", 41*s, 43*s), screen
	r.Findings = []Finding{found(t, r.Serial, "No bootable device", "no-boot-device", Fatal, "Nothing to boot")}
	r.Samples = append(used(2*s, 38*s, s), used(40*s, 79*s, s)...)
	all["boot-failed"] = r

	r = common()
	r.Result, r.Title = "guest-lost", "The kernel panicked"
	r.Cause = "GNU Mach stopped with a panic 41.2 s into the script."
	r.Advice = []string{"Report it to bug-hurd@gnu.org with the serial log."}
	r.Boot, r.SSH, r.Run = 20*s, s, 41200*time.Millisecond
	r.Serial, r.Lost = serial(t, "panic.log", 3*s, 64*s), 120
	r.Findings = []Finding{found(t, r.Serial, "GNU Mach 1.8", "kernel", Milestone, "The kernel runs"), found(t, r.Serial, "panic ..", "mach-panic", Fatal, "GNU Mach panicked"), {At: 64 * s, Kind: "gone", Severity: Ending, Title: "A line that is gone", Line: "not in the log"}}
	r.Samples = used(3*s, 64*s, 2*s)
	all["guest-lost"] = r

	r = common()
	r.Benchmark = &Benchmark{Wanted: 5, Times: []Repetition{{3 * s, true}}}
	r.Result, r.Title, r.Cause, r.ExitStatus = "canceled", "Canceled", "canceled by signal 15 (terminated)", 143
	r.Phases = []Phase{{"Image", 0, 2 * s, "", false}, {"Boot", 2 * s, 4 * s, "", true}}
	all["canceled"] = r
	return all
}

// big has a log of 50,000 lines with findings at both ends and in the middle.
func big(t testing.TB) Report {
	t.Helper()
	r := cases(t)["success"]
	r.Serial = nil
	for i := range 50000 {
		r.Serial = append(r.Serial, Line{time.Duration(i) * 2 * time.Millisecond, fmt.Sprintf("line %d of a guest that has much to say %s", i+1, strings.Repeat("and more ", i%30))})
	}
	r.Findings = nil
	for _, n := range []int{3, 1999, 20000, 20003, 49999} {
		l := r.Serial[n-1]
		r.Findings = append(r.Findings, Finding{l.At, "x", Warning, fmt.Sprintf("Finding %d", n), l.Text})
	}
	r.Serial[30000].Text = strings.Repeat("x", 100000)
	r.Serial[49990].Text = strings.Repeat("é", 100000)
	return r
}
