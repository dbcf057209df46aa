package selftest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const buildScript = "../../testdata/selftest/build"

// TestBuildRefuses holds that the build script says what is wrong, before it
// does anything.
func TestBuildRefuses(t *testing.T) {
	bash := need(t, "bash", "bash")
	dir := t.TempDir()
	out := filepath.Join(dir, "x.img.zst")
	// Programs that come before the check for the rest, and nothing else.
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dirname", "realpath", "mkdir", "cat"} {
		if err := os.Symlink(need(t, name, "coreutils"), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		path string
		args []string
		want []string
	}{
		{"no output", os.Getenv("PATH"), nil, []string{"usage:", "--out is missing"}},
		{"another suffix", os.Getenv("PATH"), []string{"--out", "x.xz"}, []string{"--out must end in .zst: x.xz"}},
		{"an option without its value", os.Getenv("PATH"), []string{"--out"}, []string{"--out needs a value"}},
		{"an age that is none", os.Getenv("PATH"), []string{"--out", out, "--max-age", "old"}, []string{"--max-age is not a number of days: old"}},
		{"an unknown argument", os.Getenv("PATH"), []string{"--fast"}, []string{"unknown argument: --fast"}},
		{"missing programs", bin, []string{"--out", out}, []string{"missing on this machine:", "apt-get install --no-install-recommends", "fakeroot", "zstd", "xz-utils"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(bash, append([]string{buildScript}, tc.args...)...)
			cmd.Env = []string{"PATH=" + tc.path}
			text, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("err = %v, want exit status 1\n%s", err, text)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(text), want) {
					t.Errorf("it says %q, want %q in it", text, want)
				}
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it left an output")
			}
		})
	}
}
