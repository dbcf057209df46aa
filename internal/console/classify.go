package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Evidence is everything known about a boot that failed or a guest that was
// lost. Fields that are not known stay zero.
type Evidence struct {
	Findings []Finding     // of the console, in order
	Lines    []Line        // the end of the console, the line in progress included
	Bytes    units.Bytes   // how much the console has sent in all
	Silence  time.Duration // since the console's last byte (or since the start)
	Waited   time.Duration // since the machine was started
	Exit     *Exit         // nil while QEMU runs
	SSH      SSH
	// Ready says that a command had run in the guest before: the guest was lost
	// rather than never there.
	Ready bool
	// ReadyAt is when it had, if that is known: what the console said before did
	// the guest no harm then and is not the cause now.
	ReadyAt time.Time
	// Stopping says that we asked the guest to stop: its halt is no failure.
	Stopping bool
}

// Exit is how QEMU ended.
type Exit struct {
	Status int    // exit status, 128+n when killed by signal n
	Text   string // the same in words: "exit status 1", "signal: killed"
	Stderr string // the end of what it wrote
}

// Stage is how far an SSH connection got, in the words of package guest.
type Stage string

// The stages of an SSH connection, in order.
const (
	StageNone      Stage = ""          // no connection was tried
	StageConnect   Stage = "connect"   // the forwarded port did not accept
	StageBanner    Stage = "banner"    // it accepted, and nothing answered behind it
	StageHandshake Stage = "handshake" // a server answered; the key exchange failed
	StageHostKey   Stage = "host-key"  // the server has another key than the expected one
	StageAuth      Stage = "auth"      // the server refused our key or user
	StageCommand   Stage = "command"   // logged in; no command could be run
)

// SSH is the state of the SSH connection.
type SSH struct {
	Stage    Stage  // where the last attempt failed
	Attempts int    // how many there were
	Error    string // what the last one said
}

// A Cause is why a boot failed or a guest was lost, as far as the evidence goes.
type Cause struct {
	Name   string   // stable, for outputs and tests: a finding's kind or a rule's name
	Title  string   // in a few words
	Detail string   // what happened
	Advice []string // what to do, the most promising first
	Quote  []string // the lines that show it: of the console, or of QEMU's stderr
}

// What a quote holds: this many lines, or those around a finding; each cut when
// it is very long.
const (
	quoteLines  = 5
	quoteBefore = 3
	quoteAfter  = 4
	quoteWidth  = 300
)

// Classify names the cause. It always names one: the last rule fits everything.
// The lines in e.Lines are searched for findings as well, so that one in a line
// that never ended is not missed.
func Classify(e Evidence) Cause {
	e.Findings = append(e.Findings[:len(e.Findings):len(e.Findings)], e.unfinished()...)
	if !e.ReadyAt.IsZero() {
		e.Findings = slices.DeleteFunc(slices.Clone(e.Findings), func(f Finding) bool {
			return f.Severity > Milestone && f.Line.Time.Before(e.ReadyAt)
		})
	}
	for _, r := range rules() {
		if cause, ok := r.apply(e); ok {
			if cause.Name == "" {
				cause.Name = r.name
			}
			return cause
		}
	}
	return Cause{Name: "unknown", Title: "The guest failed", Detail: e.situation(), Quote: e.tail()}
}

// unfinished finds what a line in progress means, prompt or not.
func (e Evidence) unfinished() []Finding {
	if len(e.Lines) == 0 {
		return nil
	}
	last := e.Lines[len(e.Lines)-1]
	if !last.Partial {
		return nil
	}
	last.Partial = false // it is as complete as it will be
	var news []Finding
	for _, f := range newScanner(Patterns()).scan(last) {
		if !e.found(f.Kind) {
			news = append(news, f)
		}
	}
	return news
}

func (e Evidence) found(kind Kind) bool {
	for _, f := range e.Findings {
		if f.Kind == kind {
			return true
		}
	}
	return false
}

// first returns the first finding of a severity: later ones are consequences.
func (e Evidence) first(s Severity) (Finding, bool) {
	for _, f := range e.Findings {
		if f.Severity == s {
			return f, true
		}
	}
	return Finding{}, false
}

// last returns the last finding of a severity.
func (e Evidence) last(s Severity) (Finding, bool) {
	for i := len(e.Findings) - 1; i >= 0; i-- {
		if e.Findings[i].Severity == s {
			return e.Findings[i], true
		}
	}
	return Finding{}, false
}

// tail is the end of the console.
func (e Evidence) tail() []string { return quote(e.Lines, len(e.Lines)-1, quoteLines-1, 0) }

// around is the finding's line with what came before and after it.
func (e Evidence) around(f Finding) []string {
	for i := len(e.Lines) - 1; i >= 0; i-- {
		if e.Lines[i].Text == f.Line.Text {
			return quote(e.Lines, i, quoteBefore, quoteAfter)
		}
	}
	return []string{cut(f.Line.Text)}
}

// quote returns lines[at] with so many lines before and after it, empty ones
// not counted.
func quote(lines []Line, at, before, after int) []string {
	var first, second []string
	for i := at; i >= 0 && len(first) <= before; i-- {
		if strings.TrimSpace(lines[i].Text) != "" {
			first = append(first, cut(lines[i].Text))
		}
	}
	slices.Reverse(first)
	for i := at + 1; i < len(lines) && len(second) < after; i++ {
		if strings.TrimSpace(lines[i].Text) != "" {
			second = append(second, cut(lines[i].Text))
		}
	}
	return append(first, second...)
}

// cut shortens a line.
func cut(text string) string {
	if runes := []rune(text); len(runes) > quoteWidth {
		return string(runes[:quoteWidth]) + "..."
	}
	return text
}

// situation puts the evidence into a sentence.
func (e Evidence) situation() string {
	if e.Bytes == 0 {
		return fmt.Sprintf("Nothing has come from the serial console for %s.", round(e.Waited))
	}
	text := fmt.Sprintf("The serial console has sent %s; its last byte came %s ago.", e.Bytes.Human(), round(e.Silence))
	if e.SSH.Attempts > 0 {
		text += fmt.Sprintf(" SSH was tried %d times", e.SSH.Attempts)
		if e.SSH.Error != "" {
			text += ", the last time: " + e.SSH.Error
		}
		text += "."
	}
	return text
}

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
