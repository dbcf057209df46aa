package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Usage is what a machine has used up to a moment.
type Usage struct {
	At       time.Duration // the moment, since the process was started
	CPU      time.Duration // of the QEMU process, user and system, over all its threads
	GuestCPU time.Duration // of which the threads that run the guest's processors
	Resident units.Bytes   // host memory that the process has now
	Peak     units.Bytes   // the most it ever had
	Read     units.Bytes   // what the guest has read from all its disks
	Written  units.Bytes   // what it has written to them
}

// Started is when the process was started.
func (m *Machine) Started() time.Time { return m.started }

// Usage asks the host what the process has used, and QEMU what the guest has
// read and written. ctx bounds it; the error of a machine that has ended is
// its end.
func (m *Machine) Usage(ctx context.Context) (Usage, error) {
	u, err := m.usage(ctx)
	if end := m.Err(); end != nil {
		err = end // its number may be another process's by now
	}
	if err != nil {
		return Usage{}, fmt.Errorf("asking what the machine uses: %w", err)
	}
	return u, nil
}

func (m *Machine) usage(ctx context.Context) (u Usage, err error) {
	if u.Read, u.Written, err = m.diskTraffic(ctx); err != nil {
		return Usage{}, err
	}
	threads, err := m.guestThreads(ctx)
	if err != nil {
		return Usage{}, err
	}
	// Read after the monitor's answers, since these may take their time.
	u.At = time.Since(m.started)
	for _, thread := range threads {
		used, err := readCPUTime(fmt.Sprintf("/proc/%d/task/%d/stat", m.PID(), thread))
		if err != nil {
			return Usage{}, err
		}
		u.GuestCPU += used
	}
	if u.CPU, err = readCPUTime(fmt.Sprintf("/proc/%d/stat", m.PID())); err != nil {
		return Usage{}, err
	}
	u.Resident, u.Peak, err = ProcessMemory(m.PID())
	return u, err
}

// guestThreads are the threads that run the guest's processors, which stay the
// same. With one thread for all (TCG without MTTCG) it is named once.
func (m *Machine) guestThreads(ctx context.Context) ([]int, error) {
	m.mu.Lock()
	threads := m.threads
	m.mu.Unlock()
	if threads != nil {
		return threads, nil
	}
	var cpus []struct {
		Thread int `json:"thread-id"`
	}
	if err := m.monitor.Execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return nil, err
	}
	for _, cpu := range cpus {
		if !slices.Contains(threads, cpu.Thread) {
			threads = append(threads, cpu.Thread)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.threads = threads
	return threads, nil
}

// ProcessMemory asks the host what memory a process has now, and the most that
// it ever had.
func ProcessMemory(pid int) (now, peak units.Bytes, err error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	status, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	if now, peak, err = residentMemory(string(status)); err != nil {
		return 0, 0, fmt.Errorf("reading %s: %w", file, err)
	}
	return now, peak, nil
}

// diskTraffic is Activity's sum without the machine's state: one command, as
// it is asked again and again (qapi/block-core.json, query-blockstats).
func (m *Machine) diskTraffic(ctx context.Context) (read, written units.Bytes, err error) {
	var disks []struct {
		Stats struct {
			Read    units.Bytes `json:"rd_bytes"`
			Written units.Bytes `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := m.monitor.Execute(ctx, "query-blockstats", nil, &disks); err != nil {
		return 0, 0, err
	}
	for _, d := range disks {
		read += d.Stats.Read
		written += d.Stats.Written
	}
	return read, written, nil
}

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that this program runs on.
const tick = 10 * time.Millisecond

func readCPUTime(file string) (time.Duration, error) {
	stat, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	used, err := cpuTime(string(stat))
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", file, err)
	}
	return used, nil
}

// cpuTime reads utime and stime, fields 14 and 15 of /proc/PID/stat (proc(5)).
// The second field is the program's name in parentheses, which may itself hold
// spaces and parentheses.
func cpuTime(stat string) (time.Duration, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("no name in parentheses")
	}
	fields := strings.Fields(stat[end+1:]) // from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name, at least 13 are needed", len(fields))
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 48)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q is no number of clock ticks", f)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// residentMemory reads VmRSS and VmHWM of /proc/PID/status (proc(5)). A
// process that is a zombie has neither.
func residentMemory(status string) (now, peak units.Bytes, err error) {
	found := 0
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		var to *units.Bytes
		switch name {
		case "VmRSS":
			to = &now
		case "VmHWM":
			to = &peak
		default:
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 48)
		if err != nil || n < 0 {
			return 0, 0, fmt.Errorf("%q is no size in kB", strings.TrimSpace(line))
		}
		*to = units.Bytes(n) * units.KiB
		found++
	}
	if found != 2 {
		return 0, 0, errors.New("no VmRSS and VmHWM: the process has ended")
	}
	return now, peak, nil
}
