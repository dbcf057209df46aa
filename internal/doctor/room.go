package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/cgroup"
	"github.com/org/hurd-qemu-action/internal/units"
)

// overhead is what QEMU takes beside the guest's memory: its program, the
// translated code and the devices.
const overhead = 256 * units.MiB

func checkMemory(_ context.Context, e *exam) Finding {
	if e.Memory == nil {
		return skipped("not asked")
	}
	m, err := e.Memory()
	if err != nil {
		return broken(err.Error(), "Mount /proc.")
	}
	of := "this host's"
	if m.Limited {
		of = "the container's or service's limit of"
	}
	text := fmt.Sprintf("%s free of %s %s; the guest takes up to %s", m.Available.Human(), of, m.Total.Human(), e.Need.Memory.Human())
	less := "Give the guest less (memory: " + e.lessMemory(m) + "), or use a larger runner"
	if m.Limited {
		less += ", or raise the limit (docker run --memory, MemoryMax=)"
	}
	switch need := e.Need.Memory + overhead; {
	case m.Total < e.Need.Memory:
		return broken(text, less+".")
	case m.Available < need && m.Available < e.Need.Memory/2:
		return broken(text+": QEMU will be killed when the guest uses its memory", less+", or end what else uses the memory.")
	case m.Available < need:
		return slow(text+" and QEMU some more: the host swaps, or kills QEMU, when the guest uses all of it", less+".")
	}
	return fine(text)
}

// leastMemory is what a Hurd needs to be of use.
const leastMemory = 512 * units.MiB

// lessMemory is what a guest can have here, in quarters of a GiB.
func (e *exam) lessMemory(m Memory) string {
	room := (m.Available - overhead) / (256 * units.MiB) * (256 * units.MiB)
	return max(leastMemory, min(room, e.Need.Memory/2)).String()
}

// checkHugePages says whether they can be had, which nothing needs.
func checkHugePages(_ context.Context, e *exam) Finding {
	if e.HugePages == nil {
		return skipped("not asked")
	}
	if err := e.HugePages(); err != nil {
		return fine("not to be had, and not needed (hugepages: true): " + err.Error())
	}
	return fine(e.Need.Memory.Human() + " of them are free (hugepages: true), and are not needed")
}

func checkCPUs(_ context.Context, e *exam) Finding {
	if e.CPUs == nil {
		return skipped("not asked")
	}
	n := e.CPUs()
	text, has := plural(n, "processor"), float64(n)
	if e.Root != nil {
		if quota, ok := cgroup.CPULimit(e.Root); ok && quota < has {
			text += fmt.Sprintf(", of which a control group grants %.3g", quota)
			has = quota
		}
	}
	need := max(1, e.Need.CPUs)
	switch {
	case has < 1:
		return slow(text, "Raise the limit (docker run --cpus, CPUQuota=): less than a whole processor makes the guest stutter, and boots time out.")
	case n < need:
		return slow(fmt.Sprintf("%s, and the guest has %d", text, need), "Give the guest fewer (cpus: 1): its processors wait for one another.")
	case has < 2:
		return slow(text+": the guest shares it with everything else", "Use a runner with two processors, or give boots more time (boot-timeout).")
	}
	return fine(text)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// busy is how many processes may wait for each processor on average.
const busy = 2

func checkLoad(_ context.Context, e *exam) Finding {
	fields := strings.Fields(e.text("proc/loadavg"))
	if len(fields) == 0 || e.CPUs == nil {
		return skipped("the host does not tell")
	}
	load, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return skipped("the host does not tell")
	}
	n := e.CPUs()
	text := fmt.Sprintf("%.1f on %s in the last minute", load, plural(n, "processor"))
	if load > busy*float64(n) {
		return slow(text, "Wait, or end what keeps the host busy (top shows it); else give boots more time (boot-timeout).")
	}
	return fine(text)
}

// What must be free, and what should.
const (
	leastSpace  = 64 * units.MiB
	enoughSpace = 2 * units.GiB
	leastFiles  = 1000
)

