package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/units"
)

// DriveOptions describe the workspace's drive.
type DriveOptions struct {
	Size  units.Bytes // of the drive; the file that holds it is sparse
	Linux bool        // made for Linux, rather than for the Hurd, which Linux can use as well
	UUID  [16]byte    // of its file system, by which the guest finds it; not all zeros
	Owner Owner       // of the files, in the guest
}

// DriveSizeError says that the workspace does not fit on its drive.
type DriveSizeError struct {
	Size units.Bytes // what it has
	Need units.Bytes // what the workspace alone needs, at least
}

// Error gives both sizes.
func (e *DriveSizeError) Error() string {
	return fmt.Sprintf("the workspace needs a drive of %s at least, with nothing left to write, and it has %s", e.Need.Human(), e.Size.Human())
}

// label is what the drive's file system is called.
const label = "workspace"

// MakeDrive puts the tree into a new file: a drive without a partition table
// that holds an ext2 file system, which is proven by e2fsck. Nothing is left
// of a drive that could not be made. The error is a *DriveSizeError when it is
// too small, and else that of Tree.CopyTo or of package ext2.
func MakeDrive(ctx context.Context, file string, t *Tree, o DriveOptions) (err error) {
	creator := ext2.OSHurd
	if o.Linux {
		creator = ext2.OSLinux
	}
	m, err := ext2.Make(ctx, file, ext2.MakeOptions{Size: o.Size, Creator: creator, UUID: o.UUID, Label: label, Inodes: len(t.Entries)})
	if err != nil {
		return fmt.Errorf("making the workspace's drive: %w", sized(err))
	}
	defer func() { err = errors.Join(err, m.Discard()) }()
	if err := t.CopyTo(ctx, driveSink{m}, o.Owner); err != nil {
		return err
	}
	if err := m.Close(ctx); err != nil {
		return fmt.Errorf("making the workspace's drive: %w", sized(err))
	}
	return nil
}

// sized puts the file system's complaint about its size into our words.
func sized(err error) error {
	var space *ext2.SpaceError
	if errors.As(err, &space) {
		return &DriveSizeError{Size: space.Size, Need: space.Need}
	}
	return err
}

// driveSink is a Sink that fills a file system.
type driveSink struct{ m *ext2.Maker }

func (s driveSink) Dir(path string, a Attr) error { return s.m.Dir(path, attributes(a)) }

func (s driveSink) File(path string, a Attr, size units.Bytes, r io.ReaderAt) error {
	err := s.m.File(path, attributes(a), size, r)
	if errors.Is(err, ext2.ErrShrank) {
		return fmt.Errorf("%w: %w", ErrShrank, err)
	}
	return err
}

func (s driveSink) Symlink(path, target string, a Attr) error {
	return s.m.Symlink(path, target, attributes(a))
}

func (s driveSink) Link(path, existing string) error { return s.m.Link(path, existing) }

func (s driveSink) Special(path string, a Attr) error { return s.m.Special(path, attributes(a)) }

func attributes(a Attr) ext2.Attributes {
	return ext2.Attributes{Mode: a.Mode, UID: a.UID, GID: a.GID, ModTime: a.ModTime}
}

// Drive is a Source that reads the drive once the guest has let go of it.
type Drive struct {
	file string
	fs   *ext2.FS
}

// OpenDrive opens a drive for reading. When the guest was lost before it had
// let go of it, or lied about that, Repair makes it consistent first.
func OpenDrive(file string) (*Drive, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("opening the workspace's drive: %w", err)
	}
	f, err := ext2.Open(file, ext2.Partition{Size: units.Bytes(info.Size())})
	if err != nil {
		return nil, fmt.Errorf("opening the workspace's drive: %w", err)
	}
	return &Drive{file, f}, nil
}

// Clean tells whether the guest has let go of the drive in order.
func (d *Drive) Clean() (bool, error) {
	sb, err := d.fs.Superblock()
	return sb.Clean, err
}

// Repair has e2fsck mend the file system, and returns what that did. The guest
// must not write to it any more.
func (d *Drive) Repair(ctx context.Context) ([]string, error) {
	lines, err := d.fs.Repair(ctx)
	if err != nil {
		return lines, fmt.Errorf("repairing the workspace's drive: %w", err)
	}
	return lines, nil
}

// Close closes the file.
func (d *Drive) Close() error { return d.fs.Close() }

// Walk visits what is on the drive now.
func (d *Drive) Walk(ctx context.Context, visit func(Node) error) error {
	return d.fs.Walk(ctx, func(n ext2.Node) error {
		node := Node{
			Path: n.Path, Mode: n.Mode, Size: n.Size, ModTime: n.ModTime, ChangeTime: n.ChangeTime, Target: n.Target,
		}
		if n.Links > 1 && !n.IsDir() {
			node.Inode = uint64(n.Inode)
		}
		if n.Mode.IsRegular() {
			node.Data = func(visit func(units.Bytes, []byte) error) error { return d.fs.Data(n, visit) }
		}
		return visit(node)
	})
}

var (
	_ Sink   = driveSink{}
	_ Source = (*Drive)(nil)
)
