// Package monitor reads commands for QEMU's monitor as people write them, in
// JSON or as "command key=value", with conveniences for the keyboard and the
// screen, carries them out over QMP, and says what to do about those that QEMU
// refuses. It also reads scripts that say at which moment of a machine's life
// each command is due.
package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Command is one for QEMU's monitor.
type Command struct {
	Name      string         // of QMP: "query-status"
	Arguments map[string]any // as JSON has them, numbers as json.Number; nil: none

	// ID comes back with the answer; nil: none was given.
	ID json.RawMessage

	// Chords are pressed one after the other by a send-key that was written as
	// sendkey or type; empty: Arguments are sent as they are.
	Chords []Chord
	// Hold is how long each key of them is down.
	Hold time.Duration
	// Typed tells that they are a text, which may be a password.
	Typed bool

	// Picture names the file that the picture of a screendump is for.
	Picture string
}

// Presses tells whether the command presses keys, in whichever of its forms.
func (c Command) Presses() bool {
	text, _ := c.Arguments["command-line"].(string)
	return c.Name == "send-key" || c.Name == "input-send-event" || c.Name == human && strings.HasPrefix(strings.TrimSpace(text), sendKey)
}

// maxShown bounds what a log shows of a command.
const maxShown = 200

// String shows the command in a log: short, without a text that was typed and
// what is called a password. Keys that are named one by one are shown.
func (c Command) String() string {
	var b strings.Builder
	b.WriteString(c.Name)
	switch {
	case c.Typed:
		fmt.Fprintf(&b, " (%d keys typed)", len(c.Chords))
	case len(c.Chords) > 0:
		for _, chord := range c.Chords {
			b.WriteString(" " + strings.Join(chord, "-"))
		}
	}
	if c.Picture != "" {
		b.WriteString(" " + c.Picture)
	}
	args := c.shownArguments()
	for _, name := range slices.Sorted(maps.Keys(args)) {
		fmt.Fprintf(&b, " %s=%s", name, encode(args[name]))
	}
	text := []rune(b.String())
	if len(text) > maxShown {
		return string(text[:maxShown]) + "..."
	}
	return string(text)
}

// hidden stands for the value of an argument that nobody is to see.
const hidden = "***"

// shownArguments are the arguments without secrets. QEMU's commands have them
// in members called password and, for object-add, data.
func (c Command) shownArguments() map[string]any {
	if c.Arguments == nil {
		return nil
	}
	return shownMembers(c.Arguments)
}

func shownMembers(members map[string]any) map[string]any {
	shown := make(map[string]any, len(members))
	for name, value := range members {
		switch {
		case strings.Contains(name, "password") || members["qom-type"] == "secret" && name == "data":
			shown[name] = hidden
		case name == "command-line":
			shown[name] = shownLine(value)
		default:
			shown[name] = shownValue(value)
		}
	}
	return shown
}

func shownValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return shownMembers(v)
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = shownValue(v[i])
		}
		return all
	}
	return value
}

// shownLine hides what the human monitor is told a password to be: "set_password
// vnc SECRET", "change vnc password SECRET".
func shownLine(value any) any {
	line, ok := value.(string)
	if before, _, found := strings.Cut(line, "password"); ok && found {
		return before + "password " + hidden
	}
	return value
}

// encode writes a value as JSON on one line. What a runner's log would take for
// a command within a line is written in another way; it can only be in a string.
func encode(value any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return []byte(`"(not to be written as JSON)"`) // not reached: all values come from JSON
	}
	return bytes.ReplaceAll(bytes.TrimSuffix(b.Bytes(), []byte("\n")), []byte("##["), []byte(`\u0023#[`))
}
