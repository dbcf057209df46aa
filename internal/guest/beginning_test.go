package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestBeginning(t *testing.T) {
	var out, diag bytes.Buffer
	var events []string
	b := newBeginning("/tmp/x", func() { events = append(events, "out "+out.String()+" diag "+diag.String()) }, &out, &diag)
	write := func(w io.Writer, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if n, err := io.WriteString(w, text); err != nil || n != len(text) {
				t.Fatalf("%q: %d, %v", text, n, err)
			}
		}
	}
	write(b.stdout(), "Welcome\n/tmp/x", "y\n/tm")
	write(b.stderr(), "early ")
	if _, begun := b.when(); begun || out.Len()+diag.Len() > 0 {
		t.Errorf("begun too early: %q, %q", &out, &diag)
	}
	if got := b.noise(); got != "early  Welcome /tmp/xy /tm" {
		t.Errorf("the noise is %q", got)
	}
	write(b.stdout(), "p/x\nfirst", " second")
	write(b.stderr(), "late")
	if at, begun := b.when(); !begun || time.Since(at) > time.Minute {
		t.Errorf("has not begun (%v)", at)
	}
	if out.String() != "first second" || diag.String() != "early late" || len(events) != 1 || events[0] != "out  diag " {
		t.Errorf("%q, %q, %q", &out, &diag, events)
	}
}

// TestBeginningFails: what a writer refuses is not lost, and neither is a guest
// that never comes to the point.
func TestBeginningFails(t *testing.T) {
	full := errors.New("full")
	refuse := writerFunc(func([]byte) (int, error) { return 0, full })
	b := newBeginning("/tmp/x", nil, refuse, refuse)
	if _, err := io.WriteString(b.stderr(), "early"); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(b.stdout(), "\n/tmp/x\n"); !errors.Is(err, full) {
		t.Errorf("err = %v", err)
	}
	if _, err := io.WriteString(b.stdout(), "x"); !errors.Is(err, full) {
		t.Errorf("err = %v", err)
	}
	b = newBeginning("/tmp/x", nil, refuse, nil)
	if _, err := io.WriteString(b.stdout(), "\n/tmp/x\nx"); !errors.Is(err, full) {
		t.Errorf("err = %v", err)
	}
	b = newBeginning("/tmp/x", nil, nil, nil)
	if _, err := b.stderr().Write(make([]byte, heldMost)); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(b.stderr(), "x"); err != nil || b.held.Len() != heldMost {
		t.Errorf("%d bytes are kept, %v", b.held.Len(), err)
	}
}

// FuzzBeginning: however the output is cut into pieces, exactly what follows the
// first mark is passed on.
func FuzzBeginning(f *testing.F) {
	f.Add([]byte("noise\n/d\nscript\n/d\nmore"), uint8(3))
	f.Add([]byte("\n/d\n"), uint8(1))
	f.Add([]byte("\n/\n/d\n\n/d\n"), uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		var out bytes.Buffer
		b := newBeginning("/d", nil, &out, nil)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if _, err := b.stdout().Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		_, want, found := bytes.Cut(text, []byte("\n/d\n"))
		if _, begun := b.when(); begun != found || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("begun %t, %q; want %t, %q", begun, &out, found, want)
		}
	})
}

// TestRunScriptStoppedEarly ends the context when all of the script has arrived
// and nothing is made of it yet: it never begins.
func TestRunScriptStoppedEarly(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprintf("hold %t", hold), func(t *testing.T) { stoppedEarly(t, hold) })
	}
}

func stoppedEarly(t *testing.T, hold bool) {
	s := newServer(t)
	bin := t.TempDir()
	waits, goOn, ran := filepath.Join(s.dir, "waits"), filepath.Join(s.dir, "go-on"), filepath.Join(s.dir, "ran")
	writeProgram(t, filepath.Join(bin, "cat"), "#!/bin/sh\nPATH=/usr/bin:/bin\ncat >"+waits+".in\n: >"+waits+"\nwhile test ! -e "+goOn+"; do sleep 0.02; done\nexec cat "+waits+".in\n")
	s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
	o := s.listen()
	o.Greeting.Hold = hold
	c := dialed(t, o)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	go func() {
		for {
			if _, err := os.Stat(waits); err == nil {
				cancel(cause)
				return
			}
			runtime.Gosched()
		}
	}()
	_, err := c.RunScript(ctx, Script{Text: ": >" + ran, KillGrace: 2 * time.Second}, nil, nil)
	if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "preparing the script in the guest: ") {
		t.Errorf("err = %v", err)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.idle()
	if _, err := os.Stat(ran); err == nil {
		t.Error("the script ran after all")
	}
}
