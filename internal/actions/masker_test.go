package actions

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	m := NewMasker(nil)
	for _, secret := range []string{"s3cr3t", "  padded \n", "first line\r\nsecond\n}\n", "\"quo'ted\"<&>\\"} {
		if !m.Mask(secret) {
			t.Errorf("%q is not masked", secret)
		}
	}
	for _, harmless := range []string{"", "abc", " \n a \n", "********"} {
		if m.Mask(harmless) {
			t.Errorf("%q is masked", harmless)
		}
	}
	for in, want := range map[string]string{
		"": "", "nothing": "nothing", "a s3cr3t b": "a *** b", "s3cr3ts3cr3t": "***", "s3cr3": "s3cr3", "s3cs3cr3t": "s3c***",
		"padded": "***", "x first line": "x ***", "}": "}", "first line\nsecond\n": "***\n***\n",
		base64.StdEncoding.EncodeToString([]byte("user:s3cr3t")):       "dXNlcjp***Q=",
		"Basic " + base64.StdEncoding.EncodeToString([]byte("s3cr3t")): "Basic ***",
		`{"a":"\"quo'ted\"<&>\\"}`:                                     `{"a":"***"}`,
		html.EscapeString("\"quo'ted\"<&>\\"):                          "***",
		url.QueryEscape("\"quo'ted\"<&>\\"):                            "***",
		fmt.Sprintf("%q", "\"quo'ted\"<&>\\"):                          `"***"`,
		`'"quo'\''ted"<&>\'`:                                           `'***'`,
	} {
		if got := m.String(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	coded, err := json.Marshal("\"quo'ted\"<&>\\")
	if err != nil || m.String(string(coded)) != `"***"` {
		t.Errorf("JSON: %q, %v", m.String(string(coded)), err)
	}
}

func TestMaskOverlap(t *testing.T) {
	m := NewMasker(nil)
	m.Mask("abcdef")
	m.Mask("defghi")
	m.Mask("cdef")
	m.Mask("abcdefgh-long")
	for in, want := range map[string]string{
		"abcdefghi": "***", "xabcdefghix": "x***x", "abcdefgh-long": "***", "abcdefgh-lon": "***gh-lon", "xcdefghi!": "x***!", "abcdefdefghi": "***",
	} {
		if got := m.String(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestMaskIsAnnouncedOnce(t *testing.T) {
	l, out := newLog(t, nil)
	m := NewMasker(l.AddMask)
	m.Mask("two\nlines")
	m.Mask("two\nlines")
	m.Mask("abc")
	if got := out.String(); got != "::add-mask::two%0Alines\n" {
		t.Errorf("said %q", got)
	}
	people := New(Options{Stdout: failing{t}, Stderr: failing{t}})
	NewMasker(people.AddMask).Mask("never printed")
}

// TestMaskWriterHoldsBack: only what could be the beginning of a secret waits.
func TestMaskWriterHoldsBack(t *testing.T) {
	m := NewMasker(nil)
	m.Mask("secret-one")
	var out bytes.Buffer
	w := m.Writer(&out)
	for _, step := range []struct{ write, shown string }{
		{"Password: ", "Password: "}, {"se", ""}, {"nd it, s", "send it, "}, {"ecret-", ""}, {"one", "***"}, {"secret-", ""}, {"one", ""}, {"!", "!"}, {"secret-on", ""},
	} {
		out.Reset()
		if _, err := fmt.Fprint(w, step.write); err != nil || out.String() != step.shown {
			t.Errorf("after %q: %q, %v; want %q", step.write, &out, err, step.shown)
		}
	}
	out.Reset()
	if err := w.Close(); err != nil || out.String() != "secret-on" {
		t.Errorf("at the end: %q, %v", &out, err)
	}
	for range 2 { // another text
		out.Reset()
		fmt.Fprint(w, "secret-one")
		if err := w.Close(); err != nil || out.String() != "***" {
			t.Errorf("another text: %q, %v", &out, err)
		}
	}
}

// TestMaskWriterLearns: a secret that is made known later counts for what is
// still held back.
func TestMaskWriterLearns(t *testing.T) {
	m := NewMasker(nil)
	m.Mask("aaaa-first")
	var out bytes.Buffer
	w := m.Writer(&out)
	fmt.Fprint(w, "xaaaa")
	m.Mask("aaabbb")
	fmt.Fprint(w, "bbb, aaaa-first")
	if err := w.Close(); err != nil || out.String() != "xa***, ***" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestMaskWriterFails(t *testing.T) {
	m := NewMasker(nil)
	full := errors.New("no space left")
	w := m.Writer(failingWith{full})
	if n, err := w.Write([]byte("abc")); n != 0 || !errors.Is(err, full) {
		t.Errorf("%d, %v", n, err)
	}
}

type failingWith struct{ err error }

func (f failingWith) Write([]byte) (int, error) { return 0, f.err }

// masked is the plain way: every occurrence of every secret, and one *** for
// those that overlap or adjoin.
func masked(secrets map[string]bool, text string) string {
	cover, starts := make([]bool, len(text)), make([]bool, len(text))
	for s := range secrets {
		for i := range text {
			if strings.HasPrefix(text[i:], s) {
				for j := range s {
					cover[i+j] = true
				}
			}
		}
	}
	var b strings.Builder
	for i := range len(text) {
		starts[i] = cover[i] && (i == 0 || !cover[i-1])
		if starts[i] {
			b.WriteString("***")
		}
		if !cover[i] {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// FuzzMaskWriter: any cut of a text is masked as the whole of it is in the plain
// way, no secret is left, and no more is held back than could be one's beginning.
func FuzzMaskWriter(f *testing.F) {
	f.Add("abcd", "bcda", "abcdabcda", []byte{1, 2, 3})
	f.Add("aaaa", "aaaaab", "aaaaaaaabaaaa", []byte{1})
	f.Add("one\ntwo\nthree", "two\n", "one\ntwo\nthree\n", []byte{4, 4})
	f.Add("abab", "babab", "ababababab", []byte{0, 1, 5})
	f.Fuzz(func(t *testing.T, one, two, text string, cuts []byte) {
		if strings.Contains(one+two, "*") || len(one)+len(two) > 300 || len(text) > 3000 {
			t.Skip("a secret with * can come to be by masking; the plain way is slow")
		}
		m := NewMasker(nil)
		for _, s := range []string{one, two} { // without their spellings
			if len(s) >= shortest {
				m.secrets[s] = true
			}
		}
		var out bytes.Buffer
		w := m.Writer(&out)
		for rest := text; rest != ""; {
			n := len(rest)
			if len(cuts) > 0 {
				n, cuts = min(n, int(cuts[0])), cuts[1:]
			}
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			held := string(w.held)
			if held != "" && !strings.HasPrefix(one, held) && !strings.HasPrefix(two, held) {
				t.Fatalf("%q is held back", held)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), masked(m.secrets, text); got != want {
			t.Fatalf("%q is shown as %q, want %q", text, got, want)
		}
		for s := range m.secrets {
			if strings.Contains(out.String(), s) {
				t.Fatalf("%q is left", s)
			}
		}
	})
}

// FuzzMask: whatever a value is, neither it nor a line of it is left in a text,
// nor its base64.
func FuzzMask(f *testing.F) {
	f.Add("s3cr3t", "user:", " x")
	f.Add("a\r\nlonger line\n", "", "\n")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		m := NewMasker(nil)
		if !m.Mask(secret) || strings.Contains(before+secret+after, "*") {
			t.Skip("not masked")
		}
		got := m.String(before + secret + after)
		for line := range strings.FieldsFuncSeq(secret, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimSpace(line); len(line) >= shortest && strings.Contains(got, line) {
				t.Fatalf("%q is left in %q", line, got)
			}
		}
		coded := base64.StdEncoding.EncodeToString([]byte(before + strings.TrimSpace(secret) + after))
		if got := m.String(coded); len(got) >= len(coded) && len(strings.TrimSpace(secret)) > 4 {
			t.Fatalf("nothing is masked in %q: %q", coded, got)
		}
	})
}

func TestLooksSecret(t *testing.T) {
	for name, want := range map[string]bool{
		"TOKEN": true, "GH_TOKEN": true, "NPMTOKEN": true, "apiToken": true, "AWS_SECRET_ACCESS_KEY": true, "SECRET_ID": true,
		"DB_PASSWORD": true, "PGPASSWD": true, "MY_PASS": true, "GITHUB_PAT": true, "SSH_PRIVATE_KEY": true, "API_KEY_2": true,
		"GOOGLE_CREDENTIALS": true, "SLACK_WEBHOOK_URL": true, "DATABASE_URL": true, "TOKEN_B64": true, "secret-value": true, "DB_PWD": true,
		"CI": false, "PWD": false, "OLDPWD": false, "PATH": false, "COMPASS": false, "KEY": false, "CACHE_KEY": false, "MAX_TOKENS": false, "TOKEN_FILE": false,
		"TOKEN_URL": false, "SECRET_NAME": false, "PASSWORD_LENGTH": false, "AUTHOR": false, "GITHUB_REF": false, "SPAT": false, "VERSION": false,
	} {
		if got := LooksSecret(name); got != want {
			t.Errorf("LooksSecret(%q) = %v", name, got)
		}
	}
}

func BenchmarkMaskWriter(b *testing.B) {
	m := NewMasker(nil)
	for i := range 50 {
		m.Mask(fmt.Sprintf("secret-%d-%s", i, strings.Repeat("k", 40)))
	}
	text := []byte(strings.Repeat("gcc -O2 -c some/file.c -o some/file.o\nsec", 1000))
	w := m.Writer(discard{})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		_, _ = w.Write(text)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
