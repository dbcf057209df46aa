package ext2

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// directory is what a directory in the making holds.
type directory struct {
	parent  *draft
	entries []named
}

type named struct {
	name string
	file *draft
}

// writeDirectory lays out a directory's blocks.
func (m *Maker) writeDirectory(d *draft) error {
	entries := append([]named{{".", d}, {"..", d.dir.parent}}, d.dir.entries...)
	var data []byte
	used, last := makeBlock, 0 // bytes in the present block, and where its last entry begins
	for _, e := range entries {
		length := int(roundUp(units.Bytes(8+len(e.name)), 4))
		if used+length > makeBlock {
			if len(data) > 0 {
				endBlock(data, last)
			}
			data = append(data, zeroBlock[:]...)
			used = 0
		}
		last = len(data) - makeBlock + used
		binary.LittleEndian.PutUint32(data[last:], e.file.number)
		binary.LittleEndian.PutUint16(data[last+4:], uint16(length))
		data[last+6] = byte(len(e.name))
		if m.dialect.fileType {
			data[last+7] = kinds[fileTypes[e.file.mode&0xf000]].code
		}
		copy(data[last+8:], e.name)
		used += length
	}
	endBlock(data, last)
	d.size = units.Bytes(len(data))
	return m.fill(d, bytes.NewReader(data))
}

// endBlock lets the last entry reach to the end of the last block.
func endBlock(data []byte, last int) {
	binary.LittleEndian.PutUint16(data[last+4:], uint16(len(data)-last))
}

// writeTables writes inodes, bitmaps, group descriptors and the superblock's
// counts. The copies of the descriptors and of the superblock in other groups
// are left as they are, as any driver leaves them.
func (m *Maker) writeTables() error {
	t := tree{&FS{image: m.image, part: Partition{Size: m.options.Size}, file: m.file}, m.sb}
	freeBlocks, freeInodes := int64(0), int64(0)
	for g := range uint32(m.sb.groups()) {
		desc, err := t.descriptor(g)
		if err != nil {
			return err
		}
		le := binary.LittleEndian
		blocks := m.blocks.used[int(g)*makeBlock:][:makeBlock]
		if err := m.out.write(le.Uint32(desc[0:]), blocks); err != nil {
			return err
		}
		inodes, dirs, err := m.writeGroup(t, g, le.Uint32(desc[4:]), le.Uint32(desc[8:]))
		if err != nil {
			return err
		}
		le.PutUint16(desc[12:], uint16(zeros(blocks)))
		le.PutUint16(desc[14:], uint16(inodes))
		le.PutUint16(desc[16:], uint16(dirs))
		if _, err := m.file.WriteAt(desc, int64(t.descriptorAt(g))); err != nil {
			return err
		}
		freeBlocks, freeInodes = freeBlocks+zeros(blocks), freeInodes+inodes
	}
	if err := m.out.flush(); err != nil {
		return err
	}
	counts := binary.LittleEndian.AppendUint32(nil, uint32(freeBlocks))
	counts = binary.LittleEndian.AppendUint32(counts, uint32(freeInodes))
	_, err := m.file.WriteAt(counts, superOffset+12)
	return err
}

// writeGroup writes a group's inodes and their bitmap, and counts those that
// are free and those that are directories.
func (m *Maker) writeGroup(t tree, group, bitmapAt, tableAt uint32) (free, dirs int64, err error) {
	bitmap, err := t.block(uint64(bitmapAt))
	if err != nil {
		return 0, 0, err
	}
	if group == 0 {
		bitmap[(firstInode-1)/8] &^= 1 << ((firstInode - 1) % 8) // lost+found's
	}
	perBlock := makeBlock / m.dialect.inodeSize
	var table [makeBlock]byte
	for block := range int(m.sb.inodesPerGroup) / perBlock {
		first := group*m.sb.inodesPerGroup + uint32(block*perBlock) + 1
		if int(first) >= firstInode+len(m.drafts) && first > firstInode {
			break
		}
		// The reserved inodes are in the first block.
		if first == 1 {
			old, err := t.block(uint64(tableAt))
			if err != nil {
				return 0, 0, err
			}
			table = [makeBlock]byte(old)
		} else {
			clear(table[:])
		}
		for i := range perBlock {
			number := first + uint32(i)
			slot := table[i*m.dialect.inodeSize:][:m.dialect.inodeSize]
			d := m.draft(number)
			if number >= firstInode {
				clear(slot)
			}
			if d == nil {
				continue
			}
			bit := number - 1 - group*m.sb.inodesPerGroup
			bitmap[bit/8] |= 1 << (bit % 8)
			if d.dir != nil {
				dirs++
			}
			m.encode(d, slot)
		}
		if err := m.out.write(tableAt+uint32(block), table[:]); err != nil {
			return 0, 0, err
		}
	}
	return zeros(bitmap[:m.sb.inodesPerGroup/8]), dirs, m.out.write(bitmapAt, bitmap)
}

// draft finds the inode with a number, if it is one of ours.
func (m *Maker) draft(number uint32) *draft {
	switch {
	case number == rootInode:
		return m.root
	case number >= firstInode && int(number-firstInode) < len(m.drafts):
		return m.drafts[number-firstInode]
	}
	return nil
}

// encode writes an inode as on disk.
func (m *Maker) encode(d *draft, b []byte) {
	clear(b)
	le := binary.LittleEndian
	le.PutUint16(b[0:], d.mode)
	le.PutUint16(b[2:], uint16(d.attr.UID))
	le.PutUint32(b[4:], uint32(d.size))
	le.PutUint16(b[24:], uint16(d.attr.GID))
	le.PutUint16(b[26:], uint16(d.links))
	le.PutUint32(b[28:], d.sectors)
	copy(b[40:], d.block[:])
	le.PutUint32(b[108:], uint32(d.size>>32))
	le.PutUint16(b[120:], uint16(d.attr.UID>>16))
	le.PutUint16(b[122:], uint16(d.attr.GID>>16))
	if m.options.Creator == OSHurd {
		le.PutUint32(b[124:], d.attr.UID) // the author, who is the owner at first
	}
	seconds, extra := diskTime(d.attr.ModTime, m.options.Creator)
	for _, at := range []int{8, 12, 16} { // access, change, modification
		le.PutUint32(b[at:], seconds)
	}
	if len(b) > 128 {
		le.PutUint16(b[128:], 32) // the size of what follows
		for _, at := range []int{132, 136, 140, 148} {
			le.PutUint32(b[at:], extra)
		}
		le.PutUint32(b[144:], seconds) // creation
	}
}

// diskTime returns the two fields of a time: 32 bits of seconds, and
// nanoseconds with two more bits of seconds, which Linux has in large inodes.
// Linux takes 32 bits of seconds for a signed number, the Hurd for an unsigned
// one where its time_t has 64 bits.
func diskTime(t time.Time, creator OS) (seconds, extra uint32) {
	if creator == OSHurd {
		return uint32(min(max(t.Unix(), 0), math.MaxInt32)), 0
	}
	s := t.Unix()
	if clamped := min(max(s, math.MinInt32), 1<<34-1+math.MinInt32); clamped != s {
		s, t = clamped, time.Unix(clamped, 0)
	}
	epoch := (s - int64(int32(s))) >> 32
	return uint32(s), uint32(epoch)&3 | uint32(t.Nanosecond())<<2
}
