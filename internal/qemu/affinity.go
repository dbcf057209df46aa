package qemu

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProcessors is how many a set of them can hold (unix.CPUSet).
const maxProcessors = 1024

// ParseProcessors reads a list of processors such as "0-3,6", in the form of
// taskset and of Docker's --cpuset-cpus. The result is sorted.
func ParseProcessors(text string) ([]int, error) {
	var list []int
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		from, to, isRange := strings.Cut(item, "-")
		first, err := processor(from)
		last := first
		if err == nil && isRange {
			last, err = processor(to)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a processor or a range of them: write numbers and ranges, such as 0-3,6", item)
		}
		if last < first {
			return nil, fmt.Errorf("%q is a range that ends before it begins: write %d-%d", item, last, first)
		}
		for n := first; n <= last; n++ {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func processor(text string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	if err == nil && n >= maxProcessors {
		err = strconv.ErrRange
	}
	return int(n), err
}

// FormatProcessors is the shortest list of a sorted set of processors.
func FormatProcessors(list []int) string {
	var items []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if j == i {
			items = append(items, strconv.Itoa(list[i]))
		} else {
			items = append(items, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(items, ",")
}

// AllowedProcessors are those that this process may run on: the host's, less
// what taskset, a container's --cpuset-cpus or another control group takes away.
func AllowedProcessors() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return nil, fmt.Errorf("asking for the processors of this process: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	var list []int
	for n := range maxProcessors {
		if set.IsSet(n) {
			list = append(list, n)
		}
	}
	return list, nil
}

// CheckProcessors tells which of a list are not allowed. The kernel would
// leave them out without a word.
func CheckProcessors(list, allowed []int) error {
	missing := slices.DeleteFunc(slices.Clone(list), func(n int) bool { return slices.Contains(allowed, n) })
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("this process may run on %s, and not on %s: name only the former (a container's --cpuset-cpus and taskset limit them as well as the host)",
		FormatProcessors(allowed), FormatProcessors(missing))
}

// confine limits this thread, which must be locked, to some processors; a
// process that it starts has them from its first instruction on, and so have
// all threads of that. The function gives the thread back what it had, and
// tells whether it could.
func confine(list []int) (restore func() bool, err error) {
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("asking for the processors of this thread: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	for _, n := range list {
		set.Set(n)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("running on processors %s: %w", FormatProcessors(list), os.NewSyscallError("sched_setaffinity", err))
	}
	return func() bool { return unix.SchedSetaffinity(0, &before) == nil }, nil
}
