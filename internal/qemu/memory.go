package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/cgroup"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Memory is what a host, or the container that we run in, has.
type Memory struct {
	Total     units.Bytes
	Available units.Bytes // what can be used without swapping
	Limited   bool        // a container's limit is what counts, not the host's size
}

func (m Memory) limitText() string {
	if m.Limited {
		return " (the container's limit)"
	}
	return ""
}

// HostMemory reads how much memory there is from a root file system, that is
// os.DirFS("/"): proc/meminfo (proc(5)), and the limits of the control groups
// that we are in: a container's, or a service's.
func HostMemory(root fs.FS) (Memory, error) {
	data, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return Memory{}, fmt.Errorf("reading the host's memory: %w", err)
	}
	var m Memory
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 53)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			m.Total = units.Bytes(kib) * units.KiB
		case "MemAvailable:":
			m.Available = units.Bytes(kib) * units.KiB
		}
	}
	if m.Total == 0 {
		return Memory{}, errors.New("reading the host's memory: /proc/meminfo names no MemTotal")
	}
	if group, ok := cgroup.MemoryLimit(root); ok && units.Bytes(group.Limit) < m.Total {
		m.Total, m.Limited = units.Bytes(group.Limit), true
		m.Available = min(m.Available, max(0, units.Bytes(group.Limit-group.Used)))
	}
	return m, nil
}

func readNumber(root fs.FS, name string) (units.Bytes, bool) {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return units.Bytes(n), err == nil
}
