package qemu

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Request is a machine to be checked before it is built.
type Request struct {
	Guest    Guest
	Hardware Hardware
	Accel    Accel     // AccelKVM or AccelTCG
	Features *Features // nil skips what depends on the installed QEMU
	Host     Memory    // zero skips what depends on the host's memory
}

// Warning is a choice that works badly.
type Warning struct {
	Input   string // the input to blame: "memory", "nic", ...
	Value   string // what it was
	Message string // why it is bad, and what is better
}

// String gives the whole warning in one line.
func (w Warning) String() string { return fmt.Sprintf("%s: %s: %s", w.Input, w.Value, w.Message) }

// RefusedError is a choice that cannot work.
type RefusedError Warning

// Error gives the whole refusal in one line.
func (e *RefusedError) Error() string { return Warning(*e).String() }

// Check compares a machine with what is known not to work. All problems are
// reported, each once: the error, if any, joins one *RefusedError for each.
func Check(q Request) ([]Warning, error) {
	return q.report(q.findings())
}

// CheckNames finds the names that a QEMU does not know among the user's own
// choices of machine, cpu-model, disk-bus and nic. It needs no guest, so that
// a misspelling is reported before an image is fetched; Check finds all of
// these again. All problems are reported, as Check does it. Whether the
// processor model "host" can be had is left to Check, which knows the
// accelerator. Without Features nothing is checked.
func CheckNames(o Overrides, f *Features) error {
	if f == nil {
		return nil
	}
	q := Request{Hardware: Hardware{Machine: f.Versioned(o.Machine), CPUModel: o.CPUModel, DiskBus: o.DiskBus, NIC: o.NIC}}
	chosen := slices.DeleteFunc(q.nameFindings(f), func(n finding) bool { return q.value(n.input) == "" })
	_, err := q.report(chosen)
	return err
}

// report sorts what was found.
func (q Request) report(found []finding) ([]Warning, error) {
	var warnings []Warning
	var refused []error
	for _, f := range found {
		if f.refuse {
			refused = append(refused, &RefusedError{f.input, q.value(f.input), f.message})
		} else {
			warnings = append(warnings, Warning{f.input, q.value(f.input), f.message})
		}
	}
	return warnings, errors.Join(refused...)
}

// Refusals takes the error of Check apart.
func Refusals(err error) []*RefusedError {
	var all []*RefusedError
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			all = append(all, Refusals(e)...)
		}
		return all
	}
	var one *RefusedError
	if errors.As(err, &one) {
		all = append(all, one)
	}
	return all
}

// finding is a rule's verdict on one machine.
type finding struct {
	refuse  bool
	input   string
	message string
}

func (q Request) findings() []finding {
	found := q.plainMistakes()
	for _, r := range rules() {
		if r.applies(q) {
			found = append(found, finding{r.refuse, r.input, r.message})
		}
	}
	found = append(found, q.hostFindings()...)
	if q.Features != nil {
		found = append(found, q.featureFindings(q.Features)...)
	}
	return found
}

// value is what a user gave, or could have given, for an input.
func (q Request) value(input string) string {
	h := q.Hardware
	switch input {
	case "machine":
		return h.Machine
	case "cpu-model":
		return h.CPUModel
	case "disk-bus":
		return h.DiskBus
	case "nic":
		return h.NIC
	case "cpus":
		return strconv.Itoa(h.CPUs)
	case "memory":
		return h.Memory.String()
	case "accel":
		return string(q.Accel)
	}
	return ""
}

// minMemory is what the smallest guest that anyone runs here needs.
const minMemory = 32 * units.MiB

func (q Request) plainMistakes() []finding {
	var found []finding
	h := q.Hardware
	if h.CPUs < 1 {
		found = append(found, finding{true, "cpus", "a machine has at least one processor: use 1"})
	}
	if h.Memory < minMemory {
		found = append(found, finding{true, "memory", "no guest boots in less than " + minMemory.String() + ": 2G is the default"})
	} else if h.Memory%units.MiB != 0 {
		found = append(found, finding{true, "memory", "QEMU takes whole MiB only: use a multiple of 1M"})
	}
	return found
}

func (q Request) hostFindings() []finding {
	h := q.Hardware
	switch {
	case q.Host.Total > 0 && h.Memory > q.Host.Total:
		return []finding{{true, "memory", fmt.Sprintf("this host has only %s%s: ask for less, or use a larger runner",
			q.Host.Total.Human(), q.Host.limitText())}}
	case q.Host.Available > 0 && h.Memory > q.Host.Available:
		return []finding{{false, "memory", fmt.Sprintf("only %s of the host's %s are free%s: QEMU may be killed when the guest uses all of it",
			q.Host.Available.Human(), q.Host.Total.Human(), q.Host.limitText())}}
	}
	return nil
}

func (q Request) featureFindings(f *Features) []finding {
	found := q.nameFindings(f)
	if (q.Accel == AccelKVM && !f.KVM) || (q.Accel == AccelTCG && !f.TCG) {
		found = append(found, finding{true, "accel", fmt.Sprintf("this QEMU (%s) was built without it", f.Version)})
	}
	return found
}

// nameFindings are the names that a QEMU does not know. Without an
// accelerator, the processor model "host" counts as known.
func (q Request) nameFindings(f *Features) []finding {
	var found []finding
	h := q.Hardware
	unknown := func(input, what string, known []string, otherwise string) {
		message := fmt.Sprintf("QEMU %s knows no such %s", f.Version, what)
		found = append(found, finding{true, input, message + cmp.Or(suggestion(q.value(input), known), otherwise)})
	}
	if !f.HasMachine(h.Machine) {
		unknown("machine", "machine", f.machineNames(), f.usualMachines())
	}
	model, _, _ := strings.Cut(h.CPUModel, ",")
	switch {
	case h.CPUModel == "host" && q.Accel == AccelTCG:
		found = append(found, finding{true, "cpu-model", "the host's processor is only there under KVM, and this run uses TCG: use qemu64 or max"})
	case model == "host" && q.Accel == "":
	case !f.HasCPU(h.CPUModel):
		unknown("cpu-model", "processor model", f.CPUModels, "")
	}
	if known := f.knownNICs(); h.NIC != NoNIC && !slices.Contains(known, h.NIC) {
		unknown("nic", "network card", known, "")
	}
	return append(found, q.busFindings(f)...)
}

func (q Request) busFindings(f *Features) []finding {
	devices, ok := bus(q.Hardware.DiskBus)
	if !ok {
		return []finding{{true, "disk-bus", "there is no such disk bus: use ahci, ide, virtio, scsi or nvme"}}
	}
	for _, device := range []string{devices.drive, devices.controller} {
		if device != "" && !f.HasDevice(device) {
			return []finding{{true, "disk-bus", fmt.Sprintf("QEMU %s was built without the device %s that it needs", f.Version, device)}}
		}
	}
	return nil
}
