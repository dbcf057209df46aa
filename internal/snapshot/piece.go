package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// A file is read, summed and packed in pieces of 64 blocks, so that one word
// says which blocks of a piece hold something. 256 KiB also fit into the
// second-level cache between being read and being summed.
const (
	blockSize = 4096 // a guest's page, and the block of every common file system
	pieceSize = 64 * blockSize
)

var zeros [blockSize]byte

// piece is a part of a file that begins at a multiple of pieceSize.
type piece struct {
	index int64
	data  []byte // the blocks; the file's last one may be incomplete
	mask  uint64 // bit i for block i: it is not all zeros
}

// look finds the blocks that are not all zeros.
func (p *piece) look() {
	p.mask = 0
	for i, off := 0, 0; off < len(p.data); i, off = i+1, off+blockSize {
		block := p.data[off:min(off+blockSize, len(p.data))]
		if !isZero(block) {
			p.mask |= 1 << i
		}
	}
}

// isZero tells whether a block holds nothing but zeros.
func isZero(block []byte) bool { return bytes.Equal(block, zeros[:len(block)]) }

// hasZeros tells whether a block that the mask names holds nothing but zeros.
func (p *piece) hasZeros() bool {
	for mask := p.mask; mask != 0; mask &= mask - 1 {
		off := bits.TrailingZeros64(mask) * blockSize
		if isZero(p.data[off:min(off+blockSize, len(p.data))]) {
			return true
		}
	}
	return false
}

// runs calls do for each run of neighbouring blocks that are not all zeros,
// with its offset in the piece.
func (p *piece) runs(do func(off int, data []byte) error) error {
	for mask := p.mask; mask != 0; {
		first := bits.TrailingZeros64(mask)
		n := bits.TrailingZeros64(^(mask >> first))
		off := first * blockSize
		if err := do(off, p.data[off:min(off+n*blockSize, len(p.data))]); err != nil {
			return err
		}
		if first+n == 64 {
			return nil
		}
		mask &= ^uint64(0) << (first + n)
	}
	return nil
}

// dataLen is the length of what runs passes in all, for a piece with a mask
// and a length. It is negative when the mask names blocks beyond the end.
func dataLen(mask uint64, length int) int {
	blocks := (length + blockSize - 1) / blockSize
	if bits.Len64(mask) > blocks {
		return -1
	}
	n := bits.OnesCount64(mask) * blockSize
	if bits.Len64(mask) == blocks && mask != 0 {
		n -= blocks*blockSize - length // the last block may be incomplete
	}
	return n
}

// pieceLen is the length of a piece of a file of a size.
func pieceLen(index, size int64) int {
	return int(min(pieceSize, size-index*pieceSize))
}

// head is what precedes a piece's data where it is summed and packed: its
// index, and the mask.
func (p *piece) head() [headSize]byte {
	var h [headSize]byte
	binary.BigEndian.PutUint32(h[:4], uint32(p.index)) // maxDisk / pieceSize is below 2^32
	binary.BigEndian.PutUint64(h[4:], p.mask)
	return h
}

const headSize = 12

// readPieces reads the pieces of a file that are not in holes, in order.
func readPieces(ctx context.Context, f *os.File, size int64, do func(*piece) error) error {
	s := scanner{f: f, size: size}
	return pieceLoop(ctx, f, size, s.next, do)
}

// read reads a piece of a file of the given size.
func (p *piece) read(f *os.File, index, size int64) error {
	p.index, p.data = index, p.data[:pieceLen(index, size)]
	if n, err := f.ReadAt(p.data, index*pieceSize); n < len(p.data) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // it became shorter
		}
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	p.look()
	return nil
}

// scanner finds the pieces of a file that hold data.
type scanner struct {
	f          *os.File
	size       int64
	at         int64 // the next piece
	start, end int64 // data that was found
}

// next returns the index of the next piece that is not in a hole, and -1 at the end.
func (s *scanner) next() (int64, error) {
	for {
		off := s.at * pieceSize
		if off >= s.size {
			return -1, nil
		}
		if off < s.end {
			s.at++
			return s.at - 1, nil
		}
		if err := s.seek(off); err != nil {
			return -1, err
		}
		s.at = max(s.at, s.start/pieceSize)
	}
}

// seek finds the first data at or behind off. A file system that knows no
// holes has data everywhere.
func (s *scanner) seek(off int64) error {
	start, err := s.f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // only a hole is left
		s.start, s.end, s.at = s.size, s.size, (s.size+pieceSize-1)/pieceSize
		return nil
	case errors.Is(err, unix.EINVAL):
		s.start, s.end = off, s.size
		return nil
	case err != nil:
		return fmt.Errorf("finding the data of %s: %w", s.f.Name(), err)
	}
	end, err := s.f.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		return fmt.Errorf("finding the holes of %s: %w", s.f.Name(), err)
	}
	s.start, s.end = start, end
	return nil
}
