package guest

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestParseShell(t *testing.T) {
	for template, want := range map[string]string{
		"":                            "",
		"  ":                          "",
		"bash":                        "bash|--noprofile|--norc|-eo|pipefail|{0}",
		"sh":                          "sh|-e|{0}",
		"python":                      "python|{0}",
		"bash -eo pipefail {0}":       "bash|-eo|pipefail|{0}",
		"  sh\t-e   {0} ":             "sh|-e|{0}",
		`env 'A=b c' "D=e 'f'" x {0}`: "env|A=b c|D=e 'f'|x|{0}",
		`a\ b "c\"d\e" '\' "" {0}`:    `a b|c"d\e|\||{0}`,
		"perl --file={0}":             "perl|--file={0}",
		"{0}":                         "{0}",
		"{0} -x":                      "{0}|-x",
	} {
		words, err := ParseShell(template)
		if err != nil || strings.Join(words, "|") != want {
			t.Errorf("%q: %q, %v; want %q", template, words, err, want)
		}
	}
	for template, want := range map[string]string{
		"bash -e":      "does not say where the script goes",
		"zsh":          "does not say where the script goes",
		"sh {0} {0}":   "holds {0} more than once",
		"x{0}":         "names its program by {0}",
		"sh 'x {0}":    "has an open quote (')",
		`sh "x {0}`:    `has an open quote (")`,
		`sh {0} \`:     "ends with a backslash",
		"sh {0}\nrm x": "holds a control character or a line end",
		"sh\x00 {0}":   "holds a control character or a line end",
	} {
		_, err := ParseShell(template)
		var e *TemplateError
		if !errors.As(err, &e) || e.Problem != want || e.Template != template {
			t.Errorf("%q: %v; want %s", template, err, want)
		}
	}
	_, err := ParseShell("zsh")
	want := `the shell "zsh" does not say where the script goes: write a command line with {0} for the script's path, such as "bash -eo pipefail {0}", or one of the names bash, sh, python`
	if err == nil || err.Error() != want {
		t.Errorf("err = %v", err)
	}
}

// FuzzParseShell: what is accepted has exactly one {0}, and quoted again it
// is what a shell splits it into.
func FuzzParseShell(f *testing.F) {
	for _, seed := range []string{"bash -e {0}", `a 'b c' "d" {0}`, `\x {0}`, "", "{0}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, template string) {
		words, err := ParseShell(template)
		if err != nil || words == nil {
			return
		}
		if n := strings.Count(strings.Join(words, "\x00"), placeholder); n != 1 {
			t.Fatalf("%q holds {0} %d times", words, n)
		}
		again, err := ParseShell(quoteAll(words...))
		if err != nil || strings.Join(again, "\x00") != strings.Join(words, "\x00") {
			t.Fatalf("%q quoted is %q, %v", words, again, err)
		}
	})
}

// FuzzQuote: a real shell gives back what was quoted.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "a b", "it's", `\"$x`, "a\nb\n", "-n", "ü'''"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\x00") {
			t.Skip("no argument can hold this")
		}
		out, err := exec.Command("sh", "-c", "printf '%s' "+quote(text)).Output()
		if err != nil || string(out) != text {
			t.Fatalf("%q came back as %q, %v", text, out, err)
		}
	})
}
