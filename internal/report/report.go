// Package report makes of all that is known of a run what people read
// afterwards: the job summary, in GitHub's Markdown, and an HTML page of its
// own with the serial log and the resource curves.
//
// Much of what it shows comes from a guest and is hostile: no text of a Report
// can become markup, a link or a picture, and everything is bounded.
package report

import (
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Report is what is known of a run. Its zero value, and any part of it that is
// not known, is left out of what is made of it. Times are offsets from the
// beginning of the run.
type Report struct {
	Result     string   // as the output result has it: "success", "boot-failed", ...; empty: not known
	Title      string   // of the end, in a few words; empty: what Result means
	Cause      string   // of a failure, in a sentence or two
	Advice     []string // what to do about it, one sentence each
	ExitStatus int      // of the step
	Script     *Script  // nil: it did not run, or came to no end of its own
	Began      time.Time
	Took       time.Duration // the whole run

	Accel       string // "kvm" or "tcg"
	AccelReason string
	Phases      []Phase
	Attempts    int           // machines booted
	Boot        time.Duration // start of QEMU until a command had run over SSH
	BootPhases  []Phase       // of which, what could be told apart; offsets from the start of QEMU, failed is where it ended
	SSH         time.Duration // of which the connection that succeeded
	Run         time.Duration // the script
	Uname       string        // of the guest, from the guest
	Image       Image
	Machine     Machine
	Usage       Usage
	Benchmark   *Benchmark // nil: the script was to run once
	Snapshot    string     // its state in words: "restored", "saved", ...
	CopyIn      *Copy      // nil: nothing was
	CopyBack    *Copy

	Findings []Finding // in the order of the console
	Errors   int       // diagnostics of compilers in the script's output
	Warnings int
	Hints    []Hint
	Links    []Link
	Samples  []Sample
	Serial   []Line // the console's lines, complete as far as they are known
	Lost     int    // lines before the first of Serial that are not known

	Screenshot []byte // PNG; what is none is left out
	Version    string // of this action
	Inputs     []Input
}

// Script is how the script ended by itself.
type Script struct {
	Status int
	Signal string // "SEGV"; empty: it was not killed
}

// Phase is a part of the run.
type Phase struct {
	Name   string
	Start  time.Duration
	Took   time.Duration
	Note   string // what came of it, in a few words
	Failed bool   // the run ended in it
}

// Image is what was booted.
type Image struct {
	Name   string
	Digest string // "sha256:..."
}

// Machine is the hardware that the guest saw.
type Machine struct {
	Type     string // "q35", "pc-i440fx-7.2"
	CPUModel string
	CPUs     int
	Memory   units.Bytes
	Bus      string // of the disks
	NIC      string
}

// Usage is what the run used in all.
type Usage struct {
	Peak     units.Bytes   // host memory of the QEMU process
	Own      units.Bytes   // host memory of this program
	CPU      time.Duration // of the QEMU process
	GuestCPU time.Duration // of which the guest's processors
	Read     units.Bytes   // by the guest from its disks
	Written  units.Bytes
	Overlay  units.Bytes // size of the file that holds what the guest has written
	Disk     units.Bytes // size of the disk for the guest
	Image    units.Bytes // what its image takes of the host's disk
	Sent     units.Bytes // over this program's SSH connections to the guest
	Received units.Bytes
	NetSent  units.Bytes // by the guest, through its network card
	NetGot   units.Bytes // as above, received
}

// Copy is a transfer of the workspace in one direction.
type Copy struct {
	Files    int
	Size     units.Bytes
	Took     time.Duration
	Warnings []string
}

// Severity says what a finding means for the run.
type Severity string

// The severities, from good news to bad.
const (
	Milestone Severity = "milestone" // the boot got this far
	Warning   Severity = "warning"   // may explain a later failure
	Ending    Severity = "ending"    // the guest stopped or started over
	Fatal     Severity = "fatal"     // the guest was dead or stuck
)

// known is the severity itself, or Warning for a word that is none: the pages
// have looks for these four.
func (s Severity) known() Severity {
	switch s {
	case Milestone, Warning, Ending, Fatal:
		return s
	}
	return Warning
}

// Finding is a line of the console that means something.
type Finding struct {
	At       time.Duration
	Kind     string // "mach-panic", ...
	Severity Severity
	Title    string // what it is, in a few words
	Line     string // as in Serial
}

// Hint is what there is to know about porting to the guest's system.
type Hint struct {
	Text string
	URL  string // where to read on; https
}

// Link is a file that was kept. A URL that is neither https nor a plain
// relative path is not made a link of; a relative one only in the HTML page,
// which lies beside the files.
type Link struct {
	Name string
	URL  string
}

// Sample is what the machine had used up to a moment. A value that is less
// than the one before belongs to another machine.
type Sample struct {
	At       time.Duration
	CPU      time.Duration // of the QEMU process
	Resident units.Bytes   // its memory at that moment
	Read     units.Bytes
	Written  units.Bytes
}

// Line is one line of the serial console.
type Line struct {
	At   time.Duration
	Text string
}

// Input is an input that differs from its default. The value of a secret one
// is never shown, and should not be given.
type Input struct {
	Name   string
	Value  string
	Secret bool
}

// failed tells whether the run ended otherwise than it should.
func (r Report) failed() bool { return r.Result != "success" && r.Result != "" }

// ofGuest tells whether the guest's console says something about the failure,
// rather than the script's output.
func (r Report) ofGuest() bool {
	switch r.Result {
	case "boot-failed", "guest-lost", "timeout", "internal-error", "canceled":
		return true
	}
	return false
}

// titles say what the results mean.
var titles = map[string]string{
	"success":         "The script succeeded",
	"script-failed":   "The script failed",
	"script-signaled": "The script was killed",
	"timeout":         "Timeout",
	"canceled":        "Canceled",
	"guest-lost":      "The guest was lost",
	"boot-failed":     "The guest did not boot",
	"image-failed":    "No image to boot",
	"service-failed":  "A service failed",
	"input-invalid":   "Invalid input",
	"internal-error":  "Internal error",
}

// headline is the end in a few words.
func (r Report) headline() string {
	if title := clean(r.Title, 200); title != "" {
		return title
	}
	if title := titles[r.Result]; title != "" {
		return title
	}
	return "How the run ended is not known"
}

// mark is the symbol of the end, which words say as well.
func (r Report) mark() string {
	switch r.Result {
	case "success":
		return "✅"
	case "canceled", "":
		return "⚪"
	}
	return "❌"
}
