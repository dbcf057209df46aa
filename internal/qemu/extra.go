package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/org/hurd-qemu-action/internal/process"
)

// SplitArgs splits a text as a shell does, quotes and all, in as many lines
// as it has. What a shell would replace or do is refused: nothing is run here.
func SplitArgs(text string) ([]string, error) {
	var list []string
	for word, err := range syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).WordsSeq(strings.NewReader(text + "\n")) {
		if err != nil {
			return nil, fmt.Errorf("a shell could not split it: %w: put quotes around what is not for the shell", err)
		}
		arg, ok := literal(word)
		if !ok {
			return nil, errors.New("a shell would replace the $ or ` in it, and none is run here: put it between single quotes")
		}
		list = append(list, arg)
	}
	return list, nil
}

// literal is a word without its quotes (POSIX, XCU 2.2); false when a shell
// would replace a part of it. Braces, tildes and patterns stay as they are.
func literal(word *syntax.Word) (string, bool) {
	var b strings.Builder
	for _, part := range word.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescape(part.Value, ""))
		case *syntax.SglQuoted:
			b.WriteString(part.Value)
		case *syntax.DblQuoted:
			for _, inner := range part.Parts {
				lit, ok := inner.(*syntax.Lit)
				if !ok {
					return "", false
				}
				b.WriteString(unescape(lit.Value, "$`\"\\\n"))
			}
		default:
			return "", false
		}
	}
	return b.String(), true
}

// unescape drops the backslashes that quote one of the characters, or any
// where there are none given. With a newline it goes altogether.
func unescape(text, special string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && (special == "" || strings.IndexByte(special, text[i+1]) >= 0) {
			i++
			if text[i] == '\n' {
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// Options are the options of a QEMU, by their names without the hyphen, and
// whether they take an argument.
type Options map[string]bool

// ListOptions reads the options out of a QEMU's help.
func ListOptions(ctx context.Context, binary string) (Options, error) {
	out, err := process.Output(ctx, binary, "--help")
	if err != nil {
		return nil, fmt.Errorf("asking QEMU for its options: %w", err)
	}
	return parseOptions(string(out)), nil
}

// optionLine is a line of the help that begins an option, or two of them:
//
//	-S              freeze CPU at startup
//	-hda/-hdb file  use 'file' as hard disk 0/1 image
//	-h or -help     display this help and exit
//	-device driver[,prop[=value][,...]]
//
// One blank comes before an argument, and several before the explanation.
var optionLine = regexp.MustCompile(`^--?([A-Za-z][\w-]*)(?:(?:/| or )-([A-Za-z][\w-]*))?( \S)?`)

// parseOptions reads what "--help" prints.
func parseOptions(help string) Options {
	all := Options{"M": true, "qtest": true, "qtest-log": true} // which the help does not name
	for line := range strings.Lines(help) {
		m := optionLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, name := range m[1:3] {
			// This one is so long that a single blank is left.
			if name != "" {
				all[name] = all[name] || m[3] != "" && name != "async-teardown"
			}
		}
	}
	return all
}

// extra is one option of the user's with its argument.
type extra struct {
	name     string // without hyphens
	value    string
	hasValue bool
}

func (e extra) String() string {
	if e.hasValue {
		return "-" + e.name + " " + e.value
	}
	return "-" + e.name
}

// CheckExtra finds what can't be given to a QEMU beside our own arguments. All
// problems are reported.
func CheckExtra(list []string, known Options) []error {
	var problems []error
	for i := 0; i < len(list); i++ {
		e := extra{name: strings.TrimPrefix(strings.TrimPrefix(list[i], "-"), "-")}
		if !strings.HasPrefix(list[i], "-") || e.name == "" {
			problems = append(problems, fmt.Errorf("%q: it is no option, and QEMU would take it for a disk: write -drive with a file, or quote it together with the option that it belongs to", list[i]))
			continue
		}
		takes, ok := known[e.name]
		if !ok {
			problems = append(problems, fmt.Errorf("%q: this QEMU has no such option%s", list[i], suggestion(e.name, known.names())))
			if i+1 < len(list) && !strings.HasPrefix(list[i+1], "-") {
				i++ // its argument, most likely
			}
			continue
		}
		if takes {
			rest := list[i+1:]
			if len(rest) == 0 {
				problems = append(problems, fmt.Errorf("%q: it needs an argument", list[i]))
				break
			}
			i++
			e.value, e.hasValue = rest[0], true
		}
		if why := e.refused(); why != "" {
			problems = append(problems, fmt.Errorf("%q: %s", e, why))
		}
	}
	return problems
}

func (o Options) names() []string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// refused says why an option can't be had, and what to use instead; empty: it can.
func (e extra) refused() string {
	if why, ok := ownedOptions()[e.name]; ok {
		return why
	}
	if e.value == "help" || e.value == "?" || strings.HasSuffix(e.value, ",help") || strings.HasSuffix(e.value, ",?") {
		return printsAndEnds
	}
	p := e.properties()
	if id := p.id(); ownID(id) {
		return fmt.Sprintf("the id %s belongs to this action: choose another one", id)
	}
	for _, rule := range valueRules() {
		if slices.Contains(rule.options, e.name) && rule.applies(p) {
			return rule.why
		}
	}
	return ""
}

// properties are the parts of an option's argument.
type properties struct {
	first  string // without a name
	values map[string]string
}

// properties reads "first,name=value,switch" and JSON.
func (e extra) properties() properties {
	p := properties{values: map[string]string{}}
	if strings.HasPrefix(e.value, "{") {
		var object map[string]any
		if json.Unmarshal([]byte(e.value), &object) == nil { // else QEMU says what is wrong with it
			for name, value := range object {
				p.values[name] = fmt.Sprint(value)
			}
		}
		p.first = firstOf(p.values, "driver", "qom-type", "type")
		return p
	}
	for i, item := range strings.Split(e.value, ",") {
		name, value, ok := strings.Cut(item, "=")
		switch {
		case ok:
			p.values[name] = value
		case i == 0:
			p.first = item
		default:
			p.values[item] = "on"
		}
	}
	if p.first == "" {
		p.first = firstOf(p.values, "driver", "qom-type", "type", "backend", "model")
	}
	return p
}

func firstOf(values map[string]string, names ...string) string {
	for _, name := range names {
		if v := values[name]; v != "" {
			return v
		}
	}
	return ""
}

func (p properties) id() string { return firstOf(p.values, "id", "node-name") }

// ownIDs are the names that Args gives to devices, disks and channels.
var ownIDs = regexp.MustCompile(`^(net|packets|ram|serial2?|monitor|tools|ahci|scsi|(disk|cdrom)[0-9]+(-.*)?)$`)

func ownID(id string) bool { return ownIDs.MatchString(id) }
