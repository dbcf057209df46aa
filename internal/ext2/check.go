package ext2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// CheckError says that e2fsck found a file system damaged.
type CheckError struct {
	Problems []string // e2fsck's lines, at most a few hundred
}

// Error quotes the first problems.
func (e *CheckError) Error() string {
	const shown = 5
	text := strings.Join(e.Problems[:min(shown, len(e.Problems))], "; ")
	if more := len(e.Problems) - shown; more > 0 {
		text += fmt.Sprintf("; and %d more lines", more)
	}
	return "e2fsck found the file system damaged: " + text
}

// Exit status bits of e2fsck(8).
const (
	fsckCorrected = 1
	fsckReboot    = 2
	fsckLeft      = 4
)

// Check runs e2fsck without changing anything. The error is a *CheckError
// when the file system has any defect.
func (f *FS) Check(ctx context.Context) error {
	lines, status, err := f.fsck(ctx, "-fn")
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("checking %s: %w", f.part, &CheckError{lines})
	}
	return nil
}

// Repair runs e2fsck, which replays a journal and corrects what it can, and
// returns what it said it did: nothing for a file system without defects.
// The error is a *CheckError when something is left that it can't correct.
func (f *FS) Repair(ctx context.Context) ([]string, error) {
	sb, err := f.Superblock()
	if err != nil {
		return nil, err
	}
	fsck := f.fsck
	if sb.NeedsRecovery {
		fsck = f.fsckCopy
	}
	lines, status, err := fsck(ctx, "-fy")
	if err != nil {
		return nil, err
	}
	if status&fsckLeft != 0 {
		return lines, fmt.Errorf("repairing %s: %w", f.part, &CheckError{lines})
	}
	if status == 0 {
		return nil, nil
	}
	return lines, nil
}

// fsckCopy is fsck on a copy of the file system, which is then written back:
// after replaying a journal, e2fsck forgets the offset.
func (f *FS) fsckCopy(ctx context.Context, mode string) (lines []string, status int, err error) {
	sb, err := f.Superblock()
	if err != nil {
		return nil, 0, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.image), ".journal-*")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	image, err := os.OpenFile(f.image, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if err := tmp.Truncate(int64(sb.Size())); err != nil {
		return nil, 0, err
	}
	if err := copyChanged(tmp, 0, image, f.part.Start, sb.Size()); err != nil {
		return nil, 0, err
	}
	alone := &FS{image: tmp.Name(), part: Partition{Size: sb.Size()}, file: tmp, time: f.time}
	if lines, status, err = alone.fsck(ctx, mode); err != nil {
		return nil, 0, err
	}
	return lines, status, copyChanged(image, f.part.Start, tmp, 0, sb.Size())
}

// copyChanged makes a range of one file equal to a range of another, writing
// only what differs, so that holes stay.
func copyChanged(to *os.File, toOffset units.Bytes, from *os.File, fromOffset, size units.Bytes) error {
	const chunk = 256 * units.KiB
	want, have := make([]byte, chunk), make([]byte, chunk)
	for at := units.Bytes(0); at < size; at += chunk {
		n := min(chunk, size-at)
		if _, err := from.ReadAt(want[:n], int64(fromOffset+at)); err != nil {
			return err
		}
		if _, err := to.ReadAt(have[:n], int64(toOffset+at)); err != nil {
			return err
		}
		if bytes.Equal(want[:n], have[:n]) {
			continue
		}
		if _, err := to.WriteAt(want[:n], int64(toOffset+at)); err != nil {
			return err
		}
	}
	return nil
}

// fsck returns e2fsck's remarks and its exit status, which is an error only
// when e2fsck itself failed.
func (f *FS) fsck(ctx context.Context, mode string) ([]string, int, error) {
	out := &head{limit: toolOutputLimit}
	cmd := f.tool(ctx, "e2fsck", mode, f.target())
	cmd.Stdout = out
	err := runTool(ctx, cmd)
	var failed *process.Error
	if err == nil {
		return remarks(out.String()), 0, nil
	}
	if ctx.Err() == nil && errors.As(err, &failed) && failed.Status > 0 &&
		failed.Status <= fsckCorrected|fsckReboot|fsckLeft {
		return remarks(out.String()), failed.Status, nil
	}
	return nil, 0, fmt.Errorf("checking %s: %w", f.part, err)
}

// noise is what e2fsck writes besides its findings.
var noise = regexp.MustCompile(`^(Pass \d|e2fsck 1\.|.*\*{5} FILE SYSTEM (WAS MODIFIED|STILL HAS ERRORS) \*{5}$|.*\*{10} WARNING: Filesystem still has errors \*{10}$|.*: \d+/\d+ files \()`)

// remarks are the lines of e2fsck's output that are about something.
func remarks(output string) []string {
	var lines []string
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !noise.MatchString(line) {
			lines = append(lines, printable(line))
		}
	}
	return lines
}

// head keeps the first bytes that are written to it.
type head struct {
	limit int
	buf   bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), h.limit-h.buf.Len())])
	return len(p), nil
}

func (h *head) String() string { return h.buf.String() }
