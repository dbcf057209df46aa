package shard

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// prefixed writes a text in pieces, whose sizes come one after the other and
// then again from the first, and gives what came out.
func prefixed(t *testing.T, text string, pieces ...int) string {
	t.Helper()
	var out whole
	l := NewLines(&out, "[1] ")
	for i := 0; text != ""; i++ {
		n := len(text)
		if len(pieces) > 0 {
			n = min(n, max(1, pieces[i%len(pieces)]))
		}
		if wrote, err := l.Write([]byte(text[:n])); wrote != n || err != nil {
			t.Fatalf("wrote %d of %d: %v", wrote, n, err)
		}
		text = text[n:]
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if out.cut {
		t.Error("a write did not end with a newline")
	}
	return out.String()
}

// whole notices a write that ends in the middle of a line.
type whole struct {
	bytes.Buffer
	cut bool
}

func (w *whole) Write(p []byte) (int, error) {
	w.cut = w.cut || !bytes.HasSuffix(p, []byte("\n"))
	return w.Buffer.Write(p)
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"a line", "a\n", "[1] a\n"},
		{"no end", "a\nb", "[1] a\n[1] b\n"},
		{"blank lines", "\n\na", "[1] \n[1] \n[1] a\n"},
		{"lines of DOS", "a\r\nb\r\n", "[1] a\n[1] b\n"},
		{"progress on one line", "10%\r20%\n", "[1] 10%\r[1] 20%\n"},
		{"just as long as may be", long + "\nb\n", "[1] " + long + "\n[1] b\n"},
		{"longer than may be", long + "y\n\nb\n", "[1] " + long + "\n[1] y\n[1] \n[1] b\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pieces := range [][]int{nil, {1}, {3, 1}, {maxLine}, {maxLine - 1}, {maxLine + 1}} {
				if got := prefixed(t, tc.text, pieces...); got != tc.want {
					t.Errorf("in pieces of %v: %.80q, want %.80q", pieces, got, tc.want)
				}
			}
		})
	}
}

func TestLinesKeepTheError(t *testing.T) {
	broken := errors.New("broken")
	l := NewLines(failing{broken}, "")
	if _, err := l.Write([]byte("a")); err != nil {
		t.Errorf("a line without an end: %v", err)
	}
	for range 2 {
		if n, err := l.Write([]byte("b\n")); n != 0 || !errors.Is(err, broken) {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if err := l.Close(); !errors.Is(err, broken) {
		t.Errorf("Close: %v", err)
	}
}

// FuzzLines holds that how an output is cut into pieces does not change it,
// that every line has the prefix, and that nothing is lost.
func FuzzLines(f *testing.F) {
	f.Add("a\r\nb\n\nc\rd", []byte{1})
	f.Add(strings.Repeat("x", maxLine)+"\n\n", []byte{255, 3})
	f.Fuzz(func(t *testing.T, text string, cuts []byte) {
		pieces := make([]int, len(cuts))
		for i, c := range cuts {
			pieces[i] = int(c) * int(c)
		}
		got := prefixed(t, text, pieces...)
		if want := prefixed(t, text); got != want {
			t.Fatalf("in pieces %.200q, at once %.200q", got, want)
		}
		for line := range strings.Lines(got) {
			if !strings.HasPrefix(line, "[1] ") {
				t.Fatalf("no prefix: %.80q", line)
			}
		}
		bare := func(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }
		if !strings.Contains(text, "[1] ") && bare(strings.ReplaceAll(got, "[1] ", "")) != bare(text) {
			t.Fatalf("%.200q became %.200q", text, got)
		}
	})
}
