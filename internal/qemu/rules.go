package qemu

import (
	"slices"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// rule is one combination that is known not to work, or not well. Every field
// that is set must hold for it to apply.
type rule struct {
	guest      Guest
	accel      Accel
	kinds      []string    // machine kinds
	buses      []string    // disk buses
	nics       []string    // network cards
	memoryFrom units.Bytes // at least so much memory
	memoryOver units.Bytes // more memory than this
	cpusOver   int         // more processors than this
	noHPET     bool
	inQEMU     bool // QEMU has the machine: the lack of it is another problem, and reported as that

	refuse  bool   // else a warning
	input   string // the input to blame
	message string // why, and what to choose instead
}

// rules are what people, and our own measurements, found out the hard way.
func rules() []rule {
	hurd := Guest{Family: platform.Hurd}
	kernel := Guest{Family: platform.Hurd, Drivers: platform.KernelDrivers}
	amd64User := Guest{Family: platform.Hurd, Arch: platform.AMD64, Drivers: platform.UserDrivers}
	hurd32 := Guest{Family: platform.Hurd, Arch: platform.I386}
	return []rule{
		{guest: hurd, buses: []string{BusVirtio}, refuse: true, input: "disk-bus",
			message: "the Hurd has no virtio disk driver and would find no root file system: use ahci (machine q35) or ide (machine pc)"},
		{guest: hurd, buses: []string{BusSCSI, BusNVMe}, refuse: true, input: "disk-bus",
			message: "the Hurd finds no disk there and its boot stops: use ahci (machine q35) or ide (machine pc)"},
		{guest: hurd, nics: nicsOf(nicVirtio), refuse: true, input: "nic",
			message: "the Hurd has no virtio network driver: use e1000 where netdde runs (Debian), else rtl8139"},
		{guest: kernel, nics: nicsOf(nicE1000), refuse: true, input: "nic",
			message: "GNU Mach's own drivers do not know this card, so there would be no network: use rtl8139, ne2k_pci, pcnet or tulip"},
		{guest: hurd, nics: nicsOf(nicI8255x), refuse: true, input: "nic",
			message: "a card of the i8255x family hangs the Hurd's boot: use e1000 where netdde runs (Debian), else rtl8139"},
		{guest: amd64User, kinds: []string{kindPC}, memoryFrom: 3584 * units.MiB, refuse: true, input: "memory",
			message: "with 3584M or more on an i440FX machine (pc) the root file system cannot be mounted (\"ext2fs: part:1:device:wd0: Input/output error\"): use machine q35, or at most 3583M"},
		{guest: hurd32, memoryOver: 2 * units.GiB, refuse: true, input: "memory",
			message: "a 32-bit Hurd uses at most 2G: ask for 2G or less, or use an amd64 image"},
		{guest: hurd32, kinds: []string{kindQ35}, memoryOver: 2013 * units.MiB, input: "memory",
			message: "a 32-bit Hurd sees at most 2013M on machine q35: use machine pc for the rest, or ask for less"},
		{guest: hurd, accel: AccelKVM, buses: []string{BusIDE}, input: "disk-bus",
			message: "IDE under KVM is reported to corrupt busy disks (bus-master faults, ext2fs input/output errors): prefer machine q35 with disk-bus ahci"},
		{guest: hurd, cpusOver: 1, input: "cpus",
			message: "the Hurd's kernels use one processor, and some hang with more: use 1"},
		{guest: hurd, kinds: []string{kindPC, kindQ35}, noHPET: true, refuse: true, input: "machine",
			message: "GNU Mach panics without the HPET: leave it on"},
		{kinds: []string{kindOther}, inQEMU: true, refuse: true, input: "machine",
			message: "only machines of the families pc and q35 are built here: use one of them"},
		{kinds: []string{kindQ35}, buses: []string{BusIDE}, refuse: true, input: "disk-bus",
			message: "machine q35 has no IDE controller: use ahci, or machine pc"},
	}
}

// applies tells whether a combination is the rule's.
func (r rule) applies(q Request) bool {
	h := q.Hardware
	return r.guest.fits(q.Guest) &&
		(r.accel == "" || r.accel == q.Accel) &&
		(r.kinds == nil || slices.Contains(r.kinds, machineKind(h.Machine))) &&
		(r.buses == nil || slices.Contains(r.buses, h.DiskBus)) &&
		(r.nics == nil || slices.Contains(r.nics, h.NIC)) &&
		(r.memoryFrom == 0 || h.Memory >= r.memoryFrom) &&
		(r.memoryOver == 0 || h.Memory > r.memoryOver) &&
		(r.cpusOver == 0 || h.CPUs > r.cpusOver) &&
		(!r.noHPET || !h.HPET) &&
		(!r.inQEMU || q.Features == nil || q.Features.HasMachine(h.Machine))
}
