package ext2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Partition is one piece of a disk image.
type Partition struct {
	Number int         // as Linux counts: 1 to 4 primary, logical ones from 5; 0 when the image has no table
	Start  units.Bytes // offset in the image
	Size   units.Bytes // cut at the image's end
	Type   string      // MBR: two hexadecimal digits ("83"); GPT: the type GUID; empty without a table
}

// String names the partition for messages.
func (p Partition) String() string {
	if p.Number == 0 {
		return "the whole disk (no partition table)"
	}
	return fmt.Sprintf("partition %d (type %s, %s at %s)", p.Number, p.Type, p.Size.Human(), p.Start)
}

// ErrNoTable says that an image has neither a partition table nor a file
// system at its beginning.
var ErrNoTable = errors.New("no partition table and no ext2 file system at offset 0")

const (
	sectorSize = 512
	// maxLogical bounds the chain of logical partitions; Linux stops sooner.
	maxLogical = 128
	// The MBR (and each EBR) has four entries of 16 bytes before its mark.
	mbrTable    = 446
	mbrEntry    = 16
	mbrMark     = 0xaa55
	mbrTypeGPT  = 0xee
	mbrActive   = 0x80
	mbrTypeFree = 0
)

// Partitions reads the partition table of a disk image of the given size: MBR
// with logical partitions, GPT, or none at all when an ext2 file system begins
// at offset 0. Entries that lie outside the image are left out. An extended
// partition itself is not listed.
func Partitions(r io.ReaderAt, size units.Bytes) ([]Partition, error) {
	d := disk{r, size}
	table, err := d.sector(0)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	if entries, ok := mbrEntries(table); ok {
		parts, err := d.mbr(entries)
		if err != nil {
			return nil, fmt.Errorf("reading the partition table: %w", err)
		}
		if len(parts) > 0 {
			return parts, nil
		}
	}
	if _, err := ReadSuperblock(r, 0); err == nil {
		return []Partition{{Size: size}}, nil
	}
	return nil, ErrNoTable
}

// disk is an image of which sectors are read with bounds.
type disk struct {
	r    io.ReaderAt
	size units.Bytes
}

func (d disk) sector(lba uint64) ([]byte, error) {
	buf := make([]byte, sectorSize)
	if lba >= uint64(d.size)/sectorSize {
		return nil, fmt.Errorf("sector %d lies beyond the image's end at %s", lba, d.size)
	}
	if _, err := d.r.ReadAt(buf, int64(lba)*sectorSize); err != nil {
		return nil, err
	}
	return buf, nil
}

// add appends a partition given in sectors unless it lies outside the image.
func (d disk) add(parts []Partition, number int, start, count uint64, kind string) []Partition {
	sectors := uint64(d.size) / sectorSize
	if start == 0 || start >= sectors || count == 0 {
		return parts
	}
	count = min(count, sectors-start)
	return append(parts, Partition{
		Number: number,
		Start:  units.Bytes(start) * sectorSize,
		Size:   units.Bytes(count) * sectorSize,
		Type:   kind,
	})
}

// mbrSlot is one entry of an MBR or EBR; start is relative to something.
type mbrSlot struct {
	kind         byte
	start, count uint64
}

func (s mbrSlot) extended() bool { return s.kind == 0x05 || s.kind == 0x0f || s.kind == 0x85 }

// mbrEntries decodes the four slots of a boot sector. It is false when the
// sector does not hold a table: boot sectors of file systems carry the same mark.
func mbrEntries(sector []byte) ([4]mbrSlot, bool) {
	var slots [4]mbrSlot
	if binary.LittleEndian.Uint16(sector[510:]) != mbrMark {
		return slots, false
	}
	for i := range slots {
		e := sector[mbrTable+i*mbrEntry:][:mbrEntry]
		if e[0] != 0 && e[0] != mbrActive {
			return slots, false
		}
		slots[i] = mbrSlot{
			kind:  e[4],
			start: uint64(binary.LittleEndian.Uint32(e[8:])),
			count: uint64(binary.LittleEndian.Uint32(e[12:])),
		}
	}
	return slots, true
}

func (d disk) mbr(slots [4]mbrSlot) ([]Partition, error) {
	var parts []Partition
	var extended []mbrSlot
	for i, s := range slots {
		switch {
		case s.kind == mbrTypeGPT:
			return d.gpt()
		case s.extended():
			extended = append(extended, s)
		case s.kind != mbrTypeFree:
			parts = d.add(parts, i+1, s.start, s.count, fmt.Sprintf("%02x", s.kind))
		}
	}
	number := 5
	for _, e := range extended {
		logical := d.logical(e.start, number)
		number += len(logical)
		parts = append(parts, logical...)
	}
	return parts, nil
}

// ebr is one link of the chain of extended boot records.
type ebr struct {
	at   uint64 // sector
	data int    // index of the slot that describes the logical partition, -1 for none
	next int    // index of the slot that leads to the next record, -1 for none
	mbr  [4]mbrSlot
}

// chain follows the extended boot records from sector first. A damaged chain
// ends where it is damaged, as it does for Linux.
func (d disk) chain(first uint64) []ebr {
	var records []ebr
	seen := map[uint64]bool{}
	for at := first; !seen[at] && len(seen) < maxLogical; {
		seen[at] = true
		sector, err := d.sector(at)
		if err != nil {
			return records
		}
		slots, ok := mbrEntries(sector)
		if !ok {
			return records
		}
		r := ebr{at: at, data: -1, next: -1, mbr: slots}
		for i, s := range slots {
			switch {
			case s.extended() && r.next < 0:
				r.next = i
			case s.kind != mbrTypeFree && !s.extended() && r.data < 0:
				r.data = i
			}
		}
		records = append(records, r)
		if r.next < 0 {
			return records
		}
		at = first + slots[r.next].start
	}
	return records
}

// logical lists the partitions of a chain; their numbers begin with number.
func (d disk) logical(first uint64, number int) []Partition {
	var parts []Partition
	for _, r := range d.chain(first) {
		if r.data >= 0 {
			s := r.mbr[r.data]
			parts = d.add(parts, number+len(parts), r.at+s.start, s.count, fmt.Sprintf("%02x", s.kind))
		}
	}
	return parts
}
