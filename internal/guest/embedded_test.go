package guest

import (
	"os/exec"
	"strings"
	"testing"
)

// TestScriptLine has shells read the line back, whatever the login shell is said
// to be.
func TestScriptLine(t *testing.T) {
	script := "#!/bin/sh\n# a comment's quote\nprintf '[%s]' \"$#\" \"$@\" # not a comment line\n"
	args := []string{"it's", "", "a\nb $HOME", "#"}
	for login, direct := range map[string]bool{"": false, "/usr/bin/fish": false, "/bin/tcsh": false, "/bin/bash": false, "/bin/mksh": false, "sh": true, "/usr/bin/dash": true} {
		line := scriptLine(login, script, args...)
		out, err := exec.Command("sh", "-c", line).Output()
		if want := "[4][it's][][a\nb $HOME][#]"; err != nil || string(out) != want {
			t.Errorf("%s: the shell printed %q, %v; want %q", login, out, err, want)
		}
		if strings.HasPrefix(line, "set -- ") != direct {
			t.Errorf("%s: %q", login, line)
		}
	}
}

// TestDialLoginShell: a login shell that is not what it was thought to be costs
// one attempt, and what the server says of it is not believed any more.
func TestDialLoginShell(t *testing.T) {
	s := newServer(t)
	var lines []string
	s.command = func(line string, _ sshChannel) (uint32, bool) {
		lines = append(lines, line) // one after the other
		if strings.HasPrefix(line, "set -- ") {
			return 127, true // fish: Unknown command
		}
		return 0, false
	}
	o := s.listen()
	o.LoginShell = "/bin/dash"
	c := dialed(t, o)
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "set -- ") || !strings.HasPrefix(lines[1], "exec sh -c ") {
		t.Errorf("%q", lines)
	}
	if c.LoginShell() != "" {
		t.Errorf("the login shell is %q", c.LoginShell())
	}
	if r, err := c.RunScript(t.Context(), Script{Text: "exit 3"}, nil, nil); err != nil || r.Status != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}
