// Package cloudinit does for a guest without cloud-init what its user-data asks
// for: it turns the parts that a build guest needs into steps, each a script for
// a POSIX shell that runs as root in the guest, in cloud-init's own order. It
// does nothing by itself.
//
// Source: cloud-init's module reference and its default cloud.cfg, which has the
// order.
package cloudinit

import (
	_ "embed" // the scripts that run in the guest
	"errors"
	"fmt"
	"strings"
)

//go:embed scripts/write.sh
var writeScript string

//go:embed scripts/user.sh
var userScript string

//go:embed scripts/sudo.sh
var sudoScript string

//go:embed scripts/keys.sh
var keysScript string

//go:embed scripts/hostname.sh
var hostnameScript string

//go:embed scripts/timezone.sh
var timezoneScript string

//go:embed scripts/packages.sh
var packagesScript string

//go:embed scripts/systemctl.sh
var systemctlScript string

// Options are what user-data does not say.
type Options struct {
	// User is the one that the keys of the top level are for: cloud-init's
	// default user. Empty: root.
	User string
	// Mark is a text that no command prints. It tells the commands of one
	// script apart; see Marks.
	Mark string
}

// Plan is what is to be done, in this order.
type Plan struct {
	Steps []Step
	// Ignored names the parts that are not carried out, as users[0].expiredate.
	Ignored []string
}

// Step is one thing to do in the guest, as root. It has a Line or a Text.
type Step struct {
	Part  string // of user-data: write_files[0]
	Title string // what is done, without what may be secret, in one line

	// Line is a command line for a POSIX shell, with Stdin as its input: what
	// may be secret is there and on no command line.
	Line  string
	Stdin []byte

	// Text is a script of the user's, to be run from / by Shell, a command line
	// in which {0} stands for the script's path.
	Text, Shell string
	// Commands are those that Text runs one by one in one shell, each in one
	// line for the log. A line of Marks follows each of them. Nil: Text is one
	// script, without marks.
	Commands []string
}

// ErrUnsupported is matched by the error about user-data of a kind that only
// cloud-init itself understands.
var ErrUnsupported = errors.New("is carried out by cloud-init only, and this guest has none")

// kinds are the first bytes of the user-data that is not carried out.
// Source: cloud-init's user-data formats.
var kinds = []struct{ prefix, name string }{
	{"#include", "a list of addresses (#include)"},
	{"#cloud-boothook", "a boothook"},
	{"#cloud-config-archive", "an archive of parts (#cloud-config-archive)"},
	{"#cloud-config-jsonp", "a JSON patch (#cloud-config-jsonp)"},
	{"#part-handler", "a part handler"},
	{"## template: jinja", "a Jinja template"},
	{"\x1f\x8b", "compressed (gzip)"},
	{"content-type:", "a MIME message"},
	{"mime-version:", "a MIME message"},
	{"from ", "a MIME message"},
}

// Parse makes a plan of user-data and meta-data, either of which may be empty.
// The error joins everything that is wrong with them; it matches ErrUnsupported
// for user-data that is neither a cloud-config nor a script.
func Parse(userData, metaData string, o Options) (Plan, error) {
	if o.User == "" {
		o.User = "root"
	}
	userData = strings.TrimPrefix(userData, "\ufeff")
	p := &parser{Options: o}
	meta := p.document("meta-data", metaData)
	first, _, _ := strings.Cut(userData, "\n")
	first = strings.TrimRight(first, " \t\r")
	switch {
	case strings.TrimSpace(userData) == "":
		p.config(p.document("user-data", ""), meta)
	case first == "#cloud-config":
		p.config(p.document("user-data", userData), meta)
	case strings.HasPrefix(first, "#!"):
		p.hostname(p.document("user-data", ""), meta)
		p.steps = append(p.steps, script(userData, first))
	default:
		p.problem("user-data", "%w", unsupported(userData))
	}
	return Plan{Steps: p.steps, Ignored: p.ignored}, errors.Join(p.problems...)
}

func unsupported(userData string) error {
	const advice = "write a #cloud-config or a script that begins with #!"
	for _, k := range kinds {
		if strings.EqualFold(userData[:min(len(userData), len(k.prefix))], k.prefix) {
			return fmt.Errorf("it is %s, which %w: %s", k.name, ErrUnsupported, advice)
		}
	}
	return fmt.Errorf("its first line is neither #cloud-config nor #!, and anything else %w: %s", ErrUnsupported, advice)
}

// script is user-data that is a script; its first line names the interpreter.
func script(text, first string) Step {
	interpreter := strings.TrimSpace(strings.TrimPrefix(first, "#!"))
	if interpreter == "" {
		interpreter = "/bin/sh"
	}
	return Step{Part: "user-data", Title: "script for " + brief(interpreter), Text: text, Shell: interpreter + " {0}"}
}

// config makes the steps of a cloud-config in the order in which cloud-init's
// stages (init, config, final) have them.
func (p *parser) config(doc, meta mapping) {
	p.commands(doc, "bootcmd")
	files, deferred := p.writeFiles(doc)
	p.steps = append(p.steps, files...)
	p.hostname(doc, meta)
	p.users(doc)
	p.topKeys(doc)
	p.timezone(doc)
	p.packages(doc)
	p.steps = append(p.steps, deferred...)
	p.commands(doc, "runcmd")
	p.rest(doc)
	for _, key := range []string{"instance-id", "local-hostname"} {
		meta.take(key)
	}
	p.rest(meta)
}

// line makes the step that runs one of our scripts.
func line(part, title, script string, stdin []byte, args ...string) Step {
	words := []string{"sh", "-c", compact(script), "user-data"}
	return Step{Part: part, Title: title, Line: quoteAll(append(words, args...)), Stdin: stdin}
}

// quoteAll makes words of a POSIX shell's command line.
func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// compact drops a script's comments. None of ours has a line within quotes that
// begins with #.
func compact(script string) string {
	var b strings.Builder
	for line := range strings.Lines(script) {
		if text := strings.TrimSpace(line); text != "" && text[0] != '#' {
			b.WriteString(line)
		}
	}
	return b.String()
}

// brief is the beginning of a text's first line, fit for a log.
func brief(text string) string {
	const most = 80
	text, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	if rest != "" {
		text += " ..."
	}
	return text
}
