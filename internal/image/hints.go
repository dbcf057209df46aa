package image

import (
	"errors"
	"io/fs"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
)

// hints says what to do about an error; the first that matches is taken.
var hints = []struct {
	err  error
	hint string
}{
	{ErrSpace, "free some space, or set cache-dir to a directory with more"},
	{unix.ENOSPC, "the disk is full: free some space, or set cache-dir to a directory with more"},
	{unix.EDQUOT, "the disk quota is used up: free some space, or set cache-dir to a directory elsewhere"},
	{unix.EROFS, "the image store can't be written to: set cache-dir to a directory that can"},
	{disk.ErrForeignFile, "such an image could read any file of this machine and is not used"},
	{disk.ErrTruncated, "fetch or copy it again"},
	{disk.ErrNotDisk, "check that the address or path is that of a disk image"},
	{exec.ErrNotFound, "install it (Debian: qemu-utils for qemu-img, xz-utils for xz)"},
	{fs.ErrNotExist, "check the path; in a workflow the file must be in the workspace, so check it out or make it in an earlier step"},
	{fs.ErrPermission, "check the permissions, or set cache-dir to a directory that can be written to"},
}

func (s *Store) hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}
