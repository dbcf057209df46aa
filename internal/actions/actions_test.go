package actions

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sethvargo/go-githubactions"
)

// runner plays the part of actions/runner that matters here: it reads lines
// and takes commands out of them, unless they are stopped.
type runner struct {
	commands []string
	text     []string
	stop     string
}

var legacy = regexp.MustCompile(`##\[[^\]]+\]`)

func read(output string) *runner {
	r := &runner{}
	for line := range strings.FieldsFuncSeq(output, func(c rune) bool { return c == '\n' || c == '\r' }) {
		trimmed := strings.TrimLeft(line, " \t\v\f\u00a0\u2028\ufeff")
		switch {
		case r.stop != "" && strings.EqualFold(trimmed, "::"+r.stop+"::"):
			r.stop = ""
		case r.stop != "":
			r.text = append(r.text, line)
		case strings.HasPrefix(trimmed, "::stop-commands::"):
			r.stop = strings.TrimPrefix(trimmed, "::stop-commands::")
		case strings.HasPrefix(trimmed, "::") && strings.Contains(trimmed[2:], "::"):
			r.commands = append(r.commands, trimmed)
		case legacy.MatchString(line):
			r.commands = append(r.commands, line)
		default:
			r.text = append(r.text, line)
		}
	}
	return r
}

func newLog(t *testing.T, env map[string]string) (*Log, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	now := time.Unix(0, 0)
	return New(Options{
		Stdout: &out, Stderr: failing{t}, Commands: true,
		Getenv: func(k string) string { return env[k] },
		Now:    func() time.Time { now = now.Add(1500 * time.Millisecond); return now },
	}), &out
}

// failing is a writer that nothing may reach.
type failing struct{ t *testing.T }

func (f failing) Write(p []byte) (int, error) {
	f.t.Errorf("written to stderr: %q", p)
	return len(p), nil
}

var hostile = []string{
	"::error::x\n", "##[error]x\n", "  ::warning file=a::x\n", "a ##[add-mask]secret\n", "\r::error::x\n",
	"::stop-commands::guess\n::guess::\n::error::x\n", "\n::endgroup::\n", "no newline", "::group::x",
	"::set-output name=a::b\n", "\u2028::error::x\n", "\x1b[2J::error::x\n",
}

func TestGuestOutputIsNoCommand(t *testing.T) {
	l, out := newLog(t, nil)
	end := l.Group("Script")
	stdout, stderr := l.Guest()
	for i, text := range hostile {
		w := stdout
		if i%2 == 1 {
			w = stderr
		}
		fmt.Fprint(w, text)
		if i%3 == 0 {
			l.Printf("between: %s", text)
			l.Quote([]string{text})
		}
	}
	end("")
	l.Annotate(Error, "The guest says ::error::", "::error::y\n##[error]z")
	r := read(out.String())
	for _, c := range r.commands {
		if c != "::group::Script" && c != "::endgroup::" && c != "::error title=The guest says %3A%3Aerror%3A%3A::::error::y%0A##[error]z" {
			t.Errorf("the runner would obey %q", c)
		}
	}
	if len(r.commands) != 3 || r.stop != "" {
		t.Errorf("commands %q, open fence %q", r.commands, r.stop)
	}
}

// TestWithoutTheFence shows that the runner above would obey: the test before
// could fail.
func TestWithoutTheFence(t *testing.T) {
	if r := read(strings.Join(hostile, "")); len(r.commands) < 6 {
		t.Errorf("commands = %q", r.commands)
	}
}

func FuzzGuestOutput(f *testing.F) {
	for _, s := range hostile {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var out bytes.Buffer
		l := New(Options{Stdout: &out, Commands: true})
		stdout, stderr := l.Guest()
		cut = min(max(cut, 0), len(text))
		_, _ = stdout.Write(text[:cut])
		l.Printf("%s", text)
		_, _ = stderr.Write(text[cut:])
		l.Annotate(Notice, "end", string(text))
		r := read(out.String())
		if len(r.commands) != 1 || !strings.HasPrefix(r.commands[0], "::notice title=end::") || r.stop != "" {
			t.Fatalf("commands %q, fence %q in %q", r.commands, r.stop, out.String())
		}
	})
}

