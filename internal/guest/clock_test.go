package guest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// hello has a server answer the first command by itself.
func (s *sshServer) hello(answer string) {
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !isHello(line) {
			return 0, false
		}
		_, _ = fmt.Fprint(ch, answer)
		return 0, true
	}
}

func isHello(line string) bool { return strings.Contains(line, "printf '\\''tmp") }

func TestReadClock(t *testing.T) {
	now := time.Unix(1795443724, 0)
	for answer, want := range map[string]struct {
		skew time.Duration
		err  string
	}{
		"1795443724 0":             {},
		"1795443725 0":             {skew: time.Second},
		"1795443664 0 ":            {skew: -time.Minute},
		"0 0":                      {skew: -1795443724 * time.Second},
		"1795447324 0":             {skew: time.Hour},
		"1795443664 1 date: no":    {skew: -time.Minute, err: "setting the guest's clock (which is off by -1m0s): date exited with status 1: date: no"},
		"- 0":                      {},
		"- 1 date: no":             {err: "setting the guest's clock: date exited with status 1: date: no"},
		"? 0":                      {err: "setting the guest's clock: date exited with status 0: (the time could not be read)"},
		"? 127 date: not\x1bfound": {err: "setting the guest's clock: date exited with status 127: date: not?found (the time could not be read)"},
		"1795443724 -1 x":          {err: "setting the guest's clock (which is off by 0s): date exited with status 0: x"},
		"":                         {err: "setting the guest's clock: date exited with status 0: (the time could not be read)"},
	} {
		got := readClock(answer, now)
		text := ""
		var e *ClockError
		if errors.As(got.err, &e) {
			text = e.Error()
		}
		if !got.set || got.skew != want.skew || text != want.err || (got.err == nil) != (want.err == "") || e != nil && e.Skew != got.skew {
			t.Errorf("%q: %+v, %s", answer, got, text)
		}
	}
}

// FuzzReadClock: no answer of a guest gives a skew that can't be, and a time
// that was not read or set is an error.
func FuzzReadClock(f *testing.F) {
	for _, seed := range []string{"1795443724 0", "9223372036854775807 0", "-9223372036854775808 0", "soon 0", "1 256", "1 0 text"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		c := readClock(answer, time.Unix(1795443724, 0))
		if !c.set || c.err == nil && !strings.Contains(answer+" ", " 0 ") && !strings.Contains(answer, " +0") && !strings.Contains(answer, " 00") {
			t.Errorf("%q: %+v", answer, c)
		}
		if c.skew%time.Second != 0 && c.skew.Abs() < 1<<62 {
			t.Errorf("%q: %v", answer, c.skew)
		}
	})
}

// TestSetClock reads a clock that is an hour ahead, and sets it by a date that
// refuses, as it does for an ordinary user.
func TestSetClock(t *testing.T) {
	s := newServer(t)
	bin := t.TempDir()
	writeProgram(t, bin+"/date", "#!/bin/sh\ncase $* in *-s*) echo 'no permission' >&2; exit 1;; esac\necho $(($(PATH=/usr/bin:/bin date \"$@\") + 3600))\n")
	s.env[0] = "PATH=" + bin + ":/usr/bin:/bin"
	c := dialed(t, s.listen())
	if _, err := c.Clock(); err == nil {
		t.Error("a clock that nobody has set has a skew")
	}
	skew, err := c.SetClock(t.Context())
	var e *ClockError
	if !errors.As(err, &e) || (skew-time.Hour).Abs() > 2*time.Second || e.Stderr != "no permission" || e.Status.Code != 1 {
		t.Errorf("%s, %v", skew, err)
	}
	if again, againErr := c.Clock(); again != skew || !errors.Is(againErr, err) {
		t.Errorf("%s, %v, and later %s, %v", skew, err, again, againErr)
	}
	s.drop()
	<-c.Lost()
	if _, err := c.SetClock(t.Context()); !errors.Is(err, ErrLost) || !strings.HasPrefix(err.Error(), "setting the guest's clock: ") {
		t.Errorf("of a guest that is lost: %v", err)
	}
}

// TestSetClockUnneeded: a clock that is right to the second is left alone.
func TestSetClockUnneeded(t *testing.T) {
	for _, w := range worlds() {
		for off, sets := range map[int]bool{-2: true, -1: false, 0: false, 1: false, 2: true} {
			t.Run(fmt.Sprintf("%s/%d", w.name, off), func(t *testing.T) {
				dates := harmless(t, "0")
				// Not this host's clock: a second can begin between question and answer.
				helloScript = "now=$1\n" + strings.Replace(helloScript, "echo 1700000000;", fmt.Sprintf("echo $((now + %d));", off), 1)
				o := w.in(t).listen()
				o.Greeting.SetClock = true
				skew, err := dialed(t, o).Clock()
				text, readErr := os.ReadFile(dates)
				if err != nil || readErr != nil || skew != time.Duration(off)*time.Second || strings.Contains(string(text), "-s") != sets {
					t.Errorf("%v, %v; date was called with %q, %v", skew, err, text, readErr)
				}
			})
		}
	}
}
