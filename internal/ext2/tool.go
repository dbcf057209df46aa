package ext2

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/org/hurd-qemu-action/internal/process"
)

// sbin is where e2fsprogs are installed, and what the search path of a user
// other than root often lacks.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// command prepares one of e2fsprogs' programs.
func command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	if _, err := exec.LookPath(name); err == nil {
		return process.Command(ctx, name, arg...)
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return process.Command(ctx, path, arg...)
		}
	}
	return process.Command(ctx, name, arg...)
}

// tool prepares a program that works on the file system, for which no time has
// passed since that was last used: whoever makes the same edits of the same
// image gets the same bytes, on which saved machines rely.
func (f *FS) tool(ctx context.Context, name string, arg ...string) *exec.Cmd {
	cmd := command(ctx, name, arg...)
	if f.time > 0 {
		now := strconv.FormatInt(f.time, 10)
		cmd.Env = append(cmd.Env, "E2FSPROGS_FAKE_TIME="+now, "E2FSCK_TIME="+now)
	}
	return cmd
}

// runTool runs a program to its end. The error, if any, wraps a *process.Error.
func runTool(ctx context.Context, cmd *exec.Cmd) error {
	err := process.Run(ctx, cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install the package e2fsprogs", err)
	}
	return err
}

// printable makes text that an image can decide upon fit for a line of a log.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
