// Package platform names the guests that the other packages tell apart.
package platform

import "fmt"

// Family is a kind of guest operating system: what differs between families is
// the boot entry, how a disk is mounted, and how the machine is brought down.
type Family string

// The families that have code of their own.
const (
	Hurd    Family = "hurd"    // GNU/Hurd on GNU Mach
	Linux   Family = "linux"   // Linux, the selftest guest among them
	Unknown Family = "unknown" // nothing is known but that it may speak SSH
)

// Arch is a guest processor architecture, in Debian's names.
type Arch string

// The architectures that QEMU's x86 targets run.
const (
	AMD64 Arch = "amd64"
	I386  Arch = "i386"
)

// ParseArch accepts amd64 and i386.
func ParseArch(text string) (Arch, error) {
	switch a := Arch(text); a {
	case AMD64, I386:
		return a, nil
	}
	return "", fmt.Errorf("%q is not an architecture: use amd64 or i386", text)
}

// Drivers says where a Hurd's device drivers run, which decides what emulated
// hardware it can use.
type Drivers string

// Debian's amd64 images run rumpdisk (disks) and netdde (network cards) in user
// space; other systems use GNU Mach's own drivers.
const (
	KernelDrivers Drivers = "kernel" // disks hdN/sdN and old network cards, in GNU Mach
	UserDrivers   Drivers = "user"   // disks wdN through rumpdisk, cards through netdde
)
