package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Look describes a local image file in one line, after the checks that Obtain
// makes before it uses one; what is in a packed file is not looked at. Nothing
// is written.
func (s *Store) Look(ctx context.Context, path string) (string, error) {
	text, err := s.look(ctx, path)
	return text, explain("looking at", path, err)
}

func (s *Store) look(ctx context.Context, path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // the opening of a fifo would wait for ever
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: %s is %s", disk.ErrNotDisk, path, kindOf(info))
	}
	size := units.Bytes(info.Size())
	head := make([]byte, disk.SniffLen)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if unpack.Packed(head[:n]) {
		return fmt.Sprintf("%s, packed, %s", path, size.Human()), nil
	}
	d, err := disk.Inspect(f, size)
	if err != nil {
		return "", err
	}
	if err := s.Tools.Check(ctx, path, d.Format); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s, a disk of %s", path, d.Format, d.VirtualSize.Human()), nil
}
