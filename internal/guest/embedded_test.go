package guest

import (
	"os/exec"
	"testing"
)

// TestScriptLine has a shell read the line back.
func TestScriptLine(t *testing.T) {
	line := ScriptLine("#!/bin/sh\n# a comment's quote\nprintf '[%s]' \"$#\" \"$@\" # not a comment line\n", "it's", "", "a\nb $HOME", "#")
	out, err := exec.Command("sh", "-c", line).Output()
	if want := "[4][it's][][a\nb $HOME][#]"; err != nil || string(out) != want {
		t.Errorf("the shell printed %q, %v; want %q", out, err, want)
	}
}
