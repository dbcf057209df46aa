//go:build bench

package e2e

import (
	"bufio"
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

	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// resident is what a QEMU adds to the host's memory: its proportional share,
// and a copy of the guest's memory if it is the first that has it.
type resident struct{ all, guest units.Bytes }

// benchMany starts several guests from one entry at once: of a guest that has
// done nothing yet, and of one whose prepare script has filled memory, as
// installing and building does. What QEMU itself needs is the same for both.
func benchMany(t *testing.T, r *report) {
	r.print("## Guests from one entry at once\n\nMemory is QEMU's proportional set size after the script's output, per guest, with the copy of the guest's memory where QEMU needs one, " +
		"which runs of one process (--jobs) share.\n\n")
	many(t, r, []crowd{{n: 1}, {n: 2}, {n: 4}, {n: 8}, {4, true}}, "warm-many", "--memory="+benchMemorySize)
	many(t, r, []crowd{{n: 1}, {n: 4}, {4, true}}, "warm-many-filled", "--memory=1G", "--prepare=head -c 400000000 /dev/urandom >/dev/shm/data")
}

// crowd is a number of guests at once: each of a process of its own, or all of
// one by --jobs.
type crowd struct {
	n    int
	jobs bool
}

func (c crowd) String() string {
	if c.jobs {
		return fmt.Sprintf("%d by --jobs", c.n)
	}
	return strconv.Itoa(c.n)
}

// many measures so many guests at once as each of counts says, the first of
// which is one.
func many(t *testing.T, r *report, counts []crowd, plot string, args ...string) {
	t.Helper()
	args = append(args, "--sync=none")
	s := saveMachine(t, args...)
	used := s.file(snapshot.RAM)
	r.print("A guest that used %s at save:\n\n", used.Human())
	r.print("| guests | first line | booted after all | memory per guest | of which guest memory | each further guest: all / guest memory |\n|---|---|---|---|---|---|\n")
	var bars []bar
	var one resident
	further := map[crowd]resident{}
	for _, c := range counts {
		n := units.Bytes(c.n)
		var times spread
		var sum resident
		booted := 0
		rounds := benchRounds(3)
		for range rounds {
			some, memory, cold := together(t, s, c, args)
			if cold > 0 { // the entry is gone
				s = saveMachine(t, args...)
			}
			booted += cold
			times = append(times, some...)
			sum.all += memory.all
			sum.guest += memory.guest
		}
		sum.all /= units.Bytes(rounds)
		sum.guest /= units.Bytes(rounds)
		each := "-"
		if n == 1 {
			one = sum
		} else {
			f := resident{(sum.all - one.all) / (n - 1), (sum.guest - one.guest) / (n - 1)}
			further[c] = f
			each = f.all.Human() + " / " + f.guest.Human()
		}
		bars = append(bars, bar{c.String() + " at once", times})
		r.print("| %s | %s | %d of %d | %s | %s | %s |\n", c, times, booted, rounds*c.n, (sum.all / n).Human(), (sum.guest / n).Human(), each)
	}
	r.plot(t, plot, "First line of a script, of guests started at once", "s", bars)
	r.print("\n")
	for _, c := range counts[len(counts)-2:] {
		r.goal(fmt.Sprintf("guest memory of each further of %s guests / used at save", c), float64(further[c].guest)/float64(used), 0.25, false)
		r.goal("the same with QEMU's own, most of which is translated code", float64(further[c].all)/float64(used), 0.25, false)
	}
	r.print("\n")
}

// guestRun is a process with guests.
type guestRun struct {
	cmd    *exec.Cmd
	diag   *watched
	guests int
	lines  chan time.Duration // since its start, for each guest that came to its script
	late   *time.Timer        // ends a process whose guests don't
}

// end interrupts the process, once.
func (r *guestRun) end() {
	r.late.Stop()
	_ = r.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	_ = r.cmd.Wait()                         // interrupted, or waited for already
}

// startCrowd starts a crowd's processes.
func startCrowd(t *testing.T, s savedMachine, c crowd, args []string) []*guestRun {
	t.Helper()
	const script = "echo " + firstLine + "; sleep 1000"
	args = append(slices.Clone(args), "--snapshot=restore")
	processes, guests := c.n, 1
	if c.jobs {
		list := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(list, []byte(strings.Repeat(script+"\n", c.n)), 0o600); err != nil {
			t.Fatal(err)
		}
		processes, guests, args = 1, c.n, append(args, fmt.Sprintf("--jobs=%d", c.n), "--shard="+list)
	} else {
		args = append(args, "--run", script)
	}
	runs := make([]*guestRun, processes)
	for i := range runs {
		r := &guestRun{diag: newWatched(), guests: guests, lines: make(chan time.Duration, guests)}
		runs[i] = r
		r.cmd, _ = ours(t, s.cache, nil, args...)
		r.cmd.Stderr = r.diag
		out, err := r.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		began := time.Now()
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.end)
		r.late = time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
		go func() {
			defer close(r.lines)
			lines := bufio.NewScanner(out)
			for n := 0; n < guests && lines.Scan(); {
				if strings.HasSuffix(lines.Text(), firstLine) {
					r.lines <- time.Since(began)
					n++
				}
			}
		}()
	}
	return runs
}

