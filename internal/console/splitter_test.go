package console

import (
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSplitter(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		lines    []string
		partial  string
	}{
		{"line feed", "a\nb\n", []string{"a", "b"}, ""},
		{"CR LF", "a\r\nb\r\n", []string{"a", "b"}, ""},
		{"LF CR, as GNU Mach ends its lines", "\ra\r\n\rb\r\n\r", []string{"a", "b"}, ""},
		{"CR CR LF", "a\r\r\n", []string{"a"}, ""},
		{"empty lines", "\n\r\na\n\n", []string{"", "", "a", ""}, ""},
		{"prompt", "a\nlogin: ", []string{"a"}, "login: "},
		{"prompt with many blanks", "login:      ", nil, "login:"},
		{"form feed", "a\fb\vc\n", []string{"a", "b", "c"}, ""},
		{"CR overwrites", "10%\r20%\r100%\n", []string{"100%"}, ""},
		{"CR overwrites a part", "abcdef\rXY\n", []string{"XYcdef"}, ""},
		{"erase to the end", "probing 1\x1b[K\rprobing 22\x1b[K\rok\x1b[K\n", []string{"ok"}, ""},
		{"erase all", "secret\x1b[2K\rnew\n", []string{"new"}, ""},
		{"erase before", "abc\b\x1b[1K\n", []string{""}, ""},
		{"erase below", "abcdef\b\b\x1b[J\n", []string{"abcd"}, ""},
		{"backspace", "abd\bc\n", []string{"abc"}, ""},
		{"backspace at the start", "\b\b\ba\n", []string{"a"}, ""},
		{"tab", "a\tb\n\tc\n", []string{"a       b", "        c"}, ""},
		{"tab over text", "abcdefghij\r\tX\n", []string{"abcdefghXj"}, ""},
		{"trailing blanks", "a   \n", []string{"a"}, ""},
		{"NUL, BEL and DEL", "a\x00b\x07c\x7f\n", []string{"abc"}, ""},
		{"controls", "a\x01\x1eb\n", []string{`a\x01\x1eb`}, ""},
		{"colours", "\x1b[1;31mred\x1b[0m\x1b[mplain\n", []string{"redplain"}, ""},
		{"forward", "a\x1b[3Cb\n", []string{"a   b"}, ""},
		{"forward without end", "a\x1b[99999999999999999999Cb\n", []string{"a b"}, ""},
		{"back and column", "abc\x1b[2DX\x1b[1GY\n", []string{"YXc"}, ""},
		{"title", "\x1b]0;title\x07a\x1b]2;t\x1b\\b\n", []string{"ab"}, ""},
		{"title without end", "\x1b]0;title\nb\n", []string{"", "b"}, ""},
		{"character set", "\x1b(Ba\x1b)0b\n", []string{"ab"}, ""},
		{"keypad, save, restore", "\x1b=a\x1b7b\x1b8\x1b>\n", []string{"ab"}, ""},
		{"cancelled sequence", "\x1b[31\x18a\n", []string{"a"}, ""},
		{"escape in a sequence", "\x1b[31\x1b[mb\n", []string{"b"}, ""},
		{"cursor moves end lines", "\x1b[2J\x1b[1;1HGRUB\x1b[4;2H+----+\x1b[5;2H|\x1b[5;9H|\x1b[6;2H| entry\n",
			[]string{"GRUB", "| entry"}, ""},
		{"UTF-8", "grüße 🐃\n", []string{"grüße 🐃"}, ""},
		{"Latin-1", "gr\xfc\xdfe\n", []string{`gr\xfc\xdfe`}, ""},
		{"a character cut short", "\xf0\x9f\x90a\xe2\x82\n", []string{`\xf0\x9f\x90a\xe2\x82`}, ""},
		{"surrogates and overlong", "\xed\xa0\x80\xc0\xaf\n", []string{`\xed\xa0\x80\xc0\xaf`}, ""},
		{"directions", "a\u202eb\u2066\u0085c\n", []string{`a\u202eb\u2066\u0085c`}, ""},
		{"eight-bit controls", "a\x9b31mb\n", []string{`a\x9b31mb`}, ""},
		{"incomplete at the end", "abc\xe2\x82", nil, "abc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Splitter
			got := s.Write([]byte(tc.in))
			if diff := cmp.Diff(tc.lines, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if s.Partial() != tc.partial {
				t.Errorf("partial %q, want %q", s.Partial(), tc.partial)
			}
		})
	}
}

