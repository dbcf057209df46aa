package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseProcessors(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "0-3,6": "0-3,6", " 6 , 0-1,1-3 ": "0-3,6", "3,2,1": "1-3", "1023": "1023", "5-5": "5",
	} {
		list, err := ParseProcessors(text)
		if err != nil || FormatProcessors(list) != want {
			t.Errorf("%q: %v, %v; want %s", text, list, err, want)
		}
	}
	for text, want := range map[string]string{
		"":       `"" is not a processor or a range of them: write numbers and ranges, such as 0-3,6`,
		"0,":     `"" is not a processor`,
		"a":      `"a" is not a processor`,
		"0-":     `"0-" is not a processor`,
		"-1":     `"-1" is not a processor`,
		"0-1-2":  `"0-1-2" is not a processor`,
		"3-1":    `"3-1" is a range that ends before it begins: write 1-3`,
		"0x1":    `"0x1" is not a processor`,
		"1024":   `"1024" is not a processor`,
		"0-9999": `"0-9999" is not a processor`,
	} {
		if list, err := ParseProcessors(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %s", text, list, err, want)
		}
	}
}

// FuzzParseProcessors holds that what is understood is written so that it
// means the same, sorted and without doubles.
func FuzzParseProcessors(f *testing.F) {
	f.Add("0-3,6")
	f.Add("7, 1-2 ,2")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseProcessors(text)
		if err != nil {
			return
		}
		again, err := ParseProcessors(FormatProcessors(list))
		if err != nil || !slices.Equal(list, again) || !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Fatalf("%q: %v, then %v, %v", text, list, again, err)
		}
		if list[0] < 0 || list[len(list)-1] >= maxProcessors {
			t.Fatalf("%q: %v", text, list)
		}
	})
}

func TestCheckProcessors(t *testing.T) {
	if err := CheckProcessors([]int{0, 2}, []int{0, 1, 2}); err != nil {
		t.Error(err)
	}
	err := CheckProcessors([]int{0, 4, 5, 6}, []int{0, 1, 2})
	if err == nil || !strings.HasPrefix(err.Error(), "this process may run on 0-2, and not on 4-6: name only the former") {
		t.Errorf("err = %v", err)
	}
	allowed, err := AllowedProcessors()
	if err != nil || len(allowed) == 0 {
		t.Fatalf("%v, %v", allowed, err)
	}
	if status := procStatus(t, "self", "Cpus_allowed_list"); status != FormatProcessors(allowed) {
		t.Errorf("%s; /proc has %s", FormatProcessors(allowed), status)
	}
}

// procStatus is a value of /proc/PID/status.
func procStatus(t *testing.T, pid, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("%s has no %s", pid, name)
	return ""
}

// TestE2EProcessors holds that every thread of a QEMU runs where it was told
// to, that its sandbox is what it always is, and that no thread of ours stays
// confined.
func TestE2EProcessors(t *testing.T) {
	allowed, err := AllowedProcessors()
	if err != nil {
		t.Fatal(err)
	}
	last := allowed[len(allowed)-1:]
	spec, options := realSpec(t, firmware("", idle))
	options.Processors = last
	m := startReal(t, spec, options)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", m.PID()))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, thread := range threads {
		if got := procStatus(t, strings.TrimPrefix(thread, "/proc/"), "Cpus_allowed_list"); got != FormatProcessors(last) {
			t.Errorf("%s runs on %s; want %s", thread, got, FormatProcessors(last))
		}
	}
	if got := procStatus(t, fmt.Sprint(m.PID()), "Seccomp"); got != "2" {
		t.Errorf("QEMU's seccomp mode is %s", got)
	}
	if !slices.Contains(m.Args(), "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny") {
		t.Errorf("the sandbox has changed: %q", m.Args())
	}
	ours, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range ours {
		var set unix.CPUSet
		var tid int
		if _, err := fmt.Sscanf(filepath.Base(thread), "%d", &tid); err != nil || unix.SchedGetaffinity(tid, &set) != nil {
			continue // it has ended
		}
		if set.Count() != len(allowed) {
			t.Errorf("our thread %d runs on %d processors of %d", tid, set.Count(), len(allowed))
		}
	}
}
