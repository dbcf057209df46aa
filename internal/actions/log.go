// Package actions speaks the GitHub runner's protocol, or plain text for
// people where there is no runner: groups, annotations, outputs, and the fence
// that keeps what a guest prints from being taken for a command. It knows
// nothing of virtual machines.
//
// Sources: "Workflow commands for GitHub Actions" (GitHub's documentation) and
// actions/runner, ActionCommand.cs, ActionCommandManager.cs, FileCommandManager.cs.
package actions

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sethvargo/go-githubactions"
)

// Options says where a Log writes and how.
type Options struct {
	Stdout io.Writer // what the guest prints to its standard output; with Commands, everything
	Stderr io.Writer // without Commands: what the guest prints to its standard error, and our own words

	// Commands turns the runner's protocol on. All output then goes to Stdout:
	// the runner reads both streams, but only one stream keeps the order that
	// the fence depends on.
	Commands bool

	// Own is where our own words go without Commands; nil: to Stderr.
	Own io.Writer

	Getenv func(string) string // finds the runner's files; nil: none are set
	Now    func() time.Time    // nil: time.Now
	Broken func(error)         // called once, when nobody reads the output any more; nil: nothing
}

// Log writes for the reader of a job's log. It is safe for use by several
// goroutines. Write errors do not stop a run: the first is kept (Err).
type Log struct {
	opt     Options
	command *githubactions.Action
	secrets *Masker // of AddMask

	mu     sync.Mutex
	fence  string // token that ends the open stop-commands; empty: none is open
	drawn  bool   // a line that is to be overwritten is on the terminal
	midway bool   // the last byte that the guest printed was no newline
	err    error

	once     sync.Once
	hurry    chan struct{}
	patience time.Duration // of a write, when hurry is closed
	stalled  bool
}

// New returns a Log.
func New(opt Options) *Log {
	if opt.Getenv == nil {
		opt.Getenv = func(string) string { return "" }
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	l := &Log{opt: opt, secrets: NewMasker(nil), hurry: make(chan struct{})}
	l.command = githubactions.New(githubactions.WithWriter(trusted{l}), githubactions.WithGetenv(opt.Getenv))
	return l
}

// Commands tells whether there is a runner that reads the log.
func (l *Log) Commands() bool { return l.opt.Commands }

// Err returns the first write error.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Group begins a foldable group. Calling the result ends it and prints how
// long it took, with a note if there is one.
func (l *Log) Group(title string) func(note string) {
	start := l.opt.Now()
	title = l.line(title)
	if l.opt.Commands {
		l.command.Group(title)
	} else {
		l.Printf("==> %s", title)
	}
	var once sync.Once
	return func(note string) {
		once.Do(func() {
			if l.opt.Commands {
				l.command.EndGroup()
			}
			text := fmt.Sprintf("%s: %s", title, Seconds(l.opt.Now().Sub(start)))
			if note != "" {
				text += ", " + note
			}
			l.Printf("%s", text)
		})
	}
}

// Fold prints lines from elsewhere, always fenced, in a group of their own.
func (l *Log) Fold(title string, lines []string) {
	title = l.line(title)
	if !l.opt.Commands {
		l.Printf("%s:", title)
		l.Quote(lines)
		return
	}
	l.command.Group(title)
	l.Quote(lines)
	l.command.EndGroup()
}

// Seconds writes a duration as people read it in a log: 0.84 s, 12.3 s, 2 min 5 s.
func Seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// Printf prints our own words. Text from elsewhere may be among its arguments:
// what could pass for a command is fenced, control characters are removed.
func (l *Log) Printf(format string, args ...any) {
	text := l.text(fmt.Sprintf(format, args...))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opt.Commands && couldBeCommand(text) {
		l.openFence()
		l.put(l.opt.Stdout, text+"\n")
		l.closeFence()
		return
	}
	l.closeFence()
	l.put(l.ours(), text+"\n")
}

// Redraw shows a line that the next one overwrites, on a terminal only.
func (l *Log) Redraw(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opt.Commands {
		return
	}
	l.put(l.opt.Stderr, "\r\x1b[K"+l.line(text))
	l.drawn = true
}

// Quote prints lines from elsewhere, indented, always fenced.
func (l *Log) Quote(lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.openFence()
	for _, line := range lines {
		l.put(l.ours(), "    "+l.text(line)+"\n")
	}
	l.closeFence()
}

// Level is how an annotation is shown.
type Level string

// The levels that the runner knows.
const (
	Notice  Level = "notice"
	Warning Level = "warning"
	Error   Level = "error"
)

// Annotate sets an annotation on the run (without a runner: prints a line).
func (l *Log) Annotate(level Level, title, message string) {
	title, message = l.line(title), l.text(message)
	if !l.opt.Commands {
		l.Printf("%s: %s: %s", level, title, message)
		return
	}
	l.command.IssueCommand(&githubactions.Command{
		Name: string(level), Message: message, Properties: githubactions.CommandProperties{"title": title},
	})
}

// Place is where in the workspace an annotation belongs.
type Place struct {
	File         string // relative to the workspace; empty: nowhere
	Line, Column int    // from 1; 0: not known
}

// AnnotateFile sets an annotation on a file of the workspace. Without a runner
// nothing is printed: whoever sits at a terminal has just seen the compiler say it.
func (l *Log) AnnotateFile(level Level, at Place, message string) {
	if !l.opt.Commands {
		return
	}
	properties := githubactions.CommandProperties{}
	if at.File != "" {
		properties["file"] = l.line(at.File)
		for name, n := range map[string]int{"line": at.Line, "col": at.Column} {
			if n > 0 {
				properties[name] = strconv.Itoa(n)
			}
		}
	}
	l.command.IssueCommand(&githubactions.Command{Name: string(level), Message: l.text(message), Properties: properties})
}

// Guest returns writers for what the guest prints. With a runner both lead,
// fenced and in the order of arrival, to the one output.
func (l *Log) Guest() (stdout, stderr io.Writer) {
	if l.opt.Commands {
		return guest{l, l.opt.Stdout}, guest{l, l.opt.Stdout}
	}
	return guest{l, l.opt.Stdout}, guest{l, l.opt.Stderr}
}

// EndGuest ends what the guest prints, for now: with a runner, the fence around it.
// Whatever of ours is printed does that as well.
func (l *Log) EndGuest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeFence()
}

