// Package cgroup reads the limits of the control groups that this process is
// in: what a container, or a service of systemd, may use of its host. Both
// versions of the interface are read; see the kernel's
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
package cgroup

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is where the hierarchies are, below a root file system.
const mount = "sys/fs/cgroup"

// Memory is what a process and all that share its group may use.
type Memory struct {
	Limit int64 // bytes
	Used  int64 // of which the kernel would not give away anything; 0 when it is not told
}

// MemoryLimit is the tightest limit of the groups that this process is in, the
// one that leaves the least. root is os.DirFS("/"); false: there is none.
func MemoryLimit(root fs.FS) (Memory, bool) {
	var tightest Memory
	found := false
	consider := func(dir, limit, usage, cache string) {
		n, ok := number(root, path.Join(dir, limit))
		if !ok || n < 0 || n >= unlimited {
			return
		}
		m := Memory{Limit: n}
		if used, ok := number(root, path.Join(dir, usage)); ok {
			// Files that were read long ago are given away when memory is needed.
			m.Used = max(0, used-stat(root, path.Join(dir, "memory.stat"), cache))
		}
		if !found || m.Limit-m.Used < tightest.Limit-tightest.Used {
			tightest, found = m, true
		}
	}
	groups := groupsOf(root)
	for _, dir := range upwards(mount, groups.unified) {
		consider(dir, "memory.max", "memory.current", "inactive_file")
	}
	for _, dir := range upwards(mount+"/memory", groups.of("memory")) {
		consider(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
	}
	return tightest, found
}

// Limit is the least number that a file of a controller holds, over the groups
// that this process is in: Limit(root, "pids", "pids.max"); false: none limits it.
func Limit(root fs.FS, controller string, files ...string) (int64, bool) {
	least, found := int64(0), false
	groups := groupsOf(root)
	for _, dir := range slices.Concat(upwards(mount, groups.unified), upwards(path.Join(mount, controller), groups.of(controller))) {
		for _, f := range files {
			if n, ok := number(root, path.Join(dir, f)); ok && n >= 0 && n < unlimited && (!found || n < least) {
				least, found = n, true
			}
		}
	}
	return least, found
}

// unlimited is where version 1 begins to mean no limit: it says 2^63 rounded
// down to whole pages.
const unlimited = 1 << 62

// CPULimit is for how many processors' time the groups let this process run,
// by the tightest quota; false: there is none.
func CPULimit(root fs.FS) (float64, bool) {
	tightest, found := 0.0, false
	consider := func(quota, period int64) {
		if quota <= 0 || period <= 0 {
			return
		}
		if n := float64(quota) / float64(period); !found || n < tightest {
			tightest, found = n, true
		}
	}
	groups := groupsOf(root)
	for _, dir := range upwards(mount, groups.unified) {
		quota, period, _ := strings.Cut(read(root, path.Join(dir, "cpu.max")), " ")
		consider(parse(quota), parse(period))
	}
	for _, dir := range slices.Concat(upwards(mount+"/cpu,cpuacct", groups.of("cpu")), upwards(mount+"/cpu", groups.of("cpu"))) {
		consider(parse(read(root, path.Join(dir, "cpu.cfs_quota_us"))), parse(read(root, path.Join(dir, "cpu.cfs_period_us"))))
	}
	return tightest, found
}

// groups are the paths of this process in the hierarchies.
type groups struct {
	unified     string            // of version 2
	controllers map[string]string // of version 1
}

func (g groups) of(controller string) string { return g.controllers[controller] }

// groupsOf reads proc/self/cgroup (cgroups(7)). In a container with a namespace
// of its own, and where the file is missing, all paths are the root's.
func groupsOf(root fs.FS) groups {
	g := groups{controllers: map[string]string{}}
	for line := range strings.Lines(read(root, "proc/self/cgroup") + "\n") {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		if fields[0] == "0" && fields[1] == "" {
			g.unified = fields[2]
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			g.controllers[controller] = fields[2]
		}
	}
	return g
}

// upwards lists a group's directory and those above it, up to the mount. A path
// that leads out of the namespace ("/../x") is not ours to follow.
func upwards(top, group string) []string {
	dir := path.Clean("/" + group)
	if strings.Contains(group, "..") {
		dir = "/"
	}
	dirs := []string{path.Join(top, dir)}
	for dir != "/" {
		dir = path.Dir(dir)
		dirs = append(dirs, path.Join(top, dir))
	}
	return dirs
}

func read(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return "" // there is no such group or controller here
	}
	return strings.TrimSpace(string(data))
}

func number(root fs.FS, name string) (int64, bool) {
	n, err := strconv.ParseInt(read(root, name), 10, 64)
	return n, err == nil
}

// parse gives 0 for what is no number, such as "max".
func parse(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// stat finds a value in a file of names and numbers.
func stat(root fs.FS, name, key string) int64 {
	for line := range strings.Lines(read(root, name) + "\n") {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			return parse(value)
		}
	}
	return 0
}
