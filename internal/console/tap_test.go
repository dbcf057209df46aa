package console

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestConceal: what is concealed is nowhere to be read, and still seen by those
// who must see it.
func TestConceal(t *testing.T) { synctest.Test(t, testConceal) }

func testConceal(t *testing.T) {
	var log bytes.Buffer
	var lines []string
	var findings []Kind
	p := newPort(t, Options{
		Log:       &log,
		OnLine:    func(l Line) { lines = append(lines, l.Text) },
		OnFinding: func(f Finding) { findings = append(findings, f.Kind) },
	})
	type bit struct {
		text   string
		hidden bool
	}
	var tapped []bit
	ended := make(chan bool, 1)
	stop := p.Tap(func(b []byte, hidden bool) { tapped = append(tapped, bit{string(b), hidden}) }, func() { ended <- true })
	p.says(t, "before\r\n# typ")
	reveal := p.Conceal("1 KiB are typed here")
	inner := p.Conceal("more")
	p.says(t, "ed secret\r\npanic ../kern/x.c:1: y: a secret\r\nstill sec")
	inner()
	inner() // once more does nothing
	if tail := p.Tail(-1); len(tail) != 1 || tail[0].Text != "before" {
		t.Errorf("the tail shows %v", tail)
	}
	if m, err := p.Expect(t.Context(), regexp.MustCompile(`typed (\w+)`)); err != nil || m[1] != "secret" {
		t.Errorf("Expect: %q, %v", m, err)
	}
	p.says(t, "ret\r\n")
	reveal()
	p.says(t, "after\r\n")
	stop()
	p.says(t, "untapped\r\n")
	_ = p.guest.Close()
	if err := <-p.done; err != nil {
		t.Error(err)
	}
	if want := "before\r\n# typ\r\n[hurd-qemu-action: 1 KiB are typed here, not shown]\r\nafter\r\nuntapped\r\n"; log.String() != want {
		t.Errorf("the log is %q, want %q", log.String(), want)
	}
	if want := "before|after|untapped"; strings.Join(lines, "|") != want {
		t.Errorf("lines %q, want %s", lines, want)
	}
	if len(findings) != 1 || findings[0] != MachPanic {
		t.Errorf("findings %v", findings)
	}
	var shown, all string
	for _, b := range tapped {
		all += b.text
		if !b.hidden {
			shown += b.text
		}
	}
	if shown != "before\r\n# typafter\r\n" || !strings.Contains(all, "still secret") {
		t.Errorf("tapped %q, of which %q is shown", all, shown)
	}
	if len(ended) != 0 {
		t.Error("a tap that was stopped was told of the end")
	}
	p.Tap(nil, func() { ended <- true })
	<-ended // a console that has ended says so at once
}

// TestWaitLine finds a line that came before, a prompt without an end, and
// nothing twice.
func TestWaitLine(t *testing.T) { synctest.Test(t, testWaitLine) }

func testWaitLine(t *testing.T) {
	p := newPort(t, Options{Lines: 3})
	p.says(t, "one\r\ntwo\r\n")
	if l, err := p.WaitLine(t.Context(), regexp.MustCompile(`^one$`)); err != nil || l.Text != "one" || l.Partial {
		t.Errorf("%+v, %v", l, err)
	}
	found := make(chan Line, 1)
	go func() {
		l, _ := p.WaitLine(t.Context(), regexp.MustCompile(`login: ?$`))
		found <- l
	}()
	p.says(t, "a\r\nb\r\nc\r\nd\r\nno login: yet\r\nbox log")
	p.says(t, "in: ")
	if l := <-found; l.Text != "box login: " || !l.Partial {
		t.Errorf("%+v", l)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, late)
	defer cancel()
	if _, err := p.WaitLine(ctx, regexp.MustCompile(`never`)); !errors.Is(err, late) || !strings.Contains(err.Error(), `"never"`) {
		t.Errorf("err = %v", err)
	}
	_ = p.guest.Close()
	if err := <-p.done; err != nil {
		t.Error(err)
	}
	if _, err := p.WaitLine(t.Context(), regexp.MustCompile(`never`)); !errors.Is(err, ErrEnded) {
		t.Errorf("err = %v", err)
	}
}
