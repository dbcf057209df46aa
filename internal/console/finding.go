package console

import (
	"regexp"
	"strings"
)

// Kind names what a line of the console means. The names are stable: they
// appear in outputs and golden files.
type Kind string

// The kinds that programs decide upon; the table in patterns.go has the rest.
const (
	Firmware     Kind = "firmware"        // SeaBIOS is running
	Loader       Kind = "loader"          // GRUB is running
	KernelStart  Kind = "kernel-start"    // GNU Mach or Linux printed its banner
	Bootstrap    Kind = "bootstrap"       // GNU Mach starts a boot module
	Userland     Kind = "userland"        // the system's own start scripts run
	LoginPrompt  Kind = "login-prompt"    // a getty or the Hurd console asks for a name
	MachPanic    Kind = "mach-panic"      // GNU Mach gave up
	MachDebugger Kind = "mach-debugger"   // GNU Mach's kernel debugger waits for commands
	LinuxPanic   Kind = "linux-panic"     // Linux gave up
	Halting      Kind = "halting"         // the system is about to stop for good
	Halted       Kind = "halted"          // the system has stopped; QEMU stays up
	Rebooting    Kind = "rebooting"       // the system starts over
	MemoryFull   Kind = "memory-full"     // no page could be freed
	DiskFull     Kind = "disk-full"       // a write failed for want of space
	ReadOnlyRoot Kind = "read-only-root"  // the root file system can't be written
	NoRoot       Kind = "no-root"         // the root file system can't be mounted
	Fsck         Kind = "fsck"            // the file system check stopped the boot
	TaskDied     Kind = "essential-died"  // a server that the Hurd can't live without ended
	NoBoot       Kind = "no-boot-device"  // the firmware found nothing to boot
	LoaderError  Kind = "loader-error"    // GRUB could not read something that it was told to
	LoaderPrompt Kind = "loader-prompt"   // GRUB waits for commands
	RootIO       Kind = "root-io-error"   // the root disk can't be read
	OutOfMemory  Kind = "process-killed"  // Linux killed a process for memory
	Maintenance  Kind = "emergency-shell" // the boot stopped at a shell for a person
)

// Severity says what a finding means for the run.
type Severity int

// The severities, from good news to bad.
const (
	Milestone Severity = iota // the boot got this far
	Warning                   // something is wrong that may explain a later failure
	Ending                    // the guest stops or starts over: expected only when asked for
	Fatal                     // the guest is dead or stuck until a person helps
)

// String returns the name of the severity.
func (s Severity) String() string {
	names := [...]string{"milestone", "warning", "ending", "fatal"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// A Finding is a line of the console that means something.
type Finding struct {
	Kind     Kind
	Severity Severity
	Line     Line   // where it was seen
	Title    string // what it is, in a few words
	Cause    string // what happened
	Advice   string // what to do about it; empty for milestones
}

// Terminal reports whether the guest can't go on from here: nothing that was
// asked of it before will be answered.
func (f Finding) Terminal() bool { return f.Severity >= Ending }

// A Pattern is one row of the table of findings.
type Pattern struct {
	Kind     Kind
	Severity Severity
	// Match is tried on every complete line (its first scanLimit bytes) that
	// contains Contains, which is there for speed and may be empty. See start for
	// how expressions are anchored.
	Contains string
	Match    *regexp.Regexp
	// Prompt has Match tried on the line in progress as well: a prompt has no
	// line end. Such an expression must not look at what follows the prompt.
	Prompt bool

	Title, Cause, Advice string // see Finding
}

// scanLimit bounds the part of a line in which findings are looked for.
const scanLimit = 1024

// perKind bounds how often one kind is reported; besides, a kind is not
// reported twice in a row. A guest that repeats itself for hours must not fill
// our memory.
const perKind = 16

// lead is what may precede a message on its line: a kernel's messages come in
// the middle of prompts and of the list of boot modules, and Linux puts the time
// before them.
const lead = `^(?:\[ *\d+\.\d+\] |(?:[a-z0-9.-]+ |\(none\) )?login[:>] |start \S+: ?|[#$] )*`

// start compiles an expression that is anchored to where a message begins.
func start(expr string) *regexp.Regexp { return regexp.MustCompile(lead + `(?:` + expr + `)`) }

// A scanner finds the patterns' lines.
type scanner struct {
	patterns []Pattern
	count    map[Kind]int
	prompted map[Kind]bool // kinds already reported for the line in progress
	last     Kind          // the kind reported last
	terminal Finding       // the last terminal one, reported or not
}

func newScanner(patterns []Pattern) *scanner {
	return &scanner{patterns: patterns, count: map[Kind]int{}, prompted: map[Kind]bool{}}
}

// scan returns what the line means; each kind at most once, in the order of
// the table.
func (s *scanner) scan(line Line) []Finding {
	text := line.Text
	if len(text) > scanLimit {
		text = text[:scanLimit]
	}
	var found []Finding
	if strings.TrimSpace(text) != "" {
		for _, p := range s.patterns {
			if line.Partial && !p.Prompt || s.prompted[p.Kind] || !p.matches(text) {
				continue
			}
			s.prompted[p.Kind] = true
			if f := p.finding(line); f.Terminal() {
				s.terminal = f
			}
			if p.Kind == s.last || s.count[p.Kind] == perKind {
				continue
			}
			s.last = p.Kind
			s.count[p.Kind]++
			found = append(found, p.finding(line))
		}
	}
	if !line.Partial {
		clear(s.prompted)
	}
	return found
}

func (p Pattern) matches(text string) bool {
	return strings.Contains(text, p.Contains) && p.Match.MatchString(text)
}

func (p Pattern) finding(line Line) Finding {
	return Finding{Kind: p.Kind, Severity: p.Severity, Line: line, Title: p.Title, Cause: p.Cause, Advice: p.Advice}
}
