package guest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// clock answers SetClock's command as a guest does whose clock is at guest.
func clock(s *sshServer, guest string, refuse bool) (set *string) {
	set = new(string)
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !strings.HasPrefix(line, "date -u +%s; date -u -s @") {
			return 0, false
		}
		*set = strings.TrimSuffix(line[strings.Index(line, "@")+1:], " >/dev/null")
		_, _ = fmt.Fprintln(ch, guest)
		if refuse {
			_, _ = fmt.Fprintln(ch.Stderr(), "date: cannot set date: Operation not permitted")
			return 1, true
		}
		return 0, true
	}
	return set
}

func TestSetClock(t *testing.T) {
	now := time.Unix(1795443723, 600_000_000)
	for guest, skew := range map[string]time.Duration{
		"1795443724": 0, "Welcome!\n1795443725": time.Second, "1795443664": -time.Minute, "0": -1795443724 * time.Second, "1795447324": time.Hour,
	} {
		s := newServer(t)
		set := clock(s, guest, false)
		got, err := dialed(t, s.listen()).SetClock(t.Context(), now)
		if err != nil || got != skew || *set != "1795443724" {
			t.Errorf("at %s: %s, %v, set to %s", guest, got, err, *set)
		}
	}
}

func TestSetClockRefused(t *testing.T) {
	s := newServer(t)
	clock(s, "1795443664", true)
	skew, err := dialed(t, s.listen()).SetClock(t.Context(), time.Unix(1795443724, 0))
	var e *ClockError
	want := "setting the guest's clock (which is off by -1m0s): date exited with status 1: date: cannot set date: Operation not permitted"
	if !errors.As(err, &e) || skew != -time.Minute || e.Skew != skew || err.Error() != want {
		t.Errorf("%s, %v", skew, err)
	}
}

func TestSetClockHostile(t *testing.T) {
	for _, answer := range []string{"", "soon", "9223372036854775807", "-9223372036854775808"} {
		s := newServer(t)
		clock(s, answer, false)
		skew, err := dialed(t, s.listen()).SetClock(t.Context(), time.Unix(1795443724, 0))
		var e *ClockError
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%q: %v", answer, err)
		}
		if err == nil && skew.Abs() < 200*365*24*time.Hour {
			t.Errorf("%q: %s", answer, skew)
		}
	}
}

// TestSetClockReal runs the real command as far as this host lets it: the
// clock is read, and set by nobody but root.
func TestSetClockReal(t *testing.T) {
	s := newServer(t)
	bin := t.TempDir()
	// A date that refuses to set, as it does for an ordinary user.
	writeProgram(t, bin+"/date", "#!/bin/sh\ncase $* in *-s*) echo 'no permission' >&2; exit 1;; esac\nPATH=/usr/bin:/bin exec date \"$@\"\n")
	s.env[0] = "PATH=" + bin + ":/usr/bin:/bin"
	skew, err := dialed(t, s.listen()).SetClock(t.Context(), time.Now())
	var e *ClockError
	if !errors.As(err, &e) || skew.Abs() > 2*time.Second || e.Stderr != "no permission" {
		t.Errorf("%s, %v", skew, err)
	}
}
