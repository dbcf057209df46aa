package provision

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guestRoot makes a directory that a process can be locked into: busybox as
// the usual programs, and a real shell as /bin/sh and login shell.
func guestRoot(t *testing.T, shell string) string {
	t.Helper()
	tools(t, "busybox", shell, "ldd")
	root := t.TempDir()
	for _, dir := range []string{"bin", "dev", "etc/ssh", "etc/init.d", "root/.ssh", "home/demo"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"busybox", shell} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		tool(t, "cp", "-L", path, filepath.Join(root, "bin", name))
		libs, err := exec.Command("ldd", path).Output()
		if err != nil {
			continue // a static program
		}
		for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(libs), -1) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, lib)), 0o755); err != nil {
				t.Fatal(err)
			}
			tool(t, "cp", "-L", lib, filepath.Join(root, lib))
		}
	}
	for _, applet := range []string{"cat", "chmod", "chown", "echo", "grep", "mkdir", "pidof", "printf", "ps", "test", "true"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(shell, filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/passwd":                "root::0:0::/root:/bin/sh\ndemo::1000:1000::/home/demo:/bin/sh\n",
		"root/.ssh/authorized_keys": "ssh-rsa AAAA of the owner, without an end",
		"bin/ssh-keygen":            "#!/bin/sh\necho '" + guestKey + "' >/etc/ssh/ssh_host_ed25519_key.pub\n",
		"etc/init.d/ssh":            "#!/bin/sh\necho $1 >/started\n",
		"login": `#!/bin/busybox sh
while :; do
	printf '\033[2J\033[1;1Hbox 0.9 (console)\n\nbox login: '
	read -r name
	[ "$name" = root ] && break
done
printf 'Last login: Mon on console\n'
cd; exec /bin/sh -i
`,
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// ptyConsole is the console of a process on a terminal.
type ptyConsole struct {
	*memoryConsole
	terminal *os.File
}

func (c *ptyConsole) Send(_ context.Context, text string) error {
	_, err := c.terminal.WriteString(text)
	return err
}

// boot runs the login program of a root directory on a new terminal, locked
// into the directory, until the test ends.
func boot(t *testing.T, root string) *ptyConsole {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/login")
	cmd.Env = []string{"PATH=/bin", "HOME=/root", "TERM=vt100", "PS1=\x1b[32mroot@box\x1b[0m:~# "}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close() // the process has it
	c := &ptyConsole{newMemoryConsole(), ptmx}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 256)
		for {
			n, err := ptmx.Read(buf)
			if err != nil {
				return // the process has ended
			}
			c.print(string(buf[:n]))
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // with the status of a killed program
		<-ended
		_ = ptmx.Close()
	})
	return c
}

// TestDialogueSeesServer: a server that runs is not started again.
func TestDialogueSeesServer(t *testing.T) {
	for _, program := range []string{"pidof", "pgrep", "ps"} {
		root := guestRoot(t, "dash")
		for name, text := range map[string]string{"pidof": "exit 1", "pgrep": "exit 1", "ps": "exit 1", program: "echo 12 sshd"} {
			name = filepath.Join(root, "bin", name)
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := (Dialogue{Console: boot(t, root)}).Run(t.Context()); err != nil {
			t.Errorf("%s: %v", program, err)
		}
		if _, err := os.Stat(filepath.Join(root, "started")); !os.IsNotExist(err) {
			t.Errorf("%s shows a server, but one was started (%v)", program, err)
		}
	}
}

// TestDialogueWithShells talks to real shells on a real terminal.
func TestDialogueWithShells(t *testing.T) {
	for _, shell := range []string{"busybox", "dash", "bash"} {
		for _, user := range []string{"root", "demo"} {
			t.Run(shell+" "+user, func(t *testing.T) {
				if user == "demo" && os.Getuid() != 0 {
					t.Skip("without privileges, files can't be given to another user")
				}
				root := guestRoot(t, shell)
				home := map[string]string{"root": "root", "demo": "home/demo"}[user]
				key := "ssh-rsa " + strings.Repeat("AAAABBBB", 60) + ` it's "me" $HOME`
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				d := Dialogue{Console: boot(t, root), User: user, Keys: []string{key, "second key"}}
				keys, err := d.Run(ctx)
				if err != nil || len(keys) != 1 {
					t.Fatalf("%v, %v", keys, err)
				}
				file := filepath.Join(root, home, ".ssh/authorized_keys")
				data, err := os.ReadFile(file)
				want := key + "\nsecond key\n"
				if err != nil || !strings.HasSuffix(string(data), "\n"+want) || user == "root" && !strings.HasPrefix(string(data), "ssh-rsa AAAA of the owner, without an end\n") {
					t.Errorf("authorized_keys: %q, %v", data, err)
				}
				for name, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
					stat, err := os.Stat(name)
					if err != nil || stat.Mode().Perm() != mode || os.Getuid() == 0 && (stat.Sys().(*syscall.Stat_t).Uid == 1000) != (user == "demo") {
						t.Errorf("%s: %v, %v", name, stat, err)
					}
				}
				if started, err := os.ReadFile(filepath.Join(root, "started")); err != nil || string(started) != "start\n" {
					t.Errorf("the server was started with %q, %v", started, err)
				}
			})
		}
	}
}
