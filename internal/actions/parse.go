package actions

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Pair is a name with its value, as a step writes them to GITHUB_OUTPUT,
// GITHUB_ENV or GITHUB_STATE.
type Pair struct {
	Name, Value string
	Line        int // where it begins in the file, from 1
}

// A Refusal says what in a file of the script was not taken over, and why. It
// is an error for the reader of a log: short and harmless, whatever the file
// holds.
type Refusal struct {
	File   string // such as GITHUB_OUTPUT
	Line   int    // from 1; 0 when the file as a whole is meant
	Text   string // the name or the line that is meant, shortened; empty with Line 0
	Reason string
}

// Error names the file, the line and the reason.
func (r Refusal) Error() string {
	switch {
	case r.Line == 0:
		return fmt.Sprintf("%s: %s", r.File, r.Reason)
	case r.Text == "":
		return fmt.Sprintf("%s, line %d: %s", r.File, r.Line, r.Reason)
	}
	return fmt.Sprintf("%s, line %d, %q: %s", r.File, r.Line, r.Text, r.Reason)
}

const (
	mostRefusals = 20 // of one file; the rest is counted
	mostText     = 60 // runes of a Refusal's Text
)

// refusals collects what is refused in one file.
type refusals struct {
	file string
	list []Refusal
	more int
}

func (r *refusals) add(line int, text, reason string) {
	if len(r.list) == mostRefusals {
		r.more++
		return
	}
	if runes := []rune(Printable(text)); len(runes) > mostText {
		text = string(runes[:mostText]) + "..."
	} else {
		text = string(runes)
	}
	r.list = append(r.list, Refusal{File: r.file, Line: line, Text: text, Reason: reason})
}

// all is what was collected, with a last one that counts those left out.
func (r *refusals) all() []Refusal {
	if r.more == 0 {
		return r.list
	}
	return append(r.list, Refusal{File: r.file, Reason: fmt.Sprintf("%d more lines are wrong", r.more)})
}

// ParsePairs reads a file of name=value lines and of values of several lines,
//
//	name<<DELIMITER
//	value
//	DELIMITER
//
// by the rules of a Linux runner: the earlier of = and << decides; the
// delimiter is the rest of the line, and only a line that equals it ends the
// value; a carriage return is part of what it stands in; empty lines are
// skipped; there are no comments; a byte order mark is dropped and invalid UTF-8
// becomes U+FFFD. (actions/runner, FileCommandManager.cs, EnvFileKeyValuePairs.)
//
// The runner stops at the first line that is wrong, keeps what came before and
// fails the step. Here what is right after it is kept as well, and the caller
// decides. A value whose delimiter does not come ends the file: the lines in it
// were not meant to be names.
func ParsePairs(file string, text []byte) ([]Pair, []Refusal) {
	bad := &refusals{file: file}
	decoded, problem := decode(text)
	if problem != "" {
		return nil, []Refusal{{File: file, Reason: problem}}
	}
	var pairs []Pair
	lines := &lineReader{text: decoded}
	for line, ok := lines.next(); ok; line, ok = lines.next() {
		if line == "" {
			continue
		}
		number := lines.number
		name, value, problem := lines.pair(line)
		if problem == "" {
			problem = pairProblem(name, value)
		}
		if problem != "" {
			bad.add(number, line, problem)
			continue
		}
		pairs = append(pairs, Pair{Name: name, Value: value, Line: number})
	}
	return pairs, bad.all()
}

// pair reads what a line begins.
func (l *lineReader) pair(line string) (name, value, problem string) {
	equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
	switch {
	case equals >= 0 && (heredoc < 0 || equals < heredoc):
		return line[:equals], line[equals+1:], ""
	case heredoc < 0:
		return "", "", "neither name=value nor name<<DELIMITER"
	}
	name, delimiter := line[:heredoc], line[heredoc+2:]
	if delimiter == "" {
		return "", "", "there is no delimiter after <<"
	}
	start := l.at
	for {
		end := l.at
		line, ok := l.next()
		switch {
		case !ok:
			return "", "", "no line equals its delimiter, so it and all that follows is not taken over " +
				"(a value that does not end with a newline joins the delimiter to its last line)"
		case line == delimiter:
			return name, strings.TrimSuffix(l.text[start:end], "\n"), ""
		}
	}
}

// pairProblem says what no runner could make of a pair, or what ours could not
// pass on to it.
func pairProblem(name, value string) string {
	switch {
	case name == "":
		return "the name is empty"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "the name holds a control character"
	case strings.HasSuffix(name, "<"):
		return "the name ends with <"
	case strings.HasPrefix(name, byteOrderMark):
		return "the name begins with a byte order mark"
	case strings.Contains(value, "\x00"):
		return "the value holds a NUL"
	}
	return ""
}

// A lineReader reads lines that a newline ends, and nothing else.
type lineReader struct {
	text   string
	at     int // begin of the next line
	number int // of the last line that was read
}

func (l *lineReader) next() (line string, ok bool) {
	if l.at >= len(l.text) {
		return "", false
	}
	l.number++
	line, rest, found := strings.Cut(l.text[l.at:], "\n")
	l.at = len(l.text)
	if found {
		l.at -= len(rest)
	}
	return line, true
}

// byteOrderMark is dropped at the beginning of a file, so nothing that we write
// there may begin with one.
const byteOrderMark = "\ufeff"

// decode makes text of bytes as .NET's File.ReadAllText does, but takes UTF-8 only.
func decode(text []byte) (decoded, problem string) {
	s := string(text)
	if strings.HasPrefix(s, "\xff\xfe") || strings.HasPrefix(s, "\xfe\xff") {
		return "", "it is UTF-16: write UTF-8"
	}
	return strings.ToValidUTF8(strings.TrimPrefix(s, byteOrderMark), string(utf8.RuneError)), ""
}

// ParsePaths reads GITHUB_PATH: a directory in each line, empty lines skipped.
// Other than in a file of pairs a carriage return ends a line too.
// (actions/runner, FileCommandManager.cs, AddPathFileCommand.)
func ParsePaths(text []byte) ([]string, []Refusal) {
	decoded, problem := decode(text)
	if problem != "" {
		return nil, []Refusal{{File: "GITHUB_PATH", Reason: problem}}
	}
	bad := &refusals{file: "GITHUB_PATH"}
	var paths []string
	number := 0
	decoded = strings.ReplaceAll(decoded, "\r\n", "\n")
	for line := range strings.SplitSeq(strings.ReplaceAll(decoded, "\r", "\n"), "\n") {
		number++
		switch {
		case line == "":
		case strings.Contains(line, "\x00"):
			bad.add(number, line, "the directory holds a NUL")
		case strings.HasPrefix(line, byteOrderMark):
			bad.add(number, line, "the directory begins with a byte order mark")
		default:
			paths = append(paths, line)
		}
	}
	return paths, bad.all()
}
