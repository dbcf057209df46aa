package ext2

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// tool runs a program that must succeed and returns its output.
func tool(t testing.TB, name string, arg ...string) string {
	t.Helper()
	tools(t, name)
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
	}
	return string(out)
}

// flavours are file systems that differ in what the reader must understand.
var flavours = []struct {
	name string
	args []string
	hurd bool
}{
	{"hurd", []string{"-t", "ext2", "-o", "hurd", "-b", "4096", "-I", "128"}, true},
	{"ext2-1k", []string{"-t", "ext2", "-b", "1024"}, false},
	{"ext3", []string{"-t", "ext3", "-b", "4096"}, false},
	{"ext4", []string{"-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum,flex_bg,large_dir"}, false},
	{"ext4-1k", []string{"-t", "ext4", "-b", "1024", "-O", "^64bit,^has_journal"}, false},
	{"rev0", []string{"-t", "ext2", "-r", "0", "-b", "1024"}, false},
}

func flavour(t testing.TB, name string) []string {
	t.Helper()
	for _, f := range flavours {
		if f.name == name {
			return f.args
		}
	}
	t.Fatalf("no flavour %q", name)
	return nil
}

// fsStart is where makeFS puts file systems, so that a forgotten offset shows.
const fsStart = units.MiB

// makeFS makes an image that holds a file system of the given size behind a
// gap of fsStart, filled from a directory if one is given.
func makeFS(t testing.TB, args []string, tree string, size units.Bytes) (string, Partition) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk image.raw") // a space: e2fsprogs gets the path
	mkfsAt(t, image, args, tree, fsStart, size)
	return image, Partition{Number: 1, Start: fsStart, Size: size, Type: "83"}
}

func mkfsAt(t testing.TB, image string, args []string, tree string, start, size units.Bytes) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(max(stat.Size(), int64(start+size))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	all := append([]string{"-q", "-F", "-m", "0", "-E", fmt.Sprintf("offset=%d,root_owner=0:0", start)}, args...)
	if tree != "" {
		all = append(all, "-d", tree)
	}
	tool(t, "mke2fs", append(all, image, fmt.Sprintf("%dk", size/units.KiB))...)
}

func openFS(t testing.TB, image string, part Partition) *FS {
	t.Helper()
	f, err := Open(image, part)
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

// debugfs is the other opinion on what a file system holds.
func debugfs(t testing.TB, f *FS, request string) string {
	t.Helper()
	tools(t, "debugfs")
	out, err := exec.Command("debugfs", "-R", request, f.target()).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", request, err)
	}
	return string(out)
}

// damage changes a file system behind the package's back.
func damage(t testing.TB, f *FS, requests ...string) {
	t.Helper()
	tools(t, "debugfs")
	cmd := exec.Command("debugfs", "-w", "-f", "-", f.target())
	cmd.Stdin = strings.NewReader(strings.Join(requests, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
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
	text := "#!/bin/sh\nREAL=" + real + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}
