package diagnostic

import (
	"regexp"
	"strings"
)

// pattern is a row of the table of diagnostics that are one line. Match names
// its groups file, line, col, severity, message, and target, which is put
// before the message.
type pattern struct {
	name     string
	contains string // for speed: the line has it
	match    *regexp.Regexp
	severity Severity // where the line does not say
	prefix   string   // of the message
	fallback bool     // says only that something else failed
}

// file is a path at the start of a line, which is no number: that would be a
// time. Paths with a colon are not found.
const file = `(?P<file>\d*[^\s:\d][^:]*)`

// patterns is tried in order; the first that matches is the line's.
var patterns = []pattern{
	// GCC and Clang: f.c:3:5: error: ...; with -fno-show-column, no column.
	{name: "gcc", contains: ": ", match: regexp.MustCompile(
		`^` + file + `:(?P<line>\d{1,7})(?::(?P<col>\d{1,7}))?: (?P<severity>fatal error|error|warning): (?P<message>.+)$`)},
	// The linker, for object files with and without debugging information.
	{name: "ld", contains: ": undefined reference to ", severity: Error, match: regexp.MustCompile(
		`^(?:\S*ld: )?` + file + `:(?:(?P<line>\d{1,7})|\([^)]+\)): (?P<message>undefined reference to .+)$`)},
	// Go's compiler and vet. Only with a column: log.Lshortfile prints a line
	// without one for whatever a program has to say.
	{name: "go", contains: ".go:", severity: Error, match: regexp.MustCompile(
		`^(?:vet: )?(?P<file>[^\s:][^:]*\.go):(?P<line>\d{1,7}):(?P<col>\d{1,7}): (?P<message>.+)$`)},
	// A makefile that make can't read, then a recipe that failed.
	{name: "make", contains: ": *** ", severity: Error, match: regexp.MustCompile(
		`^` + file + `:(?P<line>\d{1,7}): \*\*\* (?P<message>.+?)(?:\.? +Stop\.)?$`)},
	{name: "make", contains: "make", severity: Error, fallback: true, prefix: "make: ", match: regexp.MustCompile(
		`^\S*make(?:\[\d+\])?: \*\*\* \[(?P<file>[^:\]]+):(?P<line>\d{1,7}): (?P<target>[^\]]+)\] (?P<message>.+)$`)},
	{name: "make", contains: "make", severity: Error, fallback: true, prefix: "make: ", match: regexp.MustCompile(
		`^\S*make(?:\[\d+\])?: \*\*\* (?P<file>)(?P<message>No rule to make target .+?)(?:\.? +Stop\.)?$`)},
	// Shells go on after most errors, so these are warnings; set -e shows in
	// the script's status.
	{name: "bash", contains: ": line ", severity: Warning, match: regexp.MustCompile(
		`^` + file + `: line (?P<line>\d{1,7}): (?P<message>.+)$`)},
	{name: "dash", contains: ": ", severity: Warning, match: regexp.MustCompile(
		`^` + file + `: (?P<line>\d{1,7}): (?P<message>.+: not found|.+: Permission denied|Syntax error: .+)$`)},
}

// find gives the parts of a line that the pattern matches.
func (p pattern) find(line string) (map[string]string, bool) {
	if !strings.Contains(line, p.contains) {
		return nil, false
	}
	return groups(p.match, line)
}

func groups(match *regexp.Regexp, line string) (map[string]string, bool) {
	parts := match.FindStringSubmatch(line)
	if parts == nil {
		return nil, false
	}
	found := map[string]string{}
	for i, name := range match.SubexpNames() {
		if name != "" && parts[i] != "" {
			found[name] = parts[i]
		}
	}
	return found, true
}

// What needs more than one line.
var (
	// rustc: a header, then within a few lines the place.
	rustHeader = regexp.MustCompile(`^(?P<severity>error|warning)(?:\[[A-Z]\d{1,5}\])?: (?P<message>.+)$`)
	rustPlace  = regexp.MustCompile(`^ *--> (?P<file>[^\s:][^:]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})$`)

	// Python: frames, the deepest last, then the exception at the start of a line.
	pythonFrame     = regexp.MustCompile(`^ +File "(?P<file>[^"]+)", line (?P<line>\d{1,7})(?:, in .*)?$`)
	pythonException = regexp.MustCompile(`^[A-Za-z_][\w.]*(?::.*)?$`)
	pythonSyntax    = regexp.MustCompile(`^(?:Syntax|Indentation|Tab)Error: .+$`)

	// GNU make, whose compilers name files from where it is.
	makeDir = regexp.MustCompile(`^\S*make(?:\[\d+\])?: (?P<way>Entering|Leaving) directory ['` + "`" + `](?P<dir>/[^']*)'$`)
)
