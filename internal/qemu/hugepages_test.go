package qemu

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// meminfo is the part of /proc/meminfo that counts here.
const meminfo = "MemTotal:       24683656 kB\nHugePages_Total:    1024\nHugePages_Free:      700\nHugePages_Rsvd:      188\nHugePages_Surp:        2\nHugepagesize:       2048 kB\nHugetlb:         2097152 kB\n"

func TestHugePages(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for _, tc := range []struct {
		name   string
		root   fstest.MapFS
		memory units.Bytes
		want   string // empty: there are enough
	}{
		{"just enough", fstest.MapFS{"proc/meminfo": file(meminfo)}, 1 * units.GiB, ""},
		{"too few", fstest.MapFS{"proc/meminfo": file(meminfo)}, 2 * units.GiB,
			"the guest's memory (2 GiB) takes 1024 huge pages of 2 MiB, and this host has 512 free (of 1024): set more aside on the host, before this step, with: sudo sysctl -w vm.nr_hugepages=1536"},
		{"none", fstest.MapFS{"proc/meminfo": file("HugePages_Total: 0\nHugePages_Free: 0\nHugePages_Rsvd: 0\nHugepagesize: 2048 kB\n")}, 64 * units.MiB,
			"has 0 free (of 0): set more aside on the host, before this step, with: sudo sysctl -w vm.nr_hugepages=32"},
		{"all are promised", fstest.MapFS{"proc/meminfo": file("HugePages_Total: 4\nHugePages_Free: 2\nHugePages_Rsvd: 3\nHugepagesize: 2048 kB\n")}, 2 * units.MiB,
			"has 0 free (of 4): set more aside on the host, before this step, with: sudo sysctl -w vm.nr_hugepages=5"},
		{"the kernel may make more", fstest.MapFS{"proc/meminfo": file(meminfo), "proc/sys/vm/nr_overcommit_hugepages": file("514\n")}, 2 * units.GiB, ""},
		{"an odd size", fstest.MapFS{"proc/meminfo": file(strings.Replace(meminfo, "2048 kB", "1048576 kB", 1))}, 1536 * units.MiB,
			"the huge pages of this host have 1 GiB, and the guest's memory (1.5 GiB) is not a multiple of that: change memory"},
		{"a container's limit", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/hugetlb.2MB.max": file("536870912\n"), "sys/fs/cgroup/hugetlb.2MB.rsvd.max": file("max\n")}, 1 * units.GiB,
			"the guest takes 1 GiB in huge pages, and this container may have 512 MiB (hugetlb in its control group)"},
		{"no limit", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/hugetlb.2MB.max": file("max\n")}, 1 * units.GiB, ""},
		{"a kernel without them", fstest.MapFS{"proc/meminfo": file("MemTotal: 1 kB\n")}, 1 * units.GiB, "this host's kernel has no huge pages: leave hugepages out"},
		{"no /proc", fstest.MapFS{}, 1 * units.GiB, "looking for huge pages: open proc/meminfo"},
	} {
		h, err := HostHugePages(tc.root)
		if err == nil {
			err = h.Check(tc.memory)
		}
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %s", tc.name, err, tc.want)
		}
	}
}

func TestHugePagesArgs(t *testing.T) {
	spec := Spec{Hardware: Plan(hurd64, Overrides{}, recorded(t, "7.2")), Accel: AccelTCG, HugePage: 2 * units.MiB}
	golden(t, "argv/hugepages.txt", lines(spec.Args()))
	spec.RAM = &RAM{FD: 9, Shared: true}
	if args := strings.Join(spec.Args(), " "); strings.Contains(args, "hugetlb") || strings.Count(args, "memory-backend=ram") != 1 {
		t.Errorf("a memory that is a file, and huge pages: %s", args)
	}
}

// TestE2EHugePages starts a guest on huge pages where there are enough of them,
// and else holds that QEMU can't have them either.
func TestE2EHugePages(t *testing.T) {
	spec, options := realSpec(t, firmware("on huge pages\n", idle))
	h, err := HostHugePages(os.DirFS("/"))
	if err != nil {
		t.Fatal(err)
	}
	spec.HugePage = h.Size
	spec.Memory = max(spec.Memory, h.Size)
	if err := h.Check(spec.Memory); err != nil {
		t.Logf("%v", err)
		_, err := Start(deadline(t, 30*time.Second), spec, options)
		var exit *ExitError
		if !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "Cannot allocate memory") {
			t.Errorf("err = %v", err)
		}
		return
	}
	if err := TryHugePages(); err != nil {
		t.Error(err)
	}
	m := startReal(t, spec, options)
	waitFor(t, m, "on huge pages", 30*time.Second)
	now, err := HostHugePages(os.DirFS("/"))
	if err != nil || h.Available-now.Available < int64(spec.Memory/h.Size) {
		t.Errorf("%d huge pages were there, and %d are: %v", h.Available, now.Available, err)
	}
}
