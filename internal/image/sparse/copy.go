package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// bufferSize is how much is read at once from a file that is copied or summed.
const bufferSize = 1 << 20

// Allocated is the space that a file takes on its file system.
func Allocated(info os.FileInfo) units.Bytes {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return units.Bytes(st.Blocks * 512) // st_blocks counts 512 bytes whatever the file system's block
	}
	return units.Bytes(info.Size())
}

// Copy copies src, whole, into the empty file dst. It shares the blocks where
// the file system can (XFS, Btrfs), else it copies what is not zero.
func Copy(ctx context.Context, dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err == nil {
		return nil
	}
	size, err := src.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("measuring %s: %w", src.Name(), err)
	}
	w := NewWriter(dst, nil)
	err = eachChunk(ctx, src, size, func(off int64, p []byte) error {
		if err := w.Skip(off - int64(w.Size())); err != nil {
			return err
		}
		_, err := w.Write(p)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Skip(size - int64(w.Size())); err != nil {
		return err
	}
	return w.Close()
}

// Sum computes the digest of a file, as a Writer with a Digest does while
// writing it, without reading its holes.
func Sum(ctx context.Context, f *os.File) (string, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("measuring %s: %w", f.Name(), err)
	}
	d := NewDigest()
	err = eachChunk(ctx, f, size, func(off int64, p []byte) error {
		for len(p) > 0 {
			n := min(BlockSize, len(p))
			if !bytes.Equal(p[:n], zeros[:n]) {
				d.Add(off, p[:n])
			}
			off, p = off+int64(n), p[n:]
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return d.Sum(units.Bytes(size)), nil
}

// eachChunk calls do for what is not a hole, in order, in chunks that begin at
// a block's beginning and, but for the file's end, hold whole blocks.
func eachChunk(ctx context.Context, f *os.File, size int64, do func(off int64, p []byte) error) error {
	buf := make([]byte, bufferSize)
	done := int64(0)
	return extents(f, size, func(start, end int64) error {
		start = max(start&^(BlockSize-1), done)
		end = min((end+BlockSize-1)&^(BlockSize-1), size)
		for start < end {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			p := buf[:min(int64(len(buf)), end-start)]
			if _, err := f.ReadAt(p, start); err != nil {
				return fmt.Errorf("reading %s: %w", f.Name(), err)
			}
			if err := do(start, p); err != nil {
				return err
			}
			start += int64(len(p))
		}
		done = max(done, end)
		return nil
	})
}

// extents calls data for every part of f that is not a hole, in order. A file
// system that knows no holes reports one part.
func extents(f *os.File, size int64, data func(start, end int64) error) error {
	for off := int64(0); off < size; {
		start, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return data(off, size)
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("finding the holes of %s: %w", f.Name(), err)
		}
		if err := data(start, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return nil
}
