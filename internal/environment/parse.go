package environment

import (
	"fmt"
	"slices"
	"strings"
)

// A Problem is what is wrong with a line of the env input.
type Problem struct {
	Line int // from 1
	Text string
}

// Error names the line.
func (p Problem) Error() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// forbidden are variables that nobody can give a script, with the reason.
var forbidden = map[string]string{
	"PATH": ownWay, "HOME": ownWay, "SHELL": ownWay, "USER": ownWay, "LOGNAME": ownWay,
	"PWD": fromShell, "OLDPWD": fromShell, "SHLVL": fromShell, "IFS": fromShell, "OPTIND": fromShell, "PPID": fromShell, "UID": fromShell, "EUID": fromShell,
	"BASHOPTS": fromShell, "SHELLOPTS": fromShell, "BASH_VERSINFO": fromShell, "_": fromShell,
	"ACTIONS_RUNTIME_TOKEN": ours, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ours,
}

const (
	ownWay    = "is the guest's own: set it in the script"
	fromShell = "belongs to the shells of the guest: set it in the script"
	ours      = "is a token of the runner that never goes into a guest"
)

// Parse reads the env input. Each line is
//
//	KEY         the variable as it is here
//	KEY=VALUE   all that follows = is the value, blanks and quotes too
//	KEY<<END    the value is the following lines, until one that is END
//
// Empty lines, and lines that begin with #, are skipped. lookup finds the
// variables of this process. All problems are found at once.
func Parse(input string, lookup func(string) (string, bool)) ([]Variable, []Problem) {
	p := &parser{lookup: lookup, seen: map[string]int{}}
	p.lines = strings.Split(strings.TrimSuffix(input, "\n"), "\n")
	for p.at < len(p.lines) {
		p.line()
	}
	return p.variables, p.problems
}

type parser struct {
	lookup    func(string) (string, bool)
	lines     []string
	at        int // the next line
	seen      map[string]int
	variables []Variable
	problems  []Problem
}

// line reads what the next line begins.
func (p *parser) line() {
	text := strings.TrimLeft(p.lines[p.at], " \t")
	p.at++
	number := p.at
	if strings.TrimSpace(text) == "" || text[0] == '#' {
		return
	}
	name, value, bare, problem := p.variable(text)
	if problem == "" {
		problem = nameProblem(name, bare)
	}
	if first, ok := p.seen[name]; problem == "" && ok {
		problem = fmt.Sprintf("%s is in line %d already", name, first)
	}
	if problem == "" && bare {
		var ok bool
		if value, ok = p.lookup(name); !ok {
			problem = fmt.Sprintf("%s is not set: set it with env: of the step or the job, or write %s=VALUE", name, name)
		}
	}
	if problem == "" && strings.Contains(value, "\x00") {
		problem = "the value of " + name + " holds a NUL"
	}
	if problem != "" {
		p.problems = append(p.problems, Problem{Line: number, Text: problem})
		return
	}
	p.seen[name] = number
	p.variables = append(p.variables, Variable{Name: name, Value: value})
}

// variable takes a line apart, and the lines after it if it takes some.
func (p *parser) variable(text string) (name, value string, bare bool, problem string) {
	equals, heredoc := strings.Index(text, "="), strings.Index(text, "<<")
	switch {
	case equals >= 0 && (heredoc < 0 || equals < heredoc):
		return text[:equals], text[equals+1:], false, ""
	case heredoc < 0:
		return strings.TrimSpace(text), "", true, ""
	}
	name, end := text[:heredoc], text[heredoc+2:]
	if end == "" {
		return "", "", false, "there is nothing after << that could end the value"
	}
	n := slices.Index(p.lines[p.at:], end)
	if n < 0 {
		p.at = len(p.lines)
		return "", "", false, fmt.Sprintf("no line that is %q ends the value of %q", end, name)
	}
	value = strings.Join(p.lines[p.at:p.at+n], "\n")
	p.at += n + 1
	return name, value, false, ""
}

// nameProblem says why a variable can't be given to a script. bare is one that
// would have this process's value.
func nameProblem(name string, bare bool) string {
	switch reason := forbidden[name]; {
	case !shellName(name):
		return fmt.Sprintf("%q is no name of a variable: letters, digits and _, no digit first", name)
	case reason != "":
		return name + " " + reason
	case strings.HasPrefix(name, "INPUT_"):
		return name + " is an input of this action, not the script's"
	case own(name):
		return name + " has a value of its own in the guest: remove the line"
	case bare && (strings.HasPrefix(name, "LD_") || slices.Contains([]string{"TMPDIR", "TMP", "TEMP"}, name)):
		return fmt.Sprintf("%s of this host means nothing in the guest: write %s=VALUE", name, name)
	}
	return ""
}

// shellName tells whether a POSIX shell can export a variable of this name.
func shellName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
