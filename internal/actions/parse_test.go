package actions

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// runnerPairs reads a file as FileCommandManager.cs does on Linux. It is
// written apart from ParsePairs, index by index as there, and gives up at the
// first thing that is wrong.
func runnerPairs(text string) (pairs []Pair, err error) {
	text = strings.TrimPrefix(text, "\ufeff")
	index := 0
	readLine := func() (line string, newline, ok bool) {
		if index >= len(text) {
			return "", false, false
		}
		start := index
		if lf := strings.IndexByte(text[index:], '\n'); lf >= 0 {
			index += lf + 1
			return text[start : start+lf], true, true
		}
		index = len(text)
		return text[start:], false, true
	}
	for {
		line, _, ok := readLine()
		if !ok {
			return pairs, nil
		}
		if line == "" {
			continue
		}
		equals, here := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case equals >= 0 && (here < 0 || equals < here):
			parts := strings.SplitN(line, "=", 2)
			pairs = append(pairs, Pair{Name: parts[0], Value: parts[1]})
		case here >= 0:
			parts := strings.SplitN(line, "<<", 2)
			if parts[0] == "" || parts[1] == "" {
				return pairs, fmt.Errorf("invalid format %q", line)
			}
			start, end := index, index
			for {
				line, newline, ok := readLine()
				if ok && line == parts[1] {
					break
				}
				if !ok || !newline {
					return pairs, fmt.Errorf("matching delimiter not found %q", parts[1])
				}
				end = index - 1
			}
			value := ""
			if end > start {
				value = text[start:end]
			}
			pairs = append(pairs, Pair{Name: parts[0], Value: value})
		default:
			return pairs, fmt.Errorf("invalid format %q", line)
		}
	}
}

