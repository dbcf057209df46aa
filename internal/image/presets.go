package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Publisher is the address that the directories of every preset are below. A
// mirror replaces it.
const Publisher = "https://cdimage.debian.org/cdimage/"

// Preset is an image that we know by name.
type Preset struct {
	Name    string
	Aliases []string // other names; each belongs to one preset of an architecture
	Arch    platform.Arch
	Family  platform.Family
	Drivers platform.Drivers // what disks and cards its drivers know

	File string   // dated file name: the undated one is a moving alias
	Dirs []string // directories below Publisher, in the order in which they are tried
	// SHA512 of File in hexadecimal. "" when we don't know it: then the
	// publisher's SHA512SUMS decides.
	SHA512 string

	Download  units.Bytes // size of File, about
	Disk      units.Bytes // size of the disk inside, about
	Allocated units.Bytes // space that the unpacked disk takes, about

	MinMemory units.Bytes // what a guest needs to boot
	MaxMemory units.Bytes // above it the kernel fails; 0 for no limit

	Root RootHint

	// Snapshots are machines that were booted from this image, saved and
	// published, so that a first run need not boot: HOST/NAME@sha256:... of a
	// registry or https://HOST/FILE@sha256:..., tried in this order. One is used
	// where it is exactly the machine that a run wants; it is to be saved under
	// TCG, with the QEMU of the container and the default inputs.
	Snapshots []string
}

// RootHint says where the root file system was when somebody looked. The
// image's partition table decides; the hint breaks a tie.
type RootHint struct {
	Partition int    // number in the MBR; 5 is the first logical one
	Device    string // what the boot entry calls the disk
}

// Presets are the official Debian GNU/Hurd images, the preferred one of each
// architecture first. 20250807 is the Debian GNU/Hurd 2025 release; for its
// files no hash is known to us.
var presets = []Preset{
	{
		Name: "debian-hurd-20260314", Aliases: []string{"debian", "debian-hurd"},
		Arch: platform.AMD64, Family: platform.Hurd, Drivers: platform.UserDrivers,
		File: "debian-hurd-amd64-20260314.img.tar.xz",
		Dirs: []string{"ports/latest/hurd-amd64/", "ports/13.0/hurd-amd64/"},
		SHA512: "0c6151e7a402c065ef337841a2586e5c6a9799955d4f25d454cb7c6e6d54e7e2" +
			"d52768aea0874a794aa285089a085c3b99702de475bc2fc4f250a2ce5a9f6cf0",
		Download: 354 * units.MiB, Disk: 4 * units.GiB, Allocated: 2500 * units.MiB,
		MinMemory: 1 * units.GiB,
		Root:      RootHint{Partition: 2, Device: "wd0"},
	},
	{
		Name: "debian-hurd-20250807", Aliases: []string{"debian-hurd-2025"},
		Arch: platform.AMD64, Family: platform.Hurd, Drivers: platform.UserDrivers,
		File:     "debian-hurd-amd64-20250807.img.tar.xz",
		Dirs:     []string{"ports/latest/hurd-amd64/", "ports/13.0/hurd-amd64/"},
		Download: 354 * units.MiB, Disk: 4 * units.GiB, Allocated: 2500 * units.MiB,
		MinMemory: 1 * units.GiB,
		Root:      RootHint{Partition: 2, Device: "wd0"},
	},
	{
		Name: "debian-hurd-20250807", Aliases: []string{"debian", "debian-hurd", "debian-hurd-2025"},
		Arch: platform.I386, Family: platform.Hurd, Drivers: platform.KernelDrivers,
		File:     "debian-hurd-i386-20250807.img.tar.xz",
		Dirs:     []string{"ports/latest/hurd-i386/", "ports/13.0/hurd-i386/"},
		Download: 354 * units.MiB, Disk: 4 * units.GiB, Allocated: 2500 * units.MiB,
		MinMemory: 512 * units.MiB, MaxMemory: 2 * units.GiB,
		Root: RootHint{Partition: 5, Device: "hd0"},
	},
}

// Origin is what an image of the preset is called in the store.
func (p Preset) Origin() string { return p.Name + " (" + string(p.Arch) + ")" }

// Addresses are where the file may be, in the order in which they are tried. A
// mirror, if there is one, replaces Publisher.
func (p Preset) Addresses(mirror string) []string {
	base := Publisher
	if mirror != "" {
		base = strings.TrimSuffix(mirror, "/") + "/"
	}
	var addresses []string
	for _, dir := range p.Dirs {
		addresses = append(addresses, base+dir+p.File)
	}
	return addresses
}

// Presets returns the table of images known by name.
func Presets() []Preset { return slices.Clone(presets) }

// PresetNames lists the names and aliases of all presets, each once.
func PresetNames() []string {
	var names []string
	for _, p := range presets {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func isPresetName(name string) bool { return slices.Contains(PresetNames(), name) }

// FindPreset finds a preset by name or alias. Without an architecture it is
// the table's first of that name, which is an amd64 image.
func FindPreset(name string, arch platform.Arch) (*Preset, error) {
	var others []string
	for _, p := range presets {
		if p.Name != name && !slices.Contains(p.Aliases, name) {
			continue
		}
		if arch == "" || p.Arch == arch {
			return &p, nil
		}
		others = append(others, string(p.Arch))
	}
	if len(others) == 0 {
		return nil, fmt.Errorf("%q is %w preset: use one of %s", name, ErrSource, strings.Join(PresetNames(), ", "))
	}
	var has []string
	for _, p := range presets {
		if p.Arch == arch {
			has = append(has, p.Name)
		}
	}
	return nil, fmt.Errorf("%s exists for %s, not for %s: for that use %s", name, strings.Join(others, ", "), arch, strings.Join(has, ", "))
}
