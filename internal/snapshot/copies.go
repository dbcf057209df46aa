package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
)

// place is where a block is.
type place struct {
	file  uint8 // its number in names
	block uint32
}

// placeSize is the length of a packed place.
const placeSize = 5

// maxHead is the most that precedes the blocks of a packed piece.
const maxHead = headSize + 8 + 64*placeSize

// copies finds blocks that were packed before. It remembers a bounded number of
// them, the last with each of the lowest bits of a sum, and always the same
// ones for the same contents.
type copies struct {
	crcs   []uint32 // by the lowest bits of the sum, as the next two
	blocks []uint32
	files  []uint8 // the file's number and 1; 0: nothing was remembered

	same  []byte // a block that is compared
	found []place
}

// copySlots is enough for the blocks of 1 GiB, and takes 2.25 MiB.
const copySlots = 1 << 18

func newCopies() *copies {
	return &copies{
		crcs: make([]uint32, copySlots), blocks: make([]uint32, copySlots), files: make([]uint8, copySlots),
		same: make([]byte, blockSize),
	}
}

// find returns where blocks of a piece were packed before, in their order, and
// their bits; then it remembers those of the piece. The piece is one of the
// last file. What it returns is valid until the next call.
func (c *copies) find(p *piece, files []*os.File) ([]place, uint64, error) {
	var sums [64]uint32
	copied := uint64(0)
	c.found = c.found[:0]
	whole := p.mask & (1<<(len(p.data)/blockSize) - 1) // shifting by 64 gives 0, and 0-1 all bits
	for mask := whole; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		block := p.data[i*blockSize : (i+1)*blockSize]
		sums[i] = crc32.Checksum(block, castagnoli)
		at, ok := c.seen(sums[i])
		if !ok {
			continue
		}
		if _, err := files[at.file].ReadAt(c.same, int64(at.block)*blockSize); err != nil {
			return nil, 0, fmt.Errorf("reading %s: %w", files[at.file].Name(), err)
		}
		if bytes.Equal(c.same, block) {
			copied |= 1 << i
			c.found = append(c.found, at)
		}
	}
	for mask := whole &^ copied; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		slot := sums[i] % copySlots
		// There are 3 files, of up to maxDisk.
		c.crcs[slot], c.files[slot], c.blocks[slot] = sums[i], uint8(len(files)), uint32(p.index*64+int64(i))
	}
	return c.found, copied, nil
}

// seen is where a block with a sum was packed before.
func (c *copies) seen(crc uint32) (place, bool) {
	slot := crc % copySlots
	if c.files[slot] == 0 || c.crcs[slot] != crc {
		return place{}, false
	}
	return place{c.files[slot] - 1, c.blocks[slot]}, true
}

// readCopies reads the places of a piece's copies from a packed stream, and the
// blocks from the files that were unpacked so far, the last of which the piece
// belongs to.
func (p *piece) readCopies(r io.Reader, copied uint64, files []*os.File) error {
	for mask := copied; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		var packed [placeSize]byte
		if _, err := io.ReadFull(r, packed[:]); err != nil {
			return cut(err)
		}
		file, block := int(packed[0]), int64(binary.BigEndian.Uint32(packed[1:]))
		if file >= len(files) || file == len(files)-1 && block >= p.index*64 {
			return fmt.Errorf("%w: it refers to block %d of file %d, which does not precede it", ErrDamaged, block, file)
		}
		if (i+1)*blockSize > len(p.data) {
			return fmt.Errorf("%w: it refers to a block for the incomplete one at an end", ErrDamaged)
		}
		if _, err := files[file].ReadAt(p.data[i*blockSize:(i+1)*blockSize], block*blockSize); err != nil {
			return fmt.Errorf("%w: it refers to a block behind an end: %w", ErrDamaged, err)
		}
	}
	return nil
}
