// Package qemu starts one virtual machine and owns its process for its whole
// life: it knows which hardware a guest can use (a table of profiles and a
// table of combinations that are known not to work), asks the installed QEMU
// what it can do, decides between KVM and TCG by running a guest of its own,
// writes the command line (a pure function of a Spec), starts QEMU with as few
// rights as possible, and ends it for certain.
package qemu

import (
	"os"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Accel is how the guest's instructions are run.
type Accel string

// The accelerators that QEMU is asked for.
const (
	AccelAuto Accel = "auto" // KVM when it works, TCG otherwise; only ever a wish
	AccelKVM  Accel = "kvm"
	AccelTCG  Accel = "tcg"
)

// Hardware is what the guest sees of its machine.
type Hardware struct {
	Machine  string      // QEMU's machine type, versioned where possible: "pc-q35-7.2"
	CPUModel string      // QEMU's -cpu, with flags if any: "qemu64"
	CPUs     int         // at least 1
	Memory   units.Bytes // a multiple of 1 MiB
	DiskBus  string      // "ide", "ahci", "virtio", "scsi" or "nvme"
	NIC      string      // a QEMU network card: "e1000"; "none" for no network

	// GenerationID has QEMU tell the guest that it was restored, by a number of
	// this start's own: what has Linux (5.18 and later) make new random numbers at
	// once. The Hurd has no driver for it.
	GenerationID bool

	HPET bool // GNU Mach panics without one on machines that may have one
}

// Spec is everything that decides QEMU's command line. Descriptors are numbers
// in QEMU, so that Args stays a pure function; Start fills in those that are
// zero. Descriptor 0 is never used for anything.
type Spec struct {
	Name string // shown in the process list and to the tools; empty means "guest"
	Hardware
	Accel    Accel // AccelKVM or AccelTCG
	KVMFD    int   // an open /dev/kvm for QEMU to use; 0 lets QEMU open it
	Disks    []Disk
	Kernel   Blob   // booted directly, by multiboot or as a Linux kernel, instead of a disk
	Initrd   Blob   // with Kernel only; multiboot: the modules
	Append   string // the kernel's command line
	Firmware Blob   // instead of SeaBIOS
	RAM      *RAM   // nil: anonymous memory

	// HugePage is the size of the host's huge pages to back the guest's memory
	// with, where RAM is nil; 0: ordinary pages.
	HugePage units.Bytes

	Forwards []Forward // ports of the host that lead to the guest
	Isolated bool      // the guest reaches nothing but what is forwarded to it
	Incoming string    // -incoming, "defer" to wait for the monitor's migrate-incoming
	Paused   bool      // do not start the processor until the monitor's cont

	VNC       bool     // ShowVNC can show the screen (Features.VNC)
	DebugExit bool     // an isa-debug-exit port at 0xf4: a guest write of n ends QEMU with status 2n+1
	NoSandbox bool     // for a QEMU built without seccomp
	DropUser  *Drop    // QEMU itself changes to another user, after it has opened KVM
	Trace     string   // items of -d, for StartOptions.Trace; empty: none
	Extra     []string // more arguments, last

	SecondSerial bool // the guest has a second serial line (com1, ttyS1)

	PacketsFD int // a pipe: the beginning of every frame that passes the network card
	TraceFD   int // a pipe that QEMU opens once more through /proc: its log of Trace
	SerialFD  int // a connected socket: the first serial line
	Serial2FD int // a connected socket: the second serial line
	MonitorFD int // a connected socket: our QMP monitor
	ToolsFD   int // a listening socket: the QMP monitor for tools
}

// Drop makes QEMU change its own user when it has opened all it needs.
type Drop struct {
	User    User
	RunWith bool // -run-with user=, where -runas is gone (QEMU 10)
}

// Disk is one drive of the guest.
type Disk struct {
	Image    Image // what the guest reads, and writes unless ReadOnly
	ReadOnly bool
	CDROM    bool  // an optical drive, on the machine's own controller whatever the bus of the disks is; implies ReadOnly
	Cache    Cache // "" is CacheUnsafe, which a throwaway overlay does not mind
	AIO      AIO   // "" is AIOThreads
}

// Image is a file that holds a disk.
type Image struct {
	Path   string // opened by Start and passed on, when FD is 0; QEMU never opens a path of ours
	Format string // "raw", "qcow2", "vmdk", "vdi", ...; never guessed
	FD     int    // the descriptor in QEMU, opened read-write if it is to be written, else read-only
	Base   *Image // what lies below a qcow2 image; never written

	// Connect makes a connection to an NBD server, which has the contents
	// instead of a file: Path is not used. Start calls it once, and gives what
	// it returns to QEMU. Only an image that is not written can have one.
	Connect func() (*os.File, error)
}

// RAM is a file that holds the guest's memory, so that a machine can be saved
// without copying what it holds, and loaded without reading it. It is as large
// as the memory, with holes where the guest has written nothing.
type RAM struct {
	Path string // opened by Start and passed on, when FD is 0; the file's mode must let QEMU's user in
	FD   int    // the descriptor in QEMU, which opens it once more through /proc

	// Shared lets the guest's writes go to the file, as a machine that is to be
	// saved needs it. Otherwise they stay private to this QEMU, and any number
	// of machines can start from one file.
	Shared bool

	// ReadOnly opens the file for reading only, where the guest's writes are
	// private: QEMU 8.2 and later (Features.PrivateRAM).
	ReadOnly bool
}

// Blob is a file that QEMU reads once at its start. Start copies it into
// anonymous memory, so that it need not be readable by QEMU's user.
type Blob struct {
	Path string // opened by Start, when FD is 0
	Data []byte // the contents, when FD is 0 and Path is empty
	FD   int    // the descriptor in QEMU
}

func (b Blob) isSet() bool { return b.FD != 0 || b.Path != "" || b.Data != nil }
