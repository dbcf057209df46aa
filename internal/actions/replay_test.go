package actions

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReplay(t *testing.T) {
	for _, tc := range []struct {
		name     string
		commands bool
		want     string
	}{
		{"for people", false, "==> one: two\nout\n::set-output::\nhalf\nnext\n"},
		{"on a runner", true, "::group::one: two\n::stop-commands::T\nout\n::set-output::\nhalf\n::T::\n::endgroup::\nnext\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b strings.Builder
			l := New(Options{Stdout: &b, Stderr: &b, Commands: tc.commands})
			if err := l.Replay("one:\ntwo", strings.NewReader("out\n::set-output::\nhalf")); err != nil {
				t.Fatal(err)
			}
			l.Printf("next")
			got := b.String()
			if _, rest, ok := strings.Cut(got, "::stop-commands::"); ok {
				token, _, _ := strings.Cut(rest, "\n")
				got = strings.ReplaceAll(got, token, "T")
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestReplayBroken holds that a record that can't be read ends the fence and the group.
func TestReplayBroken(t *testing.T) {
	var b strings.Builder
	l := New(Options{Stdout: &b, Commands: true})
	broken := errors.New("broken")
	err := l.Replay("title", io.MultiReader(strings.NewReader("half"), failingReader{broken}))
	if !errors.Is(err, broken) || !strings.HasSuffix(b.String(), "::\n::endgroup::\n") {
		t.Errorf("%v, %q", err, b.String())
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestOwn(t *testing.T) {
	for _, commands := range []bool{false, true} {
		var out, diag, own strings.Builder
		l := New(Options{Stdout: &out, Stderr: &diag, Own: &own, Commands: commands})
		_, guestDiag := l.Guest()
		_, _ = io.WriteString(guestDiag, "guest\n")
		l.Printf("ours")
		if commands {
			if own.Len()+diag.Len() > 0 || !strings.HasSuffix(out.String(), "ours\n") {
				t.Errorf("on a runner all goes to one stream: %q, %q, %q", out.String(), diag.String(), own.String())
			}
		} else if own.String() != "ours\n" || diag.String() != "guest\n" || out.Len() > 0 {
			t.Errorf("%q, %q, %q", out.String(), diag.String(), own.String())
		}
	}
}
