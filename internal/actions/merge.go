package actions

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	// SummaryLimit is how many bytes of a step's summary the runner takes; a
	// longer one it drops as a whole.
	SummaryLimit = 1 << 20
	// FileLimit is how many bytes of a file of pairs or of paths are taken over.
	// GitHub keeps 1 MB of outputs of a job.
	FileLimit = 1 << 20
	// variableLimit is how long "name=value" and its NUL may be: with one longer
	// variable Linux starts no program any more, so every later step would fail.
	variableLimit = 128 << 10
)

// Written is what a script has written to one of its files.
type Written struct {
	Text []byte
	Size int64 // of the whole file, when Text is only its beginning; else 0
}

func (w Written) size() int64 { return max(w.Size, int64(len(w.Text))) }

// CommandFiles are the files that a script was given in the guest for those of
// the runner.
type CommandFiles struct {
	Output, Env, Path, State, Summary Written
}

// MergeOptions say what a script may not do and how paths are called outside.
type MergeOptions struct {
	// Reserved are outputs that the script can't set, in whatever case: the
	// runner does not tell Result from result.
	Reserved []string

	// Translate makes the path of the guest that a value is, or begins with, the
	// one of later steps. It is applied to outputs, variables and directories for
	// PATH, not to the state, which only this action's own post step reads, under
	// the same paths. nil: nothing is translated.
	Translate func(string) string

	// SummaryReserve is how many bytes of the summary are kept for others.
	SummaryReserve int
}

// Merged is what has become of a script's files.
type Merged struct {
	Outputs, Env, State []Pair
	Paths               []string
	Summary             int // bytes
	Refused             []Refusal
}

// Merge takes over what a script has written to its files into the runner's.
// What is wrong is in Merged.Refused; the rest is taken over all the same. Every
// value stands between random delimiters of its own. Without a runner, or
// without one of its files, the script's file is checked and reported, and goes
// nowhere. The error says which of the runner's files could not be written;
// others have been.
func (f FileCommand) Merge(files CommandFiles, opt MergeOptions) (Merged, error) {
	if opt.Translate == nil {
		opt.Translate = func(s string) string { return s }
	}
	var m Merged
	translate := func(p *Pair) string { p.Value = opt.Translate(p.Value); return "" }
	m.Outputs = m.pairs("GITHUB_OUTPUT", files.Output, func(p *Pair) string {
		if slices.ContainsFunc(opt.Reserved, func(name string) bool { return strings.EqualFold(name, p.Name) }) {
			return "this output is set by the action itself: choose another name"
		}
		return translate(p)
	})
	m.Env = m.pairs("GITHUB_ENV", files.Env, func(p *Pair) string {
		translate(p)
		return variableProblem(p)
	})
	m.State = m.pairs("GITHUB_STATE", files.State, func(*Pair) string { return "" })
	m.paths(files.Path, opt.Translate)
	err := errors.Join(
		f.writePairs("output", m.Outputs), f.writePairs("env", m.Env), f.writePairs("state", m.State),
		f.writeLines("path", m.Paths), f.mergeSummary(&m, files.Summary, opt.SummaryReserve))
	return m, err
}

// pairs reads a file and sorts out what check has an objection to.
func (m *Merged) pairs(file string, w Written, check func(*Pair) string) []Pair {
	if !m.fits(file, w) {
		return nil
	}
	read, refused := ParsePairs(file, w.Text)
	m.Refused = append(m.Refused, refused...)
	bad := refusals{file: file}
	var pairs []Pair
	for _, p := range read {
		if problem := check(&p); problem != "" {
			bad.add(p.Line, p.Name, problem)
			continue
		}
		pairs = append(pairs, p)
	}
	m.Refused = append(m.Refused, bad.all()...)
	return pairs
}

