package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
)

// Tools runs qemu-img. The zero value takes it from PATH.
type Tools struct {
	QEMUImg string // program; "" means qemu-img
}

func (t Tools) program() string {
	if t.QEMUImg == "" {
		return "qemu-img"
	}
	return t.QEMUImg
}

// Exit statuses of qemu-img check.
const (
	checkFailed      = 1
	checkErrors      = 2
	checkLeaks       = 3
	checkUnsupported = 63 // by the format's driver
)

// Check proves the tables of an image that Inspect has accepted; leaked
// clusters are harmless and pass. A raw image has no tables and always passes.
func (t Tools) Check(ctx context.Context, path string, format Format) error {
	if format == Raw {
		return nil
	}
	_, err := process.Output(ctx, t.program(), "check", "-q", "-f", string(format), path)
	var e *process.Error
	switch {
	case err == nil || errors.As(err, &e) && (e.Status == checkLeaks || e.Status == checkUnsupported):
		return nil
	case e != nil && (e.Status == checkErrors || e.Status == checkFailed):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("checking the disk image: %w", err)
}

// Convert writes the disk that an image holds into a new sparse raw file.
func (t Tools) Convert(ctx context.Context, src string, format Format, dst string) error {
	// -W allows writes out of order, which the sparse target makes use of.
	_, err := process.Output(ctx, t.program(), "convert", "-q", "-W", "-f", string(format), "-O", string(Raw), src, dst)
	var e *process.Error
	switch {
	case errors.As(err, &e) && strings.Contains(strings.ToLower(e.Stderr), unix.ENOSPC.Error()):
		return fmt.Errorf("converting the %s image to raw: %w (%w)", format, unix.ENOSPC, err)
	case err != nil:
		return fmt.Errorf("converting the %s image to raw: %w", format, err)
	}
	return nil
}
