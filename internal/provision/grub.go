package provision

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// GrubOptions say how EditGrub changes a configuration.
type GrubOptions struct {
	Family platform.Family // decides which command loads the kernel; Hurd or Linux
	Env    []byte          // content of grubenv, which may name the default entry; nil for none

	// Menu is for a machine in whose menu keys are pressed: it is shown for
	// MenuTime, and every entry gets the serial console.
	Menu bool
}

// MenuTime is how many seconds a menu is shown in which keys are pressed.
const MenuTime = "5"

// GrubChange is one line that EditGrub changed, or, with Line 0, the lines
// that it put before the first.
type GrubChange struct {
	Line   int // of the original file, from 1
	Before string
	After  string
}

// ErrNoKernel says that the entry that GRUB boots by default loads no kernel
// of the wanted family.
var ErrNoKernel = errors.New("the default boot entry loads no kernel")

// What makes each family's kernel talk to the first serial line. GNU Mach
// takes the first console= that it finds, Linux makes the last one its
// /dev/console.
const (
	machConsole  = "console=com0"
	linuxConsole = "console=ttyS0,115200"
)

// EditGrub makes the default entry of a grub.cfg boot at once (see Menu) and with a
// serial console, and lets GRUB itself talk on the serial line. It touches no
// other line: recovery entries, modules and everything it does not understand
// stay as they are, byte for byte. Editing the result again changes nothing.
// The error wraps ErrNoKernel.
func EditGrub(cfg []byte, o GrubOptions) ([]byte, []GrubChange, error) {
	c := parseGrub(cfg)
	entry := c.defaultEntry(o.Env)
	kernels := entry.kernels(o.Family)
	if len(kernels) == 0 {
		return cfg, nil, fmt.Errorf("%w: entry %q has no %s command", ErrNoKernel, entry.title,
			strings.Join(kernelCommands[o.Family], " or "))
	}
	timeout := "0"
	if o.Menu {
		timeout, kernels = MenuTime, c.root.allKernels(o.Family)
	}
	e := grubEdits{cfg: cfg}
	for _, kernel := range kernels {
		e.console(kernel, o.Family)
	}
	for _, s := range c.settings {
		if s.name == "timeout" && s.value != timeout {
			e.replace(s.word, "timeout="+timeout)
		}
		if s.name == "timeout_style" && s.value != "menu" && o.Menu {
			e.replace(s.word, "timeout_style=menu")
		}
	}
	for _, command := range c.root.commands {
		if command.is("terminal_input", "terminal_output") && len(command) > 1 &&
			!strings.HasPrefix(command[1].text, "--") && !command.has("serial") {
			e.insert(command.last().end, " serial")
		}
	}
	result, changes := e.apply(grubHeader(c, timeout))
	return result, changes, nil
}

// grubHeader is what must come before the file's first line.
func grubHeader(c grubConfig, timeout string) string {
	present := func(has func(grubCommand) bool) bool { return slices.ContainsFunc(c.root.commands, has) }
	var header []string
	// All or nothing: a terminal must follow the command that makes it.
	if !present(func(c grubCommand) bool { return c.is("serial") }) ||
		!present(func(c grubCommand) bool { return c.is("terminal_input") && c.has("serial") }) ||
		!present(func(c grubCommand) bool { return c.is("terminal_output") && c.has("serial") }) {
		header = append(header, "serial --unit=0 --speed=115200",
			"terminal_input --append serial", "terminal_output --append serial")
	}
	// Without any timeout, GRUB waits for ever.
	if !slices.ContainsFunc(c.settings, func(s grubSetting) bool { return s.name == "timeout" && !s.conditional }) {
		header = append(header, "set timeout="+timeout)
	}
	if header == nil {
		return ""
	}
	title := "# hurd-qemu-action: a serial console and no waiting\n"
	if timeout != "0" {
		title = "# hurd-qemu-action: a serial console and a menu\n"
	}
	return title + strings.Join(header, "\n") + "\n"
}

// grubEdits collects replacements of parts of lines.
type grubEdits struct {
	cfg  []byte
	list []grubEdit
}

type grubEdit struct {
	start, end int
	text       string
}

// replace leaves a word alone that goes over the end of its line.
func (e *grubEdits) replace(w grubWord, text string) {
	if !bytes.ContainsRune(e.cfg[w.start:w.end], '\n') {
		e.list = append(e.list, grubEdit{w.start, w.end, text})
	}
}

func (e *grubEdits) insert(at int, text string) {
	e.list = append(e.list, grubEdit{at, at, text})
}

func (e *grubEdits) console(kernel grubCommand, family platform.Family) {
	var consoles []grubWord
	for _, w := range kernel[2:] {
		if strings.HasPrefix(w.text, "console=") {
			consoles = append(consoles, w)
		}
	}
	switch {
	case family == platform.Hurd && len(consoles) > 0:
		if consoles[0].text != machConsole {
			e.replace(consoles[0], machConsole)
		}
	case family == platform.Hurd:
		e.insert(kernel.last().end, " "+machConsole)
	case len(consoles) == 0 || !serialConsole(consoles[len(consoles)-1].text):
		e.insert(kernel.last().end, " "+linuxConsole)
	}
}

// serialConsole tells whether Linux would use the first serial line.
func serialConsole(word string) bool {
	return word == "console=ttyS0" || strings.HasPrefix(word, "console=ttyS0,")
}

// apply returns the edited file and what changed; all edits of one line are
// one change.
func (e *grubEdits) apply(header string) ([]byte, []GrubChange) {
	var changes []GrubChange
	if header != "" {
		changes = append(changes, GrubChange{After: strings.TrimSuffix(header, "\n")})
	}
	slices.SortStableFunc(e.list, func(a, b grubEdit) int { return a.start - b.start })
	out := []byte(header)
	number, edits := 0, e.list
	for from, line := range lines(e.cfg) {
		number++
		before, at := len(out), 0
		for ; len(edits) > 0 && edits[0].end <= from+len(line); edits = edits[1:] {
			out = append(append(out, line[at:edits[0].start-from]...), edits[0].text...)
			at = edits[0].end - from
		}
		out = append(out, line[at:]...)
		if after := out[before:]; !bytes.Equal(after, line) {
			changes = append(changes, GrubChange{number, trimEOL(line), trimEOL(after)})
		}
	}
	return out, changes
}

// lines yields the lines of a file with their ends, and where they begin.
func lines(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		from := 0
		for line := range bytes.Lines(data) {
			if !yield(from, line) {
				return
			}
			from += len(line)
		}
	}
}

func trimEOL(line []byte) string { return strings.TrimRight(string(line), "\r\n") }
