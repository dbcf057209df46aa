package workspace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep directories may lie in each other: each of a chain
// is held open.
const maxDepth = 512

// openDir opens for paths and names only, never through a symbolic link.
const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// errDepth says that a path is too deep.
var errDepth = fmt.Errorf("more than %d directories in each other", maxDepth)

// errLink says that a directory of a path is something else by now.
var errLink = errors.New("a directory of its path is a symbolic link or a file")

// dirs opens the directories of a workspace. It keeps the chain of the last
// one open: who comes along in the order of a tree opens each directory once.
// Opening a directory closes those below it, so who removes something after
// opening its parent leaves no stale one behind.
type dirs struct {
	names []string
	fds   []int  // of the workspace and of each name
	owner *Owner // that directories get which walk makes; nil to leave them ours
}

func openDirs(workspace string) (*dirs, error) {
	// The workspace itself may be reached through symbolic links.
	fd, err := unix.Open(workspace, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: workspace, Err: err}
	}
	return &dirs{fds: []int{fd}}, nil
}

func (d *dirs) close() {
	d.cut(0)
	_ = unix.Close(d.fds[0]) // nothing is written through it
}

// cut closes all but the first n directories of the chain.
func (d *dirs) cut(n int) {
	for _, fd := range d.fds[n+1:] {
		_ = unix.Close(fd)
	}
	d.fds, d.names = d.fds[:n+1], d.names[:n]
}

// at opens a directory. The descriptor is good until the next call.
func (d *dirs) at(dir string) (int, error) { return d.walk(dir, false) }

// walk opens a directory, and makes those that are missing when asked to.
func (d *dirs) walk(dir string, create bool) (int, error) {
	var want []string
	if dir != "." {
		want = strings.Split(dir, "/")
	}
	if len(want) > maxDepth {
		return -1, errDepth
	}
	same := 0
	for same < len(want) && same < len(d.names) && want[same] == d.names[same] {
		same++
	}
	d.cut(same)
	for _, name := range want[same:] {
		up := d.fds[len(d.fds)-1]
		fd, err := unix.Openat(up, name, openDir, 0)
		if errors.Is(err, unix.ENOENT) && create {
			if err = d.mkdir(up, name, 0o755); err == nil {
				fd, err = unix.Openat(up, name, openDir, 0)
			}
		}
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return -1, errLink
		}
		if err != nil {
			return -1, err
		}
		d.fds, d.names = append(d.fds, fd), append(d.names, name)
	}
	return d.fds[len(d.fds)-1], nil
}

// mkdir makes a directory with the owner of the workspace.
func (d *dirs) mkdir(up int, name string, mode uint32) error {
	if err := unix.Mkdirat(up, name, mode); err != nil {
		return err
	}
	return d.chown(up, name)
}

// chown gives what was made to the owner of the workspace.
func (d *dirs) chown(at int, name string) error {
	if d.owner == nil {
		return nil
	}
	return unix.Fchownat(at, name, int(d.owner.UID), int(d.owner.GID), unix.AT_SYMLINK_NOFOLLOW)
}

// parent opens the directory that a path lies in, and tells the last name.
func (d *dirs) parent(name string) (int, string, error) {
	fd, err := d.at(path.Dir(name))
	return fd, path.Base(name), err
}