func TestParsePairs(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []Pair
		refused    []string
	}{
		{name: "empty"},
		{name: "one", text: "a=b\n", want: []Pair{{"a", "b", 1}}},
		{name: "no final newline", text: "a=b", want: []Pair{{"a", "b", 1}}},
		{name: "empty value", text: "a=\nb<<E\nE\n", want: []Pair{{"a", "", 1}, {"b", "", 2}}},
		{name: "blanks are kept", text: " a = b \n", want: []Pair{{" a ", " b ", 1}}},
		{name: "later = and <<", text: "a=b=c<<d\n", want: []Pair{{"a", "b=c<<d", 1}}},
		{name: "empty lines", text: "\n\na=b\n\n\nc=d\n\n", want: []Pair{{"a", "b", 3}, {"c", "d", 6}}},
		{name: "heredoc", text: "a<<EOF\n1\n\n2=3\n EOF\nEOF \nEOF\nb=c\n", want: []Pair{{"a", "1\n\n2=3\n EOF\nEOF ", 1}, {"b", "c", 8}}},
		{name: "heredoc to the end", text: "a<<EOF\nx\nEOF", want: []Pair{{"a", "x", 1}}},
		{name: "heredoc with = in the delimiter", text: "a<<b=c\nx\nb=c\n", want: []Pair{{"a", "x", 1}}},
		{name: "heredoc of newlines", text: "a<<E\n\n\nE\n", want: []Pair{{"a", "\n", 1}}},
		{name: "carriage returns", text: "a=b\r\nc<<E\r\nd\r\nE\r\n", want: []Pair{{"a", "b\r", 1}, {"c", "d\r", 2}}},
		{name: "byte order mark", text: "\ufeffa=b\n", want: []Pair{{"a", "b", 1}}},
		{name: "invalid UTF-8", text: "a=\xffb\n", want: []Pair{{"a", "\ufffdb", 1}}},
		{name: "twice", text: "a=1\na=2\n", want: []Pair{{"a", "1", 1}, {"a", "2", 2}}},
		{
			name: "wrong lines between right ones", text: "a=1\nhello\nb=2\n=x\nc=3\n", want: []Pair{{"a", "1", 1}, {"b", "2", 3}, {"c", "3", 5}},
			refused: []string{`GITHUB_OUTPUT, line 2, "hello": neither name=value nor name<<DELIMITER`, `GITHUB_OUTPUT, line 4, "=x": the name is empty`},
		},
		{
			name: "no end delimiter", text: "a=1\nb<<EOF\nc=2\n  EOF\n", want: []Pair{{"a", "1", 1}},
			refused: []string{`GITHUB_OUTPUT, line 2, "b<<EOF": no line equals its delimiter, so it and all that follows is not taken over (a value that does not end with a newline joins the delimiter to its last line)`},
		},
		{name: "no delimiter", text: "b<<\nc=2\n", want: []Pair{{"c", "2", 2}}, refused: []string{`GITHUB_OUTPUT, line 1, "b<<": there is no delimiter after <<`}},
		{name: "heredoc without a name", text: "<<E\nx\nE\n", refused: []string{`GITHUB_OUTPUT, line 1, "<<E": the name is empty`}},
		{name: "name that ends with <", text: "a<=x\n", refused: []string{`GITHUB_OUTPUT, line 1, "a<=x": the name ends with <`}},
		{name: "control characters", text: "a\rb=1\nb=\x00\n", refused: []string{
			`GITHUB_OUTPUT, line 1, "ab=1": the name holds a control character`, `GITHUB_OUTPUT, line 2, "b=": the value holds a NUL`,
		}},
		{name: "UTF-16", text: "\xff\xfea\x00=\x00", refused: []string{"GITHUB_OUTPUT: it is UTF-16: write UTF-8"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs, refused := ParsePairs("GITHUB_OUTPUT", []byte(tc.text))
			if diff := cmp.Diff(tc.want, pairs); diff != "" {
				t.Error(diff)
			}
			var texts []string
			for _, r := range refused {
				texts = append(texts, r.Error())
			}
			if diff := cmp.Diff(tc.refused, texts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusalsAreFew(t *testing.T) {
	_, refused := ParsePairs("GITHUB_ENV", []byte(strings.Repeat(strings.Repeat("x\x1b[2Jü", 100000)+"\n", 30)))
	if len(refused) != mostRefusals+1 || refused[mostRefusals].Error() != "GITHUB_ENV: 10 more lines are wrong" {
		t.Fatalf("%d refusals, the last: %v", len(refused), refused[len(refused)-1])
	}
	if text := refused[0].Error(); len(text) > 400 || strings.ContainsRune(text, '\x1b') || !strings.Contains(text, "...") {
		t.Errorf("a refusal is not short and harmless: %d bytes: %q", len(text), text)
	}
}

func TestParsePaths(t *testing.T) {
	paths, refused := ParsePaths([]byte("\ufeff/a\n\n /b \r\n/c\rrel\x00\n\ufeff/d\n/e"))
	if diff := cmp.Diff([]string{"/a", " /b ", "/c", "/e"}, paths); diff != "" {
		t.Error(diff)
	}
	want := []Refusal{
		{"GITHUB_PATH", 5, "rel", "the directory holds a NUL"},
		{"GITHUB_PATH", 6, "\ufeff/d", "the directory begins with a byte order mark"},
	}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Error(diff)
	}
	if _, refused := ParsePaths([]byte("\xfe\xff\x00/")); len(refused) != 1 {
		t.Errorf("UTF-16: %v", refused)
	}
}

// FuzzParsePairs: what the runner takes without complaint we read in the same
// way or refuse, and what we take the runner reads from our own file with
// exactly the same names and values.
func FuzzParsePairs(f *testing.F) {
	for _, seed := range []string{
		"a=b\n", "a<<E\nb\nE\n", "a<<E\nb", "a<<<E\n<E\n", "a<=b\n", "\ufeff\ufeffa=b\r\n", "a<<b=c\nb=c", "=\n<<\n", "a\xff<<\xfe\n\xff\n\xfe\n", "x<<\r\n\r\n\r", "a=b\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pairs, refused := ParsePairs("F", text)
		for _, r := range refused {
			if r.Reason == "" || len(r.Error()) > 600 || strings.ContainsFunc(r.Error(), func(c rune) bool { return c < ' ' }) {
				t.Fatalf("refusal %q", r.Error())
			}
		}
		ignoreLines := cmpopts.IgnoreFields(Pair{}, "Line")
		direct, err := runnerPairs(string(text))
		if utf8.Valid(text) && err == nil && len(refused) == 0 {
			if diff := cmp.Diff(direct, pairs, ignoreLines); diff != "" {
				t.Fatalf("the runner reads %q otherwise: %s", text, diff)
			}
		}
		if utf8.Valid(text) && err != nil && len(refused) == 0 {
			t.Fatalf("the runner refuses %q (%v) and we do not", text, err)
		}
		var file strings.Builder
		for _, p := range pairs {
			s, err := heredoc(p.Name, p.Value)
			if err != nil {
				t.Fatal(err)
			}
			file.WriteString(s + "\n")
		}
		again, err := runnerPairs(file.String())
		if err != nil {
			t.Fatalf("the runner would refuse what we write, %q: %v", file.String(), err)
		}
		if diff := cmp.Diff(pairs, again, ignoreLines); diff != "" {
			t.Fatalf("what we write for %q is read otherwise: %s", text, diff)
		}
	})
}

// FuzzParsePaths: written again, a line each, the same directories are read.
func FuzzParsePaths(f *testing.F) {
	for _, seed := range []string{"/a\n/b\r\n/c", "\ufeff\ufeff/x", "\r\r\n", "/\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		paths, _ := ParsePaths(text)
		again, refused := ParsePaths([]byte(strings.Join(paths, "\n")))
		if diff := cmp.Diff(paths, again); diff != "" || len(refused) != 0 {
			t.Fatalf("%s, %v", diff, refused)
		}
	})
}