func TestGroupsAndDurations(t *testing.T) {
	l, out := newLog(t, nil)
	end := l.Group("Boot\n::error::")
	l.Printf("hello")
	end("kvm")
	end("twice is once")
	want := "::group::Boot ::error::\nhello\n::endgroup::\nBoot ::error::: 1.50 s, kvm\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out, want)
	}
}

func TestFold(t *testing.T) {
	l, out := newLog(t, nil)
	l.Fold("Log", []string{"::error::x", "\x1b[31mred"})
	r := read(out.String())
	if diff := cmp.Diff([]string{"::group::Log", "::endgroup::"}, r.commands); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"    ::error::x", "    [31mred"}, r.text); diff != "" {
		t.Error(diff)
	}
}

func TestPeopleGetTwoStreams(t *testing.T) {
	var stdout, stderr bytes.Buffer
	l := New(Options{Stdout: &stdout, Stderr: &stderr})
	end := l.Group("Script")
	o, e := l.Guest()
	fmt.Fprint(o, "::error::x\nout")
	fmt.Fprint(e, "err\n")
	end("")
	l.Annotate(Warning, "T", "M")
	l.Fold("F", []string{"q\x1b[0m"})
	if got := stdout.String(); got != "::error::x\nout" {
		t.Errorf("stdout = %q", got)
	}
	if got := stderr.String(); !strings.HasPrefix(got, "==> Script\nerr\nScript: ") || !strings.HasSuffix(got, "warning: T: M\nF:\n    q[0m\n") {
		t.Errorf("stderr = %q", got)
	}
	if err := l.Files().SetOutput("a", "b"); err != nil {
		t.Errorf("without a runner SetOutput = %v", err)
	}
}

func TestRedraw(t *testing.T) {
	var stdout, stderr bytes.Buffer
	l := New(Options{Stdout: &stdout, Stderr: &stderr})
	l.Redraw("one\n\x1b[2J")
	l.Redraw("two")
	o, _ := l.Guest()
	fmt.Fprint(o, "out\n")
	l.Redraw("three")
	l.Printf("end")
	if want := "\r\x1b[Kone [2J\r\x1b[Ktwo\r\x1b[K\r\x1b[Kthree\r\x1b[Kend\n"; stderr.String() != want {
		t.Errorf("got  %q\nwant %q", stderr.String(), want)
	}
	c, out := newLog(t, nil)
	c.Redraw("never in a job's log")
	if out.Len() != 0 || stdout.String() != "out\n" {
		t.Errorf("written %q, %q", out, stdout.String())
	}
}

// TestHurry has a reader that stops reading: whoever writes is free again once
// the run is to end.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		defer close(block)
		l := New(Options{Stdout: blocking(block), Commands: true})
		o, _ := l.Guest()
		done := make(chan time.Time, 1)
		go func() {
			_, _ = o.Write([]byte("never read"))
			l.Printf("nor this")
			done <- time.Now()
		}()
		time.Sleep(time.Minute)
		if len(done) != 0 {
			t.Error("output was dropped while nothing was urgent")
		}
		began := time.Now()
		l.Hurry(time.Second)
		if took := (<-done).Sub(began); took != time.Second {
			t.Errorf("the writer was free after %v", took)
		}
		if !errors.Is(l.Err(), ErrStalled) {
			t.Errorf("Err() = %v", l.Err())
		}
	})
}

// TestHurryDropsNothingThatIsRead holds that a reader who reads gets all.
func TestHurryDropsNothingThatIsRead(t *testing.T) {
	var out bytes.Buffer
	l := New(Options{Stdout: &out, Commands: true})
	l.Hurry(time.Minute)
	l.Printf("all of it")
	if out.String() != "all of it\n" || l.Err() != nil {
		t.Errorf("wrote %q, %v", out.String(), l.Err())
	}
}

type blocking chan struct{}

