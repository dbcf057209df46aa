package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hurd-qemu-action": func() {
		c := Command{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Args: os.Args[1:], Environ: os.Environ(), Version: "v0.0.0-test"}
		os.Exit(c.Main())
	}})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(e *testscript.Env) error {
		e.Setenv("HOME", e.WorkDir)
		e.Setenv("RUNNER_TEMP", filepath.Join(e.WorkDir, ".tmp"))
		e.Setenv("NO_PROGRAMS", filepath.SplitList(e.Getenv("PATH"))[0]) // a path with this program alone
		return nil
	}})
}

func TestQuoted(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"uname", "-a"}, "'uname' '-a'"},
		{[]string{"echo", "it's", "", "$HOME\n"}, `'echo' 'it'\''s' '' '$HOME` + "\n'"},
	} {
		if got := quoted(tc.args); got != tc.want {
			t.Errorf("quoted(%q) = %s, want %s", tc.args, got, tc.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	c := Command{Environ: []string{"A=1", "B=x=y", "A=2"}}
	for name, want := range map[string]string{"A": "2", "B": "x=y", "C": ""} {
		if got := c.getenv(name); got != want {
			t.Errorf("getenv(%s) = %q, want %q", name, got, want)
		}
	}
}
