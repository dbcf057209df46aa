package shard

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []Script
	}{
		{"one without an end", "make check", []Script{{1, 1, "make check"}}},
		{"blank lines and comments", "\n# first\n  make a \r\n\t\n  # b\nmake c # c\n", []Script{{1, 3, "make a"}, {2, 6, "make c # c"}}},
		{"the longest", strings.Repeat("x", maxCommand-2) + "\ny", []Script{{1, 1, strings.Repeat("x", maxCommand-2)}, {2, 2, "y"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "it has no command: write one per line"},
		{"comments only", "# a\n\n", "it has no command"},
		{"a NUL", "a\nb\x00c\n", "line 2 is no text in UTF-8"},
		{"no UTF-8", "\xff\n", "line 1 is no text in UTF-8"},
		{"a long line", "a\n" + strings.Repeat("x", maxCommand+1), "line 2 is longer than 128 KiB"},
		{"too many", strings.Repeat("a\n", MaxScripts+1), fmt.Sprintf("line %d: it has more than %d commands", MaxScripts+1, MaxScripts)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			list, err := Parse(strings.NewReader(tc.text))
			if !errors.Is(err, ErrList) || !strings.Contains(err.Error(), tc.want) || list != nil {
				t.Errorf("%d scripts, %v; want %q", len(list), err, tc.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := Parse(failing{broken}); !errors.Is(err, broken) || errors.Is(err, ErrList) {
		t.Errorf("err = %v, want the reader's", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"make check":              "make check",
		"a\tb  c":                 "a b c",
		"a\x1b[31m":               "a [31m",
		strings.Repeat("ä", 40):   strings.Repeat("ä", 40),
		strings.Repeat("ä", 41):   strings.Repeat("ä", 37) + "...",
		"echo \u202eevil\u2066 x": "echo evil x",
	} {
		if got := (Script{Text: text}).Name(); got != want {
			t.Errorf("Name(%q) = %q, want %q", text, got, want)
		}
	}
}
