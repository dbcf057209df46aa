package provision

import (
	"slices"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// grubEntry is a menu entry, a submenu, or the file itself as the root.
type grubEntry struct {
	title, id string
	submenu   bool
	children  []*grubEntry
	commands  []grubCommand // of its own body
}

// grubConfig is what of a GRUB configuration matters here.
type grubConfig struct {
	root     grubEntry // its commands are those outside of every entry
	settings []grubSetting
}

// grubSetting is an assignment outside of the menu entries.
type grubSetting struct {
	name, value string
	word        grubWord // name=value
	conditional bool     // inside if, while, for, until or a function
}

// parseGrub takes any input.
func parseGrub(cfg []byte) grubConfig {
	var c grubConfig
	type block struct {
		entry *grubEntry // nil for a function or another block
	}
	open := []block{{&c.root}}
	current := func() *grubEntry {
		for _, b := range slices.Backward(open) {
			if b.entry != nil {
				return b.entry
			}
		}
		return &c.root
	}
	conditions := 0
	for _, command := range lexGrub(cfg) {
		command, opened := stripKeywords(command)
		conditions = max(0, conditions+opened)
		if len(command) == 0 {
			continue
		}
		begins := command.last().text == "{"
		switch {
		case command.is("}"):
			if len(open) > 1 {
				open = open[:len(open)-1]
			}
		case begins && command.is("menuentry", "submenu"):
			e := newGrubEntry(command)
			parent := current()
			parent.children = append(parent.children, e)
			open = append(open, block{e})
		case begins:
			open = append(open, block{})
		default:
			e := current()
			e.commands = append(e.commands, command)
			if s, ok := grubAssignment(command); ok && e == &c.root {
				s.conditional = conditions > 0 || len(open) > 1
				c.settings = append(c.settings, s)
			}
		}
	}
	return c
}

// stripKeywords removes the reserved words before a command and counts how
// many conditional blocks they open (or close, below zero).
func stripKeywords(c grubCommand) (grubCommand, int) {
	opened := 0
	for len(c) > 0 {
		switch c[0].text {
		case "if", "while", "until", "for":
			opened++
		case "fi", "done":
			opened--
		case "then", "else", "elif", "do", "!", "time":
		default:
			return c, opened
		}
		c = c[1:]
	}
	return c, opened
}

func newGrubEntry(c grubCommand) *grubEntry {
	e := &grubEntry{submenu: c.is("submenu")}
	words := c[1 : len(c)-1]
	titled := false
	for i := 0; i < len(words); i++ {
		text := words[i].text
		value := func() string {
			if i++; i < len(words) {
				return words[i].text
			}
			return ""
		}
		switch {
		case text == "--id" || text == "$menuentry_id_option":
			e.id = value()
		case strings.HasPrefix(text, "--id="):
			e.id = strings.TrimPrefix(text, "--id=")
		case slices.Contains([]string{"--class", "--users", "--hotkey", "--source"}, text):
			value()
		case strings.HasPrefix(text, "--"):
		case !titled:
			e.title, titled = text, true
		}
	}
	return e
}

// grubAssignment reads "set name=value" and "name=value".
func grubAssignment(c grubCommand) (grubSetting, bool) {
	if c.is("set") {
		c = c[1:]
	}
	if len(c) != 1 {
		return grubSetting{}, false
	}
	name, value, ok := strings.Cut(c[0].text, "=")
	return grubSetting{name: name, value: value, word: c[0]}, ok && name != ""
}

// defaultEntry is what GRUB boots when nobody touches the menu: the entry
// named by the last assignment to "default" that can be evaluated here, else
// the first. A file without entries is one entry itself.
func (c grubConfig) defaultEntry(grubenv []byte) *grubEntry {
	choice := "0"
	for _, s := range c.settings {
		switch {
		case s.name != "default":
		case s.value == "${saved_entry}" || s.value == "$saved_entry":
			if saved := grubEnvValue(grubenv, "saved_entry"); saved != "" {
				choice = saved
			}
		case !strings.Contains(s.value, "$"):
			choice = s.value
		}
	}
	at := &c.root
	for _, step := range strings.Split(choice, ">") {
		if next := at.child(step); next != nil {
			at = next
		}
	}
	// A submenu opens at its first entry.
	for (at == &c.root || at.submenu) && len(at.children) > 0 {
		at = at.children[0]
	}
	return at
}

// child finds an entry by index, id or title.
func (e *grubEntry) child(name string) *grubEntry {
	if i, err := strconv.Atoi(name); err == nil {
		if i >= 0 && i < len(e.children) {
			return e.children[i]
		}
		return nil
	}
	for _, c := range e.children {
		if name != "" && (c.id == name || c.title == name) {
			return c
		}
	}
	return nil
}

// grubEnvValue reads a variable of a grubenv file.
func grubEnvValue(env []byte, name string) string {
	for line := range strings.Lines(string(env)) {
		if value, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), name+"="); ok {
			return value
		}
	}
	return ""
}

// kernelCommands are the ones that load a kernel of each family.
var kernelCommands = map[platform.Family][]string{
	platform.Hurd:  {"multiboot", "multiboot2"},
	platform.Linux: {"linux", "linux16", "linuxefi"},
}

// kernels returns the commands of an entry that load a kernel.
func (e *grubEntry) kernels(family platform.Family) []grubCommand {
	var kernels []grubCommand
	for _, c := range e.commands {
		if len(c) > 1 && c.is(kernelCommands[family]...) {
			kernels = append(kernels, c)
		}
	}
	return kernels
}

// allKernels returns those of an entry and of all below it.
func (e *grubEntry) allKernels(family platform.Family) []grubCommand {
	all := e.kernels(family)
	for _, child := range e.children {
		all = append(all, child.allKernels(family)...)
	}
	return all
}

// kernelWords are the kernel that the default entry loads and its arguments.
func kernelWords(cfg, grubenv []byte, family platform.Family) []string {
	kernels := parseGrub(cfg).defaultEntry(grubenv).kernels(family)
	if len(kernels) == 0 {
		return nil
	}
	var words []string
	for _, w := range kernels[0][1:] {
		words = append(words, w.text)
	}
	return words
}
