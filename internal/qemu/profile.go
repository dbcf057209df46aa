package qemu

import (
	"cmp"
	"slices"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Guest is what has to be known of a guest to choose its hardware. Drivers
// only matter for the Hurd; "user" means that netdde serves its network cards,
// also where (on i386) the disks are still GNU Mach's own.
type Guest struct {
	Family  platform.Family
	Arch    platform.Arch
	Drivers platform.Drivers
}

// generationID is QEMU's virtual machine generation ID device (docs/specs/vmgenid.rst).
const generationID = "vmgenid"

// Profile is the hardware that suits a guest.
type Profile struct {
	Guest     Guest       // an empty field fits any guest
	Hardware  Hardware    // Machine unversioned; Memory the default
	MaxMemory units.Bytes // what the guest can use at most; 0 for no known limit
	Why       string      // the reason for it, for people
}

// profiles are looked through from the top; the first that fits is taken.
func profiles() []Profile {
	const (
		hurd, linux = platform.Hurd, platform.Linux
		amd64, i386 = platform.AMD64, platform.I386
	)
	hardware := func(machine, cpu, bus, nic string) Hardware {
		return Hardware{Machine: machine, CPUModel: cpu, CPUs: 1, Memory: 2 * units.GiB, DiskBus: bus, NIC: nic, HPET: true}
	}
	return []Profile{
		{Guest: Guest{hurd, amd64, platform.UserDrivers}, Hardware: hardware("q35", "qemu64", BusAHCI, "e1000"),
			Why: "rumpdisk drives AHCI, netdde drives e1000; q35 has no hole in its memory that the Hurd falls into"},
		{Guest: Guest{hurd, i386, platform.UserDrivers}, Hardware: hardware("pc", "qemu32", BusIDE, "e1000"), MaxMemory: 2 * units.GiB,
			Why: "GNU Mach drives IDE, netdde drives e1000; a 32-bit GNU Mach uses 2 GiB"},
		{Guest: Guest{hurd, i386, ""}, Hardware: hardware("pc", "qemu32", BusIDE, "rtl8139"), MaxMemory: 2 * units.GiB,
			Why: "GNU Mach's own drivers know IDE and rtl8139, but no e1000"},
		{Guest: Guest{hurd, "", ""}, Hardware: hardware("pc", "qemu64", BusIDE, "rtl8139"),
			Why: "GNU Mach's own drivers know IDE and rtl8139, but no e1000"},
		{Guest: Guest{linux, i386, ""}, Hardware: hardware("q35", "qemu32", BusAHCI, "e1000"),
			Why: "what every Linux kernel drives"},
		{Guest: Guest{linux, "", ""}, Hardware: hardware("q35", "qemu64", BusAHCI, "e1000"),
			Why: "what every Linux kernel drives"},
		{Guest: Guest{"", i386, ""}, Hardware: hardware("pc", "qemu32", BusIDE, "e1000"),
			Why: "the oldest hardware has the most drivers"},
		{Hardware: hardware("pc", "qemu64", BusIDE, "e1000"),
			Why: "the oldest hardware has the most drivers"},
	}
}

// ProfileFor gives the profile for a guest; every guest has one.
func ProfileFor(g Guest) Profile {
	all := profiles()
	i := slices.IndexFunc(all, func(p Profile) bool { return p.Guest.fits(g) })
	if i < 0 {
		i = len(all) - 1
	}
	return all[i]
}

// fits tells whether a pattern's set fields are those of a guest.
func (pattern Guest) fits(g Guest) bool {
	return (pattern.Family == "" || pattern.Family == g.Family) &&
		(pattern.Arch == "" || pattern.Arch == g.Arch) &&
		(pattern.Drivers == "" || pattern.Drivers == g.Drivers)
}

// Overrides are the user's own choices; an empty field leaves the profile's.
type Overrides struct {
	Machine  string
	CPUModel string
	DiskBus  string
	NIC      string
	CPUs     int
	Memory   units.Bytes
}

// Plan is the hardware for a guest: its profile, the user's choices, and a
// machine type with its version, so that a saved machine fits the QEMU of
// another day. Check tells whether it can work.
func Plan(g Guest, o Overrides, f *Features) Hardware {
	h := ProfileFor(g).Hardware
	if o.Machine != "" {
		h.Machine = o.Machine
		if o.DiskBus == "" {
			h.DiskBus = busOn(machineKind(o.Machine), h.DiskBus)
		}
	}
	h.Machine = f.Versioned(h.Machine)
	h.CPUModel = cmp.Or(o.CPUModel, h.CPUModel)
	h.DiskBus = cmp.Or(o.DiskBus, h.DiskBus)
	h.NIC = cmp.Or(o.NIC, h.NIC)
	h.CPUs = cmp.Or(o.CPUs, h.CPUs)
	h.Memory = cmp.Or(o.Memory, h.Memory)
	h.GenerationID = g.Family == platform.Linux && machineKind(h.Machine) != kindOther && f.HasDevice(generationID)
	return h
}
