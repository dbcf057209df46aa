package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needed skips the test where a program is missing.
func needed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil { // not every user's PATH has it
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	if err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("%s is not installed, and E2E_REQUIRED=1", program)
		}
		t.Skipf("%s is not installed", program)
	}
	return path
}

// A world is what a guest has to offer: the PATH of its commands.
type world struct {
	name  string
	shell string // what the default shell template must come to
	make  func(t *testing.T) (path string)
}

// worlds are the kinds of guest that the scripts of this package must work in.
func worlds() []world {
	return []world{
		{"dash", "bash", func(t *testing.T) string { return withShell(t, "dash") }},
		{"bash", "bash", func(t *testing.T) string { return withShell(t, "bash") }},
		{"busybox", "sh", busyboxOnly},
		{"nosetsid", "sh", withoutSetsid},
	}
}

// withShell is this host with another sh.
func withShell(t *testing.T, shell string) string {
	bin := t.TempDir()
	link(t, needed(t, shell), filepath.Join(bin, "sh"))
	return bin + ":" + os.Getenv("PATH")
}

// busyboxOnly has nothing but busybox: no bash.
func busyboxOnly(t *testing.T) string {
	bin := t.TempDir()
	busybox := needed(t, "busybox")
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields(string(list)) {
		link(t, busybox, filepath.Join(bin, applet))
	}
	return bin
}

// withoutSetsid has what the scripts need, and no setsid and no bash.
func withoutSetsid(t *testing.T) string {
	bin := t.TempDir()
	link(t, needed(t, "dash"), filepath.Join(bin, "sh"))
	for _, tool := range []string{"cat", "sed", "tail", "wc", "mkdir", "rm", "chmod", "sleep", "date", "uname", "mkfifo", "ls", "head", "id", "ln", "mv", "grep", "chown", "getent", "su"} {
		link(t, needed(t, tool), filepath.Join(bin, tool))
	}
	return bin
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// in is a server whose commands live in a world.
func (w world) in(t *testing.T) *sshServer {
	t.Helper()
	s := newServer(t)
	s.env = append(s.env, "PATH="+w.make(t))
	s.env = s.env[1:]
	return s
}

func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
