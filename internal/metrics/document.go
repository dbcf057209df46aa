// Package metrics makes numbers of a run: how long the parts of its boot took,
// what it used, and what a benchmark measured, as JSON and as OpenMetrics text.
// Values come in, documents go out; it measures nothing itself.
//
// Times are seconds and sizes are bytes, as the names say. What is not known is
// left out, so that a 0 is a measured one.
package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Schema names the format of Run's document. A field may be added to it; when
// one changes its meaning or goes away, the number at its end grows.
const Schema = "hurd-qemu-action/metrics/1"

// Seconds is a duration as the documents write it: 12.345678.
type Seconds time.Duration

// MarshalJSON writes a plain decimal number.
func (s Seconds) MarshalJSON() ([]byte, error) { return []byte(s.text()), nil }

// UnmarshalJSON reads any number.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(string(data), 64)
	if limit := math.MaxInt64 / float64(time.Second); err != nil || !(math.Abs(f) < limit) {
		return fmt.Errorf("%s is no number of seconds", data)
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}

// text has microseconds, which is more than any of these times is exact to.
func (s Seconds) text() string {
	return strconv.FormatFloat(math.Round(time.Duration(s).Seconds()*1e6)/1e6, 'f', -1, 64)
}

// Run is what is known of a run.
type Run struct {
	Schema   string    `json:"schema"` // see Schema; JSON sets it
	Version  string    `json:"action_version,omitempty"`
	Began    time.Time `json:"began"` // of the host's clock
	Result   string    `json:"result"`
	ExitCode int       `json:"exit_code"`
	Took     Seconds   `json:"run_seconds"`              // from the beginning until these numbers were put together
	Script   *Seconds  `json:"script_seconds,omitempty"` // of a benchmark all repetitions together

	Machine   *Machine    `json:"machine,omitempty"`
	Image     *Image      `json:"image,omitempty"`
	Boot      *BootTimes  `json:"boot,omitempty"`
	Steps     []Step      `json:"steps"` // of the run, in order
	Usage     *Usage      `json:"usage,omitempty"`
	Action    *Process    `json:"action,omitempty"`
	Files     []File      `json:"files,omitempty"`
	Network   *Network    `json:"network,omitempty"`
	Traffic   *Traffic    `json:"guest_network,omitempty"`
	Workspace *Workspace  `json:"workspace,omitempty"`
	Snapshot  *Snapshot   `json:"snapshot,omitempty"`
	Benchmark *Repetition `json:"benchmark,omitempty"`

	// Collecting is what measuring the run has cost it: the last questions to
	// QEMU and the host, and making these documents.
	Collecting Seconds `json:"collecting_seconds"`
}

// Machine is what the guest ran on. It has all that decides whether times of
// two runs can be compared.
type Machine struct {
	Accel    string      `json:"accel"` // kvm or tcg
	QEMU     string      `json:"qemu_version,omitempty"`
	HostCPU  string      `json:"host_cpu_model,omitempty"`
	HostCPUs int         `json:"host_cpus,omitempty"` // that this program may use
	Type     string      `json:"machine,omitempty"`
	CPUModel string      `json:"cpu_model,omitempty"`
	CPUs     int         `json:"cpus,omitempty"`
	Memory   units.Bytes `json:"memory_bytes,omitempty"`
	DiskBus  string      `json:"disk_bus,omitempty"`
	NIC      string      `json:"nic,omitempty"`
	Uname    string      `json:"guest_uname,omitempty"` // what the guest says of itself
}

// Image is what was booted.
type Image struct {
	Name   string `json:"name"`
	Digest string `json:"digest,omitempty"` // algorithm:hex
}

// BootTimes is how the machine of a run came up; of several, the last.
type BootTimes struct {
	Start    string      `json:"start"` // "cold" or "restored"
	Attempts int         `json:"attempts"`
	Total    *Seconds    `json:"seconds,omitempty"`     // from the start of QEMU until a command had run
	Login    *Seconds    `json:"ssh_seconds,omitempty"` // of which the connection that succeeded, its wait for an answer included
	Phases   []BootPhase `json:"phases"`                // those that could be told apart
}

