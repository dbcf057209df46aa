package ext2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Maker fills a new file system. Paths are relative to its root, names
// separated by one slash and made of any bytes but NUL; directories come before
// what is in them. After a method has failed, the file system is as it was, and
// the next method can be called. When no room is left, the methods go on
// without an error and count, so that Close can tell how much would have been
// needed. There is no lost+found; Repair makes one, which Walk leaves out while
// it is empty. A Maker may be used by one goroutine at a time.
type Maker struct {
	image   string
	file    *os.File // nil after Close or Discard
	dialect dialect
	options MakeOptions
	sb      Superblock
	out     blockWriter
	blocks  allocator
	free    int64 // blocks in the beginning

	root   *draft
	drafts []*draft // that of inode n at n-firstInode
	files  map[string]*draft
	buffer []byte // for the data of files
	nodes  [3]pointerBlock
	made   bool
}

// Attributes are what an inode tells about a file.
type Attributes struct {
	Mode     fs.FileMode // permission bits, setuid, setgid and sticky; the type matters for Special only
	UID, GID uint32
	// ModTime becomes the time of modification, access and change. For the Hurd
	// it is cut to seconds from 1970 to January 2038, where all its readers
	// agree on 32 bits; for Linux to the years 1901 to 2446.
	ModTime time.Time
}

// draft is an inode in the making.
type draft struct {
	number  uint32
	mode    uint16
	attr    Attributes
	links   int
	size    units.Bytes
	sectors uint32
	block   [60]byte
	dir     *directory // what a directory holds
}

// maxLinkCount is how many names a file may have, and how many subdirectories
// a directory less two: EXT2_LINK_MAX.
const maxLinkCount = 32000

// Errors that a Maker's methods wrap, besides fs.ErrExist and fs.ErrNotExist.
var (
	// ErrName is about a name that ext2 can't hold.
	ErrName = errors.New("a name must have 1 to 255 bytes, none of them NUL, and be neither \".\" nor \"..\"")
	// ErrLinks is about a file with too many names.
	ErrLinks = errors.New("ext2 allows 32000 links to a file or directory")
	// ErrFileSize is about a file that is larger than ext2 allows.
	ErrFileSize = fmt.Errorf("ext2 allows files of %d bytes", int64(maxFileSize))
	// ErrShrank is about a file that became shorter while it was read.
	ErrShrank = errors.New("the file became shorter while it was read")
)

// Dir makes an empty directory. The path "." means the root, which exists, and
// gets the attributes; without, it belongs to root and has the mode 0755.
func (m *Maker) Dir(path string, a Attributes) error {
	if path == "." || path == "" {
		m.root.attr, m.root.mode = a, kinds[fs.ModeDir].raw|rawPermissions(a.Mode)
		return nil
	}
	return m.add("mkdir", path, fs.ModeDir, a, func(d *draft) error {
		parent, err := m.parent(path)
		if err != nil {
			return err
		}
		if parent.links >= maxLinkCount {
			return ErrLinks
		}
		parent.links++
		d.links++
		d.dir = &directory{parent: parent}
		return nil
	})
}

// File makes a regular file with the first size bytes of r. Blocks of zeros
// become holes; those of an *os.File are found without reading them, and its
// position changes. The error wraps ErrShrank when r ends sooner.
func (m *Maker) File(path string, a Attributes, size units.Bytes, r io.ReaderAt) error {
	return m.add("write", path, 0, a, func(d *draft) error {
		if size < 0 || size > maxFileSize {
			return fmt.Errorf("%w, this has %d", ErrFileSize, size)
		}
		d.size = size
		return m.fill(d, r)
	})
}

// Symlink makes a symbolic link. ext2 allows targets of 1 to 4095 bytes.
func (m *Maker) Symlink(path, target string, a Attributes) error {
	return m.add("symlink", path, fs.ModeSymlink, a, func(d *draft) error {
		if target == "" || len(target) >= makeBlock || strings.Contains(target, "\x00") {
			return fmt.Errorf("a symbolic link's target must have 1 to %d bytes, none of them NUL; this has %d", makeBlock-1, len(target))
		}
		d.size = units.Bytes(len(target))
		if len(target) < len(d.block) {
			copy(d.block[:], target)
			return nil
		}
		return m.fill(d, strings.NewReader(target))
	})
}

// Special makes a named pipe or a socket: which one says the mode's type.
// Devices are refused.
func (m *Maker) Special(path string, a Attributes) error {
	kind := a.Mode.Type()
	if kind != fs.ModeNamedPipe && kind != fs.ModeSocket {
		return &fs.PathError{Op: "mknod", Path: path, Err: fmt.Errorf("a file of type %v can't be made, only named pipes and sockets", kind)}
	}
	return m.add("mknod", path, kind, a, func(*draft) error { return nil })
}

