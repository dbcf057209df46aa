package metrics

import (
	"regexp"
	"strings"
)

// PhaseName is a part of a boot.
type PhaseName string

// The phases, in order.
const (
	Firmware PhaseName = "firmware" // from the start of QEMU
	Loader   PhaseName = "loader"   // GRUB, or what unpacks the kernel
	Kernel   PhaseName = "kernel"   // from its banner
	Userland PhaseName = "userland" // from the first program; on GNU Mach that is the first boot module, a driver or the root file system
	SSH      PhaseName = "ssh"      // from the first word of an SSH server until a command has run
)

// order are all phases, by the time of their beginning.
var order = []PhaseName{Firmware, Loader, Kernel, Userland, SSH}

// System is whose message a mark is.
type System string

// The systems whose boots are known. A mark of none belongs to all.
const (
	Mach  System = "GNU Mach"
	Linux System = "Linux"
)

// A Mark is what a line of the console says about how far a boot has come.
type Mark struct {
	Begins PhaseName
	System System // counts only when no other system's kernel has shown its banner
	Name   string // what was seen, for people

	// Match is tried on lines that contain Contains, which is there for speed. A line
	// may still be written, so nothing may be asserted about its end.
	Contains string
	Match    *regexp.Regexp
}

func (m Mark) in(line string) bool {
	return strings.Contains(line, m.Contains) && m.Match.MatchString(line)
}

// A message may follow Linux's time, or a prompt or a list of boot modules that
// a kernel's message interrupts.
const lead = `^(?:\[ *\d+\.\d+\] |start \S+: ?)*`

func mark(begins PhaseName, system System, name, contains, expr string) Mark {
	return Mark{begins, system, name, contains, regexp.MustCompile(expr)}
}

// Marks is the table of what lines begin a phase. A new one is one more row here
// and a line of a log in the tests. A line that SeaBIOS prints before it tries a
// disk is none: the disk may have no loader.
func Marks() []Mark {
	return []Mark{
		mark(Loader, "", "GRUB", "GRUB", `^\s*(?:GRUB loading|Welcome to GRUB!|GNU GRUB  version \d)`),
		mark(Loader, "", "GRUB's boot entry", "Booting ", "^\\s*Booting [`'‘]"),
		mark(Loader, "", "SYSLINUX", "LINUX ", `^\s*(?:ISO|SYS|EXT|PXE)LINUX \d`),
		mark(Loader, Linux, "Linux's early console", "early console in", `^early console in \S`),
		mark(Loader, Linux, "the unpacking of Linux", "Decompressing Linux", `^Decompressing Linux\.\.\.`),

		mark(Kernel, Mach, "GNU Mach's banner", "GNU Mach ", lead+`GNU Mach \d`),
		mark(Kernel, Linux, "Linux's banner", "Linux version", lead+`Linux version \d`),

		mark(Userland, Mach, "GNU Mach's first boot module", "start ", `^start [\w./-]+:`),
		mark(Userland, Mach, "the Hurd's server bootstrap", "server bootstrap", `\bHurd server bootstrap: `),
		mark(Userland, Mach, "the Hurd's runsystem", "runsystem: ", lead+`runsystem: `),
		mark(Userland, Mach, "the Hurd's start script", "rc: ", lead+`rc: `),
		mark(Userland, Linux, "Linux's first program", "as init process", lead+`Run /\S+ as init process`),
		mark(Userland, Linux, "systemd", "systemd[1]: ", lead+`systemd\[1\]: `),
		mark(Userland, "", "sysvinit", "INIT: version", lead+`INIT: version \d`),
	}
}