func TestSplitterLongLine(t *testing.T) {
	s := Splitter{Limit: 10}
	got := s.Write([]byte("0123456789abc\r\n" + strings.Repeat("x", 10) + "\r\n\x1b[50Cy\n"))
	want := []string{"0123456789", "abc", "xxxxxxxxxx", "", "y"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSplitterEndlessSequence: a sequence that never ends swallows at most its limit.
func TestSplitterEndlessSequence(t *testing.T) {
	for _, begin := range []string{"\x1b]", "\x1bP", "\x1b[", "\x1b("} {
		var s Splitter
		s.Write([]byte(begin + strings.Repeat("1", 2*escapeLimit) + " panic"))
		if !strings.HasSuffix(s.Partial(), " panic") {
			t.Errorf("%q swallowed the rest: %q", begin, s.Partial())
		}
	}
}

func TestSplitterFlush(t *testing.T) {
	var s Splitter
	s.Write([]byte("a\nb\xe2\x82"))
	if got := s.Flush(); len(got) != 1 || got[0] != `b\xe2\x82` {
		t.Errorf("%q", got)
	}
	if got := s.Flush(); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
}

func TestClean(t *testing.T) {
	if got := Clean([]byte("a\r\n\x1b[31mb\x1b[0m\r\nc")); got != "a\nb\nc" {
		t.Errorf("%q", got)
	}
}

func TestRing(t *testing.T) {
	texts := func(lines []Line) string {
		var b strings.Builder
		for _, l := range lines {
			b.WriteString(l.Text + " ")
		}
		return b.String()
	}
	r := Ring{Lines: 3, Bytes: 10}
	for _, text := range []string{"a", "b", "c", "d"} {
		r.Add(Line{Text: text})
	}
	if got := texts(r.Tail(-1)); got != "b c d " || r.Forgotten() != 1 {
		t.Errorf("%q, %d forgotten", got, r.Forgotten())
	}
	if got := texts(r.Tail(2)); got != "c d " {
		t.Errorf("%q", got)
	}
	r.Add(Line{Text: "123456789"})
	if got := texts(r.Tail(9)); got != "d 123456789 " {
		t.Errorf("%q", got)
	}
	r.Add(Line{Text: strings.Repeat("x", 50)})
	if got := r.Tail(-1); len(got) != 1 || len(got[0].Text) != 50 {
		t.Errorf("the newest line was not kept: %q", texts(got))
	}
}

// FuzzSplitter: the lines do not depend on how the bytes are cut, hold nothing
// that a terminal would act upon, and are bounded.
func FuzzSplitter(f *testing.F) {
	for _, path := range logs(f) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 3000)], uint16(7))
	}
	f.Add([]byte("a\r\nb\x1b[2Kc\x1b]0;x\x07\xe2\x82\xac\xff\b\t"), uint16(1))
	f.Fuzz(func(t *testing.T, text []byte, seed uint16) {
		whole := Splitter{Limit: 100, record: true}
		want := append(whole.Write(text), whole.Flush()...)
		chunked := Splitter{Limit: 100, record: true}
		var got []string
		next := uint32(seed)
		for rest := text; len(rest) > 0; {
			next = next*1664525 + 1013904223
			n := min(int(next>>24)%9+1, len(rest))
			got = append(got, chunked.Write(rest[:n])...)
			if p := chunked.Partial(); utf8.RuneCountInString(p) > 100 {
				t.Fatalf("partial line of %d characters", len(p))
			}
			rest = rest[n:]
		}
		got = append(got, chunked.Flush()...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("depends on the chunks (-whole +chunks):\n%s", diff)
		}
		if a, b := string(whole.takeFlow()), string(chunked.takeFlow()); a != b {
			t.Fatalf("the flow depends on the chunks: %q, %q", a, b)
		}
		for _, line := range got {
			if !utf8.ValidString(line) || utf8.RuneCountInString(line) > 100 || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) && r != '\u00a0' }) {
				t.Fatalf("line %q", line)
			}
		}
	})
}

// FuzzSplitterPlain: of plain text nothing is lost.
func FuzzSplitterPlain(f *testing.F) {
	f.Add("hello\nworld")
	f.Add("login: ")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4000 || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (!unicode.IsPrint(r) || r == utf8.RuneError) }) {
			t.Skip("not plain")
		}
		var want []string
		for line := range strings.Lines(text) {
			want = append(want, strings.TrimRight(strings.TrimSuffix(line, "\n"), " "))
		}
		var s Splitter
		got := append(s.Write([]byte(text)), s.Flush()...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
