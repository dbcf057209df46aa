// Package sparse writes and copies files without writing their zeros: a disk
// image of 4 GB that is mostly empty takes the space of what is in it.
package sparse

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// BlockSize is the granularity of holes: the block of every common file system.
const BlockSize = 4096

// flushEvery is how much is written before the kernel is told to begin writing
// it to the disk, so that the Sync at the end has little left to wait for.
const flushEvery = 32 << 20

var zeros [BlockSize]byte

// Writer writes a file from its beginning and leaves holes for blocks of zeros.
// The file must be empty. Close gives the file its full size; without it a
// hole at the end is missing.
type Writer struct {
	f       *os.File
	off     int64  // of the first byte in part, or of the next byte
	part    []byte // an incomplete block
	written int64  // bytes that are not holes
	dirty   int64  // written since the last flush
	start   int64  // where the range that was not flushed begins
	sum     *Digest
}

// NewWriter begins to write f. When sum is not nil it is given every block
// that is written.
func NewWriter(f *os.File, sum *Digest) *Writer {
	return &Writer{f: f, part: make([]byte, 0, BlockSize), sum: sum}
}

// Write takes p; only blocks that hold something other than zeros reach the file.
func (w *Writer) Write(p []byte) (int, error) {
	total := len(p)
	if len(w.part) > 0 {
		n := min(BlockSize-len(w.part), len(p))
		w.part = append(w.part, p[:n]...)
		p = p[n:]
		if len(w.part) < BlockSize {
			return total, nil
		}
		if err := w.blocks(w.part); err != nil {
			return 0, err
		}
		w.part = w.part[:0]
	}
	whole := len(p) &^ (BlockSize - 1)
	if err := w.blocks(p[:whole]); err != nil {
		return 0, err
	}
	w.part = append(w.part, p[whole:]...)
	return total, nil
}

// blocks writes whole blocks at w.off, one call for each run between holes.
func (w *Writer) blocks(p []byte) error {
	for len(p) > 0 {
		n := run(p)
		if n < 0 {
			w.off += int64(-n)
			p = p[-n:]
			continue
		}
		if err := w.emit(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// run measures the blocks at the beginning of p that are alike: n > 0 bytes of
// data, or -n bytes of zeros.
func run(p []byte) int {
	hole := bytes.Equal(p[:BlockSize], zeros[:])
	n := BlockSize
	for n < len(p) && bytes.Equal(p[n:n+BlockSize], zeros[:]) == hole {
		n += BlockSize
	}
	if hole {
		return -n
	}
	return n
}

func (w *Writer) emit(p []byte) error {
	if _, err := w.f.WriteAt(p, w.off); err != nil {
		return err
	}
	if w.sum != nil {
		w.sum.Add(w.off, p)
	}
	w.off += int64(len(p))
	w.written += int64(len(p))
	if w.dirty += int64(len(p)); w.dirty >= flushEvery {
		// Only a hint: a file system without it writes at Sync.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.start, w.off-w.start, unix.SYNC_FILE_RANGE_WRITE)
		w.start, w.dirty = w.off, 0
	}
	return nil
}

// Skip goes n bytes on, as if n zeros were written.
func (w *Writer) Skip(n int64) error {
	if len(w.part) > 0 {
		fill := min(n, int64(BlockSize-len(w.part)))
		if _, err := w.Write(zeros[:fill]); err != nil {
			return err
		}
		n -= fill
	}
	w.off += n &^ (BlockSize - 1)
	_, err := w.Write(zeros[:n&(BlockSize-1)])
	return err
}

// Size is the length of what was written, holes included.
func (w *Writer) Size() units.Bytes { return units.Bytes(w.off + int64(len(w.part))) }

// Data is the length of what is not holes.
func (w *Writer) Data() units.Bytes { return units.Bytes(w.written) }

// Close writes what is left and sets the file's size. It does not close the file.
func (w *Writer) Close() error {
	size := int64(w.Size())
	if len(w.part) > 0 {
		last := w.part
		if len(bytes.Trim(last, "\x00")) > 0 {
			if err := w.emit(last); err != nil {
				return err
			}
		}
		w.part = w.part[:0]
		w.off = size
	}
	return w.f.Truncate(size)
}
