package guest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// harmless has hello.sh and rekey.sh call functions in place of date and kill, in every
// shell: a PATH would not do, since busybox's shell prefers its own date, and
// neither this host's clock nor its SSH server is ours to touch. What date is
// called with goes to a file.
func harmless(t *testing.T, dateStatus string) (dates string) {
	t.Helper()
	dates = filepath.Join(t.TempDir(), "dates")
	real := helloScript
	t.Cleanup(func() { helloScript = real })
	helloScript = "date() { echo \"$*\" >>" + quote(dates) + "; echo 1700000000; return " + dateStatus + "; }\nkill() { :; }\n" + real
	return dates
}

// TestHello asks in every world, whatever a login shell says before.
func TestHello(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			c := dialed(t, s.listen())
			if c.told.tmp[0] != s.dir || !strings.HasPrefix(c.Uname(), "Linux ") || c.told.clock.set || c.LoginShell() != "/bin/sh" {
				t.Errorf("%+v", c.told)
			}
		})
	}
	for answer, want := range map[string]told{
		"uname GNU\n":                                    {uname: "GNU"},
		"\nuname GNU hurd 0.9\r\ntmp /tmp\r\n":           {uname: "GNU hurd 0.9", tmp: []string{"/tmp"}},
		"\nuname GNU\nshell /bin/bash\n":                 {uname: "GNU", shell: "/bin/bash"},
		"Welcome!\nHave fun\ntmp /a b/../c\nuname x\x1b": {uname: "x?", tmp: []string{"/c"}},
		"tmp relative\nclock 1 0\nuname x\n":             {uname: "x"},
	} {
		s := newServer(t)
		s.hello(answer)
		if diff := cmp.Diff(want, dialed(t, s.listen()).told, cmp.AllowUnexported(told{}, clock{})); diff != "" {
			t.Errorf("%q: %s", answer, diff)
		}
	}
}

// TestRenew gives files new beginnings in every world: what follows stays, no
// file is truncated or replaced, and what is binary arrives as it is.
func TestRenew(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			dates := harmless(t, "0")
			s := w.in(t)
			dir := t.TempDir()
			keys, host, random := filepath.Join(dir, "authorized keys"), filepath.Join(dir, "it's the host key"), filepath.Join(dir, "created")
			for _, f := range []string{keys, host} {
				if err := os.WriteFile(f, []byte(strings.Repeat("old", 100)), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			before, err := os.Stat(keys)
			if err != nil {
				t.Fatal(err)
			}
			binary := []byte("\x00\n\r\\%s'\"\xff\x00\n\n")
			long := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
			o := s.listen()
			o.Greeting = Greeting{SetClock: true, Renew: []Beginning{{keys, []byte("new")}, {host, binary}, {random, long}}}
			c := dialed(t, o)
			if skew, err := c.Clock(); err != nil || skew != 0 || c.told.tmp[0] != s.dir || c.Uname() != "" {
				t.Errorf("the clock was off by %v, %v; %+v", skew, err, c.told)
			}
			for f, want := range map[string]string{
				keys: "new" + strings.Repeat("old", 99), host: string(binary) + strings.Repeat("old", 100)[len(binary):], random: string(long),
			} {
				if got, err := os.ReadFile(f); err != nil || string(got) != want {
					t.Errorf("%s: %.60q (%d bytes), %v", f, got, len(got), err)
				}
			}
			after, err := os.Stat(keys)
			if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
				t.Errorf("the file was replaced: %v, %v, %v", before.Mode(), after.Mode(), err)
			}
			if created, err := os.Stat(random); err != nil || created.Mode() != 0o600 {
				t.Errorf("what was created has mode %v, %v", created.Mode(), err)
			}
			if text, err := os.ReadFile(dates); err != nil || !strings.HasPrefix(string(text), "-u -s @") || strings.Count(string(text), "\n") != 1 {
				t.Errorf("date %q, %v", text, err)
			}
			if left, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestRenewFails: a clock that can't be set is told, a key that can't be
// written is an error that no further attempt is made after.
func TestRenewFails(t *testing.T) {
	harmless(t, "1")
	s := worlds()[0].in(t)
	o := s.listen()
	o.Greeting = Greeting{SetClock: true, Renew: []Beginning{}}
	if _, err := dialed(t, o).Clock(); !errors.As(err, new(*ClockError)) {
		t.Errorf("without a clock: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "no", "such", "directory")
	o.Greeting.Renew = []Beginning{{missing, []byte("x")}}
	before := s.connections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Dial(ctx, o)
	var refused *RenewError
	if !errors.As(err, &refused) || refused.Status.Code != 74 || !strings.Contains(err.Error(), "renewing the guest: ") || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that can't be made: %v", err)
	}
	if n := s.connections() - before; n != 1 {
		t.Errorf("%d attempts", n)
	}
	// A program of which nothing arrives has not renewed anything.
	bin := t.TempDir()
	writeProgram(t, filepath.Join(bin, "head"), "#!/bin/sh\n")
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"))
	o.Greeting.Renew = []Beginning{}
	if _, err := Dial(ctx, o); !errors.As(err, &refused) || refused.Status.Code != 74 {
		t.Errorf("without head: %v", err)
	}
}
