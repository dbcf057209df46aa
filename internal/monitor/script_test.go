package monitor

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseScript(t *testing.T) {
	script, problems := ParseScript(`
# a comment
before-boot: query-status
on-console "Press \"ESC\"|GRUB \d": sendkey esc

  on-console 'login: $'  :  type "root\n"
after-boot:{"execute":"query-block"}
after-run: screendump end.png
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, s := range script {
		pattern := ""
		if s.Pattern != nil {
			pattern = fmt.Sprintf(" %q", s.Pattern)
		}
		got = append(got, s.String()+pattern)
	}
	want := []string{
		`line 3, before-boot: query-status`,
		`line 4, on-console: send-key esc "Press \"ESC\"|GRUB \\d"`,
		`line 6, on-console: send-key (5 keys typed) "login: $"`,
		`line 7, after-boot: query-block`,
		`line 8, after-run: screendump end.png format="png"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if due := script.At(OnConsole); len(due) != 2 || due[1].Line != 6 {
		t.Errorf("on-console: %v", due)
	}
	if script, problems := ParseScript("\n \n# x"); script != nil || problems != nil {
		t.Errorf("nothing is %v, %v", script, problems)
	}
}

func TestParseScriptProblems(t *testing.T) {
	const text = `query-status
befor-boot: stop
after-run stop
on-console: stop
on-console "x: stop
on-console "(": stop
on-console "x*": stop
on-console "x" stop
after-run:
after-run: query-status x
after-run: screendump /tmp/x.png
after-run: screendump .x.png
before-boot: sendkey esc
after-boot: stop`
	script, problems := ParseScript(text)
	want := []string{
		`line 1: "query-status" is no moment: a line begins with one of before-boot, after-boot, after-run and on-console "REGEX", and a colon`,
		`line 2: "befor-boot" is no moment (did you mean before-boot?): a line`,
		`line 3: there is no colon after after-run`,
		`line 4: on-console: the pattern is missing: write on-console "REGEX": COMMAND`,
		`line 5: on-console: no " ends the pattern`,
		`line 6: on-console: "(" is not a regular expression: `,
		`line 7: on-console: "x*" matches every line`,
		`line 8: there is no colon after on-console`,
		`line 9: there is no command after after-run and its colon`,
		`line 10: "x" is not key=value`,
		`line 11: screendump: "/tmp/x.png": write a plain name such as menu.png`,
		`line 12: screendump: ".x.png": write a plain name`,
		`line 13: what is typed before the machine runs is lost`,
	}
	if len(script) != 1 || script[0].Line != 14 {
		t.Errorf("script = %v", script)
	}
	if len(problems) != len(want) {
		t.Fatalf("%d problems: %v", len(problems), problems)
	}
	for i, p := range problems {
		if !strings.HasPrefix(p.Error(), want[i]) {
			t.Errorf("%s\nwant %s", p, want[i])
		}
	}
}

// FuzzParseScript holds that each line is a step or a problem, or is skipped,
// and that no line changes what another one is.
func FuzzParseScript(f *testing.F) {
	f.Add("before-boot: stop\n\n# x\non-console \"a\\\"b\": type x\nafter-run: a b=\"", 2)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		script, problems := ParseScript(text)
		lines := strings.Split(text, "\n")
		said := map[int]bool{}
		for _, s := range script {
			said[s.Line] = true
		}
		for _, p := range problems {
			if said[p.Line] {
				t.Errorf("line %d is a step and a problem", p.Line)
			}
			said[p.Line] = true
		}
		for i, line := range lines {
			line = strings.TrimSpace(line)
			if skipped := line == "" || line[0] == '#'; skipped == said[i+1] {
				t.Errorf("line %d, %q: step or problem: %v", i+1, line, said[i+1])
			}
		}
		if cut < 0 || cut > len(lines) {
			return
		}
		a, pa := ParseScript(strings.Join(lines[:cut], "\n"))
		b, pb := ParseScript(strings.Join(lines[cut:], "\n"))
		if len(a)+len(b) != len(script) || len(pa)+len(pb) != len(problems) {
			t.Errorf("cut at %d: %d and %d steps of %d", cut, len(a), len(b), len(script))
		}
	})
}
