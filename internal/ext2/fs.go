// Package ext2 reads and edits the ext2, ext3 and ext4 file systems inside raw
// disk images without privileges: no mount, no loop device.
//
// Reading is done here, in bounded Go code, because images are not trusted.
// What changes an existing file system is e2fsprogs (debugfs, e2fsck,
// resize2fs), told where the file system begins by its "image?offset=N" syntax.
// debugfs ends with status 0 even when a command failed, so every edit is read
// back and compared.
//
// A new file system is laid out by mke2fs, but filled here: mke2fs can neither
// leave files out nor give them other owners, and debugfs can't be told names
// with a newline or a quote. Nothing in it is older than the Maker, so no state
// can be misread; and e2fsck has to find it sound before anyone gets it.
//
// Formats: https://docs.kernel.org/filesystems/ext4/ and the Hurd's ext2_fs.h.
package ext2

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// FS is the file system in one partition of a raw disk image. It may be used
// by one goroutine at a time.
type FS struct {
	image string // absolute path
	part  Partition
	file  readerAtCloser
	time  int64 // for e2fsprogs, see tool; 0: the clock's
}

type readerAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Open opens the file system in a partition of a raw image. The error wraps
// ErrNotExt2 when there is none, and ErrTruncated when the image ends before it.
func Open(image string, part Partition) (*FS, error) {
	abs, err := imagePath(image)
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", image, err)
	}
	file, err := os.Open(abs)
	if err != nil {
		return nil, err
	}
	f := &FS{image: abs, part: part, file: file}
	if err := f.probe(); err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("opening the file system in %s of %s: %w", part, image, err)
	}
	if sb, err := f.Superblock(); err == nil { // probe has read it
		f.time = sb.lastTime
	}
	return f, nil
}

// imagePath is an image's absolute path, which e2fsprogs can be given.
func imagePath(image string) (string, error) {
	abs, err := filepath.Abs(image)
	if err == nil && strings.ContainsAny(abs, "?\n") {
		err = fmt.Errorf("e2fsprogs can't handle a '?' or a newline in the path of an image: %q", abs)
	}
	return abs, err
}

// ErrTruncated says that a file system is larger than the part of the image
// that should hold it.
var ErrTruncated = errors.New("the image is truncated")

func (f *FS) probe() error {
	sb, err := f.Superblock()
	if err != nil {
		return err
	}
	if err := sb.readable(); err != nil {
		return err
	}
	if sb.Size() > f.part.Size {
		return fmt.Errorf("%w: the file system has %s, its partition only %s", ErrTruncated, sb.Size().Human(), f.part.Size.Human())
	}
	return nil
}

// Close releases the image.
func (f *FS) Close() error { return f.file.Close() }

// Partition is where the file system lies.
func (f *FS) Partition() Partition { return f.part }

// Superblock reads the superblock anew.
func (f *FS) Superblock() (Superblock, error) { return ReadSuperblock(f.file, f.part.Start) }

// target is the file system's name for e2fsprogs.
func (f *FS) target() string { return fmt.Sprintf("%s?offset=%d", f.image, f.part.Start) }

// Info describes a file.
type Info struct {
	Inode    uint32
	Mode     fs.FileMode // permissions and type
	UID, GID uint32
	Size     units.Bytes
	// Translator is the number of the block that holds the passive translator
	// of a file made by the Hurd, 0 when it has none or when the file system was
	// not made for the Hurd.
	Translator uint32
}

// IsDir tells whether the file is a directory.
func (i Info) IsDir() bool { return i.Mode.IsDir() }

// Stat describes the file that an absolute path leads to, symbolic links
// followed within the file system. The error wraps fs.ErrNotExist when there is none.
func (f *FS) Stat(path string) (Info, error) {
	t, n, err := f.lookup(path, true)
	if err != nil {
		return Info{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return n.info(t.sb), nil
}

// Lstat is Stat that does not follow a symbolic link in the last component.
func (f *FS) Lstat(path string) (Info, error) {
	t, n, err := f.lookup(path, false)
	if err != nil {
		return Info{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return n.info(t.sb), nil
}

// Exists tells whether a path leads to a file. A dangling symbolic link does not.
func (f *FS) Exists(path string) (bool, error) {
	_, err := f.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) || errors.Is(err, errLoop) {
		return false, nil
	}
	return err == nil, err
}

// MaxRead is the size of the largest file that ReadFile reads.
const MaxRead = 16 * units.MiB

// ReadFile reads a regular file of at most MaxRead.
func (f *FS) ReadFile(path string) ([]byte, error) {
	data, err := f.readFile(path)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

func (f *FS) readFile(path string) ([]byte, error) {
	t, n, err := f.lookup(path, true)
	if err != nil {
		return nil, err
	}
	if !n.mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file but %s", n.mode().Type())
	}
	return t.content(n, MaxRead)
}

// ReadHead reads at most the first limit bytes of a regular file of any size.
func (f *FS) ReadHead(path string, limit units.Bytes) ([]byte, error) {
	t, n, err := f.lookup(path, true)
	if err == nil && !n.mode().IsRegular() {
		err = fmt.Errorf("not a regular file but %s", n.mode().Type())
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	n.size = min(n.size, uint64(limit))
	data, err := t.content(n, limit)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

// ReadLink reads the target of a symbolic link.
func (f *FS) ReadLink(path string) (string, error) {
	t, n, err := f.lookup(path, false)
	if err == nil && n.mode().Type() != fs.ModeSymlink {
		err = errors.New("not a symbolic link")
	}
	if err == nil {
		var target string
		if target, err = t.link(n); err == nil {
			return target, nil
		}
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
}

// Entry is a name in a directory. Names are whatever bytes the image holds,
// but never empty, "." or "..", and without '/' and NUL.
type Entry struct {
	Name  string
	Inode uint32
}

// ReadDir lists a directory in the order on disk.
func (f *FS) ReadDir(path string) ([]Entry, error) {
	t, n, err := f.lookup(path, true)
	if err == nil {
		var entries []Entry
		if entries, err = t.entries(n); err == nil {
			return entries, nil
		}
	}
	return nil, &fs.PathError{Op: "readdir", Path: path, Err: err}
}

// Extent is a run of bytes in the image.
type Extent struct {
	Offset units.Bytes // from the image's beginning, a multiple of the block size
	Length units.Bytes
}

// Blocks tells where in the image the data of a regular file lies, in order;
// the last extent ends with the file, not with its block. A file with holes is
// refused.
func (f *FS) Blocks(path string) ([]Extent, error) {
	extents, err := f.blocks(path)
	if err != nil {
		return nil, &fs.PathError{Op: "locate", Path: path, Err: err}
	}
	return extents, nil
}

func (f *FS) blocks(path string) ([]Extent, error) {
	t, n, err := f.lookup(path, true)
	if err != nil {
		return nil, err
	}
	if !n.mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	var extents []Extent
	left := units.Bytes(n.size)
	err = t.runs(n, MaxRead, func(r run) error {
		if r.physical == 0 {
			return errors.New("it has holes")
		}
		e := Extent{f.part.Start + units.Bytes(r.physical)*t.sb.BlockSize, min(left, units.Bytes(r.count)*t.sb.BlockSize)}
		left -= e.Length
		if k := len(extents) - 1; k >= 0 && extents[k].Offset+extents[k].Length == e.Offset {
			extents[k].Length += e.Length
		} else {
			extents = append(extents, e)
		}
		return nil
	})
	return extents, err
}
