package cloudinit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shells run the scripts as the guests' shells would: Debian's dash, and that of
// a small system.
func shells(t *testing.T) [][]string {
	t.Helper()
	var all [][]string
	for _, words := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(words[0]); err == nil {
			all = append(all, words)
		} else if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("%s is not installed, and E2E_REQUIRED=1", words[0])
		}
	}
	if len(all) == 0 {
		t.Skip("neither dash nor bash nor busybox is installed")
	}
	return all
}

func parsed(t *testing.T, userData string) Plan {
	t.Helper()
	plan, err := Parse("#cloud-config\n"+userData, "", Options{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestCommands runs lists of commands: each has its mark, and all of them one
// shell.
func TestCommands(t *testing.T) {
	for name, tc := range map[string]struct {
		data, want string
		statuses   []int
	}{
		"each has its status":    {`[echo a, "false", exit-no-such 2>/dev/null, echo b]`, "a\nb\n", []int{0, 1, 127, 0}},
		"one shell":              {`[cd /, x=1, 'echo $PWD $x']`, "/ 1\n", []int{0, 0, 0}},
		"words are not expanded": {`[[printf, '%s|', "it's", $HOME, "*", ""]]`, "it's|$HOME|*||\n", []int{0}},
		"several lines":          {"\n- |\n  for i in 1 2; do\n    echo $i\n  done\n- 'echo x # a comment'\n", "1\n2\nx\n", []int{0, 0}},
		"output elsewhere":       {`[exec >/dev/null, echo lost, "false"]`, "", []int{0, 0, 1}},
		"it ends the shell":      {`[echo a, exit 3, echo b]`, "a\n", []int{0}},
		"errors end the shell":   {`[set -e, "false", echo b]`, "", []int{0}},
		"broken":                 {`[echo a, 'if', echo b]`, "a\n", []int{0}},
		"nobody keeps the mark":  {`['sh -c "echo x >&9" 2>/dev/null']`, "", []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			step := parsed(t, "runcmd: "+tc.data+"\n").Steps[0]
			for _, shell := range shells(t) {
				file := filepath.Join(t.TempDir(), "script.sh")
				if err := os.WriteFile(file, []byte(step.Text), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(shell[0], append(shell[1:], file)...)
				out, _ := cmd.Output()
				got, statuses := sifted(string(out), 4096)
				if tc.statuses[0] == 2 && len(statuses) == 1 && statuses[0] != 0 {
					statuses[0] = 2 // the status of a redirection that fails is the shell's choice
				}
				if got != tc.want || !slices.Equal(statuses, tc.statuses) {
					t.Errorf("%s: %q, %v, want %q, %v", shell[0], got, statuses, tc.want, tc.statuses)
				}
			}
		})
	}
}

// do runs a step's command line.
func do(shell []string, s Step, env ...string) (string, error) {
	cmd := exec.Command(shell[0], append(shell[1:], "-c", s.Line)...)
	cmd.Stdin, cmd.Env = bytes.NewReader(s.Stdin), append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWriteFiles(t *testing.T) {
	owner := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	for _, shell := range shells(t) {
		dir := t.TempDir()
		name := filepath.Join(dir, "a dir/it's", "file")
		plan := parsed(t, fmt.Sprintf(`write_files:
- {path: "%[1]s", owner: "%[2]s", permissions: '0640', content: "$x 'q'\n"}
- {path: "%[1]s", owner: "%[2]s", permissions: '0600', content: "more", append: true}
- {path: "%[1]s.empty", owner: "%[2]s"}
- {path: "%[3]s", owner: "%[2]s"}
`, name, owner, dir))
		for _, s := range plan.Steps[:3] {
			if out, err := do(shell, s); err != nil || out != "" {
				t.Errorf("%s: %s: %v: %s", shell[0], s.Part, err, out)
			}
		}
		if text, err := os.ReadFile(name); err != nil || string(text) != "$x 'q'\nmore" {
			t.Errorf("%q, %v", text, err)
		}
		for file, mode := range map[string]os.FileMode{name: 0o600, name + ".empty": 0o644} {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v; want %v", file, info, err, mode)
			}
		}
		if out, err := do(shell, plan.Steps[3]); err == nil {
			t.Errorf("%s: a directory was written: %s", shell[0], out)
		}
	}
}

// TestPackages holds what apt-get is called with.
func TestPackages(t *testing.T) {
	for _, shell := range shells(t) {
		bin := t.TempDir()
		stub := "#!/bin/sh\necho \"$DEBIAN_FRONTEND\"\nprintf '[%s]' \"$@\"\ncat\nexit 100\n"
		if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(stub), 0o700); err != nil {
			t.Fatal(err)
		}
		plan := parsed(t, "packages: [gcc, make]\n")
		options := "[-q][-y][-o][Acquire::Retries=3][-o][DPkg::Lock::Timeout=120][-o][Dpkg::Options::=--force-confdef][-o][Dpkg::Options::=--force-confold]"
		for i, want := range []string{"[update]", "[install][--][gcc][make]"} {
			out, err := do(shell, plan.Steps[i], "PATH="+bin+":"+os.Getenv("PATH"))
			if want = "noninteractive\n" + options + want; out != want || err == nil || !strings.Contains(err.Error(), "100") {
				t.Errorf("%s: %q, %v; want %q and its status", shell[0], out, err, want)
			}
		}
		sh, _ := exec.LookPath("sh")
		if err := os.Remove(filepath.Join(bin, "apt-get")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(sh, filepath.Join(bin, "sh")); err != nil {
			t.Fatal(err)
		}
		if out, err := do(shell, plan.Steps[0], "PATH="+bin); err == nil || shell[0] != "busybox" && !strings.Contains(out, "the guest has no apt-get") {
			t.Errorf("%s without apt-get: %v: %s", shell[0], err, out)
		}
	}
}

// TestSystemctl holds that what is not known says what to do instead.
func TestSystemctl(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"sh", "cat"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for command, want := range map[string]string{
		"systemctl daemon-reload":                 "",
		"systemctl --quiet start no-such.service": "no /etc/init.d/no-such either",
		"systemctl is-active ssh":                 "systemctl is-active ssh: this guest has no systemd; use service NAME start",
		"systemctl --user start x":                "this guest has no systemd; use",
		"systemctl enable":                        "this guest has no systemd; use",
		"systemctl":                               "this guest has no systemd; use",
	} {
		for _, shell := range shells(t) {
			cmd := exec.Command(shell[0], append(shell[1:], "-c", compact(systemctlScript)+command)...)
			cmd.Env = []string{"PATH=" + bin}
			out, err := cmd.CombinedOutput()
			if (err == nil) != (want == "") || !strings.Contains(string(out), want) || want == "" && len(out) > 0 {
				t.Errorf("%s: %s: %v: %s", shell[0], command, err, out)
			}
		}
	}
	// A guest that has it keeps it.
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho real $*\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", compact(systemctlScript)+"systemctl is-active x")
	cmd.Env = []string{"PATH=" + bin}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "real is-active x\n" {
		t.Errorf("%v: %s", err, out)
	}
}
