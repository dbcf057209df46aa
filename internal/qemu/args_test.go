package qemu

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// overlaid is the disk of every run: a throwaway overlay on a prepared base.
func overlaid(fd int) Disk {
	return Disk{Image: Image{Format: "qcow2", FD: fd, Base: &Image{Format: "raw", FD: fd + 1}}}
}

// served is an overlay on what a server has.
func served(fd int) Disk {
	return Disk{Image: Image{Format: "qcow2", FD: fd, Base: &Image{Format: "raw", FD: fd + 1, Connect: func() (*os.File, error) { panic("called") }}}}
}

// lines writes a command line as a golden file has it: an option per line.
func lines(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		if i > 0 {
			if strings.HasPrefix(arg, "-") {
				b.WriteString("\n")
			} else {
				b.WriteString(" ")
			}
		}
		b.WriteString(arg)
	}
	return b.String() + "\n"
}

func TestArgs(t *testing.T) {
	f := recorded(t, "7.2")
	plan := func(g Guest, o Overrides) Hardware { return Plan(g, o, f) }
	channels := func(s Spec) Spec {
		s.SerialFD, s.MonitorFD, s.ToolsFD = 3, 4, 5
		s.Forwards = []Forward{Loopback(22)}
		return s
	}
	for name, spec := range map[string]Spec{
		"hurd-amd64-kvm":   channels(Spec{Name: "hurd", Hardware: plan(hurd64, Overrides{}), Accel: AccelKVM, Disks: []Disk{overlaid(6)}}),
		"hurd-amd64-tcg":   channels(Spec{Name: "hurd", Hardware: plan(hurd64, Overrides{Memory: 4 * units.GiB}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}}),
		"hurd-i386":        channels(Spec{Name: "hurd", Hardware: plan(hurd32, Overrides{}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}}),
		"hurd-i386-kernel": channels(Spec{Name: "hurd", Hardware: plan(hurdKernel, Overrides{}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}}),
		"linux":            channels(Spec{Hardware: plan(linux64, Overrides{}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}}),
		"unknown":          channels(Spec{Hardware: plan(Guest{Family: platform.Unknown}, Overrides{}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}}),
		"seed-and-drive": channels(Spec{Hardware: plan(linux64, Overrides{}), Accel: AccelTCG, Disks: []Disk{
			overlaid(6),
			{Image: Image{Format: "raw", FD: 8}, CDROM: true},
			{Image: Image{Format: "raw", FD: 9}, Cache: CacheWriteback},
			{Image: Image{Format: "vmdk", FD: 10}, ReadOnly: true},
		}}),
		"seed-and-drive-ide": channels(Spec{Hardware: plan(hurdKernel, Overrides{}), Accel: AccelTCG, Disks: []Disk{
			overlaid(6), {Image: Image{Format: "raw", FD: 8}, CDROM: true}, {Image: Image{Format: "raw", FD: 9}},
		}}),
		"virtio":    {Hardware: plan(linux64, Overrides{DiskBus: BusVirtio, NIC: "virtio"}), Accel: AccelTCG, Disks: []Disk{overlaid(6), overlaid(8)}},
		"scsi":      {Hardware: plan(linux64, Overrides{DiskBus: BusSCSI, NIC: NoNIC}), Accel: AccelTCG, Disks: []Disk{overlaid(6), overlaid(8)}},
		"nvme":      {Hardware: plan(linux64, Overrides{DiskBus: BusNVMe, NIC: NoNIC}), Accel: AccelTCG, Disks: []Disk{overlaid(6)}},
		"ahci-pc":   {Hardware: plan(hurdKernel, Overrides{DiskBus: BusAHCI}), Accel: AccelTCG, Disks: []Disk{overlaid(6), overlaid(8)}},
		"multiboot": {Hardware: plan(hurdKernel, Overrides{Memory: 64 * units.MiB}), Accel: AccelTCG, Kernel: Blob{FD: 6}, Initrd: Blob{FD: 7}, Append: "console=com0", Extra: []string{"-d", "guest_errors"}},
		"kvm-descriptor": {Hardware: plan(hurd64, Overrides{}), Accel: AccelKVM, KVMFD: 9, Isolated: true, Forwards: []Forward{Loopback(22), Loopback(80)},
			Incoming: "defer", Paused: true},
		"saved": channels(Spec{Hardware: plan(hurd64, Overrides{}), Accel: AccelTCG, RAM: &RAM{FD: 10, Shared: true}, Disks: []Disk{overlaid(6)}}),
		"restored": channels(Spec{Hardware: plan(hurd64, Overrides{}), Accel: AccelTCG, RAM: &RAM{FD: 10, ReadOnly: true}, Incoming: "defer", Disks: []Disk{
			{Image: Image{Format: "qcow2", FD: 8, Base: &Image{Format: "qcow2", FD: 6, Base: &Image{Format: "raw", FD: 7}}}},
		}}),
		"on-demand":      channels(Spec{Hardware: plan(hurd64, Overrides{}), Accel: AccelTCG, Disks: []Disk{served(6), overlaid(8)}}),
		"on-demand-nvme": {Hardware: plan(linux64, Overrides{DiskBus: BusNVMe, NIC: NoNIC}), Accel: AccelTCG, Disks: []Disk{served(6)}},
		"second-serial":  channels(Spec{Hardware: plan(hurd64, Overrides{}), Accel: AccelTCG, SecondSerial: true, Serial2FD: 8, Disks: []Disk{overlaid(6)}}),
		"runas":          {Hardware: plan(hurd64, Overrides{}), Accel: AccelKVM, DropUser: &Drop{User: Nobody()}},
		"run-with":       {Hardware: plan(hurd64, Overrides{}), Accel: AccelKVM, DropUser: &Drop{User: User{1000, 100}, RunWith: true}},
		"probe":          {Name: "a,b", Hardware: Hardware{Machine: "microvm", CPUModel: "qemu64", CPUs: 1, Memory: 8 * units.MiB}, Accel: AccelTCG, Firmware: Blob{FD: 3}, DebugExit: true, NoSandbox: true},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, "argv/"+name+".txt", lines(spec.Args()))
		})
	}
}

// TestArgsArePure pins that neither order of calls nor earlier calls matter,
// and that a spec is not changed.
func TestArgsArePure(t *testing.T) {
	spec := Spec{Hardware: Plan(hurd64, Overrides{}, recorded(t, "7.2")), Accel: AccelTCG, Disks: []Disk{overlaid(3)}, Extra: make([]string, 0, 8)}
	first := spec.Args()
	_ = append(spec.Args(), "-snapshot")
	if second := spec.Args(); !slices.Equal(first, second) {
		t.Errorf("two calls differ:\n%q\n%q", first, second)
	}
}

// TestNoPathsInArgs pins that QEMU is told no file of ours by its path.
func TestNoPathsInArgs(t *testing.T) {
	spec := Spec{
		Hardware: Plan(hurd64, Overrides{}, recorded(t, "7.2")), Accel: AccelTCG,
		Kernel: Blob{Path: "/secret/kernel"}, Firmware: Blob{Path: "/secret/bios"},
		Disks: []Disk{{Image: Image{Path: "/secret/overlay", Format: "qcow2", Base: &Image{Path: "/secret/base", Format: "raw"}}}},
	}
	if args := strings.Join(spec.Args(), " "); strings.Contains(args, "secret") {
		t.Errorf("the command line names a path: %s", args)
	}
}
