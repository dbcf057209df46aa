package selftest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kdomanski/iso9660"
	"github.com/klauspost/compress/zstd"
)

// machines are those that the guest has drivers for.
var machines = []struct {
	name string
	args []string
}{
	{"q35, AHCI, e1000", []string{"-M", "q35", "-nic", "user,restrict=on,model=e1000", "-device", "ide-hd,drive=disk,bus=ide.0", "-device", "ide-cd,drive=seed,bus=ide.1"}},
	{"pc, PIIX IDE, rtl8139", []string{"-M", "pc", "-nic", "user,restrict=on,model=rtl8139", "-device", "ide-hd,drive=disk,bus=ide.0", "-device", "ide-cd,drive=seed,bus=ide.1"}},
}

const userData = `#cloud-config
hostname: seeded
ssh_authorized_keys:
  - ssh-ed25519 FOR-ROOT
users:
  - name: demo
    ssh_authorized_keys:
      - ssh-ed25519 FOR-DEMO
  - name: nosuch
    ssh_authorized_keys:
      - ssh-ed25519 FOR-NOBODY
runcmd:
  - echo "commands ran on $(hostname)" >/dev/ttyS0
packages: [x]
`

// rawDisk unpacks the guest into a file, without writing its zeros.
func rawDisk(t *testing.T) string {
	t.Helper()
	packed, info, err := Open()
	if err != nil && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatalf("%v; and E2E_REQUIRED=1", err)
	}
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = packed.Close() }()
	stream, err := zstd.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block, zeros := make([]byte, 1<<16), make([]byte, 1<<16)
	for at := int64(0); ; at += int64(len(block)) {
		n, err := io.ReadFull(stream, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := f.WriteAt(block[:n], at); err != nil {
				t.Fatal(err)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(info.Disk)); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// seedDisk writes a NoCloud seed.
func seedDisk(t *testing.T) string {
	t.Helper()
	w, err := iso9660.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Cleanup() }()
	if err := w.AddFile(strings.NewReader(userData), "user-data"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "seed.iso"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteTo(f, "cidata"), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// terminal is somebody at the guest's serial line.
type terminal struct {
	t    *testing.T
	in   io.Writer
	out  io.Reader
	seen []byte
}

// await reads until the guest has printed text, and returns what came before it.
func (c *terminal) await(text string) string {
	c.t.Helper()
	buf := make([]byte, 4096)
	for {
		if before, after, found := bytes.Cut(c.seen, []byte(text)); found {
			c.seen = bytes.Clone(after)
			return string(before)
		}
		n, err := c.out.Read(buf)
		c.seen = append(c.seen, buf[:n]...)
		if err != nil && !bytes.Contains(c.seen, []byte(text)) {
			c.t.Fatalf("waiting for %q: %v; the guest had printed:\n%s", text, err, c.seen)
		}
	}
}

func (c *terminal) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// run types a command at the shell's prompt and returns what it printed.
func (c *terminal) run(command string) string {
	c.t.Helper()
	c.say(command)
	c.await(command)
	return c.await("# ")
}

// TestE2EGuest boots the guest as it is built, with nothing put into it, and
// works on its serial console as a person would. The seed's keys, name and
// commands are there; it is what it says it is; it can be switched off.
func TestE2EGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest; -short")
	}
	qemu := need(t, "qemu-system-x86_64", "qemu-system-x86")
	disk, seed := rawDisk(t), seedDisk(t)
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			args := append([]string{"-nodefaults", "-no-user-config", "-accel", "tcg", "-m", "512M", "-display", "none", "-vga", "std", "-serial", "stdio",
				"-drive", "if=none,id=disk,format=raw,snapshot=on,file=" + disk, "-drive", "if=none,id=seed,format=raw,media=cdrom,file=" + seed}, m.args...)
			cmd := exec.CommandContext(ctx, qemu, args...)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			useGuest(&terminal{t: t, in: in, out: out})
			if err := cmd.Wait(); err != nil {
				t.Errorf("QEMU after poweroff: %v\n%s", err, stderr.Bytes())
			}
		})
	}
}

func useGuest(c *terminal) {
	c.t.Helper()
	before := c.await("login: ")
	if !strings.Contains(before, "commands ran on seeded") {
		c.await("commands ran on seeded") // after the first prompt, then
	}
	if !strings.Contains(before, "hurd-qemu-action selftest guest (Linux, not a Hurd)") {
		c.t.Errorf("before the login prompt it says %q, not what it is", before)
	}
	c.say("root")
	c.await("# ")
	for _, tc := range []struct{ command, want string }{
		{"cat /root/.ssh/authorized_keys", "ssh-ed25519 FOR-ROOT\r\n"},
		{"cat /home/demo/.ssh/authorized_keys; stat -c '%a %U:%G' /home/demo/.ssh", "ssh-ed25519 FOR-DEMO\r\n700 demo:demo\r\n"},
		{"grep -c FOR-NOBODY -r /root /home", ":0\r\n"},
		{"tar --version | head -n 1", "tar (GNU tar)"},
		{"su demo -c 'id -un; echo $HOME'", "demo\r\n/home/demo\r\n"},
		{"ls -ld /sys/class/net/eth0 >/dev/null && ip -4 address show eth0", "inet 10.0.2.15/24"},
		// The first start of sshd fails for want of a host key; a key is made then.
		{"until grep -s listening /var/log/sshd.log; do usleep 200000; done", "Server listening on 0.0.0.0 port 22."},
		{"ls /etc/ssh/ssh_host_*_key; ls -A /etc/ssh/sshd_config.d", "/etc/ssh/ssh_host_ed25519_key\r\n"},
		{"kill $(pidof sshd); until [ $(grep -c listening /var/log/sshd.log) -gt 2 ]; do usleep 200000; done; echo sshd is back", "sshd is back\r\n"},
		{"mount | grep ' / '", "type ext2 (rw"},
		{"date -s @1700000000 >/dev/null; date -u +%Y", "2023\r\n"},
	} {
		if got := c.run(tc.command); !strings.Contains(got, tc.want) {
			c.t.Errorf("%s: %q, want %q", tc.command, got, tc.want)
		}
	}
	c.say("poweroff")
	if rest, err := io.ReadAll(c.out); err != nil {
		c.t.Errorf("after poweroff: %v\n%s", err, rest)
	}
}
