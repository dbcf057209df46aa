package ext2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// MakeOptions describe a new file system.
type MakeOptions struct {
	// Size is that of the image, rounded down to a multiple of 4 KiB. At least
	// 1 MiB; the image is sparse.
	Size units.Bytes
	// Creator is the system that will use it: OSHurd or OSLinux. The Hurd gets
	// 128-byte inodes and directories without file types, Linux 256-byte inodes,
	// which hold nanoseconds and dates after 2038.
	Creator OS
	UUID    [16]byte
	Label   string // at most 16 bytes, no NUL
	// Inodes is how many files will be made, the root not counted. There is room
	// for as many as the user adds later: one for each 16 KiB, up to 262,144.
	Inodes int
}

const (
	makeBlock     = 4096 // the only size that the Hurd's ext2fs takes
	makePerGroup  = 8 * makeBlock
	makeMinimum   = units.MiB
	bytesPerInode = 16 * units.KiB // mke2fs' own default
	// maxRoom bounds the inodes for later: e2fsck reads every one, used or not,
	// which takes seconds for millions.
	maxRoom    = 1 << 18
	firstInode = 11 // the first that isn't reserved

	compatExtAttr     = 0x0008
	incompatFileType  = 0x0002
	roCompatSparse    = 0x0001
	roCompatLargeFile = 0x0002
	roCompatHugeFile  = 0x0008
)

// dialect is what a system wants of a file system.
type dialect struct {
	name      string // mke2fs' for -o
	features  string // mke2fs' for -O, after "none"
	inodeSize int
	fileType  bool // directories say what kind of file a name is
	incompat  uint32
}

// dialectOf chooses what the Hurd's ext2fs and Linux' ext2 and ext4 drivers
// take without a warning. The Hurd supports no more than filetype,
// sparse_super, large_file and ext_attr (ext2_fs.h, EXT2_FEATURE_*_SUPP),
// mke2fs refuses filetype for it, and older versions panic on inodes that don't
// have 128 bytes (hyper.c). Without ext_attr, no passive translator could be set.
func dialectOf(creator OS) (dialect, error) {
	switch creator {
	case OSHurd:
		return dialect{name: "hurd", features: "sparse_super,large_file,ext_attr", inodeSize: 128}, nil
	case OSLinux:
		return dialect{name: "linux", features: "sparse_super,large_file,ext_attr,filetype", inodeSize: 256, fileType: true, incompat: incompatFileType}, nil
	}
	return dialect{}, fmt.Errorf("no file systems can be made for the system with the number %d", creator)
}

// Make begins a new ext2 file system in an image file of its own, without a
// partition table; an existing file is overwritten. The Maker's methods fill
// it and Close completes it. No privileges are needed. The error is a
// *SpaceError when the size can't hold as many inodes.
func Make(ctx context.Context, image string, o MakeOptions) (*Maker, error) {
	m, err := makeEmpty(ctx, image, o)
	if err != nil {
		return nil, fmt.Errorf("making the file system %s: %w", image, err)
	}
	return m, nil
}

func makeEmpty(ctx context.Context, image string, o MakeOptions) (m *Maker, err error) {
	fl, err := dialectOf(o.Creator)
	if err != nil {
		return nil, err
	}
	o.Size -= o.Size % makeBlock
	if err := o.valid(); err != nil {
		return nil, err
	}
	if image, err = imagePath(image); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(image))
		}
	}()
	if err := file.Truncate(int64(o.Size)); err != nil {
		return nil, err
	}
	err = runTool(ctx, command(ctx, "mke2fs", "-q", "-F", "-t", "ext2", "-o", fl.name, "-O", "none,"+fl.features,
		"-b", strconv.Itoa(makeBlock), "-g", strconv.Itoa(makePerGroup), "-I", strconv.Itoa(fl.inodeSize), "-m", "0",
		"-N", strconv.Itoa(o.inodes()), "-U", uuid(o.UUID[:]), "-L", o.Label,
		// The file was empty: what mke2fs does not write is a hole, and reads as zeros.
		"-E", "nodiscard,assume_storage_prezeroed=1,root_owner=0:0",
		image, strconv.FormatInt(int64(o.Size/makeBlock), 10)))
	if err != nil {
		return nil, err
	}
	return newMaker(image, file, fl, o)
}

// inodes is how many the file system gets, the reserved ones included: not more
// than one for each block, which is where mke2fs ends.
func (o MakeOptions) inodes() int {
	least := o.Inodes + firstInode
	return max(least, min(least+min(int(o.Size/bytesPerInode), maxRoom), int(o.Size/makeBlock)))
}

func (o MakeOptions) valid() error {
	switch {
	case o.Size < makeMinimum:
		return fmt.Errorf("%s is too small: it must be at least %s", o.Size, makeMinimum)
	case o.Size/makeBlock >= 1<<32:
		return fmt.Errorf("%s is too large: ext2 ends at 16 TiB", o.Size.Human())
	case len(o.Label) > 16 || strings.Contains(o.Label, "\x00"):
		return fmt.Errorf("the label %q must have at most 16 bytes, none of them NUL", o.Label)
	case o.Inodes < 0:
		return fmt.Errorf("it can't have room for %d files", o.Inodes)
	case o.UUID == [16]byte{}:
		return errors.New("it has no UUID") // mke2fs would make one up
	case units.Bytes(o.Inodes) > (o.Size-makeMinimum/2)/makeBlock:
		return &SpaceError{Size: o.Size, Need: roundUp(units.Bytes(o.Inodes)*makeBlock+makeMinimum, units.MiB)}
	}
	return nil
}

// SpaceError says that files don't fit into a new file system.
type SpaceError struct {
	Size units.Bytes // of the file system
	// Need is what the files need it to have; nothing would be free then. From
	// Make, which knows only their number, it may be too little.
	Need units.Bytes
}

// Error tells both sizes.
func (e *SpaceError) Error() string {
	return fmt.Sprintf("it has %s, but the files need %s", e.Size.Human(), e.Need.Human())
}

func roundUp(n, unit units.Bytes) units.Bytes { return (n + unit - 1) / unit * unit }
