package ext2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
)

// EditError says that a file system is not what a batch should have made of it.
type EditError struct {
	Path   string // in the file system
	Reason string
	Output string // what debugfs wrote to its standard error
}

// Error names the file and what is wrong with it.
func (e *EditError) Error() string {
	text := fmt.Sprintf("editing %s: %s", e.Path, e.Reason)
	if said := strings.ReplaceAll(e.Output, "\n", "; "); said != "" {
		const shown = 300
		if len(said) > shown {
			said = said[:shown] + "..."
		}
		text += " (debugfs said: " + said + ")"
	}
	return text
}

// toolOutputLimit bounds what is kept of a tool's output.
const toolOutputLimit = 64 << 10

// Commit makes the edits of the batch with one debugfs process and reads each
// result back. The error is an *EditError when a result differs; the image is
// then in an undefined state.
func (b *Batch) Commit(ctx context.Context) error {
	if b.Empty() {
		return nil
	}
	cmd := b.f.tool(ctx, "debugfs", "-w", "-f", "-", b.f.target())
	var script bytes.Buffer
	for _, r := range b.requests {
		line := r.line
		if r.source {
			file, err := memoryFile(r.data)
			if err != nil {
				return fmt.Errorf("preparing an edit: %w", err)
			}
			defer func() { _ = file.Close() }() // it lives in memory only
			cmd.ExtraFiles = append(cmd.ExtraFiles, file)
			line = strings.Replace(line, sourceMark, fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles)), 1)
		}
		script.WriteString(line + "\n")
	}
	said := &process.Tail{Limit: toolOutputLimit}
	cmd.Stdin, cmd.Stderr = &script, said
	if err := runTool(ctx, cmd); err != nil {
		return fmt.Errorf("editing %s: %w", b.f.part, err)
	}
	return b.verify(complaints(said.String()))
}

// memoryFile holds data for a child process without a name on any disk.
func memoryFile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("edit", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "edit")
	if _, err := file.Write(data); err != nil {
		_ = file.Close() // the write's error says more
		return nil, err
	}
	return file, nil
}

// complaints is debugfs' standard error without its banner.
func complaints(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs 1.") {
			lines = append(lines, printable(line))
		}
	}
	return strings.Join(lines, "\n")
}

// verify compares the file system with the last expectation for each path.
func (b *Batch) verify(said string) error {
	last := map[string]expectation{}
	var order []string
	for _, w := range b.want {
		before, seen := last[w.path]
		if !seen {
			order = append(order, w.path)
		} else if !w.content && !w.gone {
			w.content, w.data = before.content, before.data // only attributes changed since
		}
		last[w.path] = w
	}
	for _, path := range order {
		if reason := b.f.compare(last[path]); reason != "" {
			return &EditError{Path: path, Reason: reason, Output: said}
		}
	}
	return nil
}

// compare returns how a path differs from what is expected, or nothing.
func (f *FS) compare(w expectation) string {
	info, err := f.Lstat(w.path)
	switch {
	case w.gone && errors.Is(err, fs.ErrNotExist):
		return ""
	case w.gone && err == nil:
		return "it was not removed"
	case err != nil:
		return err.Error()
	case info.Mode.Type() != w.kind:
		return fmt.Sprintf("it has the type %v instead of %v", info.Mode.Type(), w.kind)
	case rawPermissions(info.Mode) != rawPermissions(w.attr.Mode) || info.UID != w.attr.UID || info.GID != w.attr.GID:
		return fmt.Sprintf("it has the mode %04o and the owner %d:%d instead of %04o and %d:%d",
			rawPermissions(info.Mode), info.UID, info.GID, rawPermissions(w.attr.Mode), w.attr.UID, w.attr.GID)
	case info.Translator != 0:
		return fmt.Sprintf("its translator field is %d instead of 0: the Hurd would not open it", info.Translator)
	}
	if !w.content {
		return ""
	}
	data, err := f.ReadFile(w.path)
	if err != nil {
		return err.Error()
	}
	if !bytes.Equal(data, w.data) {
		return fmt.Sprintf("it holds other data (%d bytes) than was written (%d bytes)", len(data), len(w.data))
	}
	return ""
}
