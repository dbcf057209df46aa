package diagnostic

import (
	"strconv"
	"strings"
)

// What a scanner waits for at most.
const (
	rustLines   = 4  // lines between a header of rustc's and its place
	pythonLines = 12 // lines between two frames of a traceback: source, marks, "repeated"
	makeDepth   = 64 // directories of makes within makes
)

// scanner finds the diagnostics in the lines of one stream.
type scanner struct {
	collector *Collector
	dirs      []string // where make is; the first is where the script began

	rust     map[string]string // a header that waits for its place
	rustLeft int

	traceback  bool // the lines belong to one, which was announced
	frame      *Diagnostic
	pythonLeft int
}

// scan takes one line.
func (s *scanner) scan(line string) {
	if s.python(line) || s.rustc(line) || s.directory(line) {
		return
	}
	for _, p := range patterns {
		if parts, ok := p.find(line); ok {
			d := s.diagnostic(parts)
			if target := parts["target"]; target != "" {
				d.Message = target + ": " + d.Message
			}
			d.Message = p.prefix + d.Message
			if d.Severity == "" {
				d.Severity = p.severity
			}
			s.collector.add(d, p.fallback)
			return
		}
	}
}

// close takes what waits for a line that won't come: a traceback whose
// exception was not printed is still one.
func (s *scanner) close() {
	if s.traceback {
		s.exception("an exception")
	}
}

// diagnostic makes one of the groups of a pattern.
func (s *scanner) diagnostic(parts map[string]string) Diagnostic {
	d := Diagnostic{Path: parts["file"], Message: strings.TrimSpace(parts["message"])}
	switch parts["severity"] {
	case "error", "fatal error":
		d.Severity = Error
	case "warning":
		d.Severity = Warning
	}
	d.Line, _ = strconv.Atoi(parts["line"]) // digits or nothing
	d.Column, _ = strconv.Atoi(parts["col"])
	d.File, _ = Resolve(s.collector.opt.Root, s.dirs[len(s.dirs)-1], d.Path)
	return d
}

// rustc remembers a header, and takes the place that follows. A header without
// one is a summary: "error: could not compile ...".
func (s *scanner) rustc(line string) bool {
	if parts, ok := groups(rustHeader, line); ok {
		s.rust, s.rustLeft = parts, rustLines
		return true
	}
	if s.rust == nil {
		return false
	}
	if place, ok := groups(rustPlace, line); ok {
		for name, value := range place {
			s.rust[name] = value
		}
		s.collector.add(s.diagnostic(s.rust), false)
		s.rust = nil
		return true
	}
	if s.rustLeft--; s.rustLeft <= 0 {
		s.rust = nil
	}
	return false
}

// python follows a traceback and takes the deepest frame in the workspace, or
// else the deepest; a syntax error comes as a frame alone.
func (s *scanner) python(line string) bool {
	if line == "Traceback (most recent call last):" {
		s.traceback, s.frame, s.pythonLeft = true, nil, pythonLines
		return true
	}
	if parts, ok := groups(pythonFrame, line); ok {
		d := s.diagnostic(parts)
		if s.frame == nil || d.File != "" || s.frame.File == "" {
			s.frame = &d
		}
		s.pythonLeft = pythonLines
		return true
	}
	if s.frame == nil {
		return false
	}
	ends := pythonSyntax
	if s.traceback {
		ends = pythonException
	}
	if ends.MatchString(line) {
		s.exception(line)
		return true
	}
	if s.pythonLeft--; s.pythonLeft <= 0 {
		s.traceback, s.frame = false, nil
	}
	return false
}

func (s *scanner) exception(message string) {
	if s.frame != nil {
		s.frame.Severity, s.frame.Message = Error, message
		s.collector.add(*s.frame, false)
	}
	s.traceback, s.frame = false, nil
}

// directory follows make into a directory and out of it.
func (s *scanner) directory(line string) bool {
	if !strings.Contains(line, " directory ") {
		return false
	}
	parts, ok := groups(makeDir, line)
	switch {
	case !ok:
		return false
	case parts["way"] == "Entering" && len(s.dirs) < makeDepth:
		s.dirs = append(s.dirs, parts["dir"])
	case parts["way"] == "Leaving" && len(s.dirs) > 1 && s.dirs[len(s.dirs)-1] == parts["dir"]:
		s.dirs = s.dirs[:len(s.dirs)-1]
	}
	return true
}