// AddMask makes a value a secret, and any of its lines: from now on *** stands
// for it in our own words. The runner is told as well, and takes it out of the
// rest of the log; without a runner nothing is printed. What a guest prints is
// masked by whoever writes it (Masker.Writer).
func (l *Log) AddMask(value string) {
	l.secrets.Mask(value)
	if l.opt.Commands {
		l.command.AddMask(value)
	}
}

func (l *Log) ours() io.Writer {
	switch {
	case l.opt.Commands:
		return l.opt.Stdout
	case l.opt.Own != nil:
		return l.opt.Own
	}
	return l.opt.Stderr
}

// Hurry bounds every write from now on, the one in progress included: when the
// reader does not take it within patience, it and all that follows is dropped.
// A run that is to end must not wait for a pager or a stalled terminal.
func (l *Log) Hurry(patience time.Duration) {
	l.once.Do(func() {
		l.patience = patience
		close(l.hurry)
	})
}

// ErrStalled is what Err tells when output was dropped because nobody read it.
var ErrStalled = errors.New("the output is not read: the rest of it was dropped")

// put writes and remembers the first failure; l.mu is held. The write is made
// aside, so that a reader who has stopped can't keep us here for ever.
func (l *Log) put(w io.Writer, text string) {
	if l.stalled {
		return
	}
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(w, text)
		written <- err
	}()
	var err error
	select {
	case err = <-written:
	case <-l.hurry:
		select {
		case err = <-written:
		case <-time.After(l.patience):
			l.stalled, err = true, ErrStalled
		}
	}
	if err != nil && l.err == nil {
		l.err = err
		if l.opt.Broken != nil {
			go l.opt.Broken(err)
		}
	}
}

// trusted is where the library writes its commands: outside the fence.
type trusted struct{ l *Log }

// Write never fails, since the library panics then; the error is kept in the Log.
func (t trusted) Write(p []byte) (int, error) {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	t.l.closeFence()
	t.l.put(t.l.opt.Stdout, string(p))
	return len(p), nil
}

type guest struct {
	l *Log
	w io.Writer
}

func (g guest) Write(p []byte) (int, error) {
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	return g.write(p)
}

// write writes; l.mu is held.
func (g guest) write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	g.l.openFence()
	g.l.put(g.w, string(p))
	g.l.midway = p[len(p)-1] != '\n'
	return len(p), nil
}

// text makes text safe to show, without the secrets that it holds.
func (l *Log) text(s string) string { return Printable(l.secrets.String(s)) }

func (l *Log) line(s string) string { return oneLine(l.secrets.String(s)) }

func oneLine(s string) string {
	return strings.Join(strings.Fields(Printable(s)), " ")
}

// Debug says something that a runner shows only with debug logging, and people
// at a terminal not at all.
func (l *Log) Debug(text string) {
	if l.opt.Commands {
		l.command.IssueCommand(&githubactions.Command{Name: "debug", Message: l.line(text)})
	}
}
