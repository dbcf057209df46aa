//go:build bench

package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// resident is what a QEMU adds to the host's memory: its proportional share,
// and all of a copy of the guest's memory that nobody else has.
type resident struct{ all, guest units.Bytes }

// benchMany starts several guests from one entry at once: of a guest that has
// done nothing yet, and of one whose prepare script has filled memory, as
// installing and building does. What QEMU itself needs is the same for both.
func benchMany(t *testing.T, r *report) {
	r.print("## Guests from one entry at once\n\nMemory is QEMU's proportional set size after the script's output, per guest, with the copy of the guest's memory where QEMU needs one.\n\n")
	many(t, r, []int{1, 2, 4, 8}, "warm-many", "--memory="+benchMemorySize)
	many(t, r, []int{1, 4}, "warm-many-filled", "--memory=1G", "--prepare=head -c 400000000 /dev/urandom >/dev/shm/data")
}

// many measures so many guests at once as each of counts says.
func many(t *testing.T, r *report, counts []int, plot string, args ...string) {
	t.Helper()
	args = append(args, "--sync=none")
	s := saveMachine(t, args...)
	used := s.file(snapshot.RAM)
	r.print("A guest that used %s at save:\n\n", used.Human())
	r.print("| guests | first line | booted after all | memory per guest | of which guest memory | each further guest: all / guest memory |\n|---|---|---|---|---|---|\n")
	var bars []bar
	var one, further resident
	for _, n := range counts {
		var times spread
		var sum resident
		booted := 0
		rounds := benchRounds(3)
		for range rounds {
			some, memory, cold := together(t, s, n, args)
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
			further = resident{(sum.all - one.all) / units.Bytes(n-1), (sum.guest - one.guest) / units.Bytes(n-1)}
			each = further.all.Human() + " / " + further.guest.Human()
		}
		bars = append(bars, bar{fmt.Sprintf("%d at once", n), times})
		r.print("| %d | %s | %d of %d | %s | %s | %s |\n", n, times, booted, rounds*n, (sum.all / units.Bytes(n)).Human(), (sum.guest / units.Bytes(n)).Human(), each)
	}
	r.plot(t, plot, "First line of a script, of guests started at once", "s", bars)
	r.print("\n")
	r.goal(fmt.Sprintf("guest memory of each further of %d guests / used at save", counts[len(counts)-1]), float64(further.guest)/float64(used), 0.25, false)
	r.goal("the same with QEMU's own, most of which is translated code", float64(further.all)/float64(used), 0.25, false)
	r.print("\n")
}

// guestRun is one of several runs at once.
type guestRun struct {
	cmd  *exec.Cmd
	diag *watched
	took time.Duration // 0: it did not come to the script
}

// together starts n guests, looks at their memory when all have printed, and
// tells how many had to be booted.
func together(t *testing.T, s savedMachine, n int, args []string) (times spread, sum resident, booted int) {
	t.Helper()
	var printed sync.WaitGroup
	runs := make([]guestRun, n)
	for i := range runs {
		r := &runs[i]
		r.cmd, _ = ours(t, s.cache, nil, append(slices.Clone(args), "--snapshot=restore", "--run", "echo "+firstLine+"; sleep 1000")...)
		r.diag = newWatched()
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
		printed.Go(func() {
			if line, err := bufio.NewReader(out).ReadString('\n'); err == nil && line == firstLine+"\n" {
				r.took = time.Since(began)
			}
		})
	}
	printed.Wait()
	time.Sleep(time.Second) // what the script's start has set going comes to rest
	for _, r := range runs {
		if r.took == 0 {
			t.Errorf("no script ran:\n%s", r.diag)
			continue
		}
		times = append(times, r.took.Seconds())
		m := residentOf(t, qemuOf(t, r.cmd.Process.Pid))
		sum.all += m.all
		sum.guest += m.guest
		if strings.Contains(r.diag.String(), "==> Boot") {
			booted++
		}
	}
	for _, r := range runs {
		_ = r.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = r.cmd.Wait()                         // interrupted
	}
	return times, sum, booted
}

// qemuOf is the QEMU among the children of a run.
func qemuOf(t *testing.T, pid int) int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		for child := range strings.FieldsSeq(readFile(t, file)) {
			n, err := strconv.Atoi(child)
			if err == nil && strings.HasPrefix(processName(n), "qemu-") {
				return n
			}
		}
	}
	t.Fatalf("process %d has no QEMU", pid)
	return 0
}

// residentOf adds up the mappings of a process; the guest's memory is the one
// that is mapped from a file of the entry or from a copy of it, all of which is
// in the host's memory.
func residentOf(t *testing.T, pid int) (m resident) {
	t.Helper()
	guest, copied := false, false
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/smaps", pid))) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && !strings.HasSuffix(fields[0], ":") {
			copied = len(fields) > 5 && strings.HasPrefix(fields[5], "/memfd:guest-memory")
			guest = copied || len(fields) > 5 && strings.HasSuffix(fields[5], "/"+snapshot.RAM)
			if copied {
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