// place is a directory in which something will be written.
type place struct {
	dir    string
	what   string      // goes there
	need   units.Bytes // without it nothing goes
	enough units.Bytes // with less, something large does not
	then   string      // with less
	free   string      // how to make room
	write  string      // what to do when it can't be written
}

func checkTemp(_ context.Context, e *exam) Finding {
	free := "Free space there, or set RUNNER_TEMP or TMPDIR to a directory that has more."
	return e.look(place{
		dir: e.Paths.Temp, what: "what a guest writes", need: leastSpace, enough: enoughSpace,
		then: "a guest that writes more than that is lost", free: free, write: "Set RUNNER_TEMP or TMPDIR to a directory that can be written.",
	})
}

func checkStoreSpace(_ context.Context, e *exam) Finding {
	p := place{
		dir: e.nearest(e.Paths.Store), what: "images", need: leastSpace,
		free:  "Free space there (hurd-qemu-action image prune --size 0 removes what is not in use), or set cache-dir to a directory that has more.",
		write: "Set cache-dir to a directory that can be written.",
	}
	var need units.Bytes
	if e.StoreNeed != nil {
		need = e.StoreNeed()
	}
	if need > 0 {
		p.need, p.what = max(p.need, need), fmt.Sprintf("images; %s takes %s with what is made of it", e.Need.Image, need.Human())
	}
	if e.Writable != nil && p.dir == e.Paths.Store && p.dir != "" && need == 0 {
		if err := e.Writable(p.dir); errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
			return limited(fmt.Sprintf("%s may only be read (%v): images that are in it can be used, none can be added", p.dir, reason(err)), p.write)
		}
	}
	return e.look(p)
}

func checkWorkspace(_ context.Context, e *exam) Finding {
	return e.look(place{
		dir: e.Paths.Workspace, what: "logs and what comes back from the guest", need: leastSpace, enough: 0,
		free: "Free space there, or clear the logs of earlier runs (.hurd).", write: "Give this user the right to write there: the logs go to .hurd in it.",
	})
}

// look checks a place.
func (e *exam) look(p place) Finding {
	if p.dir == "" || e.Space == nil {
		return skipped("there is none")
	}
	if e.Writable != nil {
		if err := e.Writable(p.dir); err != nil {
			return broken(fmt.Sprintf("%s: %v", p.dir, reason(err)), unwritable(err, p))
		}
	}
	s, err := e.Space(p.dir)
	if err != nil {
		return broken(fmt.Sprintf("%s: %v", p.dir, err), p.write)
	}
	text := fmt.Sprintf("%s free of %s in %s, for %s", s.Free.Human(), s.Total.Human(), p.dir, p.what)
	switch {
	case s.Free < p.need:
		return broken(text, p.free)
	case s.Inodes > 0 && s.Nodes < leastFiles:
		return broken(fmt.Sprintf("%s; but only %d files can still be made there (df -i)", text, s.Nodes), "Remove files: many small ones have used up the file system's inodes.")
	case s.Free < p.enough:
		return limited(text+": "+p.then, p.free)
	case s.Type == "nfs" || s.Type == "cifs" || s.Type == "fuse":
		return slow(fmt.Sprintf("%s, on %s", text, s.Type), "Use a disk of this host for it.")
	case s.Type == "tmpfs":
		return limited(text+": it is memory (tmpfs), and what is written there is missing for the guest", "Use a disk for it, when memory is short.")
	}
	return fine(text)
}

// unwritable is what to do about a directory that can't be written.
func unwritable(err error, p place) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return p.free
	case errors.Is(err, unix.EROFS):
		return "It is on a file system that may only be read: mount it otherwise. " + p.write
	case errors.Is(err, fs.ErrNotExist):
		return "Make the directory. " + p.write
	}
	return p.write
}

