// Package gitignore matches paths against patterns as git does: the syntax of
// gitignore(5), by the rules of git's dir.c and wildmatch.c, byte by byte and
// with upper and lower case told apart. Tests hold it against git itself.
//
// The libraries for this translate patterns to regular expressions or to
// filepath.Match and differ from git in character classes, escapes, trailing
// spaces, "**" and names that are not UTF-8.
package gitignore

import (
	"strings"
)

// Verdict is what patterns say about one path.
type Verdict int

// The verdicts.
const (
	None   Verdict = iota // no pattern matches
	Match                 // the last pattern that matches is a plain one
	Negate                // the last pattern that matches begins with "!"
)

// Patterns is a list of patterns. The zero value matches nothing.
type Patterns struct {
	list []pattern
}

// pattern is one line.
type pattern struct {
	negate   bool
	dirOnly  bool
	basename bool   // without a slash: matched against the last name of a path
	prefix   string // what the path must begin with, byte for byte
	rest     glob   // what must match behind it; nil when nothing may follow
	anchors  []glob // for a path: the globs of its names up to the first "**"
	deep     bool   // anchors ends at a "**"
}

// Parse reads patterns, one per line. Every text is valid: as for git, a
// pattern that can't match anything matches nothing.
func Parse(text string) Patterns {
	var p Patterns
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if pat, ok := parseLine(trimSpaces(strings.TrimSuffix(line, "\r"))); ok {
			p.list = append(p.list, pat)
		}
	}
	return p
}

// trimSpaces takes away spaces at the end that no backslash protects.
func trimSpaces(line string) string {
	end := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			continue
		case '\\':
			if i++; i == len(line) {
				return line
			}
		}
		end = i + 1
	}
	return line[:end]
}

func parseLine(line string) (pattern, bool) {
	if i := strings.IndexByte(line, 0); i >= 0 {
		line = line[:i] // git's patterns are C strings
	}
	var p pattern
	line, p.negate = strings.CutPrefix(line, "!")
	if line == "" {
		return p, false
	}
	line, p.dirOnly = strings.CutSuffix(line, "/")
	p.basename = !strings.Contains(line, "/")
	if !p.basename {
		line = strings.TrimPrefix(line, "/")
		p.anchor(line)
	}
	n := strings.IndexAny(line, `*?[\`)
	if n < 0 {
		n = len(line)
	}
	// git compares the plain beginning first and takes what follows for a
	// pattern of its own: in "a/b**/c" the "**" counts as one between slashes.
	p.prefix = line[:n]
	if n < len(line) {
		p.rest = compile(line[n:])
	}
	return p, true
}

// anchor keeps the beginning of a pattern name by name, for MayMatchBelow.
func (p *pattern) anchor(line string) {
	if strings.ContainsAny(line, `[\`) {
		p.deep = true // names can't be told apart without reading the classes
		return
	}
	for name := range strings.SplitSeq(line, "/") {
		if strings.Contains(name, "**") {
			p.deep = true
			return
		}
		p.anchors = append(p.anchors, compile(name))
	}
}

// Empty tells whether there are no patterns.
func (p Patterns) Empty() bool { return len(p.list) == 0 }

// Verdict is what the patterns say about a path itself, whatever they say
// about the directories above it. The path is relative, with slashes.
func (p Patterns) Verdict(path string, dir bool) Verdict {
	base := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(p.list) - 1; i >= 0; i-- {
		pat := &p.list[i]
		name := path
		if pat.basename {
			name = base
		}
		if pat.dirOnly && !dir || !pat.match(name) {
			continue
		}
		if pat.negate {
			return Negate
		}
		return Match
	}
	return None
}

// Ignores tells whether git, with these patterns in the .gitignore at the top,
// would ignore a path. What lies in an ignored directory is ignored.
func (p Patterns) Ignores(path string, dir bool) bool {
	for i, c := range []byte(path) {
		if c == '/' && p.Verdict(path[:i], true) == Match {
			return true
		}
	}
	return p.Verdict(path, dir) == Match
}

// MayMatchBelow tells whether a pattern without "!" may match something in a
// directory. When it says no, nothing below needs to be looked at.
func (p Patterns) MayMatchBelow(dir string) bool {
	for i := range p.list {
		if pat := &p.list[i]; !pat.negate && (pat.basename || pat.mayMatchBelow(dir)) {
			return true
		}
	}
	return false
}

func (p *pattern) mayMatchBelow(dir string) bool {
	i := 0
	for name := range strings.SplitSeq(dir, "/") {
		if i == len(p.anchors) {
			break
		}
		if !p.anchors[i].match(name) {
			return false
		}
		i++
	}
	return i < len(p.anchors) || p.deep
}

func (p *pattern) match(name string) bool {
	rest, ok := strings.CutPrefix(name, p.prefix)
	if !ok {
		return false
	}
	if p.rest == nil {
		return rest == ""
	}
	return p.rest.match(rest)
}