func (b blocking) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		840 * time.Millisecond: "0.84 s", 12340 * time.Millisecond: "12.3 s", 125 * time.Second: "2 min 5 s",
	} {
		if got := Seconds(d); got != want {
			t.Errorf("Seconds(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestBrokenPipeIsReportedOnce(t *testing.T) {
	var mu sync.Mutex
	calls := make(chan error, 4)
	l := New(Options{Stdout: broken{}, Commands: true, Broken: func(err error) { mu.Lock(); defer mu.Unlock(); calls <- err }})
	l.Printf("a")
	l.Annotate(Error, "a", "b") // the library would panic
	o, _ := l.Guest()
	if n, err := o.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write = %d, %v: the guest's output must not stop", n, err)
	}
	if err := <-calls; !errors.Is(err, os.ErrClosed) || !errors.Is(l.Err(), os.ErrClosed) {
		t.Errorf("Broken got %v, Err() = %v", err, l.Err())
	}
	if len(calls) != 0 {
		t.Error("Broken was called twice")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// outputs parses a GITHUB_OUTPUT file as FileCommandManager.cs does.
func outputs(t *testing.T, text string) map[string]string {
	t.Helper()
	got := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		if !ok {
			t.Fatalf("line %q is no heredoc", lines[i])
		}
		var value []string
		for i++; i < len(lines) && lines[i] != delimiter; i++ {
			value = append(value, lines[i])
		}
		if i == len(lines) {
			t.Fatalf("%s: no end delimiter", name)
		}
		got[name] = strings.Join(value, "\n")
	}
	return got
}

func TestOutputsCannotBeForged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "output")
	l, _ := newLog(t, map[string]string{"GITHUB_OUTPUT": file})
	forged := "x\n_GitHubActionsFileCommandDelimeter_\nresult<<EOF\nsuccess\nEOF\n::error::x"
	for name, value := range map[string]string{"guest-uname": forged, "empty": "", "result": "script-failed"} {
		if err := l.Files().SetOutput(name, value); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := outputs(t, string(text))
	if got["guest-uname"] != forged || got["result"] != "script-failed" || len(got) != 3 {
		t.Errorf("outputs = %q", got)
	}
	if err := l.Files().SetOutput("a\nb", "c"); err == nil {
		t.Error("a name of two lines was taken")
	}
	// The library's own SetOutput is what we work around.
	other := filepath.Join(t.TempDir(), "output")
	githubactions.New(githubactions.WithGetenv(func(string) string { return other })).SetOutput("guest-uname", forged)
	if text, err = os.ReadFile(other); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "x\n_GitHubActionsFileCommandDelimeter_\nresult<<EOF") {
		t.Error("the library's delimiter is no longer constant: the workaround can go")
	}
}

func TestUnwritableOutputIsAnError(t *testing.T) {
	l, _ := newLog(t, map[string]string{"GITHUB_OUTPUT": t.TempDir()}) // a directory
	if err := l.Files().SetOutput("a", "b"); err == nil || !strings.Contains(err.Error(), "GITHUB_OUTPUT") {
		t.Errorf("err = %v, want one that names GITHUB_OUTPUT", err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb\x00c\x7f\n": "a[31mbc", "tab\tand\nline": "tab\tand\nline", "a\r\nb\rc": "a\nbc",
		"\xff": "\ufffd", "x\u202ey": "xy", "\u0085z": "z",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestOwnWordsHideSecrets: whatever we say ourselves may quote a secret, with a
// runner and without.
func TestOwnWordsHideSecrets(t *testing.T) {
	const secret = "s3cret-value"
	for _, commands := range []bool{true, false} {
		var out bytes.Buffer
		l := New(Options{Stdout: &out, Stderr: &out, Commands: commands})
		l.AddMask(secret)
		out.Reset() // the runner was told, with its own command
		l.Group("a " + secret)("b " + secret)
		l.Fold("c "+secret, []string{"d " + secret})
		l.Printf("e %s", secret)
		l.Redraw("f " + secret)
		l.Quote([]string{"g " + secret})
		l.Annotate(Error, "h "+secret, "i "+secret)
		l.AnnotateFile(Error, Place{File: "j " + secret}, "k "+secret)
		l.Debug("l " + secret)
		said := "abcdeghijkl" // nothing is redrawn in a job's log
		if !commands {
			said = "abcdefghi"
		}
		for _, c := range said {
			if want := string(c) + " ***"; !strings.Contains(out.String(), want) {
				t.Errorf("commands %v: no %q", commands, want)
			}
		}
		if strings.Contains(out.String(), secret) {
			t.Errorf("commands %v: the secret is in\n%s", commands, &out)
		}
	}
}
