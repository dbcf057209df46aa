package dialogue

import (
	"bytes"
	"context"
	"regexp"
	"testing"
	"testing/synctest"
	"time"
)

// aLine is a console on which a test plays the guest.
type aLine struct {
	typed    func(text string) // called with what is typed
	tap      func(p []byte, hidden bool)
	lastByte time.Time
	hidden   int
}

func (l *aLine) Expect(ctx context.Context, _ *regexp.Regexp) ([]string, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (l *aLine) Send(_ context.Context, text string) error {
	if l.typed != nil {
		l.typed(text)
	}
	return nil
}

func (l *aLine) Tap(bytes func(p []byte, hidden bool), _ func()) func() {
	l.tap = bytes
	return func() {}
}

func (l *aLine) LastByte() time.Time { return l.lastByte }

func (l *aLine) Conceal(string) func() {
	l.hidden++
	return func() { l.hidden-- }
}

// aShell is a Shell on such a console.
func aShell(l *aLine) *Shell {
	return newShell(l, &Session{Console: l, Step: time.Minute, token: "HTOKEN"})
}

// TestQuietReader: who does not read a script's output keeps the guest from being
// heard, and that is no silence of the guest's.
func TestQuietReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &aLine{lastByte: time.Now()}
		sh := aShell(l)
		j := newJob(sh)
		j.Live()
		number := sh.register(j)
		_, _ = j.stdout.Write(bytes.Repeat([]byte("x"), pipeMost)) // nobody reads
		sh.stream.job = number
		read := make(chan struct{})
		go func() {
			defer close(read)
			l.tap([]byte("more"), false)
		}()
		time.Sleep(time.Hour)
		if q := sh.Quiet(); q != 0 {
			t.Errorf("quiet for %v while the reader stands", q)
		}
		if _, err := j.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		<-read
		if q := sh.Quiet(); q != 0 {
			t.Errorf("quiet for %v when the reader goes on", q)
		}
		time.Sleep(time.Minute)
		if q := sh.Quiet(); q != time.Minute {
			t.Errorf("quiet for %v, a minute later", q)
		}
	})
}