func (m *Merged) paths(w Written, translate func(string) string) {
	if !m.fits("GITHUB_PATH", w) {
		return
	}
	paths, refused := ParsePaths(w.Text)
	m.Refused = append(m.Refused, refused...)
	for _, p := range paths {
		m.Paths = append(m.Paths, translate(p))
	}
}

// fits refuses a file that is too long: the beginning of a value is no value.
func (m *Merged) fits(file string, w Written) bool {
	if w.size() <= FileLimit && w.size() == int64(len(w.Text)) {
		return true
	}
	m.Refused = append(m.Refused, Refusal{File: file, Reason: fmt.Sprintf(
		"it is %d bytes long; of more than %d nothing is taken over: put what is large into a file of the workspace", w.size(), FileLimit)})
	return false
}

// variableProblem says why a variable can't be set for later steps.
func variableProblem(p *Pair) string {
	switch {
	case strings.EqualFold(p.Name, "NODE_OPTIONS"):
		return "no step may set NODE_OPTIONS for later ones"
	case len(p.Name)+len(p.Value)+2 > variableLimit:
		return fmt.Sprintf("the value is %d bytes long: Linux starts no program with a variable over %d KiB", len(p.Value), variableLimit>>10)
	}
	return ""
}

func (f FileCommand) writePairs(command string, pairs []Pair) error {
	texts := make([]string, len(pairs))
	for i, p := range pairs {
		var err error
		if texts[i], err = heredoc(p.Name, p.Value); err != nil {
			return fmt.Errorf("writing GITHUB_%s: %w", strings.ToUpper(command), err)
		}
	}
	return f.writeLines(command, texts)
}

// heredoc writes a value between delimiters that nobody could have guessed when
// the value was made.
func heredoc(name, value string) (string, error) {
	delimiter := "hurd_" + rand.Text()
	if strings.Contains(value, delimiter) {
		return "", fmt.Errorf("the value of %s holds the delimiter", name)
	}
	return name + "<<" + delimiter + "\n" + value + "\n" + delimiter, nil
}

// writeLines appends lines to one of the runner's files, if there is such a file.
func (f FileCommand) writeLines(command string, lines []string) error {
	path := f.getenv("GITHUB_" + strings.ToUpper(command))
	if path == "" || len(lines) == 0 {
		return nil
	}
	text := strings.Join(lines, "\n")
	if !endsLine(path) {
		text = "\n" + text
	}
	return f.append(command, text)
}

// endsLine tells whether what is appended to a file begins a line. A file that
// can't be read is for the writer to report.
func endsLine(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return true
	}
	defer func() { _ = file.Close() }()
	last := make([]byte, 1)
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return true
	}
	if _, err := file.ReadAt(last, info.Size()-1); err != nil {
		return true
	}
	return last[0] == '\n'
}

// mergeSummary appends the script's summary, or the lines of it that fit.
func (f FileCommand) mergeSummary(m *Merged, w Written, reserve int) error {
	const file = "GITHUB_STEP_SUMMARY"
	if len(w.Text) == 0 {
		return nil
	}
	text, problem := decode(w.Text)
	if problem != "" {
		m.Refused = append(m.Refused, Refusal{File: file, Reason: problem})
		return nil
	}
	path := f.getenv(file)
	left := SummaryLimit - reserve - 2 // newlines before and after it
	if info, err := os.Stat(path); err == nil {
		left -= int(min(info.Size(), SummaryLimit))
	}
	if w.size() > int64(len(w.Text)) || len(text) > left {
		text = text[:min(len(text), max(left, 0))]
		text = text[:strings.LastIndexByte(text, '\n')+1]
		m.Refused = append(m.Refused, Refusal{File: file, Reason: fmt.Sprintf(
			"of its %d bytes only %d are taken over: the runner shows no summary of more than %d KiB", w.size(), len(text), SummaryLimit>>10)})
	}
	m.Summary = len(text)
	if text == "" {
		return nil
	}
	return f.writeLines("step_summary", []string{strings.TrimSuffix(text, "\n")})
}
