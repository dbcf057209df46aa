package dialogue

import (
	"context"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const goodScript = `# how to log in
expect "login:" within 60s
send "root\n"        # the name
  expect /[Pp]assword:|\/etc\/motd/ within 2m

send env PASSWORD "\n"
pause 1500ms
expect "# "
send "\x03\e[A\t\"\\" env A_1
`

func TestParseScript(t *testing.T) {
	s, errs := ParseScript(goodScript)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := `expect "login:" within 1m0s
send "root\n"
expect /[Pp]assword:|\/etc\/motd/ within 2m0s
send env PASSWORD "\n"
pause 1.5s
expect "# " within 1m0s
send "\x03\e[A\t\"\\" env A_1
`
	if s.String() != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if s[2].Expect.Text != `[Pp]assword:|/etc/motd` || s[3].Line != 6 {
		t.Errorf("%q, line %d", s[2].Expect.Text, s[3].Line)
	}
	if got := s.Variables(); !reflect.DeepEqual(got, []string{"PASSWORD", "A_1"}) {
		t.Errorf("variables %q", got)
	}
}

func TestScriptErrors(t *testing.T) {
	for line, want := range map[string]string{
		`wait "x"`:                  `"wait" is no statement`,
		`expect`:                    "does not say what is expected",
		`expect login:`:             "does not say what is expected",
		`expect "x`:                 "quoted text has no end",
		`expect ""`:                 "empty text",
		`expect /x`:                 "regular expression has no end",
		`expect /(/`:                "no regular expression",
		`expect /x*/`:               "matches nothing at all",
		`expect "x" for 3s`:         `"for" follows`,
		`expect "x" within`:         `"" is no time`,
		`expect "x" within 3`:       `"3" is no time`,
		`expect "x" within -3s`:     "is no time",
		`expect "x" within 3s more`: `"more" is too much`,
		`send`:                      "nothing is sent",
		`send root`:                 `"root" can't be sent`,
		`send "\q"`:                 `\q is no escape`,
		`send "\x4"`:                `\x is no escape`,
		`send "\`:                   `\ is no escape`,
		`send env`:                  "no name of a variable",
		`send env A-B`:              "no name of a variable",
		`pause`:                     "is no time",
		`pause 3h`:                  "is no time",
		"send \"\xff\"":             "is not UTF-8",
	} {
		_, errs := ParseScript("# first\n" + line + "\n")
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "line 2: ") || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v, want one with %q", line, errs, want)
		}
	}
	if _, errs := ParseScript("a\nb\nsend \"x\"\nc\n"); len(errs) != 3 || !strings.HasPrefix(errs[2].Error(), "line 4") {
		t.Errorf("not all are reported: %v", errs)
	}
	if _, errs := ParseScript(strings.Repeat("pause 1s\n", maxStatements+1)); len(errs) != 1 {
		t.Errorf("too many statements: %v", errs)
	}
}

// FuzzParseScript: whatever can be read is written so that it is read again as
// the same.
func FuzzParseScript(f *testing.F) {
	f.Add(goodScript)
	f.Add("expect /a\\\\\\/b/\nsend \"\\xff\\x00é\"\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, errs := ParseScript(text)
		if len(errs) > 0 {
			return
		}
		again, errs := ParseScript(s.String())
		if len(errs) > 0 || again.String() != s.String() || len(again) != len(s) {
			t.Fatalf("%q became %q, which is %q, %v", text, s, again, errs)
		}
		for i := range s {
			if !reflect.DeepEqual(again[i].Send, s[i].Send) || again[i].Within != s[i].Within || again[i].Pause != s[i].Pause {
				t.Fatalf("statement %d: %+v became %+v", i, s[i], again[i])
			}
			if (s[i].Expect != nil) && s[i].Expect.Text != again[i].Expect.Text {
				t.Fatalf("%q became %q", s[i].Expect.Text, again[i].Expect.Text)
			}
		}
	})
}

// scriptConsole says one thing after each thing that is sent.
type scriptConsole struct {
	flow    string
	answers []string
	sent    []string
}

func (c *scriptConsole) Expect(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	if at := re.FindStringIndex(c.flow); at != nil {
		c.flow = c.flow[at[1]:]
		return []string{""}, nil
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (c *scriptConsole) Send(_ context.Context, text string) error {
	c.sent = append(c.sent, text)
	if len(c.answers) > 0 {
		c.flow += c.answers[0]
		c.answers = c.answers[1:]
	}
	return nil
}

func TestRunScript(t *testing.T) {
	for name, tc := range map[string]struct {
		text, says string
		took       time.Duration
		sent       []string
	}{
		"all":    {"expect \"login: \"\nsend \"root\\n\"\nexpect /Pass.*: /\nsend env P \"\\n\"\npause 3s\nexpect \"# \"\n", "", 3 * time.Second, []string{"root\n", "secret\n"}},
		"silent": {"expect \"login: \"\n\nexpect /x./ within 5s", `line 3: /x./ did not come on the serial console within 5s`, 5 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, errs := ParseScript(tc.text)
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				c := &scriptConsole{flow: "box login: ", answers: []string{"root\nPassword: ", "\nwelcome\nbox# "}}
				start := time.Now()
				err := s.Run(t.Context(), c, func(string) string { return "secret" })
				var expected *ExpectError
				if (err == nil) != (tc.says == "") || err != nil && (err.Error() != tc.says || !errors.As(err, &expected)) {
					t.Errorf("err = %v, want %q", err, tc.says)
				}
				if time.Since(start) != tc.took || !reflect.DeepEqual(c.sent, tc.sent) {
					t.Errorf("took %s, sent %q", time.Since(start), c.sent)
				}
			})
		})
	}
}

// TestRunScriptEnds holds that the end of the machine is told from an answer
// that did not come.
func TestRunScriptEnds(t *testing.T) {
	for _, text := range []string{`expect "x"`, `pause 1h`} {
		s, _ := ParseScript(text)
		gone := errors.New("the machine is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		err := s.Run(ctx, &scriptConsole{}, nil)
		if !errors.Is(err, gone) || !strings.HasPrefix(err.Error(), "line 1: ") || errors.As(err, new(*ExpectError)) {
			t.Errorf("%s: err = %v", text, err)
		}
	}
}
