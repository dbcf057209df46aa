package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/spelling"
)

// successor is what has come in the place of a command that QEMU has removed.
type successor struct {
	// translate gives the command to be carried out instead; nil: there is
	// none that does the same.
	name      string
	translate func(map[string]any) map[string]any
	text      string // what a person should know of it
}

// renamed says that an argument has another name.
func renamed(pairs ...string) func(map[string]any) map[string]any {
	return func(args map[string]any) map[string]any {
		out := map[string]any{}
		for name, v := range args {
			for i := 0; i+1 < len(pairs); i += 2 {
				if name == pairs[i] {
					name = pairs[i+1]
				}
			}
			out[name] = v
		}
		return out
	}
}

func unchanged(args map[string]any) map[string]any { return args }

// successors are the commands that QEMU had (docs/about/removed-features.rst).
var successors = map[string]successor{
	"query-cpus":               {"query-cpus-fast", unchanged, "removed in QEMU 6.0; some members have other names (cpu-index, qom-path, thread-id)"},
	"migrate_set_speed":        {"migrate-set-parameters", renamed("value", "max-bandwidth"), "removed in QEMU 6.0"},
	"migrate-set-cache-size":   {"migrate-set-parameters", renamed("value", "xbzrle-cache-size"), "removed in QEMU 6.0"},
	"query-migrate-cache-size": {"query-migrate-parameters", unchanged, "removed in QEMU 6.0; the size is its xbzrle-cache-size"},
	"migrate_set_downtime":     {"migrate-set-parameters", nil, "removed in QEMU 6.0; write migrate-set-parameters downtime-limit=MILLISECONDS"},
	"change":                   {"blockdev-change-medium", nil, "removed in QEMU 6.0; write blockdev-change-medium id=DEVICE filename=FILE, or change-vnc-password"},
	"query-events":             {"query-qmp-schema", nil, "removed in QEMU 6.0; the events are in query-qmp-schema"},
	"cpu-add":                  {"device_add", nil, "removed in QEMU 5.2; write device_add with what query-hotpluggable-cpus says"},
	"block_passwd":             {"", nil, "removed in QEMU 6.0; encrypted disks get their key from object-add qom-type=secret"},
	"usb_add":                  {"device_add", nil, "removed in QEMU 2.12; write device_add driver=usb-..."},
	"usb_del":                  {"device_del", nil, "removed in QEMU 2.12; write device_del id=..."},
}

// explain says more about a refusal, and translates what QEMU has removed.
func (s *Session) explain(ctx context.Context, c *Command, a *Answer) {
	if a.Error.Class != "CommandNotFound" {
		a.Notes = append(a.Notes, refusalNotes(*c, a.Error.Text)...)
		return
	}
	if old, ok := successors[c.Name]; ok {
		if old.translate == nil {
			a.Notes = append(a.Notes, fmt.Sprintf("%s is no command any more: %s", c.Name, old.text))
			return
		}
		done, err := s.execute(ctx, old.name, old.translate(c.Arguments))
		if err != nil {
			a.Notes = append(a.Notes, fmt.Sprintf("%s is no command any more (%s), and could not be carried out as %s: %v", c.Name, old.text, old.name, err))
			return
		}
		done.Notes = []string{fmt.Sprintf("%s was carried out as %s: %s", c.Name, old.name, old.text)}
		*a = done
		return
	}
	a.Notes = append(a.Notes, s.unknown(ctx, c.Name))
}

// unknown says what is near a command that QEMU does not have.
func (s *Session) unknown(ctx context.Context, name string) string {
	if name == "query-vnc" {
		return "this QEMU was built without VNC; screendump FILE.png shows the screen"
	}
	if strings.HasPrefix(name, "guest-") {
		return name + " is a command of the guest agent, not of QEMU: run it in the guest"
	}
	known, err := s.known(ctx)
	if err != nil {
		return "which commands there are could not be asked: " + err.Error()
	}
	if near := spelling.Near(name, slices.Concat(known, []string{sendKey, typeText, humanShort, info})); len(near) > 0 {
		return fmt.Sprintf("QEMU has no command %s: did you mean %s?", name, strings.Join(near, " or "))
	}
	if s.humanHas(ctx, name) {
		return fmt.Sprintf("%s is a command of the human monitor: write hmp %s ...", name, name)
	}
	var part []string
	for _, k := range known {
		if strings.Contains(k, name) && len(part) < 3 {
			part = append(part, k)
		}
	}
	if len(part) > 0 {
		return fmt.Sprintf("QEMU has no command %s; there are %s", name, strings.Join(part, ", "))
	}
	return fmt.Sprintf("QEMU has no command %s; query-commands lists all", name)
}

// known are the commands of this QEMU.
func (s *Session) known(ctx context.Context) ([]string, error) {
	if s.commands != nil {
		return s.commands, nil
	}
	var list []struct{ Name string }
	if err := s.Conn.Execute(ctx, "query-commands", nil, &list); err != nil {
		return nil, err
	}
	for _, c := range list {
		s.commands = append(s.commands, c.Name)
	}
	slices.Sort(s.commands)
	return s.commands, nil
}

// humanHas tells whether the human monitor knows a command. Its help has lines
// such as "cont|c  -- resume emulation".
func (s *Session) humanHas(ctx context.Context, name string) bool {
	var help string
	if err := s.Conn.Execute(ctx, human, map[string]string{"command-line": "help"}, &help); err != nil {
		return false
	}
	for line := range strings.Lines(help) {
		first, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if slices.Contains(strings.Split(first, "|"), name) {
			return true
		}
	}
	return false
}

// refusalNotes say what may be behind a refusal.
func refusalNotes(c Command, text string) []string {
	switch {
	case strings.Contains(text, "expected: string"):
		return []string{`a bare number, true or false is not text: write key="1234"`}
	case confined(text):
		return []string{confinement}
	case c.Name == screendump && strings.Contains(text, "PNG"):
		return []string{"this QEMU was built without PNG: give the picture a name that ends in .ppm"}
	}
	return nil
}

// confinement explains why QEMU cannot open what we can.
const confinement = "a QEMU of this action runs as another user and may open no file; screendump FILE.png is the exception, since the file is opened for it"

func confined(text string) bool {
	return strings.Contains(text, "Permission denied") || strings.Contains(text, "Operation not permitted") || strings.Contains(text, "No such file or directory")
}

// remarks are about commands that were carried out, and still are not all that
// a person may expect.
func remarks(c Command, a Answer) []string {
	var human string
	switch {
	case a.Error != nil:
	case c.Name == "query-vnc" && !vncEnabled(a.Return):
		return []string{"this QEMU was started without VNC; screendump FILE.png shows the screen"}
	case c.Name == "system_powerdown":
		return []string{"a guest without ACPI does nothing then, such as the Hurd: shut it down from within"}
	case a.Failed && json.Unmarshal(a.Return, &human) == nil && confined(human):
		return []string{confinement}
	}
	return nil
}

// vncEnabled reads the answer of query-vnc.
func vncEnabled(result json.RawMessage) bool {
	var vnc struct{ Enabled bool }
	return json.Unmarshal(result, &vnc) == nil && vnc.Enabled
}
