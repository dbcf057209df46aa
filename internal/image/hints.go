package image

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/fetch"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
)

// fullDisk are the errors of a disk that is full.
var fullDisk = []error{ErrSpace, unix.ENOSPC, unix.EDQUOT, unix.EFBIG}

// Advice that more than one error leads to.
const (
	freeSpace   = "free some space, or set cache-dir to a directory with more"
	checkSource = "check that the address or path is that of a disk image"
	fetchAgain  = "fetch or copy it again; if that does not help, it was published like that"
	packOne     = "pack exactly one disk image"
)

// hints says what to do about an error; the first that matches is taken.
var hints = []struct {
	err  error
	hint string
}{
	{ErrSpace, freeSpace},
	{unix.ENOSPC, freeSpace},
	{unix.EDQUOT, freeSpace},
	{unix.EFBIG, "the file system or a limit forbids files of that size: set cache-dir to a directory elsewhere"},
	{unix.EROFS, "the image store can't be written to: set cache-dir to a directory that can"},
	{ErrDamaged, "remove it with hurd-qemu-action image rm, and it is made anew"},
	{ErrInUse, "wait until that run has ended"},
	{ErrHash, "nothing of it was kept; if the file was meant to change, give its new hash, and check image-mirror if one is set"},
	{ErrSignature, "nothing of it was kept; check that image-signature and image-key belong to this file"},
	{ErrNoList, "give image-sha256 or image-sha512, or use image-verify: none"},
	{errRateLimit, "give a token, which allows more, or try again then"},
	{fetch.ErrInsecure, "give a hash, or an address that stays with https"},
	{fetch.ErrNotFile, "open the address in a browser: it may want a login, or the file has moved"},
	{fetch.ErrLength, "the server or a proxy on the way is wrong about the file; try another address"},
	{fetch.ErrStalled, "run the job again: it goes on where it ended if the store is kept"},
	{fetch.ErrCut, "run the job again: it goes on where it ended if the store is kept"},
	{fetch.ErrChanged, "the file is being replaced on the server: try again later, or use a file with a date in its name"},
	{unpack.ErrManyDisks, packOne},
	{unpack.ErrNoDisk, packOne},
	{unpack.ErrEscape, "such an archive is not trusted; pack the image anew"},
	{unpack.ErrTooLarge, "this is no usual disk image; unpack it yourself and give the path if it is what you want"},
	{unpack.ErrMemory, "pack the image with a usual level, such as xz -6"},
	{unpack.ErrTruncated, fetchAgain},
	{unpack.ErrCorrupt, fetchAgain},
	{disk.ErrForeignFile, "such an image could read any file of this machine and is not used"},
	{disk.ErrTruncated, fetchAgain},
	{disk.ErrCorrupt, fetchAgain},
	{disk.ErrNotDisk, checkSource},
	{exec.ErrNotFound, "install it (Debian: qemu-utils for qemu-img)"},
	{fs.ErrNotExist, "check the path; in a workflow the file must be in the workspace, so check it out or make it in an earlier step"},
	{fs.ErrPermission, "check the permissions, or set cache-dir to a directory that can be written to"},
}

// statusHints says what to do about an HTTP status.
var statusHints = map[int]string{
	http.StatusNotFound:        "check the address: the file is not there, or not for everybody",
	http.StatusGone:            "the file was removed: use another one",
	http.StatusUnauthorized:    "the file is not for everybody: give a token, or an address that needs none",
	http.StatusForbidden:       "the server refuses: check the address, and the token if one is needed",
	http.StatusTooManyRequests: "the server is asked too often from this network: try again later, or use image-mirror",
}

// hint finds what to do about an error.
func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	var status *fetch.StatusError
	var network net.Error
	switch {
	case errors.As(err, &status) && status.Status >= http.StatusInternalServerError:
		return "the server is in trouble: try again later, or use image-mirror"
	case errors.As(err, &status):
		return statusHints[status.Status]
	case errors.As(err, &network):
		return "check the network, and HTTPS_PROXY if there is a proxy"
	}
	return ""
}
