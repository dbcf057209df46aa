package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// CopyTo hands the tree to a sink with the owner that the files shall have in
// the guest. Modification times are cut to what every guest can keep: whole
// seconds from 1970 to January 2038.
//
// A file is taken as it is when it is read, and the tree remembers that for
// Compare. What vanished since Scan is added to Skipped, and so is what shrank
// while it was read. Everything else that can't be read is an error.
func (t *Tree) CopyTo(ctx context.Context, sink Sink, owner Owner) error {
	d, err := openDirs(t.dir)
	if err != nil {
		return fmt.Errorf("copying the workspace: %w", err)
	}
	defer d.close()
	c := &copying{tree: t, dirs: d, sink: sink, owner: owner, first: map[string]string{}}
	for i := range t.Entries {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("copying the workspace: %w", err)
		}
		e := &t.Entries[i]
		e.sent = false
		err := c.entry(e)
		switch {
		case errors.Is(err, errVanished), errors.Is(err, ErrShrank):
			t.Skipped.add(e.Path, err.Error())
		case err != nil:
			return fmt.Errorf("copying %q of the workspace: %w", e.Path, err)
		default:
			e.sent = true
		}
		if !e.sent {
			t.left[e.Path] = leftExcluded
		}
	}
	return nil
}

// errVanished says that a file is not there any more.
var errVanished = errors.New("it vanished, or was replaced, while the workspace was copied")

// copying is one CopyTo.
type copying struct {
	tree  *Tree
	dirs  *dirs
	sink  Sink
	owner Owner
	first map[string]string // the first path of a file, to the one that the sink knows
}

func (c *copying) entry(e *Entry) error {
	switch {
	case e.Mode.IsDir():
		return c.sink.Dir(e.Path, c.attr(e))
	case e.Link != "" && c.first[e.Link] != "":
		return c.sink.Link(e.Path, c.first[e.Link])
	}
	var err error
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		err = c.sink.Symlink(e.Path, e.Target, c.attr(e))
	case fs.ModeNamedPipe:
		err = c.sink.Special(e.Path, c.attr(e))
	default:
		err = c.file(e)
	}
	if err == nil {
		first := e.Link // the one that was listed first was skipped
		if first == "" {
			first = e.Path
		}
		c.first[first] = e.Path
	}
	return err
}

func (c *copying) attr(e *Entry) Attr {
	return Attr{Mode: e.Mode, UID: c.owner.UID, GID: c.owner.GID, ModTime: guestTime(e.ModTime)}
}

func (c *copying) file(e *Entry) error {
	at, name, err := c.dirs.parent(e.Path)
	fd := -1
	if err == nil {
		// What replaced the file may be a named pipe, which must not block.
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, errLink):
		return errVanished
	case err != nil:
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer func() { _ = f.Close() }() // it was only read
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	now := entry(e.Path, &st)
	if !now.Mode.IsRegular() {
		return errVanished
	}
	e.Mode, e.Size, e.ModTime, e.inode = now.Mode, now.Size, now.ModTime, now.inode
	return c.sink.File(e.Path, c.attr(e), units.Bytes(st.Size), f)
}
