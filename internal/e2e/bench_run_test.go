//go:build bench

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/units"
)

// firstLine is what every measured script prints first.
const firstLine = "first line of the script"

// patience ends what is measured when it does not end.
const patience = 4 * time.Minute

// measured is what one run took.
type measured struct {
	first  time.Duration // from the start of the process to the script's first line
	total  time.Duration // to its end
	peak   units.Bytes   // resident memory of the process alone, without its children
	phases map[string]time.Duration
	spoke  time.Duration // from QEMU's start to the SSH server's first line; 0 of a machine that is restored
	log    string        // standard error
	qemu   string        // its command line
}

// benchProgram is the program that is measured: BENCH_PROGRAM, or this test as
// the program.
func benchProgram() string {
	if p := os.Getenv("BENCH_PROGRAM"); p != "" {
		return p
	}
	return "/proc/self/exe"
}

// ours starts our program with a workspace and a temporary directory of its own.
func ours(t *testing.T, cache string, env []string, args ...string) (cmd *exec.Cmd, workspace string) {
	t.Helper()
	workspace = t.TempDir()
	cmd = exec.Command(benchProgram(), append([]string{"run", "--image=selftest", "--accel=tcg", "--workspace=" + workspace}, args...)...)
	cmd.Env = append([]string{
		asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + cache, "XDG_CACHE_HOME=" + cache, "RUNNER_TEMP=" + t.TempDir(),
	}, env...)
	return cmd, workspace
}

// runOurs makes one run of our program to its end.
func runOurs(t *testing.T, cache string, args ...string) measured {
	t.Helper()
	return runOursIn(t, cache, nil, append(args, "--run", "echo "+firstLine)...)
}

func runOursIn(t *testing.T, cache string, env []string, args ...string) measured {
	t.Helper()
	cmd, workspace := ours(t, cache, env, args...)
	if !slices.Contains(args, "--sync=none") {
		fillWorkspace(t, workspace)
	}
	m := timed(t, cmd)
	m.qemu, _, _ = strings.Cut(readFile(t, filepath.Join(workspace, ".hurd/run-1/qemu.log")), "\n")
	var phases []struct {
		Phase string
		Took  float64
	}
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(workspace, ".hurd/run-1/timings.json"))), &phases); err != nil {
		t.Fatal(err)
	}
	m.phases = map[string]time.Duration{}
	for _, p := range phases {
		m.phases[p.Phase] = time.Duration(p.Took * float64(time.Second))
	}
	var doc metrics.Run
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(workspace, ".hurd/run-1/metrics.json"))), &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range doc.Boot.Phases {
		if p.Name == metrics.SSH {
			m.spoke = time.Duration(p.Start)
		}
	}
	return m
}

// fillWorkspace makes a small checkout: 200 files, 2 MB.
func fillWorkspace(t *testing.T, dir string) {
	t.Helper()
	for i := range 200 {
		name := filepath.Join(dir, fmt.Sprintf("src/d%d/f%d.c", i%20, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.Repeat("int x;\n", 1400)), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// timed runs a command that prints the first line on its standard output.
func timed(t *testing.T, cmd *exec.Cmd) measured {
	t.Helper()
	var m measured
	var diag strings.Builder
	cmd.Stderr = &diag
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	ended, peak := make(chan struct{}), make(chan units.Bytes)
	go func() { peak <- watchPeak(cmd.Process.Pid, ended) }()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == firstLine && m.first == 0 {
			m.first = time.Since(began)
		}
	}
	err = cmd.Wait()
	m.total = time.Since(began)
	close(ended)
	m.peak, m.log = <-peak, diag.String()
	if err != nil || m.first == 0 {
		t.Fatalf("%s: %v\n%s", cmd, err, m.log)
	}
	return m
}

// peakEvery is how often the memory is asked for; it never gets less.
const peakEvery = 20 * time.Millisecond

// watchPeak is the most resident memory that a process had until it ended.
// (wait4's figure is that of its largest child, when it had one.)
func watchPeak(pid int, ended <-chan struct{}) (peak units.Bytes) {
	for {
		if n, ok := kibibytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:"); ok {
			peak = max(peak, n)
		}
		select {
		case <-ended:
			return peak
		case <-time.After(peakEvery):
		}
	}
}

// kibibytes reads a line "Name: 123 kB" of a file of /proc.
func kibibytes(file, name string) (units.Bytes, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return units.Bytes(n) * units.KiB, err == nil
		}
	}
	return 0, false
}

// only is the one file that a pattern matches.
func onlyMatch(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// rounds is how often each thing is measured: BENCH_ROUNDS, or what it says here.
func benchRounds(otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// interleave calls each function once per round, in an order that turns, so
// that what else the machine does falls on all of them.
func interleave(rounds int, do ...func(round int)) {
	for i := range rounds {
		order := append(slices.Clone(do[i%len(do):]), do[:i%len(do)]...)
		for _, f := range order {
			f(i)
		}
	}
}
