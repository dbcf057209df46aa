package ext2

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/org/hurd-qemu-action/internal/units"
)

// run is a row of blocks of a file; physical is 0 for a hole.
type run struct {
	logical, physical, count uint64
}

// errTooLarge says that a file is larger than its reader wants.
var errTooLarge = errors.New("the file is too large")

// runs calls visit for each row of blocks of a file, in order and without
// gaps: holes are rows too.
func (t tree) runs(n inode, limit units.Bytes, visit func(run) error) error {
	if n.size > uint64(limit) {
		return fmt.Errorf("%w: %s, the limit is %s", errTooLarge, units.Bytes(n.size).Human(), limit.Human())
	}
	if n.flags&(inodeInlineData|inodeEncrypted) != 0 {
		return errors.New("inline or encrypted data is not supported")
	}
	size := uint64(t.sb.BlockSize)
	w := &walker{t: t, end: (n.size + size - 1) / size, most: t.sb.Blocks, visit: visit}
	if t.sb.countsSectors() {
		w.most = min(w.most, uint64(n.sectors)*sectorSize/size)
	}
	var err error
	if n.flags&inodeExtents != 0 {
		err = w.extents(n.block[:], maxExtentDepth)
	} else {
		err = w.pointers(n)
	}
	if err != nil {
		return err
	}
	return w.hole(w.end)
}

// walker hands out rows of blocks in order up to end.
type walker struct {
	t     tree
	next  uint64 // first logical block that was not handed out
	end   uint64
	nodes int // of the extent tree, visited
	// mapped counts the blocks that were found, of data and of pointers. A
	// hostile map could use the same ones over and over.
	mapped, most uint64
	visit        func(run) error
}

// hole fills up to a logical block.
func (w *walker) hole(to uint64) error {
	if to = min(to, w.end); to <= w.next {
		return nil
	}
	r := run{w.next, 0, to - w.next}
	w.next = to
	return w.visit(r)
}

func (w *walker) row(r run) error {
	if r.logical < w.next {
		return fmt.Errorf("%w: the blocks of a file overlap", errCorrupt)
	}
	if r.logical >= w.end {
		return nil // allocated beyond the end of the file
	}
	if err := w.hole(r.logical); err != nil {
		return err
	}
	r.count = min(r.count, w.end-r.logical)
	if r.physical != 0 && r.physical+r.count > w.t.sb.Blocks {
		return fmt.Errorf("%w: block %d does not exist", errCorrupt, r.physical+r.count-1)
	}
	if r.physical != 0 {
		if err := w.found(r.count); err != nil {
			return err
		}
	}
	w.next += r.count
	return w.visit(r)
}

// found refuses a file that has more blocks than there are.
func (w *walker) found(count uint64) error {
	if w.mapped += count; w.mapped > w.most {
		return fmt.Errorf("%w: a file has more blocks than it says", errCorrupt)
	}
	return nil
}

const (
	extentMagic    = 0xf30a
	maxExtentDepth = 5
	// maxExtentNodes bounds the nodes of one file's tree: a hostile one could
	// have 340 to the power of 5 empty leaves.
	maxExtentNodes = 1 << 14
	// An extent that is longer is allocated but was never written: it reads as zeros.
	maxExtentLength = 1 << 15
)

// extents walks a node of an extent tree that may have at most depth levels
// below it.
func (w *walker) extents(node []byte, depth int) error {
	le := binary.LittleEndian
	count, level := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if w.nodes++; w.nodes > maxExtentNodes || le.Uint16(node) != extentMagic || level > depth || 12*(count+1) > len(node) {
		return fmt.Errorf("%w: a node of an extent tree is invalid", errCorrupt)
	}
	for i := 1; i <= count && w.next < w.end; i++ {
		e := node[12*i:][:12]
		if level > 0 {
			child, err := w.t.block(uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32)
			if err != nil {
				return err
			}
			if err := w.extents(child, level-1); err != nil {
				return err
			}
			continue
		}
		r := run{
			logical:  uint64(le.Uint32(e)),
			count:    uint64(le.Uint16(e[4:])),
			physical: uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32,
		}
		if r.count > maxExtentLength {
			r.count, r.physical = r.count-maxExtentLength, 0
		}
		if err := w.row(r); err != nil {
			return err
		}
	}
	return nil
}

// pointers walks the classic map: twelve direct blocks, then blocks of
// pointers of one, two and three levels.
func (w *walker) pointers(n inode) error {
	for i := range 15 {
		if w.next >= w.end {
			return nil
		}
		pointer := uint64(binary.LittleEndian.Uint32(n.block[4*i:]))
		if err := w.indirect(pointer, max(0, i-11)); err != nil {
			return err
		}
	}
	return nil
}

// indirect walks what lies below a pointer: the data itself at level 0.
func (w *walker) indirect(pointer uint64, level int) error {
	if level == 0 {
		return w.row(run{w.next, pointer, 1})
	}
	perBlock := uint64(w.t.sb.BlockSize) / 4
	if pointer == 0 {
		span := uint64(1)
		for range level {
			span *= perBlock
		}
		return w.hole(w.next + span)
	}
	if err := w.found(1); err != nil {
		return err
	}
	block, err := w.t.block(pointer)
	if err != nil {
		return err
	}
	for i := uint64(0); i < perBlock && w.next < w.end; i++ {
		if err := w.indirect(uint64(binary.LittleEndian.Uint32(block[4*i:])), level-1); err != nil {
			return err
		}
	}
	return nil
}

// content reads a file of at most limit.
func (t tree) content(n inode, limit units.Bytes) ([]byte, error) {
	if n.size > uint64(limit) {
		return nil, fmt.Errorf("%w: %s, the limit is %s", errTooLarge, units.Bytes(n.size).Human(), limit.Human())
	}
	data := make([]byte, n.size)
	err := t.runs(n, limit, func(r run) error {
		if r.physical == 0 {
			return nil
		}
		from := r.logical * uint64(t.sb.BlockSize)
		to := min(n.size, (r.logical+r.count)*uint64(t.sb.BlockSize))
		_, err := t.f.file.ReadAt(data[from:to], int64(t.f.part.Start)+int64(r.physical)*int64(t.sb.BlockSize))
		return err
	})
	return data, err
}
