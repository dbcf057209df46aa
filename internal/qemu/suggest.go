package qemu

import (
	"cmp"
	"slices"
	"strings"
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
	type near struct {
		name     string
		distance int
	}
	var candidates []near
	for _, k := range known {
		d := editDistance(strings.ToLower(name), strings.ToLower(k))
		if d <= 1+len(name)/4 {
			candidates = append(candidates, near{k, d})
		}
	}
	if len(candidates) == 0 {
		return ""
	}
	slices.SortFunc(candidates, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range candidates[:min(3, len(candidates))] {
		names = append(names, c.name)
	}
	return ": did you mean " + strings.Join(names, " or ") + "?"
}

// editDistance counts the insertions, deletions and replacements of bytes
// that turn one name into another.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
