package qemu

import (
	"slices"
	"strconv"
	"strings"
)

// sharedVersion is the machine version that the QEMUs of Debian 12 and 13
// both know: they can load each other's saved machines of it.
const sharedVersion = "7.2"

// versionedPrefix tells what an unversioned name stands for.
func versionedPrefix(alias string) (string, bool) {
	prefix, ok := map[string]string{"pc": "pc-i440fx-", "q35": "pc-q35-"}[alias]
	return prefix, ok
}

// Versioned gives the name with a version for "pc" and "q35": the shared
// version when this QEMU has it, else its newest. Other names, and a QEMU
// without versions, give the name back.
func (f *Features) Versioned(machine string) string {
	prefix, ok := versionedPrefix(machine)
	if !ok {
		return machine
	}
	if f.HasMachine(prefix + sharedVersion) {
		return prefix + sharedVersion
	}
	best, name := []int(nil), machine
	for _, m := range f.Machines {
		text, ok := strings.CutPrefix(m.Name, prefix)
		if !ok {
			continue
		}
		if v, ok := parseVersion(text); ok && slices.Compare(v, best) > 0 {
			best, name = v, m.Name
		}
	}
	return name
}

func parseVersion(text string) ([]int, bool) {
	var version []int
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		version = append(version, n)
	}
	return version, true
}

// busOn is the disk bus of a machine's own controller, or the given one when
// the machine is not known to have one.
func busOn(kind, otherwise string) string {
	switch kind {
	case kindPC:
		return BusIDE
	case kindQ35:
		return BusAHCI
	}
	return otherwise
}
