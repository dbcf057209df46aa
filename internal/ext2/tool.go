package ext2

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
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
