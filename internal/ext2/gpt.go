package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Limits of what is believed of a GPT (UEFI specification, section 5.3): the
// usual table has 128 entries of 128 bytes.
const (
	gptMaxEntries   = 1024
	gptMinEntrySize = 128
	gptMaxEntrySize = 4096
)

var gptSignature = []byte("EFI PART")

// errGPT is the cause when neither copy of the table is whole.
var errGPT = errors.New("the GPT and its backup are damaged")

// gpt reads the primary table, or the backup at the image's end when the
// primary's checksums do not match.
func (d disk) gpt() ([]Partition, error) {
	last := uint64(d.size)/sectorSize - 1
	for _, lba := range []uint64{1, last} {
		if parts, err := d.gptAt(lba); err == nil {
			return parts, nil
		}
	}
	return nil, errGPT
}

func (d disk) gptAt(lba uint64) ([]Partition, error) {
	header, err := d.sector(lba)
	if err != nil {
		return nil, err
	}
	headerSize := binary.LittleEndian.Uint32(header[12:])
	if !bytes.HasPrefix(header, gptSignature) || headerSize < 92 || headerSize > sectorSize {
		return nil, errGPT
	}
	sum := binary.LittleEndian.Uint32(header[16:])
	clear(header[16:20])
	if crc32.ChecksumIEEE(header[:headerSize]) != sum {
		return nil, errGPT
	}
	first := binary.LittleEndian.Uint64(header[72:])
	count := binary.LittleEndian.Uint32(header[80:])
	size := binary.LittleEndian.Uint32(header[84:])
	if count > gptMaxEntries || size < gptMinEntrySize || size > gptMaxEntrySize ||
		first >= uint64(d.size)/sectorSize {
		return nil, errGPT
	}
	table := make([]byte, count*size)
	if units.Bytes(first)*sectorSize+units.Bytes(len(table)) > d.size {
		return nil, errGPT
	}
	if _, err := d.r.ReadAt(table, int64(first)*sectorSize); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(table) != binary.LittleEndian.Uint32(header[88:]) {
		return nil, errGPT
	}
	return d.gptEntries(table, int(size)), nil
}

func (d disk) gptEntries(table []byte, size int) []Partition {
	var parts []Partition
	var free [16]byte
	for i := 0; (i+1)*size <= len(table); i++ {
		e := table[i*size:][:size]
		start, end := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if bytes.Equal(e[:16], free[:]) || end < start {
			continue
		}
		parts = d.add(parts, i+1, start, end-start+1, guid(e[:16]))
	}
	return parts
}

// guid writes a GUID as the specification does: the first three fields are
// little-endian.
func guid(b []byte) string {
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", binary.LittleEndian.Uint32(b),
		binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}
