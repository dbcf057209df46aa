package qemu

import (
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/spelling"
)

// machineNames are the names, aliases too, of the machines that are built here.
func (f *Features) machineNames() []string {
	var names []string
	for _, m := range f.Machines {
		if machineKind(m.Name) == kindOther {
			continue
		}
		names = append(names, m.Name)
		if m.Alias != "" {
			names = append(names, m.Alias)
		}
	}
	return names
}

// usualMachines completes an error about a name that looks like no other with
// the machines that are built here, where this QEMU has them: ": use q35 or pc".
func (f *Features) usualMachines() string {
	usual := slices.DeleteFunc([]string{kindQ35, kindPC}, func(name string) bool { return !f.HasMachine(f.Versioned(name)) })
	if len(usual) == 0 {
		return ""
	}
	return ": use " + strings.Join(usual, " or ")
}

// suggestion completes an error about an unknown name with the known names
// that look like it: ": did you mean q35 or pc?"; nothing when none does.
func suggestion(name string, known []string) string {
	names := spelling.Near(name, known)
	if len(names) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(names, " or ") + "?"
}
