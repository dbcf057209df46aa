// Package provision puts into a guest what must be there before its first
// boot: keys, a configuration of its SSH server, and the serial console in its
// boot entry. It has three ways: editing the ext2 file system of the image
// (Inspect, Prepare, Fill), a NoCloud seed disk for cloud-init (Seed), and
// typing on the serial console of the running guest (Dialogue). Choose tells
// which one fits.
//
// The ext2 way is split in two, because images are large and runs are many:
// Prepare edits a raw image once, and leaves room for keys in places that it
// reports as slots; Fill writes the keys of one run into those places of a
// throwaway overlay. No step needs privileges.
package provision

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
)

// Version changes whenever Prepare would make something else of the same
// image: a prepared image is of use only to the version that made it.
const Version = 2

// Guest is what could be found out about an image without booting it.
type Guest struct {
	Family     platform.Family
	Arch       platform.Arch    // empty when unknown
	Drivers    platform.Drivers // empty unless Family is Hurd
	NetDDE     bool             // /hurd/netdde exists: network cards such as e1000 work
	Root       ext2.Partition
	RootUUID   string // of the file system
	HurdFS     bool   // the file system was made for the Hurd: inodes have a translator field
	SSH        SSH
	CloudInit  bool
	Users      []User // who can log in
	Init       Init
	Bootloader Bootloader
	BootConfig string // path of its configuration, empty when none was found
	HasBash    bool
}

// SSH tells which SSH servers an image has.
type SSH struct {
	OpenSSH  bool
	Config   string // path of sshd_config, empty when there is none
	DropIns  bool   // sshd_config begins by including sshd_config.d/*.conf
	Dropbear bool
}

// Any tells whether there is a server at all.
func (s SSH) Any() bool { return s.OpenSSH || s.Dropbear }

// User is an account that a person or program could log in to.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
	Shell    string
}

// Init is the program that starts a guest's services.
type Init string

// The init systems that are recognized.
const (
	Systemd     Init = "systemd"
	SysVInit    Init = "sysvinit"
	Shepherd    Init = "shepherd"
	OpenRC      Init = "openrc"
	Runit       Init = "runit"
	BusyBox     Init = "busybox"
	HurdRC      Init = "runsystem" // the Hurd's own /libexec/runsystem
	UnknownInit Init = "unknown"
)

// Bootloader is a program whose configuration names the kernel.
type Bootloader string

// The boot loaders whose configurations are recognized; only GRUB's is edited.
const (
	GRUB         Bootloader = "grub"
	GRUBLegacy   Bootloader = "grub-legacy"
	Syslinux     Bootloader = "syslinux"
	NoBootloader Bootloader = "none"
)

// User returns the account of that name.
func (g Guest) User(name string) (User, error) {
	i := slices.IndexFunc(g.Users, func(u User) bool { return u.Name == name })
	if i < 0 {
		return User{}, &NoUserError{Name: name, Users: g.Users}
	}
	return g.Users[i], nil
}

// NoUserError says that an image has no account of a name.
type NoUserError struct {
	Name  string
	Users []User // those that it has
}

// Error names the accounts that exist.
func (e *NoUserError) Error() string {
	if len(e.Users) == 0 {
		return fmt.Sprintf("the image has no user %q, and no other that could log in", e.Name)
	}
	var names []string
	for _, u := range e.Users {
		names = append(names, u.Name)
	}
	return fmt.Sprintf("the image has no user %q that could log in: use one of %s", e.Name, strings.Join(names, ", "))
}

// ErrAmbiguousRoot is matched by an *AmbiguousRootError.
var ErrAmbiguousRoot = errors.New("more than one partition could be the root file system")

// AmbiguousRootError names the partitions between which Inspect can't choose.
type AmbiguousRootError struct {
	Image      string
	Candidates []ext2.Partition
	Holds      string // what all of them hold: "/hurd" or "/etc"
}

// Error names the candidates and says what to do.
func (e *AmbiguousRootError) Error() string {
	var parts []string
	for _, p := range e.Candidates {
		parts = append(parts, p.String())
	}
	return fmt.Sprintf("%s: %v: %s each hold %s; give the number of the right one as root-partition",
		e.Image, ErrAmbiguousRoot, strings.Join(parts, " and "), e.Holds)
}

// Is matches ErrAmbiguousRoot.
func (e *AmbiguousRootError) Is(target error) bool { return target == ErrAmbiguousRoot }

// ErrNoRoot is matched by a *NoRootError.
var ErrNoRoot = errors.New("no partition holds a root file system")

// NoRootError names every partition and why it is not a root file system.
type NoRootError struct {
	Image  string
	Looked []string // one entry per partition: which, and why not
}

// Error lists what was looked at.
func (e *NoRootError) Error() string {
	return fmt.Sprintf("%s: %v (an ext2, ext3 or ext4 file system with /hurd or /etc): looked at %s",
		e.Image, ErrNoRoot, strings.Join(e.Looked, "; "))
}

// Is matches ErrNoRoot.
func (e *NoRootError) Is(target error) bool { return target == ErrNoRoot }
