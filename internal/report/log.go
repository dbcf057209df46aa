package report

import (
	"slices"
	"strings"
)

// What of the serial log the page has: browsers stay quick with so much.
const (
	logHead    = 2000 // first lines
	logTail    = 8000 // last lines
	logContext = 5    // lines before and after a finding in between
	logChunk   = 250  // lines that a browser lays out, or leaves alone, together
	logLine    = 1000 // bytes of a line
)

// serialLog is the serial log as the page has it.
type serialLog struct {
	Chunks   []logPart
	Findings []foundLine
	Shown    int
	Total    int // lines that are known
	Others   int // findings beyond the bound
}

// Long tells whether a browser should lay out only what it shows.
func (l serialLog) Long() bool { return l.Shown > 4*logChunk }

// logPart is a number of lines in a row, or a gap.
type logPart struct {
	Lines []logEntry
	Left  int // lines that were left out before these
}

// logEntry is one line.
type logEntry struct {
	Number  int // from 1, among all that are known
	Time    string
	Text    string
	Finding *Finding // what it means; nil: nothing
}

// foundLine is a finding with the number of its line; 0: it is not shown.
type foundLine struct {
	Finding
	Number int
}

// log picks the lines: the first, the last, and those around findings.
func (r Report) log() serialLog {
	l := serialLog{Total: len(r.Serial)}
	findings, left := most(slices.Clone(r.Findings), pageList)
	l.Others = left
	at := map[int]*Finding{}
	for i := range findings {
		findings[i].Severity = findings[i].Severity.known()
		n := r.locate(findings[i])
		if n > 0 && at[n] == nil {
			at[n] = &findings[i]
		}
		l.Findings = append(l.Findings, foundLine{findings[i], n})
	}
	last := 0 // the number of the last line that was taken
	for n := 1; n <= len(r.Serial); n++ {
		if n > logHead && n <= len(r.Serial)-logTail && !near(at, n) {
			continue
		}
		line := r.Serial[n-1]
		if c := len(l.Chunks); c == 0 || last != n-1 || len(l.Chunks[c-1].Lines) == logChunk {
			l.Chunks = append(l.Chunks, logPart{Left: n - 1 - last})
		}
		part := &l.Chunks[len(l.Chunks)-1]
		part.Lines = append(part.Lines, logEntry{n, clock(line.At), strings.TrimRight(visible(line.Text, logLine), " "), at[n]})
		last = n
		l.Shown++
	}
	return l
}

func near(at map[int]*Finding, n int) bool {
	for m := n - logContext; m <= n+logContext; m++ {
		if at[m] != nil {
			return true
		}
	}
	return false
}

// locate finds the number of a finding's line: the one with its time and text,
// or else the first with its text from its time on. A prompt has been found
// before its line was complete.
func (r Report) locate(f Finding) int {
	if strings.TrimSpace(f.Line) == "" {
		return 0
	}
	i, _ := slices.BinarySearchFunc(r.Serial, f, func(l Line, f Finding) int {
		if l.At < f.At {
			return -1
		}
		return 1
	})
	for ; i < len(r.Serial); i++ {
		if r.Serial[i].Text == f.Line || strings.HasPrefix(r.Serial[i].Text, f.Line) {
			return i + 1
		}
	}
	return 0
}
