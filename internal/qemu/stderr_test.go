package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestTranscript(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"lines", "one\ntwo\n", "one\ntwo"},
		{"no newline at the end", "one\ntwo", "one\ntwo"},
		{"noise", "one\nqemu-system-x86_64: Slirp: Failed to send packet, ret: -1\n\n  \nwarning: host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]\ntwo\n", "one\ntwo"},
		{"a long line", strings.Repeat("x", 1000) + "\nend\n", strings.Repeat("x", stderrLineLimit) + "\nend"},
		{"CR LF", "one\r\ntwo\r\n", "one\ntwo"},
	} {
		for _, size := range []int{1, 3, len(tc.text) + 1} {
			var log bytes.Buffer
			tr := &transcript{log: &log}
			for rest := tc.text; rest != ""; {
				n, err := tr.Write([]byte(rest[:min(size, len(rest))]))
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if got := tr.tail(); got != tc.want {
				t.Errorf("%s, in pieces of %d: %q, want %q", tc.name, size, got, tc.want)
			}
			if log.String() != tc.text {
				t.Errorf("%s: the log has %q", tc.name, log.String())
			}
		}
	}
	tr := &transcript{log: brokenWriter{}}
	for i := range 100 {
		if _, err := fmt.Fprintf(tr, "line %d\n", i); err != nil {
			t.Errorf("a log that fails ends QEMU: %v", err)
		}
	}
	kept := strings.Split(tr.tail(), "\n")
	if len(kept) != stderrLines || kept[stderrLines-1] != "line 99" {
		t.Errorf("kept %q", kept)
	}
}

// TestQuote lets a shell read what was quoted.
func TestQuote(t *testing.T) {
	args := []string{"printf", `%s\n`, "", "plain-1.2,a=b:/x@%", "two words", `{"json": true}`, "it's", "$HOME `id` \\ ;|&", "-ä"}
	out, err := exec.Command("sh", "-c", quote(args)).Output()
	if err != nil || string(out) != strings.Join(args[2:], "\n")+"\n" {
		t.Errorf("%s\ngave %q, %v", quote(args), out, err)
	}
	if got := quote([]string{"qemu", "-m", "512M"}); got != "qemu -m 512M" {
		t.Errorf("plain words need no quotes: %s", got)
	}
}

func TestExitErrorTexts(t *testing.T) {
	for _, tc := range []struct {
		exit ExitError
		want string
	}{
		{ExitError{Reason: ExitFailed, Status: 1, Stderr: "one\ntwo"}, "qemu ended: it failed with status 1: one; two"},
		{ExitError{Reason: ExitKilled, Status: 139, Signal: 11}, "qemu ended: it was killed by signal 11 (segmentation fault)"},
		{ExitError{Reason: ExitKilled, Status: 159, Signal: 31}, "qemu ended: it was killed by signal 31 (bad system call): its sandbox forbids what it tried to do"},
		{ExitError{Reason: "new", Status: 0}, "qemu ended: it went away with status 0 and no explanation"},
	} {
		var err error = &tc.exit
		if err.Error() != tc.want {
			t.Errorf("got %q, want %q", err, tc.want)
		}
		var exit *ExitError
		if !errors.As(fmt.Errorf("booting: %w", err), &exit) {
			t.Error("an *ExitError is not found in its wrapping")
		}
	}
}
