package ext2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// ErrCannotGrow is wrapped when an image's layout does not let a partition grow.
var ErrCannotGrow = errors.New("the partition cannot grow")

// Grow makes a raw image larger and lets the file system in one of its
// partitions use the new space: image file, MBR entry (with the extended
// partition around a logical one) and file system. The partition must be the
// last one in the image. Growing to the present size or less changes nothing.
// The result is proven by e2fsck; the partition as it is now is returned.
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
	stat, err := f.file.Stat()
	if err != nil {
		return part, err
	}
	size -= size % units.MiB
	if size <= units.Bytes(stat.Size()) {
		return part, nil
	}
	if _, err := f.Repair(ctx); err != nil { // resize2fs insists on a check
		return part, err
	}
	if err := growTable(f.image, units.Bytes(stat.Size()), part, size); err != nil {
		return part, err
	}
	part.Size = size - part.Start
	f.part = part
	sb, err := f.Superblock()
	if err != nil {
		return part, err
	}
	// Without a size, resize2fs would take the image's size for the partition's.
	blocks := part.Size / sb.BlockSize
	if _, err := process.Output(ctx, "resize2fs", f.target(), strconv.FormatInt(int64(blocks), 10)); err != nil {
		return part, err
	}
	if sb, err = f.Superblock(); err != nil {
		return part, err
	}
	// A last group that is too small for its own tables is left out.
	if left := part.Size - sb.Size(); left < 0 || left > sb.BlockSize*units.Bytes(sb.blocksPerGroup) {
		return part, fmt.Errorf("resize2fs left the file system at %s", sb.Size().Human())
	}
	return part, f.Check(ctx)
}

// growTable extends the image file and the entries that end with the partition.
func growTable(image string, old units.Bytes, part Partition, size units.Bytes) error {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(growEntries(disk{file, old}, file, part, size), file.Close())
	return err
}

func growEntries(d disk, file *os.File, part Partition, size units.Bytes) error {
	patches, err := d.entriesOf(part)
	if err != nil {
		return err
	}
	if err := file.Truncate(int64(size)); err != nil {
		return err
	}
	for _, p := range patches {
		count := uint64(size)/sectorSize - p.start
		if count > 1<<32-1 {
			return fmt.Errorf("%w: an MBR can't describe %s", ErrCannotGrow, size.Human())
		}
		b := binary.LittleEndian.AppendUint32(nil, uint32(count))
		if _, err := file.WriteAt(b, p.at+12); err != nil {
			return err
		}
	}
	return nil
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
// sector, and returns its entry and the link to it, if one is needed.
func (d disk) links(first, start uint64) []entryPatch {
	var link []entryPatch
	for at, n := first, 0; n < maxLogical; n++ {
		sector, err := d.sector(at)
		if err != nil {
			return nil
		}
		slots, ok := mbrEntries(sector)
		if !ok {
			return nil
		}
		next := uint64(0)
		for i, s := range slots {
			entry := int64(at)*sectorSize + int64(mbrTable+i*mbrEntry)
			switch {
			case s.extended() && next == 0:
				next = first + s.start
				link = []entryPatch{{entry, next}}
			case s.kind != mbrTypeFree && !s.extended() && at+s.start == start:
				return append(prior(link, at), entryPatch{entry, start})
			}
		}
		if next == 0 {
			return nil
		}
		at = next
	}
	return nil
}

// prior is the link if it leads to the record at a sector.
func prior(link []entryPatch, at uint64) []entryPatch {
	if len(link) == 1 && link[0].start == at {
		return link
	}
	return nil
}
