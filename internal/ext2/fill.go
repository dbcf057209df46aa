package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

const (
	pointersPerBlock = makeBlock / 4
	directBlocks     = 12

	// maxFileSize is where Linux' drivers end: the 512-byte sectors of a file,
	// pointer blocks included, are counted in 32 bits.
	maxFileSize = units.Bytes(1<<32/8-1-
		(1+(1+pointersPerBlock)+(1+pointersPerBlock+pointersPerBlock*pointersPerBlock))) * makeBlock
)

var zeroBlock [makeBlock]byte

// fill gives a file the data of r. Only the draft is changed when it fails.
func (m *Maker) fill(d *draft, r io.ReaderAt) error {
	p := &pointers{m: m, draft: d, nodes: &m.nodes, missing: m.blocks.missing}
	for i := range p.nodes {
		p.nodes[i].key, p.nodes[i].number = 0, 0
	}
	err := dataRanges(r, d.size, func(from, to units.Bytes) error {
		for from < to {
			n := min(to-from, writeBuffer)
			if err := p.copy(r, from, n); err != nil {
				return err
			}
			from += n
		}
		return nil
	})
	if err == nil {
		err = p.finish()
	}
	if err != nil {
		p.giveBack()
	}
	return err
}

// dataRanges calls visit for what isn't known to be a hole, from a multiple of
// the block size on.
func dataRanges(r io.ReaderAt, size units.Bytes, visit func(from, to units.Bytes) error) error {
	f, ok := r.(*os.File)
	if !ok || size == 0 {
		return visit(0, size)
	}
	for at := units.Bytes(0); at < size; {
		from, to, err := nextData(f, at, size)
		if err != nil {
			return err
		}
		from -= from % makeBlock
		if from = max(from, at); from < size {
			to = min(roundUp(to, makeBlock), size)
			if err := visit(from, to); err != nil {
				return err
			}
		}
		at = to
	}
	// A file that ends sooner looks like one that ends with a hole.
	stat, err := f.Stat()
	if err == nil && units.Bytes(stat.Size()) < size {
		err = shrank(size, units.Bytes(stat.Size()))
	}
	return err
}

func shrank(from, to units.Bytes) error {
	return fmt.Errorf("%w: from %d to %d bytes", ErrShrank, from, to)
}

// nextData finds the next range of data; it begins at size when there is none.
// Where the system can't tell, everything is data.
func nextData(f *os.File, at, size units.Bytes) (from, to units.Bytes, err error) {
	data, err := f.Seek(int64(at), unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return at, size, nil
	case err != nil:
		return 0, 0, err
	}
	hole, err := f.Seek(data, unix.SEEK_HOLE)
	switch {
	case errors.Is(err, unix.ENXIO): // it was cut in between
		return size, size, nil
	case err != nil:
		return 0, 0, err
	case hole <= int64(at):
		return at, size, nil
	}
	return units.Bytes(data), units.Bytes(hole), nil
}

// pointers gives blocks to a file, in ascending order, and keeps the tree of
// pointers to them: twelve in the inode, then blocks of pointers of one, two
// and three levels.
type pointers struct {
	m       *Maker
	draft   *draft
	nodes   *[3]pointerBlock // the present block of pointers to data, to those, and to those
	taken   []run            // blocks of this file
	missing int64            // in the beginning
}

// pointerBlock is a block of pointers that is being filled.
type pointerBlock struct {
	key    uint64 // which of its kind it is, plus one
	number uint32
	data   [makeBlock]byte
}

// copy writes length bytes of r, from a multiple of the block size on.
func (p *pointers) copy(r io.ReaderAt, from, length units.Bytes) error {
	if p.m.buffer == nil {
		p.m.buffer = make([]byte, writeBuffer)
	}
	data := p.m.buffer[:length]
	if n, err := r.ReadAt(data, int64(from)); n < len(data) {
		if err == nil || errors.Is(err, io.EOF) {
			return shrank(p.draft.size, from+units.Bytes(n))
		}
		return err
	}
	whole := p.m.buffer[:roundUp(length, makeBlock)]
	clear(whole[length:])
	return p.write(uint64(from/makeBlock), whole)
}

// write stores whole blocks from a logical block on, but no zeros.
func (p *pointers) write(logical uint64, data []byte) error {
	begin, first, next := 0, uint32(0), uint32(0) // data[begin:i] goes to the blocks first to next
	for i := 0; i < len(data); i += makeBlock {
		block := uint32(0)
		zero := bytes.Equal(data[i:i+makeBlock], zeroBlock[:])
		if !zero {
			var err error
			if block, err = p.add(logical + uint64(i/makeBlock)); err != nil {
				return err
			}
		}
		if zero || block != next || block == 0 {
			if err := p.m.out.write(first, data[begin:i]); err != nil {
				return err
			}
			begin, first = i, block
		}
		next = block + 1
	}
	return p.m.out.write(first, data[begin:])
}

// add gives the file a block at a logical number.
func (p *pointers) add(logical uint64) (uint32, error) {
	depth, rest := 0, logical
	for span := uint64(directBlocks); rest >= span; span = spanOf(depth) {
		rest -= span
		depth++
	}
	root := rest // which pointer of the inode leads there
	if depth > 0 {
		root = uint64(directBlocks - 1 + depth)
	}
	slot := p.draft.block[4*root:]
	for level := depth - 1; level >= 0; level-- {
		node := &p.nodes[level]
		key := uint64(depth)<<60 + rest/spanOf(level+1) + 1
		if node.key != key {
			if err := p.m.out.write(node.number, node.data[:]); err != nil {
				return 0, err
			}
			*node = pointerBlock{key: key, number: p.take()}
			binary.LittleEndian.PutUint32(slot, node.number)
		}
		slot = node.data[rest/spanOf(level)%pointersPerBlock*4:]
	}
	block := p.take()
	binary.LittleEndian.PutUint32(slot, block)
	return block, nil
}

// spanOf is how many data blocks lie below a block of pointers with so many levels.
func spanOf(levels int) uint64 {
	span := uint64(1)
	for range levels {
		span *= pointersPerBlock
	}
	return span
}

func (p *pointers) take() uint32 {
	block := p.m.blocks.take()
	p.draft.sectors += makeBlock / sectorSize
	if k := len(p.taken) - 1; k >= 0 && p.taken[k].physical+p.taken[k].count == uint64(block) {
		p.taken[k].count++
	} else if block != 0 {
		p.taken = append(p.taken, run{physical: uint64(block), count: 1})
	}
	return block
}

// finish writes the blocks of pointers that are left.
func (p *pointers) finish() error {
	for i := range p.nodes {
		if err := p.m.out.write(p.nodes[i].number, p.nodes[i].data[:]); err != nil {
			return err
		}
	}
	return nil
}

// giveBack frees the file's blocks.
func (p *pointers) giveBack() {
	for _, r := range p.taken {
		p.m.blocks.give(uint32(r.physical), uint32(r.count))
	}
	p.m.blocks.missing = p.missing
}
