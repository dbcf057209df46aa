package ext2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ErrCannotGrow is wrapped when an image's layout does not let a partition grow.
var ErrCannotGrow = errors.New("the partition cannot grow")

// Grow makes a raw image larger and lets the file system in one of its
// partitions use the new space: image file, MBR entry (with the extended
// partition around a logical one) and file system. The partition must be the
// last one in the image. Growing to the present size or less changes nothing.
// An image must grow by at least the partition's offset. The result is proven
// by e2fsck; the partition as it is now is returned.
func Grow(ctx context.Context, image string, part Partition, size units.Bytes) (Partition, error) {
	grown, err := grow(ctx, image, part, size)
	if err != nil {
		return part, fmt.Errorf("growing %s of %s to %s: %w", part, image, size, err)
	}
	return grown, nil
}

func grow(ctx context.Context, image string, part Partition, size units.Bytes) (Partition, error) {
	f, err := Open(image, part)
	if err != nil {
		return part, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	stat, err := os.Stat(f.image)
	if err != nil {
		return part, err
	}
	old := units.Bytes(stat.Size())
	if size -= size % units.MiB; size <= old {
		return part, nil
	}
	patches, err := disk{f.file, old}.entriesOf(part)
	if err != nil {
		return part, err
	}
	if uint64(size/sectorSize) > 1<<32-1 && part.Number != 0 {
		return part, fmt.Errorf("%w: an MBR can't describe %s", ErrCannotGrow, size.Human())
	}
	if size < old+part.Start {
		// resize2fs knows of the offset but, at the end, cuts an image that was
		// longer than the new file system.
		return part, fmt.Errorf("%w: by less than %s, which is where it begins: ask for at least %s",
			ErrCannotGrow, part.Start, old+part.Start)
	}
	if err := f.resize(ctx, size-part.Start); err != nil {
		return part, err
	}
	if err := writeTable(f.image, patches, size); err != nil {
		return part, err
	}
	f.part.Size = size - part.Start
	return f.part, f.Check(ctx)
}

// resize makes the file system as large as blocks fit, and proves that it is.
func (f *FS) resize(ctx context.Context, size units.Bytes) error {
	if _, err := f.Repair(ctx); err != nil { // resize2fs insists on a check
		return err
	}
	sb, err := f.Superblock()
	if err != nil {
		return err
	}
	// Without a size, resize2fs would take the image's size for the partition's.
	blocks := strconv.FormatInt(int64(size/sb.BlockSize), 10)
	if err := runTool(ctx, f.tool(ctx, "resize2fs", f.target(), blocks)); err != nil {
		return err
	}
	if sb, err = f.Superblock(); err != nil {
		return err
	}
	// A last group that is too small for its own tables is left out.
	if left := size - sb.Size(); left < 0 || left > sb.BlockSize*units.Bytes(sb.blocksPerGroup) {
		return fmt.Errorf("resize2fs left the file system at %s", sb.Size().Human())
	}
	return nil
}

// writeTable extends the image and the entries that end with the partition.
func writeTable(image string, patches []entryPatch, size units.Bytes) error {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = file.Truncate(int64(size))
	for _, p := range patches {
		if err == nil {
			count := uint32(uint64(size)/sectorSize - p.start)
			_, err = file.WriteAt(binary.LittleEndian.AppendUint32(nil, count), p.at+12)
		}
	}
	return errors.Join(err, file.Close())
}

// entryPatch is an entry whose count must change: where it lies and at which
// sector its partition starts.
type entryPatch struct {
	at    int64
	start uint64
}

// entriesOf finds the table entries that describe a partition: none without
// a table, one for a primary partition, for a logical one its own, the
// extended partition's, and the link that leads to it.
func (d disk) entriesOf(part Partition) ([]entryPatch, error) {
	parts, err := Partitions(d.r, d.size)
	if err != nil {
		return nil, err
	}
	found := false
	for _, p := range parts {
		found = found || p == part
		if p.Start > part.Start {
			return nil, fmt.Errorf("%w: %s lies behind it", ErrCannotGrow, p)
		}
	}
	if !found {
		return nil, fmt.Errorf("%w: the image has no such partition", ErrCannotGrow)
	}
	if part.Number == 0 {
		return nil, nil
	}
	sector, err := d.sector(0)
	if err != nil {
		return nil, err
	}
	slots, _ := mbrEntries(sector)
	start := uint64(part.Start) / sectorSize
	var patches []entryPatch
	for i, s := range slots {
		at := int64(mbrTable + i*mbrEntry)
		switch {
		case s.kind == mbrTypeGPT:
			return nil, fmt.Errorf("%w: growing a GPT is not supported", ErrCannotGrow)
		case part.Number <= 4 && s.start == start && s.kind != mbrTypeFree:
			patches = append(patches, entryPatch{at, start})
		case part.Number <= 4 && s.extended() && s.start > start:
			return nil, fmt.Errorf("%w: an extended partition lies behind it", ErrCannotGrow)
		case part.Number > 4 && s.extended() && s.start < start && start < s.start+s.count:
			patches = append(patches, entryPatch{at, s.start})
			patches = append(patches, d.links(s.start, start)...)
		}
	}
	return patches, nil
}

// links follows an extended partition to the logical one that starts at a
// sector, and returns its entry and the link to it, if there is one.
func (d disk) links(first, start uint64) []entryPatch {
	var link []entryPatch
	for _, r := range d.chain(first) {
		if r.data >= 0 && r.at+r.mbr[r.data].start == start {
			return append(link, entryPatch{r.entry(r.data), start})
		}
		if r.next >= 0 {
			link = []entryPatch{{r.entry(r.next), first + r.mbr[r.next].start}}
		}
	}
	return nil
}

// entry is where in the image a slot of the record lies.
func (r ebr) entry(slot int) int64 {
	return int64(r.at)*sectorSize + int64(mbrTable+slot*mbrEntry)
}
