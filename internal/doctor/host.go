package doctor

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Host is what is looked at, and how. What is nil or empty is not known, and
// the checks that need it say so.
type Host struct {
	Root   fs.FS               // the root file system, for /proc, /sys and /etc; it reads links as well
	Getenv func(string) string // of the process that is to run a guest
	UID    int                 // that process's effective user
	Arch   string              // of the host, as Go calls it
	Now    func() time.Time

	Paths Paths
	Need  Need

	Node     func(path string) (Node, error)
	Space    func(dir string) (Space, error)           // of a file system
	Writable func(dir string) error                    // makes and removes a file
	Socket   func(ctx context.Context, d string) error // makes a socket in a directory, connects to it and removes it
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Listen   func(ctx context.Context, network, address string) (net.Listener, error)
	Program  func(ctx context.Context, name string, arg ...string) (string, error) // what it prints
	Limit    func(resource int) (soft uint64, err error)                           // getrlimit(2)
	CPUs     func() int                                                            // that this process may run on
	Client   *http.Client                                                          // with the proxy that downloads use

	// What the other packages find out.

	Accel     Accel // what is wanted
	KVM       func(context.Context) (KVM, error)
	QEMU      func(context.Context) (QEMU, error)
	Start     func(context.Context) error // starts a machine as a run does, and ends it
	Memory    func() (Memory, error)
	HugePages func() error                                              // whether the guest's memory can be had in huge pages
	DiskMode  func(ctx context.Context, cache, aio string) error        // whether QEMU can use a disk so
	Images    func() ([]Entry, error)                                   // of the image store
	Snapshots func() ([]Entry, error)                                   // of the store of saved machines
	Image     func(context.Context) (string, error)                     // looks at the image that was named; nil: none was
	Downloads func() []Download                                         // that a run may make
	StoreNeed func() units.Bytes                                        // that the image still takes in the store
	Guests    func(context.Context) ([]Guest, error)                    // that run here, and what killed ones have left
	Machine   func(ctx context.Context, socket string) (Machine, error) // asks a monitor
	Explain   func(console string) []string                             // what in a guest's console means that it is lost
}

// Paths are the places that a run uses.
type Paths struct {
	Store     string // of images
	Snapshots string // of saved machines
	Temp      string // of run directories
	Workspace string
	Docker    string // the engine's socket
}

// Need is what the run that is to come takes.
type Need struct {
	Memory units.Bytes // of the guest
	CPUs   int         // of the guest
	Image  string      // its name
}

// Node is what is at a path.
type Node struct {
	Mode fs.FileMode
	GID  int
}

// Space is what is left of a file system.
type Space struct {
	Free   units.Bytes // for this user
	Total  units.Bytes
	Nodes  uint64 // files that can still be made
	Inodes uint64 // files that there can be; 0: the file system has no such limit
	Type   string // "ext4", "tmpfs", "nfs"; empty: not known
}

// Memory is what the host, or the groups that limit this process, has.
type Memory struct {
	Total     units.Bytes
	Available units.Bytes
	Limited   bool // a container's, or a service's, limit
}

// Accel is an accelerator as the input accel has it.
type Accel string

// The accelerators that make a difference here.
const (
	AccelKVM Accel = "kvm" // KVM or nothing
	AccelTCG Accel = "tcg" // KVM is not wanted
)

// KVM is what was found out about it, in the states of package qemu.
type KVM struct {
	State  string
	Reason string
	Device string
}

// The states that a KVM can be in.
const (
	KVMUnasked  = ""
	KVMNotBuilt = "not-built"
	KVMAbsent   = "absent"
	KVMDenied   = "denied"
	KVMBroken   = "broken"
	KVMRefused  = "refused"
	KVMDead     = "dead"
	KVMWorks    = "works"
)

// QEMU is what the installed one can do.
type QEMU struct {
	Path    string
	Version string
	Package string // the distributor's version; empty: not known
	TCG     bool
	Sandbox bool // seccomp
	VNC     bool

	PrivateRAM bool     // memory that several machines share until they write to it
	Shared     bool     // the machine type that saved machines are exchanged in
	Missing    []string // machines and devices of the profiles that it does not have
}

// Entry is something in a store.
type Entry struct {
	Name    string
	Size    units.Bytes
	InUse   bool
	Partial bool   // received in part
	Problem string // why it can't be used; empty: it can
}

// Download is a file that a run may fetch.
type Download struct {
	Name      string
	Addresses []string // where it may be, in the order in which they are tried
	Stored    bool     // it is in the image store
	Wanted    bool     // by a run with the inputs as they are
}

// Guest is a run directory.
type Guest struct {
	Dir    string
	Socket string // of its monitor
	Alive  bool   // somebody listens there
	Serial string // path of the serial log; empty: not known
}

// Machine is what a monitor says.
type Machine struct {
	Version string
	Status  string // "running", "paused", ...
	Ports   []Port // that lead into the guest
}

// Port is one of the host that leads into a guest.
type Port struct {
	Address string // on the host
	Guest   int
}
