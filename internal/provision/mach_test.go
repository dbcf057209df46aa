package provision

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/process"
)

// machDisk is the disk with the real GNU Mach, made to look like a Hurd that
// boots without a serial console: its second entry is the default.
func machDisk(t *testing.T) string {
	t.Helper()
	tools(t, "qemu-img", "debugfs", "e2fsck")
	image := filepath.Join(t.TempDir(), "mach.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "../../testdata/mach/gnumach-machprobe.qcow2", image)
	parts, err := partitionsOf(image)
	if err != nil || len(parts) != 1 {
		t.Fatalf("%v, %v", parts, err)
	}
	cfg, err := openRoot(t, image, parts[0]).ReadFile("/boot/grub/grub.cfg")
	if err != nil {
		t.Fatal(err)
	}
	var silent []string
	for line := range strings.Lines(string(cfg)) {
		if strings.HasPrefix(line, "serial") || strings.HasPrefix(line, "terminal") {
			continue
		}
		line = strings.Replace(line, "set timeout=1", "set timeout=600", 1)
		silent = append(silent, strings.Replace(line, "set default=0", "set default=1", 1))
	}
	edit(t, image, parts[0], func(b *ext2.Batch) error {
		dir, file := ext2.Attr{Mode: 0o755}, ext2.Attr{Mode: 0o644}
		for _, d := range []string{"/hurd", "/etc", "/usr/sbin", "/root"} {
			if err := b.MkdirAll(d, dir); err != nil {
				return err
			}
		}
		for name, data := range map[string]string{
			"/hurd/ext2fs.static": elf32, "/usr/sbin/dropbear": elf32, "/etc/passwd": "root::0:0::/root:/bin/sh\n",
			"/boot/grub/grub.cfg": strings.Join(silent, ""),
		} {
			if err := b.WriteFile(name, []byte(data), file); err != nil {
				return err
			}
		}
		return nil
	})
	return image
}

// TestMachIsHurd runs the Hurd's branches on a file system that was made for
// it; each check fails if Linux's are taken.
func TestMachIsHurd(t *testing.T) {
	image := machDisk(t)
	p := mustPrepare(t, image, Options{Console: true})
	g := p.Guest
	if g.Family != platform.Hurd || !g.HurdFS || g.Arch != platform.I386 || g.Drivers != platform.KernelDrivers || len(p.Warnings) > 0 {
		t.Errorf("%+v %q", g, p.Warnings)
	}
	cfg, err := openRoot(t, image, g.Root).ReadFile("/boot/grub/grub.cfg")
	if err != nil || strings.Contains(string(cfg), "ttyS0") ||
		!strings.Contains(string(cfg), "VGA console\" {\n  multiboot /boot/gnumach.gz console=com0\n  module /boot/machprobe machprobe '--host") {
		t.Errorf("%v\n%s", err, cfg)
	}
}

// TestE2EMachConsole boots the real GNU Mach from an overlay: that the task's
// line comes on the serial line shows that our entry was booted, at once, from
// a disk that our edits left whole.
func TestE2EMachConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	tools(t, "qemu-system-i386", "qemu-img", "qemu-io")
	image := machDisk(t)
	p := mustPrepare(t, image, Options{Console: true})
	overlay := overlayOn(t, image)
	if err := Fill(t.Context(), overlay, p, runKeys()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	// A comma in a path would have to be doubled; there is none.
	cmd := process.Command(ctx, "qemu-system-i386", "-M", "pc,accel=tcg", "-m", "256", "-nodefaults", "-no-user-config",
		"-display", "none", "-serial", "stdio", "-drive", "file="+overlay+",format=qcow2,if=ide")
	cmd.Stdout = w
	done := make(chan error, 1)
	go func() {
		done <- process.Run(ctx, cmd)
		_ = w.Close() // ends the reader
	}()
	var seen []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		seen = append(seen, lines.Text())
		if strings.Contains(lines.Text(), "PROBE READY") {
			cancel()
			if err := <-done; err == nil {
				t.Error("QEMU ended by itself")
			}
			return
		}
	}
	t.Errorf("no PROBE READY on the serial line (%v):\n%s", <-done, strings.Join(seen, "\n"))
}
