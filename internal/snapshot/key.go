package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/org/hurd-qemu-action/internal/units"
)

// The accelerators that a machine is saved and restored under.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// Key is everything that decides whether a saved machine may be used in place
// of one that is booted. Two machines with equal keys are interchangeable; a
// field that is left empty is equal to nothing but an empty one.
type Key struct {
	// QEMU is its version, "7.2.22", and Binary the program's name. QEMU 7.2 and
	// 10.0 do load each other's machines when the machine type is pinned, but
	// that was seen with one guest, and x-ignore-shared is an experiment: only
	// the same version is trusted.
	QEMU   string `json:"qemu"`
	Binary string `json:"binary"`

	Machine  string      `json:"machine"` // versioned: "pc-i440fx-7.2"
	CPUModel string      `json:"cpuModel"`
	CPUs     int         `json:"cpus"`
	Memory   units.Bytes `json:"memory"`
	DiskBus  string      `json:"diskBus"`
	NIC      string      `json:"nic"`
	HPET     bool        `json:"hpet"`

	// Disks are the virtual sizes of all drives, in their order; another drive
	// of the same size may be put in place of one that was not mounted.
	Disks    []units.Bytes `json:"disks"`
	Forwards []int         `json:"forwards"` // guest TCP ports
	Isolated bool          `json:"isolated"`

	// Layout is whatever else decides how the machine is put together, for
	// example a digest of QEMU's arguments without what differs in each run.
	Layout string `json:"layout"`

	// Accel is what the machine is saved under; see Usable.
	Accel string `json:"accel"`

	// HostCPU names the host's processor when the guest sees it: with KVM and
	// the CPU models host and max. Otherwise it does not count.
	HostCPU string `json:"hostCPU,omitempty"`

	Base      string `json:"base"`      // digest of the image below the overlay
	Provision string `json:"provision"` // what was put into it before its boot, and by which version
	Prepare   string `json:"prepare"`   // digest of the prepare script and what it sees; "" for none
	User      string `json:"user"`      // who logs in
}

// part is a field of a key as people read it.
type part struct{ name, value string }

// parts lists what counts in a key, in an order that never changes: strings of
// keys are made from it.
func (k Key) parts() []part {
	return []part{
		{"QEMU", k.QEMU}, {"QEMU's program", k.Binary},
		{"machine type", k.Machine}, {"CPU model", k.CPUModel}, {"number of CPUs", fmt.Sprint(k.CPUs)},
		{"memory", k.Memory.String()}, {"disk bus", k.DiskBus}, {"network card", k.NIC}, {"HPET", onOff(k.HPET)},
		{"disk sizes", join(k.Disks)}, {"forwarded ports", join(k.Forwards)}, {"isolation", onOff(k.Isolated)},
		{"layout", k.Layout}, {"accelerator", k.Accel}, {"host CPU", k.hostCPU()},
		{"base image", k.Base}, {"provisioning", k.Provision}, {"prepare script", k.Prepare}, {"user", k.User},
	}
}

// hostCPU is the host's processor where the guest sees it.
func (k Key) hostCPU() string {
	if model, _, _ := strings.Cut(k.CPUModel, ","); k.Accel == KVM && (model == "host" || model == "max") {
		return k.HostCPU
	}
	return ""
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func join[T any](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, "+")
}

// Prefix begins every string of a key.
const Prefix = "hurd-qemu-action-snapshot"

// keyDigits is how much of a key's digest is in its string: 128 bits.
const keyDigits = 32

// String is the key's name in stores and caches: a few words for people, then
// a digest of all that counts. It has no more than 100 characters, all of them
// letters, digits, dots and dashes, and is the same in every version of this
// program with the same Format.
func (k Key) String() string {
	// JSON frames the values, so that no two lists of them look alike.
	values := []string{fmt.Sprint(Format)}
	for _, p := range k.parts() {
		values = append(values, p.value)
	}
	data, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings always encode
	}
	sum := sha256.Sum256(data)
	words := []string{Prefix, fmt.Sprintf("v%d", Format), word(k.Machine, 24), word(k.Accel, 4), hex.EncodeToString(sum[:])[:keyDigits]}
	return strings.Join(words, "-")
}

// word keeps what may be in a file's name and in a key of the Actions cache,
// which knows no commas.
func word(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, text)
	return cmp.Or(text[:min(len(text), limit)], "none")
}

// validName tells whether a name can be that of an entry: what Key.String
// makes, and nothing that leads out of the store.
func validName(name string) bool {
	return strings.HasPrefix(name, Prefix+"-v") && len(name) <= 100 &&
		!strings.ContainsFunc(name, func(r rune) bool { return word(string(r), 1) != string(r) && r != '-' })
}

// Usable lists the keys of the saved machines that may be used where k is
// wanted, the best first. A machine that was saved under TCG also runs under
// KVM, unless it sees the host's processor; one that was saved under KVM does
// not run under TCG, which lacks its clock.
func (k Key) Usable() []Key {
	usable := []Key{k}
	if model, _, _ := strings.Cut(k.CPUModel, ","); k.Accel == KVM && model != "host" && model != "max" {
		k.Accel, k.HostCPU = TCG, ""
		usable = append(usable, k)
	}
	return usable
}

// Difference is one thing in which a saved machine is not what is wanted.
type Difference struct{ What, Saved, Wanted string }

// IncompatibleError says in what a saved machine differs. It is ErrIncompatible.
type IncompatibleError struct{ Differences []Difference }

func (e *IncompatibleError) Error() string {
	texts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		texts[i] = fmt.Sprintf("its %s is %s, wanted is %s", d.What, shown(d.Saved), shown(d.Wanted))
	}
	return ErrIncompatible.Error() + ": " + strings.Join(texts, "; ")
}

// shownLength bounds a value in a message: it may come from a stranger's file.
const shownLength = 100

func shown(value string) string {
	if len(value) > shownLength {
		value = value[:shownLength] + "..."
	}
	return fmt.Sprintf("%q", value)
}

// printableLength bounds what Printable returns, in characters.
const printableLength = 300

// Printable makes one printable line of a text that may come from a stranger's
// file. What is longer than any such text of ours is cut.
func Printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), 4*printableLength+1)], "?"))
	if r := []rune(text); len(r) > printableLength {
		text = string(r[:printableLength]) + "..."
	}
	return text
}

// Is makes the error ErrIncompatible.
func (*IncompatibleError) Is(target error) bool { return target == ErrIncompatible }

// Compatible returns nil when a machine that was saved under a key may be used
// where another one is wanted, and else an IncompatibleError.
func Compatible(saved, wanted Key) error {
	var least *IncompatibleError
	for _, k := range wanted.Usable() {
		d := differences(saved, k)
		if len(d) == 0 {
			return nil
		}
		if least == nil || len(d) < len(least.Differences) {
			least = &IncompatibleError{d}
		}
	}
	return least
}

func differences(saved, wanted Key) []Difference {
	var all []Difference
	have, want := saved.parts(), wanted.parts()
	for i := range have {
		if have[i] != want[i] {
			all = append(all, Difference{have[i].name, have[i].value, want[i].value})
		}
	}
	return all
}

// Explain describes a key in lines of "what: value", for logs and reports. The
// key may be a stranger's.
func (k Key) Explain() []string {
	var lines []string
	for _, p := range k.parts() {
		if p.value != "" {
			lines = append(lines, p.name+": "+Printable(p.value))
		}
	}
	return slices.Clip(lines)
}
