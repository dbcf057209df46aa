package snapshot

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// CopySparse copies src, whole, into the empty file dst, and moves the offset
// of src. Where the file system can share blocks (XFS, Btrfs) it does; else
// what is not zero is copied, by several goroutines, and the rest becomes a
// hole, also where src has written zeros: a guest's kernel clears much of its
// memory. copy_file_range(2) would keep those, and can't read a memfd.
func CopySparse(ctx context.Context, dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return fmt.Errorf("writing %s: %w", dst.Name(), err)
	}
	return eachPiece(ctx, src, info.Size(), func(p *piece) error { return p.write(dst) })
}

// write writes what is not zeros to its place.
func (p *piece) write(f *os.File) error {
	return p.runs(func(off int, data []byte) error {
		if _, err := f.WriteAt(data, p.index*pieceSize+int64(off)); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name(), err)
		}
		return nil
	})
}
