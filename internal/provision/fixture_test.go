package provision

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/units"
)

// tools skips the test when a program is missing, unless nothing may be skipped.
func tools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("%s is not installed, and E2E_REQUIRED=1", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

func tool(t testing.TB, name string, arg ...string) string {
	t.Helper()
	tools(t, name)
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
	}
	return string(out)
}

// standIns are images that testdata/hurdimage/build made, by its arguments.
var standIns = struct {
	sync.Mutex
	dir    string
	images map[string]string
}{images: map[string]string{}}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "provision-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	standIns.dir = dir
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// standIn returns a copy of a stand-in for Debian's image, made once per
// arguments of its generator.
func standIn(t testing.TB, args ...string) string {
	t.Helper()
	tools(t, "bash", "mke2fs", "e2fsck", "debugfs", "cp")
	standIns.Lock()
	defer standIns.Unlock()
	key := strings.Join(args, " ")
	if standIns.images[key] == "" {
		image := filepath.Join(standIns.dir, fmt.Sprintf("%d.raw", len(standIns.images)))
		tool(t, "../../testdata/hurdimage/build", append(args, image)...)
		standIns.images[key] = image
	}
	image := filepath.Join(t.TempDir(), "disk.raw")
	tool(t, "cp", "--sparse=always", standIns.images[key], image)
	return image
}

// files describes a tree: content by path; a path that ends in "/" is a
// directory, one that begins with "->" as content a symbolic link.
type files map[string]string

// makeDisk makes an image without a partition table from files, owned by root.
func makeDisk(t testing.TB, tree files, args ...string) string {
	t.Helper()
	tools(t, "mke2fs")
	root := t.TempDir()
	for name, content := range tree {
		at := filepath.Join(root, name)
		dir := filepath.Dir(at)
		if strings.HasSuffix(name, "/") {
			dir = at
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, link := strings.CutPrefix(content, "->")
		switch {
		case strings.HasSuffix(name, "/"):
		case link:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(t.TempDir(), "disk.raw")
	if len(args) == 0 {
		args = []string{"-t", "ext4", "-b", "1024"}
	}
	args = append([]string{"-q", "-F", "-E", "root_owner=0:0", "-d", root}, args...)
	args = append(append([]string{"mke2fs"}, args...), image, "12m")
	if os.Getuid() != 0 {
		args = append([]string{"fakeroot"}, args...) // its files are root's
	}
	tool(t, args[0], args[1:]...)
	return image
}

// whole is the partition of an image without a table.
func whole(t testing.TB, image string) ext2.Partition {
	t.Helper()
	stat, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	return ext2.Partition{Size: units.Bytes(stat.Size())}
}

func openRoot(t testing.TB, image string, part ext2.Partition) *ext2.FS {
	t.Helper()
	f, err := ext2.Open(image, part)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// edit changes an image before it is prepared.
func edit(t testing.TB, image string, part ext2.Partition, edits func(*ext2.Batch) error) {
	t.Helper()
	b := openRoot(t, image, part).Begin()
	if err := edits(b); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// debugfs changes an image in ways that package ext2 does not offer.
func debugfs(t testing.TB, image string, part ext2.Partition, requests ...string) {
	t.Helper()
	tools(t, "debugfs")
	cmd := exec.Command("debugfs", "-w", "-f", "-", fmt.Sprintf("%s?offset=%d", image, part.Start))
	cmd.Stdin = strings.NewReader(strings.Join(requests, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
}

// mustPrepare prepares an image and proves the result once more.
func mustPrepare(t testing.TB, image string, o Options) Prepared {
	t.Helper()
	tools(t, "debugfs", "e2fsck")
	p, err := Prepare(context.Background(), image, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := openRoot(t, image, p.Guest.Root).Check(context.Background()); err != nil {
		t.Error(err)
	}
	return p
}

// runKeys are keys as a run makes them, always the same.
func runKeys() Keys {
	return Keys{
		Authorized: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFSPk0Vh7tLkYKMTUCJdDLHyJ/xxoOqP1tVtkEo6dYvL run"},
		Host:       ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef")),
	}
}

// stubTool puts a shell script before the real program of that name in the
// path; the script finds the real one as $REAL.
func stubTool(t *testing.T, name, script string) {
	t.Helper()
	tools(t, name)
	real, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nREAL="+real+"\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

var blankLines = regexp.MustCompile(`\n{6,}`)

// readable shortens the room for keys.
func readable(data []byte) string {
	return blankLines.ReplaceAllStringFunc(string(data), func(s string) string {
		return fmt.Sprintf("\n<%d empty lines>\n", len(s)-1)
	})
}

const linuxGrub = "menuentry x {\n\tlinux /vmlinuz root=/dev/sda1\n}\n"

// linuxTree is a small Linux with OpenSSH.
func linuxTree() files {
	return files{
		"etc/passwd":          "root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/bash\n",
		"etc/ssh/sshd_config": "Port 22\nPermitRootLogin no\n",
		"usr/sbin/sshd":       elf64, "bin/bash": elf64, "bin/sh": "->bash",
		"boot/grub/grub.cfg": linuxGrub,
		"root/":              "", "home/worker/": "",
	}
}

const (
	elf64 = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00\x01\x00\x00\x00"
	elf32 = "\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00\x01\x00\x00\x00"
)

func with(tree files, more files) files {
	for name, content := range more {
		tree[name] = content
	}
	return tree
}
