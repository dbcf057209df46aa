package report

import (
	"fmt"
	"strconv"
)

// Fact is one row of what is known.
type fact struct {
	Name, Value string
	Code        bool // the value is a name in some machine's language
}

// maxFact bounds a value.
const maxFact = 300

// facts are the rows of the table; what is not known has none.
func (r Report) facts() []fact {
	m, u := r.Machine, r.Usage
	rows := []fact{
		{"Accelerator", join(": ", clean(r.Accel, 40), clean(r.AccelReason, maxFact)), false},
		{"Boot", r.bootFact(), false},
		{"Boot phases", r.phaseFact(), false},
		{"Script", r.scriptFact(), false},
		{"Guest", clean(r.Uname, maxFact), true},
		{"Image", clean(r.Image.Name, maxFact), true},
		{"Image digest", clean(r.Image.Digest, maxFact), true},
		{"Machine", join(", ", clean(m.Type, 60), clean(m.CPUModel, 60), count(m.CPUs, "CPU", "CPUs"), with("", size(m.Memory), " of memory"),
			with("disks on ", clean(m.Bus, 40), ""), with("network ", clean(m.NIC, 40), "")), false},
		{"Processor time", join(", ", with("guest ", took(u.GuestCPU), ""), with("QEMU in all ", took(u.CPU), "")), false},
		{"Host memory", join(", ", with("", size(u.Peak), " at most"), with("this program ", size(u.Own), "")), false},
		{"Guest disks", join(", ", with("", size(u.Read), " read"), with("", size(u.Written), " written"), with("overlay of ", size(u.Overlay), ""),
			with("on an image of ", join(" in ", size(u.Disk), size(u.Image)), "")), false},
		{"SSH traffic", join(", ", with("", size(u.Sent), " sent"), with("", size(u.Received), " received")), false},
		{"Guest network", join(", ", with("", size(u.NetSent), " sent"), with("", size(u.NetGot), " received")), false},
		{"Snapshot", clean(r.Snapshot, maxFact), false},
		{"Copied in", r.CopyIn.describe(), false},
		{"Copied back", r.CopyBack.describe(), false},
		{"Compilers", join(", ", count(r.Errors, "error", "errors"), count(r.Warnings, "warning", "warnings")), false},
		{"Whole run", took(r.Took), false},
	}
	known := rows[:0]
	for _, row := range rows {
		if row.Value != "" {
			known = append(known, row)
		}
	}
	return known
}

func count(n int, one, many string) string {
	if n <= 0 {
		return ""
	}
	return plural(n, one, many)
}

func (r Report) bootFact() string {
	attempts := ""
	if r.Attempts > 1 {
		attempts = "attempt " + strconv.Itoa(r.Attempts)
	}
	if r.Boot <= 0 {
		return with("not reached, in ", count(r.Attempts, "attempt", "attempts"), "")
	}
	return join(", ", seconds(r.Boot)+" until a command had run", with("of which SSH ", took(r.SSH), ""), attempts)
}

// phaseFact lists the phases of the boot, the last of which may be where it ended.
func (r Report) phaseFact() string {
	phases, _ := most(r.BootPhases, maxBootPhases)
	var parts []string
	for _, p := range phases {
		end := ""
		if p.Failed {
			end = " and no further"
		}
		parts = append(parts, clean(p.Name, 20)+" "+seconds(p.Took)+end)
	}
	return join(", ", parts...)
}

// maxBootPhases is more than there are.
const maxBootPhases = 10

func (r Report) scriptFact() string {
	end := ""
	switch {
	case r.Script == nil:
	case r.Script.Signal != "":
		end = "killed by signal " + clean(r.Script.Signal, 20)
	default:
		end = "exit status " + strconv.Itoa(r.Script.Status)
	}
	if end == "" {
		return with("ran ", took(r.Run), "")
	}
	return join(" after ", end, took(r.Run))
}

func (c *Copy) describe() string {
	if c == nil {
		return ""
	}
	return join(", ", plural(c.Files, "file", "files"), size(c.Size), took(c.Took), count(len(c.Warnings), "warning", "warnings"))
}

// warnings are those of the copies, with the direction before each.
func (r Report) warnings(limit int) (list []string, left int) {
	for _, c := range []struct {
		way string
		*Copy
	}{{"Copying in", r.CopyIn}, {"Copying back", r.CopyBack}} {
		if c.Copy == nil {
			continue
		}
		for _, w := range c.Warnings {
			if len(list) == limit {
				left++
				continue
			}
			list = append(list, fmt.Sprintf("%s: %s", c.way, clean(w, maxFact)))
		}
	}
	return list, left
}

// inputs are those that differ from their defaults; no secret's value.
func (r Report) inputs(limit int) (rows []fact, left int) {
	for _, in := range r.Inputs {
		value := clean(in.Value, 200)
		if in.Secret {
			value = "(set, and not shown)"
		}
		if len(rows) == limit {
			left++
			continue
		}
		rows = append(rows, fact{clean(in.Name, 60), value, !in.Secret})
	}
	return rows, left
}

// notable are the findings that are no good news.
func (r Report) notable() []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.Severity != Milestone {
			list = append(list, f)
		}
	}
	return list
}
