// Package disk recognises disk images by their contents and refuses those that
// would make QEMU open another file of this host.
//
// An image may come from anywhere. QEMU's tools follow the file names inside
// an image (a qcow2 backing file or external data file, a VMDK extent or
// parent), even to read no more than its size, so an image can be a way to
// read any file that its user may read. Everything here is therefore decided
// by reading the headers, before any program of QEMU sees the file. The
// layouts are those of QEMU's docs/interop/qcow2.txt and of the drivers
// block/vmdk.c and block/vdi.c.
package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Format is a disk image format, in the names that QEMU gives them. It is
// always passed to QEMU explicitly and never left to its probing.
type Format string

// The formats that a base image may have.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
	VMDK  Format = "vmdk" // one file that holds everything (monolithicSparse, streamOptimized)
	VDI   Format = "vdi"
)

// Info is what an image's header says.
type Info struct {
	Format      Format
	VirtualSize units.Bytes // size of the disk that a guest sees
}

// The reasons for which an image is not taken. The errors of Inspect wrap one
// of them and name what was found.
var (
	ErrNotDisk     = errors.New("not a disk image")
	ErrUnsupported = errors.New("a disk image format that is not supported")
	ErrForeignFile = errors.New("the image refers to another file")
	ErrCorrupt     = errors.New("the disk image is corrupt")
	ErrTruncated   = errors.New("the disk image is truncated")
)

// SniffLen is how much of an image's beginning decides about its format: an
// ext2 superblock without a partition table ends here.
const SniffLen = 2 << 10

// maxVirtual bounds the virtual size that a header may claim.
const maxVirtual = 8 * units.TiB

// sectorSize is that of every disk here; a raw image is a multiple of it.
const sectorSize = 512

// signature is a magic number of a file format.
type signature struct {
	offset int
	magic  string
	format Format // "" when not supported
	what   string // for people
}

// signatures are looked up in order; the first that matches decides.
var signatures = []signature{
	{0, "QFI\xfb\x00\x00\x00\x01", "", "a qcow (version 1) image"},
	{0, "QFI\xfb", QCOW2, "a qcow2 image"},
	{0, "KDMV", VMDK, "a VMDK image"},
	{64, "\x7f\x10\xda\xbe", VDI, "a VDI image"},
	{0, "COWD", "", "an ESX COWD image"},
	{0, "# Disk DescriptorFile", "", "a VMDK descriptor, whose data is in other files"},
	{0, "vhdxfile", "", "a VHDX image"},
	{0, "conectix", "", "a VHD image"},
	{0, "QED\x00", "", "a QED image"},
	{0, "WithoutFreeSpace", "", "a Parallels image"},
	{0, "WithouFreSpacExt", "", "a Parallels image"},
}

// foreign are well-known files that are no disk images at all.
var foreign = []signature{
	{0, "\x7fELF", "", "a program (ELF)"},
	{0, "%PDF", "", "a PDF document"},
	{0, "\x1f\x8b", "", "a gzip file"},
	{0, "\xfd7zXZ\x00", "", "an xz file"},
	{0, "\x28\xb5\x2f\xfd", "", "a zstd file"},
	{0, "BZh", "", "a bzip2 file"},
	{0, "PK\x03\x04", "", "a zip file"},
	{0, "7z\xbc\xaf\x27\x1c", "", "a 7-Zip file"},
	{257, "ustar", "", "a tar archive"},
}

func match(table []signature, head []byte) (signature, bool) {
	for _, s := range table {
		if len(head) >= s.offset && bytes.HasPrefix(head[s.offset:], []byte(s.magic)) {
			return s, true
		}
	}
	return signature{}, false
}

// LooksLike tells whether a file that begins with head is a disk image: one of
// the known formats (supported or not), a disk with a boot sector, or a bare
// ext2 file system. It needs up to SniffLen bytes.
func LooksLike(head []byte) bool {
	if _, ok := match(signatures, head); ok {
		return true
	}
	if _, ok := match(foreign, head); ok {
		return false
	}
	return hasBootSignature(head) || hasExt2(head)
}

// Inspect recognises the image in r, which is size bytes long, and checks that
// it stands alone. What has no magic number is raw, unless it is evidently
// something else (a web page, a program, a text).
func Inspect(r io.ReaderAt, size units.Bytes) (Info, error) {
	head := make([]byte, SniffLen)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("reading the image's header: %w", err)
	}
	head = head[:n]
	if len(head) == 0 {
		return Info{}, fmt.Errorf("%w: the file is empty", ErrNotDisk)
	}
	s, ok := match(signatures, head)
	if !ok {
		return inspectRaw(head, size)
	}
	switch s.format {
	case QCOW2:
		return inspectQCOW2(r, head, size)
	case VMDK:
		return inspectVMDK(r, head, size)
	case VDI:
		return inspectVDI(head, size)
	}
	return Info{}, fmt.Errorf("%w: it is %s; convert it with qemu-img convert -O qcow2", ErrUnsupported, s.what)
}

// checkVirtual turns a header's claim into a size.
func checkVirtual(format Format, claimed uint64) (Info, error) {
	if claimed == 0 || claimed > uint64(maxVirtual) {
		return Info{}, fmt.Errorf("%w: its %s header claims a disk of %d bytes (at most %s is possible)",
			ErrCorrupt, format, claimed, maxVirtual.Human())
	}
	return Info{Format: format, VirtualSize: units.Bytes(claimed)}, nil // bounded above
}