// Link gives another name to a file that is no directory.
func (m *Maker) Link(path, existing string) error {
	err := m.checkNew(path)
	if err == nil {
		err = m.link(path, existing)
	}
	if err != nil {
		return &os.LinkError{Op: "link", Old: existing, New: path, Err: err}
	}
	return nil
}

func (m *Maker) link(path, existing string) error {
	d := m.files[existing]
	switch {
	case d == nil:
		return fmt.Errorf("the existing file: %w", fs.ErrNotExist)
	case d.dir != nil:
		return errors.New("a directory can't have two names")
	case d.links >= maxLinkCount:
		return ErrLinks
	}
	d.links++
	return m.enter(path, d)
}

// add makes a file whose details are completed by a function, which must not
// change anything but the draft if it fails.
func (m *Maker) add(op, path string, kind fs.FileMode, a Attributes, complete func(*draft) error) error {
	err := m.checkNew(path)
	if err == nil {
		d := &draft{mode: kinds[kind].raw | rawPermissions(a.Mode), attr: a, links: 1}
		if err = complete(d); err == nil {
			d.number = uint32(firstInode + len(m.drafts))
			m.drafts = append(m.drafts, d)
			err = m.enter(path, d)
		}
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// checkNew refuses a path at which no file can be made.
func (m *Maker) checkNew(path string) error {
	if m.file == nil {
		return os.ErrClosed
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.Contains(name, "\x00") {
			return ErrName
		}
	}
	if m.files[path] != nil {
		return fs.ErrExist
	}
	_, err := m.parent(path)
	return err
}

// parent finds the directory that a checked path is in.
func (m *Maker) parent(path string) (*draft, error) {
	above, _ := split(path)
	parent := m.files[above]
	switch {
	case parent == nil:
		return nil, fmt.Errorf("the directory %s: %w", above, fs.ErrNotExist)
	case parent.dir == nil:
		return nil, fmt.Errorf("%s is %w", above, errNotDir)
	}
	return parent, nil
}

// split parts a path into the directory, "." for the root, and the name in it.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return ".", path
}

// enter gives a file a name that is known to be free.
func (m *Maker) enter(path string, d *draft) error {
	parent, err := m.parent(path)
	if err != nil {
		return err
	}
	_, name := split(path)
	parent.dir.entries = append(parent.dir.entries, named{name, d})
	m.files[path] = d
	return nil
}

// Close completes the file system and lets e2fsck prove it. The error is a
// *SpaceError when not everything had room, and a *CheckError when e2fsck
// found something wrong. The image is useless after an error: Discard removes it.
func (m *Maker) Close(ctx context.Context) error {
	if m.file == nil {
		return os.ErrClosed
	}
	err := m.finish()
	err = errors.Join(err, m.file.Close())
	m.file = nil
	if err == nil {
		err = m.prove(ctx)
	}
	if err != nil {
		return fmt.Errorf("making the file system %s: %w", m.image, err)
	}
	m.made = true
	return nil
}

func (m *Maker) prove(ctx context.Context) error {
	f, err := Open(m.image, Partition{Size: m.options.Size})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading
	return f.Check(ctx)
}

// Discard removes the image unless Close completed it.
func (m *Maker) Discard() error {
	if m.made {
		return nil
	}
	m.made = true
	var err error
	if m.file != nil {
		err, m.file = m.file.Close(), nil
	}
	return errors.Join(err, os.Remove(m.image))
}

// finish writes everything that isn't written yet.
func (m *Maker) finish() error {
	for _, d := range slices.Concat([]*draft{m.root}, m.drafts) {
		if d.dir == nil {
			continue
		}
		if err := m.writeDirectory(d); err != nil {
			return err
		}
	}
	if err := m.space(); err != nil {
		return err
	}
	if err := m.out.flush(); err != nil {
		return err
	}
	return m.writeTables()
}

// space tells when something had no room.
func (m *Maker) space() error {
	if len(m.drafts) > int(m.sb.Inodes)-firstInode+1 {
		return fmt.Errorf("%d files were made, but there was to be room for %d", len(m.drafts), m.options.Inodes)
	}
	if m.blocks.missing == 0 {
		return nil
	}
	// What is added is not for data alone: its inode tables and bitmaps come on top.
	lacking := units.Bytes(m.blocks.missing) * makeBlock
	tables := lacking / bytesPerInode * units.Bytes(m.dialect.inodeSize)
	need := m.options.Size + lacking + tables + lacking/256 + units.MiB
	return &SpaceError{Size: m.options.Size, Need: roundUp(need, units.MiB)}
}