// reason is a path error's cause: the path is known, or is a file of ours.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Limits of a process that QEMU, or this program, may meet.
const (
	leastOpen    = 256 // files: the disks, their overlays, connections, and the workspace's
	leastProcess = 128 // QEMU alone may have 64 threads for its disks
	largestFile  = 8 * units.GiB
)

func checkLimits(_ context.Context, e *exam) Finding {
	if e.Limit == nil {
		return skipped("not asked")
	}
	var found Finding
	add := func(f Finding) {
		if found.Verdict == "" || f.Verdict.worse(found.Verdict) {
			found.Verdict = f.Verdict
		}
		found.Text = strings.TrimPrefix(found.Text+"; "+f.Text, "; ")
		found.Fix = append(found.Fix, f.Fix...)
	}
	if n, err := e.Limit(unix.RLIMIT_NOFILE); err == nil && n < leastOpen {
		add(broken(fmt.Sprintf("only %d files may be open", n), fmt.Sprintf("Raise it: ulimit -n %d, LimitNOFILE= of the service, or docker run --ulimit nofile=1024.", 4*leastOpen)))
	}
	if n, err := e.Limit(unix.RLIMIT_AS); err == nil && n < uint64(e.Need.Memory+4*overhead) {
		add(broken(fmt.Sprintf("a process may have only %s of addresses, less than QEMU with a guest of %s", units.Bytes(n).Human(), e.Need.Memory.Human()), "Raise it: ulimit -v unlimited, or LimitAS= of the service."))
	}
	if n, err := e.Limit(unix.RLIMIT_FSIZE); err == nil && n < uint64(largestFile) {
		add(broken(fmt.Sprintf("a file may have only %s, and the guest's disks are larger", units.Bytes(n).Human()), "Raise it: ulimit -f unlimited, or LimitFSIZE= of the service."))
	}
	if n, err := e.Limit(unix.RLIMIT_NPROC); err == nil && n < leastProcess {
		add(limited(fmt.Sprintf("only %d processes and threads may run", n), "Raise it: ulimit -u 4096, or LimitNPROC= of the service."))
	}
	if n, ok := e.groupLimit("pids", "pids.max"); ok && n < leastProcess {
		add(limited(fmt.Sprintf("the control group lets only %d processes and threads run", n), "Raise it: docker run --pids-limit, or TasksMax= of the service."))
	}
	if found.Verdict == "" {
		return fine("none is in the way" + e.locked())
	}
	return found
}

func (e *exam) groupLimit(controller, file string) (int64, bool) {
	if e.Root == nil {
		return 0, false
	}
	return cgroup.Limit(e.Root, controller, file)
}

// locked says what may be locked in memory, when that is little.
func (e *exam) locked() string {
	n, err := e.Limit(unix.RLIMIT_MEMLOCK)
	if err != nil || n >= uint64(e.Need.Memory) {
		return ""
	}
	return fmt.Sprintf(" (%s may be locked in memory, which nothing here needs)", units.Bytes(n).Human())
}

// written is when this was: no clock that is right is before it.
var written = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func checkClock(_ context.Context, e *exam) Finding {
	now := e.Now()
	if now.Before(written) {
		return broken("it says "+now.UTC().Format(time.RFC3339)+", which is past: certificates are not valid yet, and the guest gets this time", "Set the host's clock (timedatectl set-ntp true).")
	}
	return fine(now.UTC().Format(time.RFC3339))
}

// checkLeftovers: a run that was killed outright cannot remove its directory.
func checkLeftovers(ctx context.Context, e *exam) Finding {
	guests, err := e.guests(ctx)
	if err != nil {
		return skipped(err.Error())
	}
	var dead []string
	for _, g := range guests {
		if !g.Alive {
			dead = append(dead, g.Dir)
		}
	}
	if len(dead) == 0 {
		return fine("nothing in " + filepath.Clean(e.Paths.Temp))
	}
	return limited(fmt.Sprintf("in %s the monitor's socket refuses connections: the run was killed", strings.Join(dead, ", ")),
		"Remove what nobody uses any more: rm -r "+strings.Join(dead, " ")+".")
}