// together starts guests, looks at their memory when all have printed, and
// tells how many had to be booted.
func together(t *testing.T, s savedMachine, c crowd, args []string) (times spread, sum resident, booted int) {
	t.Helper()
	runs := startCrowd(t, s, c, args)
	defer func() {
		for _, r := range runs {
			r.end()
		}
	}()
	for _, r := range runs {
		n := 0
		for took := range r.lines {
			times = append(times, took.Seconds())
			n++
		}
		if n < r.guests {
			t.Fatalf("%d of %d scripts ran:\n%s", n, r.guests, r.diag)
		}
	}
	time.Sleep(time.Second) // what the script's start has set going comes to rest
	counted := map[string]bool{}
	for _, r := range runs {
		for _, pid := range qemusOf(t, r.cmd.Process.Pid) {
			m := residentOf(t, pid, counted)
			sum.all += m.all
			sum.guest += m.guest
			if m.guest == 0 { // its memory is from no file
				booted++
			}
		}
	}
	return times, sum, booted
}

// qemusOf are the QEMUs among the children of a process.
func qemusOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		for child := range strings.FieldsSeq(readFile(t, file)) {
			n, err := strconv.Atoi(child)
			if err == nil && strings.HasPrefix(processName(n), "qemu-") {
				pids = append(pids, n)
			}
		}
	}
	if len(pids) == 0 {
		t.Fatalf("process %d has no QEMU", pid)
	}
	return pids
}

// residentOf adds up the mappings of a process; the guest's memory is the one
// that is mapped from a file of the entry or from a copy of it, all of which is
// in the host's memory. A copy counts once.
func residentOf(t *testing.T, pid int, counted map[string]bool) (m resident) {
	t.Helper()
	guest, copied := false, false
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/smaps", pid))) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") {
			copied = len(fields) > 5 && strings.HasPrefix(fields[5], "/memfd:guest-memory")
			guest = copied || len(fields) > 5 && strings.HasSuffix(fields[5], "/"+snapshot.RAM)
			if file := fields[3] + " " + fields[4]; copied && !counted[file] {
				counted[file] = true
				var info syscall.Stat_t
				if err := syscall.Stat(fmt.Sprintf("/proc/%d/map_files/%s", pid, fields[0]), &info); err != nil {
					t.Fatal(err)
				}
				m.all += units.Bytes(info.Blocks * 512)
				m.guest += units.Bytes(info.Blocks * 512)
			}
			continue
		}
		if name := fields[0]; name != "Pss:" && !copied || name != "Anonymous:" && copied {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		m.all += units.Bytes(n) * units.KiB
		if guest {
			m.guest += units.Bytes(n) * units.KiB
		}
	}
	return m
}
