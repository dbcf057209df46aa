package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Where a raw disk shows what it is.
const (
	mbrTable     = 446
	mbrEntry     = 16
	mbrSignature = 510
	gptType      = 0xee
	ext2Magic    = 1024 + 56
)

func hasBootSignature(head []byte) bool {
	return len(head) >= sectorSize && head[mbrSignature] == 0x55 && head[mbrSignature+1] == 0xaa
}

func hasExt2(head []byte) bool {
	return len(head) >= ext2Magic+2 && head[ext2Magic] == 0x53 && head[ext2Magic+1] == 0xef
}

// inspectRaw decides about a file without any image format's magic number.
func inspectRaw(head []byte, size units.Bytes) (Info, error) {
	if what, ok := evidentlyNot(head); ok {
		return Info{}, fmt.Errorf("%w: it is %s", ErrNotDisk, what)
	}
	if size%sectorSize != 0 {
		return Info{}, fmt.Errorf("%w: %d bytes is no multiple of the sector size %d", ErrTruncated, int64(size), sectorSize)
	}
	if hasBootSignature(head) && !hasExt2(head) {
		if err := checkPartitions(head, size); err != nil {
			return Info{}, err
		}
	}
	return checkVirtual(Raw, uint64(size)) // a file's size is not negative
}

// evidentlyNot names what a file is when that is certainly no disk.
func evidentlyNot(head []byte) (string, bool) {
	if s, ok := match(foreign, head); ok && !hasBootSignature(head) {
		return s.what, true
	}
	start := bytes.ToLower(bytes.TrimSpace(head[:min(len(head), 256)]))
	for _, tag := range []string{"<!doctype", "<html", "<?xml", "<head"} {
		if bytes.HasPrefix(start, []byte(tag)) {
			return "a web page", true
		}
	}
	if isText(head) {
		return "a text file", true
	}
	return "", false
}

func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 && utf8.FullRune(head) {
			return false
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
		head = head[n:]
	}
	return true
}

// checkPartitions finds a disk whose end is missing by its partition table. A
// boot sector whose table is not plausible may be that of a bare file system,
// whose code happens to be there, and is left alone.
func checkPartitions(head []byte, size units.Bytes) error {
	type entry struct{ start, sectors uint64 }
	var entries [4]entry
	for i := range entries {
		e := head[mbrTable+i*mbrEntry:]
		if e[0] != 0 && e[0] != 0x80 {
			return nil
		}
		if e[4] == 0 || e[4] == gptType {
			continue
		}
		entries[i] = entry{uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))}
	}
	for i, e := range entries {
		if end := units.Bytes((e.start + e.sectors) * sectorSize); e.sectors > 0 && end > size { // below 2^42
			return fmt.Errorf("%w: partition %d ends at byte %d, but the file has %d bytes", ErrTruncated, i+1, int64(end), int64(size))
		}
	}
	return nil
}
