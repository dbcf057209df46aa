package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Starved is for how long the machine could have run and had no processor of
// the host to run on: that of the thread which waited longest. It is 0 where the
// kernel does not count it (CONFIG_SCHED_INFO).
func (m *Machine) Starved() time.Duration {
	if m.Err() != nil {
		return 0 // its number may be another process's by now
	}
	return starved(m.PID())
}

// StarvedHere is what Machine.Starved is, of this process since it began.
func StarvedHere() time.Duration { return starved(os.Getpid()) }

func starved(pid int) time.Duration {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0
	}
	var most time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		most = max(most, waitedFor(string(text)))
	}
	return most
}

// waitedFor reads the second field of /proc/PID/task/TID/schedstat: nanoseconds
// spent waiting on a run queue (Documentation/scheduler/sched-stats.rst).
func waitedFor(schedstat string) time.Duration {
	fields := strings.Fields(schedstat)
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n)
}
