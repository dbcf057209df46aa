package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/cgroup"
	"github.com/org/hurd-qemu-action/internal/units"
)

// HugePages is what a host has set aside, of its default size.
type HugePages struct {
	Size      units.Bytes // of one page
	Total     int64
	Available int64 // neither in use nor promised to somebody

	Limit   units.Bytes // of a container; see Limited
	Limited bool
}

// HostHugePages reads how many huge pages there are from a root file system,
// that is os.DirFS("/"): proc/meminfo (Documentation/admin-guide/mm/hugetlbpage.rst),
// and the container's limits where they are mounted.
func HostHugePages(root fs.FS) (HugePages, error) {
	data, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return HugePages{}, fmt.Errorf("looking for huge pages: %w", err)
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		name, text, _ := strings.Cut(line, ":")
		if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 53); err == nil {
			values[name] = n
		}
	}
	h := HugePages{Size: units.Bytes(values["Hugepagesize"]) * units.KiB, Total: values["HugePages_Total"]}
	if h.Size == 0 {
		return h, errors.New("this host's kernel has no huge pages: leave hugepages out")
	}
	h.Available = values["HugePages_Free"] - values["HugePages_Rsvd"]
	if more, ok := readNumber(root, "proc/sys/vm/nr_overcommit_hugepages"); ok {
		h.Available += max(0, int64(more)-values["HugePages_Surp"])
	}
	name := "hugetlb." + h.Size.String() + "B" // "hugetlb.2MB", as control groups call it
	if limit, ok := cgroup.Limit(root, "hugetlb", name+".max", name+".rsvd.max", name+".limit_in_bytes"); ok {
		h.Limit, h.Limited = units.Bytes(limit), true
	}
	return h, nil
}

// Check tells whether a guest's memory can be had from them, and if not, what
// to run on the host.
func (h HugePages) Check(memory units.Bytes) error {
	if memory%h.Size != 0 {
		return fmt.Errorf("the huge pages of this host have %s, and the guest's memory (%s) is not a multiple of that: change memory", h.Size.Human(), memory.Human())
	}
	need := int64(memory / h.Size)
	if need > h.Available {
		return fmt.Errorf("the guest's memory (%s) takes %d huge pages of %s, and this host has %d free (of %d): set more aside on the host, before this step, with: sudo sysctl -w vm.nr_hugepages=%d",
			memory.Human(), need, h.Size.Human(), max(0, h.Available), h.Total, h.Total+need-max(0, h.Available))
	}
	if h.Limited && memory > h.Limit {
		return fmt.Errorf("the guest takes %s in huge pages, and this container may have %s (hugetlb in its control group): raise that, or ask for less memory", memory.Human(), h.Limit.Human())
	}
	return nil
}

// TryHugePages asks the kernel for a file of huge pages, as QEMU will.
func TryHugePages() error {
	fd, err := unix.MemfdCreate("try-hugepages", unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	if err != nil {
		return fmt.Errorf("this host's kernel gives programs no huge pages: leave hugepages out (%w)", os.NewSyscallError("memfd_create", err))
	}
	return unix.Close(fd)
}