// BootPhase is a part of the boot.
type BootPhase struct {
	Name     PhaseName `json:"name"`
	Start    Seconds   `json:"start_seconds"` // since the start of QEMU
	Took     Seconds   `json:"seconds"`
	Complete bool      `json:"complete"` // false: the boot ended, or was given up, in it
	Began    string    `json:"began_with"`
	Ended    string    `json:"ended_with,omitempty"`
}

// BootPhases puts phases into a document.
func BootPhases(phases []Phase) []BootPhase {
	list := make([]BootPhase, len(phases))
	for i, p := range phases {
		list[i] = BootPhase{p.Name, Seconds(p.Start), Seconds(p.Took), p.Complete, p.Began, p.Ended}
	}
	return list
}

// Step is a step of the run.
type Step struct {
	Name   string  `json:"name"`
	Start  Seconds `json:"start_seconds"` // since the run began
	Took   Seconds `json:"seconds"`
	Failed bool    `json:"failed,omitempty"`
}

// Usage is what the machine had used up to a moment; of several machines, the
// last, but for the peak, which is that of all.
type Usage struct {
	At       Seconds     `json:"at_seconds"`        // the moment, since the start of QEMU
	GuestCPU Seconds     `json:"guest_cpu_seconds"` // of the threads that run the guest's processors; with TCG, translating its code is in it
	QEMUCPU  Seconds     `json:"qemu_cpu_seconds"`  // of the whole process, these threads included
	Peak     units.Bytes `json:"qemu_peak_resident_bytes"`
	Read     units.Bytes `json:"disk_read_bytes"` // by the guest, from all its disks
	Written  units.Bytes `json:"disk_written_bytes"`
}

// Process is this program itself, with all the guests that it runs at once.
type Process struct {
	Peak units.Bytes `json:"peak_resident_bytes"`
}

// File is a disk of the guest as the host has it.
type File struct {
	Name      string      `json:"name"`                    // "image" (below all overlays), "overlay" (what this guest has written), "workspace"
	Virtual   units.Bytes `json:"virtual_bytes,omitempty"` // its size for the guest
	Allocated units.Bytes `json:"allocated_bytes"`         // what it takes of the host's disk
}

// Traffic is what has passed the guest's network card, in frames with their
// headers: all that the guest does on the network, our SSH connections included.
type Traffic struct {
	Sent           units.Bytes `json:"sent_bytes"` // by the guest
	Received       units.Bytes `json:"received_bytes"`
	SentFrames     int64       `json:"sent_frames"`
	ReceivedFrames int64       `json:"received_frames"`
}

// Network is what of it were this program's own SSH connections to the guest:
// bytes, encrypted.
type Network struct {
	Connections int         `json:"ssh_connections"` // in which a command has run
	Sent        units.Bytes `json:"ssh_sent_bytes"`  // to the guest
	Received    units.Bytes `json:"ssh_received_bytes"`
}

// Workspace is what of the workspace went into the guest and came back.
type Workspace struct {
	Way       string      `json:"way"` // "disk" or "tar"
	InFiles   int         `json:"in_files"`
	InBytes   units.Bytes `json:"in_bytes"` // of the files' contents
	BackFiles int         `json:"back_files"`
	BackBytes units.Bytes `json:"back_bytes"`
}

// Snapshot is what was moved for a saved machine.
type Snapshot struct {
	State      string      `json:"state"`                      // as the output snapshot has it
	Saved      units.Bytes `json:"saved_bytes,omitempty"`      // without zeros
	Restored   units.Bytes `json:"restored_bytes,omitempty"`   // as above
	Downloaded units.Bytes `json:"downloaded_bytes,omitempty"` // from the job's cache or a registry
	Uploaded   units.Bytes `json:"uploaded_bytes,omitempty"`
}

// JSON writes the document.
func (r Run) JSON() ([]byte, error) {
	r.Schema = Schema
	if r.Steps == nil {
		r.Steps = []Step{}
	}
	if r.Boot != nil && r.Boot.Phases == nil {
		boot := *r.Boot
		boot.Phases = []BootPhase{}
		r.Boot = &boot
	}
	return encode(r)
}

func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the metrics: %w", err)
	}
	return append(data, '\n'), nil
}

// Known gives a pointer to a duration that was measured.
func Known(d time.Duration) *Seconds {
	if d <= 0 {
		return nil
	}
	s := Seconds(d)
	return &s
}
