package ext2

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestToolsOutsideThePath: users other than root seldom have /usr/sbin in it.
func TestToolsOutsideThePath(t *testing.T) {
	tools(t, "mke2fs", "debugfs", "e2fsck")
	image, part := makeFS(t, flavour(t, "hurd"), "", 4*units.MiB)
	f := openFS(t, image, part)
	t.Setenv("PATH", t.TempDir())
	if err := f.Check(t.Context()); err != nil && !strings.Contains(err.Error(), "install the package e2fsprogs") {
		t.Errorf("with an empty path: %v", err)
	}
	defer func(dirs []string) { sbin = dirs }(sbin)
	sbin = nil
	err := f.Check(t.Context())
	if !errors.Is(err, exec.ErrNotFound) || !strings.HasSuffix(err.Error(), "install the package e2fsprogs") {
		t.Errorf("without e2fsprogs: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\tb\x1b[31mc\x00\xff ü\n"); got != "a b\ufffd[31mc\ufffd\ufffd ü\ufffd" {
		t.Errorf("%q", got)
	}
}

// TestHostileNamesInMessages: what e2fsck quotes of an image can't control a terminal.
func TestHostileNamesInMessages(t *testing.T) {
	got := remarks("Entry 'x\x1b]0;y\x07\r' in / (2) is odd\n")
	if len(got) != 1 || strings.ContainsAny(got[0], "\x1b\x07\r") {
		t.Errorf("%q", got)
	}
}
