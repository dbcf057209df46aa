package ext2

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"

	"github.com/org/hurd-qemu-action/internal/units"
)

// newMaker takes over the empty file system that mke2fs laid out.
func newMaker(image string, file *os.File, fl dialect, o MakeOptions) (*Maker, error) {
	t, err := (&FS{image: image, part: Partition{Size: o.Size}, file: file}).tree()
	if err != nil {
		return nil, err
	}
	if err := asOrdered(t.sb, fl, o); err != nil {
		return nil, err
	}
	m := &Maker{
		image: image, file: file, dialect: fl, options: o, sb: t.sb,
		out:   blockWriter{file: file, size: o.Size},
		files: map[string]*draft{},
	}
	if m.blocks, err = readBlockBitmaps(t); err != nil {
		return nil, err
	}
	// The root directory is written anew, and lost+found is left out: in a
	// workspace it is a surprise, and a directory that most users can't read.
	// e2fsck makes one when it needs it.
	root, err := t.inode(rootInode)
	if err != nil {
		return nil, err
	}
	lost, err := t.child(root, lostFound)
	if err != nil {
		return nil, fmt.Errorf("finding lost+found: %w", err)
	}
	if lost.number != firstInode {
		return nil, fmt.Errorf("mke2fs gave lost+found the inode %d", lost.number)
	}
	for _, dir := range []inode{root, lost} {
		err := t.runs(dir, maxDirectory, func(r run) error {
			m.blocks.give(uint32(r.physical), uint32(r.count))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	m.free = m.blocks.countFree()
	m.root = &draft{number: rootInode, mode: 0o040755, links: 2, attr: Attributes{Mode: 0o755}, dir: &directory{}}
	m.root.dir.parent = m.root
	m.files["."] = m.root
	return m, nil
}

// asOrdered refuses what this package could not fill: a mke2fs.conf or another
// version of mke2fs may have made something else.
func asOrdered(sb Superblock, fl dialect, o MakeOptions) error {
	const ro = roCompatSparse | roCompatLargeFile
	switch {
	case sb.BlockSize != makeBlock || sb.blocksPerGroup != makePerGroup || sb.firstData != 0 || sb.descSize != 32,
		sb.inodeSize != uint32(fl.inodeSize), sb.inodesPerGroup%8 != 0,
		sb.Size() > o.Size, sb.Creator != o.Creator,
		sb.Compat != compatExtAttr, sb.Incompat != fl.incompat, sb.ROCompat != ro:
		return fmt.Errorf("mke2fs made another file system than it was asked for: %+v", sb)
	}
	return nil
}

// allocator hands out blocks in ascending order.
type allocator struct {
	used []byte // one bit for each block, as on disk: the groups' bitmaps in a row
	next uint32
	// missing counts the blocks that were asked for when none was left.
	missing int64
}

func readBlockBitmaps(t tree) (allocator, error) {
	groups := t.sb.groups()
	a := allocator{used: make([]byte, 0, groups*makeBlock)}
	for g := range groups {
		desc, err := t.descriptor(uint32(g))
		if err != nil {
			return a, err
		}
		bitmap, err := t.block(uint64(binary.LittleEndian.Uint32(desc)))
		if err != nil {
			return a, err
		}
		a.used = append(a.used, bitmap...)
	}
	return a, nil
}

// take returns a free block, or 0 when there is none.
func (a *allocator) take() uint32 {
	for int(a.next/8) < len(a.used) {
		b := a.used[a.next/8]
		if b>>(a.next%8) == 0xff>>(a.next%8) { // nothing is left in this byte
			a.next = a.next/8*8 + 8
			continue
		}
		if b&(1<<(a.next%8)) == 0 {
			a.used[a.next/8] |= 1 << (a.next % 8)
			a.next++
			return a.next - 1
		}
		a.next++
	}
	a.missing++
	return 0
}

// give makes blocks free again.
func (a *allocator) give(first, count uint32) {
	for b := first; b < first+count; b++ {
		a.used[b/8] &^= 1 << (b % 8)
	}
	a.next = min(a.next, first)
}

func (a *allocator) countFree() int64 { return zeros(a.used) }

// zeros counts the bits that aren't set.
func zeros(bitmap []byte) int64 {
	n := int64(len(bitmap)) * 8
	for _, b := range bitmap {
		n -= int64(bits.OnesCount8(b))
	}
	return n
}

// blockWriter writes blocks, those that follow each other at once. What is
// written to block 0 is lost: there was no room for it.
type blockWriter struct {
	file io.WriterAt
	size units.Bytes // of the image
	at   int64
	buf  []byte
}

const writeBuffer = 1 << 20

// write writes data, whole blocks, to a block and those behind it.
func (w *blockWriter) write(block uint32, data []byte) error {
	if block == 0 {
		return nil
	}
	at := int64(block) * makeBlock
	if at != w.at+int64(len(w.buf)) || len(w.buf)+len(data) > writeBuffer {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = at
	}
	w.buf = append(w.buf, data...)
	return nil
}

func (w *blockWriter) flush() error {
	if w.at+int64(len(w.buf)) > int64(w.size) {
		return fmt.Errorf("%w: block %d lies beyond its end", errCorrupt, w.at/makeBlock)
	}
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.file.WriteAt(w.buf, w.at)
	w.buf = w.buf[:0]
	return err
}

// kinds are the codes of file types in inodes and in directories.
var kinds = map[fs.FileMode]struct {
	raw  uint16
	code byte
}{
	0:                {0x8000, 1},
	fs.ModeDir:       {0x4000, 2},
	fs.ModeNamedPipe: {0x1000, 5},
	fs.ModeSocket:    {0xc000, 6},
	fs.ModeSymlink:   {0xa000, 7},
}
