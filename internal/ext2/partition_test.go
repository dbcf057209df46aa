package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

// blankDisk is an image in memory; slot and record write tables into it.
type blankDisk []byte

func newDisk(size units.Bytes) blankDisk { return make(blankDisk, size) }

func (d blankDisk) slot(sector, index int, kind byte, start, count uint32) blankDisk {
	e := d[sector*sectorSize+mbrTable+index*mbrEntry:]
	e[4] = kind
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], count)
	binary.LittleEndian.PutUint16(d[sector*sectorSize+510:], mbrMark)
	return d
}

func (d blankDisk) partitions() ([]Partition, error) {
	return Partitions(bytes.NewReader(d), units.Bytes(len(d)))
}

func part(number int, start, count units.Bytes, kind string) Partition {
	return Partition{number, start * sectorSize, count * sectorSize, kind}
}

const mib = 2048 // sectors

// debianDisk has the layout of Debian's Hurd images, logicalDisk the one that
// its installer makes, with two more logical partitions.
func debianDisk() blankDisk {
	return newDisk(8*units.MiB).slot(0, 0, 0x82, mib, mib).slot(0, 1, 0x83, 2*mib, 6*mib)
}

func logicalDisk() blankDisk {
	return newDisk(8*units.MiB).
		slot(0, 0, 0x82, mib, mib).slot(0, 2, 0x05, 2*mib, 6*mib).
		slot(2*mib, 0, 0x83, 1, mib).slot(2*mib, 1, 0x05, 2*mib, 2*mib).
		slot(4*mib, 0, 0x83, 1, mib).slot(4*mib, 1, 0x05, 4*mib, 2*mib).
		slot(6*mib, 0, 0x82, 1, 2*mib-1)
}

func TestPartitionsMBR(t *testing.T) {
	loop := logicalDisk().slot(6*mib, 1, 0x05, 2*mib, 2*mib)
	for name, tc := range map[string]struct {
		disk blankDisk
		want []Partition
	}{
		"primary": {debianDisk(), []Partition{part(1, mib, mib, "82"), part(2, 2*mib, 6*mib, "83")}},
		"logical": {logicalDisk(), []Partition{
			part(1, mib, mib, "82"), part(5, 2*mib+1, mib, "83"), part(6, 4*mib+1, mib, "83"), part(7, 6*mib+1, 2*mib-1, "82"),
		}},
		"a loop ends": {loop, []Partition{
			part(1, mib, mib, "82"), part(5, 2*mib+1, mib, "83"), part(6, 4*mib+1, mib, "83"), part(7, 6*mib+1, 2*mib-1, "82"),
		}},
		"cut at the end":  {newDisk(2*units.MiB).slot(0, 3, 0x83, mib, 99*mib), []Partition{part(4, mib, mib, "83")}},
		"outside":         {newDisk(2*units.MiB).slot(0, 0, 0x83, mib, 1).slot(0, 1, 0x83, 5*mib, mib), []Partition{part(1, mib, 1, "83")}},
		"a broken chain":  {newDisk(4*units.MiB).slot(0, 0, 0x83, mib, 1).slot(0, 1, 0x0f, 2*mib, mib), []Partition{part(1, mib, 1, "83")}},
		"chain far away":  {newDisk(4*units.MiB).slot(0, 0, 0x83, mib, 1).slot(0, 1, 0x85, 1<<31, mib), []Partition{part(1, mib, 1, "83")}},
		"wrapping around": {newDisk(4*units.MiB).slot(0, 0, 0x83, mib, 1<<32-1), []Partition{part(1, mib, 3*mib, "83")}},
	} {
		got, err := tc.disk.partitions()
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(tc.want, got))
		}
	}
}

// TestPartitionsAsLinux compares numbers, places and types with libblkid.
func TestPartitionsAsLinux(t *testing.T) {
	tools(t, "partx")
	for name, disk := range map[string]blankDisk{"primary": debianDisk(), "logical": logicalDisk(), "gpt": gptDisk(t)} {
		image := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(image, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("partx", "-g", "-o", "NR,START,SECTORS,TYPE", image).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			if line = strings.Join(strings.Fields(line), " "); !strings.HasSuffix(line, " 0x5") {
				want = append(want, strings.ToUpper(strings.Replace(line, "0x", "", 1)))
			}
		}
		parts, err := disk.partitions()
		var got []string
		for _, p := range parts {
			got = append(got, fmt.Sprintf("%d %d %d %s", p.Number, p.Start/sectorSize, p.Size/sectorSize, p.Type))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(want, got))
		}
	}
}

const linuxGUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

// gptDisk has two partitions and a backup of its table.
func gptDisk(t testing.TB) blankDisk {
	t.Helper()
	d := newDisk(8*units.MiB).slot(0, 0, mbrTypeGPT, 1, 8*mib-1)
	le := binary.LittleEndian
	table := make([]byte, 128*128)
	guid := []byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}
	for i, p := range []struct{ index, start, end uint64 }{{0, mib, 2*mib - 1}, {4, 2 * mib, 7*mib - 1}} {
		e := table[128*p.index:]
		copy(e, guid)
		e[16] = byte(i + 1) // the partition's own GUID
		le.PutUint64(e[32:], p.start)
		le.PutUint64(e[40:], p.end)
	}
	last := uint64(8*mib - 1)
	for _, at := range []struct{ header, other, table uint64 }{{1, last, 2}, {last, 1, last - 32}} {
		h := make([]byte, 92)
		copy(h, gptSignature)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], at.header)
		le.PutUint64(h[32:], at.other)
		le.PutUint64(h[40:], 34)
		le.PutUint64(h[48:], last-33)
		h[56] = 1
		le.PutUint64(h[72:], at.table)
		le.PutUint32(h[80:], 128)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		copy(d[at.header*sectorSize:], h)
		copy(d[at.table*sectorSize:], table)
	}
	return d
}

func TestPartitionsGPT(t *testing.T) {
	want := []Partition{part(1, mib, mib, linuxGUID), part(5, 2*mib, 5*mib, linuxGUID)}
	got, err := gptDisk(t).partitions()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for name, spoil := range map[string]func(blankDisk){
		"header": func(d blankDisk) { d[sectorSize+40]++ },
		"table":  func(d blankDisk) { d[2*sectorSize+40]++ },
		"size":   func(d blankDisk) { binary.LittleEndian.PutUint32(d[sectorSize+12:], 1<<31) },
	} {
		d := gptDisk(t)
		spoil(d)
		if got, err := d.partitions(); err != nil || !slices.Equal(got, want) {
			t.Errorf("with a spoiled %s the backup gives %v, %v", name, got, err)
		}
		clear(d[len(d)-sectorSize:]) // the backup's header
		if got, err := d.partitions(); !errors.Is(err, errGPT) {
			t.Errorf("with both copies spoiled (%s): %v, %v", name, got, err)
		}
	}
}

func TestPartitionsWithoutTable(t *testing.T) {
	tools(t, "mke2fs")
	image, _ := makeFS(t, flavour(t, "ext2-1k"), "", 2*units.MiB)
	whole, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole[fsStart:]
	// Boot sectors have the mark of a partition table as well.
	for name, boot := range map[string]string{"zeros": "", "text and mark": strings.Repeat("boot", 127) + "go\x55\xaa", "empty table": strings.Repeat("\x00", 510) + "\x55\xaa"} {
		disk := blankDisk(slices.Clone(whole))
		copy(disk, boot)
		got, err := disk.partitions()
		if err != nil || !slices.Equal(got, []Partition{{Size: 2 * units.MiB}}) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err == nil && got[0].String() != "the whole disk (no partition table)" {
			t.Errorf("it is called %q", got[0])
		}
	}
	for name, disk := range map[string]blankDisk{"zeros": newDisk(units.MiB), "text": blankDisk(strings.Repeat("<html>", 1000)), "nothing": nil, "short": newDisk(100)} {
		if got, err := disk.partitions(); err == nil {
			t.Errorf("%s: %v", name, got)
		} else if len(disk) > sectorSize && !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPartitionString(t *testing.T) {
	if got := part(2, 2*mib, 6*mib, "83").String(); got != "partition 2 (type 83, 6 MiB at 2M)" {
		t.Errorf("it is called %q", got)
	}
}

// sealGPT makes the checksums of the primary table fit what it says.
func sealGPT(d blankDisk) {
	le := binary.LittleEndian
	h := d[sectorSize:][:sectorSize]
	size := uint64(le.Uint32(h[80:])) * uint64(le.Uint32(h[84:]))
	if start := le.Uint64(h[72:]); start < uint64(len(d)/sectorSize) && size <= uint64(len(d))-start*sectorSize {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(d[start*sectorSize:][:size]))
	}
	if n := le.Uint32(h[12:]); n <= sectorSize {
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
	}
}

// FuzzPartitions changes bytes of tables: whatever they then say, the
// partitions lie within the image and have different numbers.
func FuzzPartitions(f *testing.F) {
	bases := []blankDisk{debianDisk()[:64*units.KiB], logicalDisk(), gptDisk(f)[:64*units.KiB]}
	f.Add(uint8(0), []byte{0, 1, 0xc2, 0x05})
	f.Add(uint8(1), []byte{0, 1, 0xc6, 0x01, 0x10, 0x03, 0xbe, 0x83})
	f.Add(uint8(2), []byte{0, 2, 0x50, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		disk := blankDisk(bytes.Clone(bases[int(which)%len(bases)]))
		for ; len(edits) >= 4; edits = edits[4:] {
			sector := int(edits[0]) << 8 // the first of a MiB's eighth, or one of the table's
			if sector == 0 {
				sector = int(edits[1]) >> 1
			}
			at := sector*sectorSize + int(edits[1]&1)<<8 + int(edits[2])
			disk[at%len(disk)] = edits[3]
		}
		sealGPT(disk)
		parts, err := disk.partitions()
		if err != nil && len(parts) > 0 {
			t.Errorf("partitions and an error: %v", err)
		}
		numbers := map[int]bool{}
		for _, p := range parts {
			if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > units.Bytes(len(disk)) {
				t.Errorf("%v lies outside of %d bytes", p, len(disk))
			}
			if numbers[p.Number] {
				t.Errorf("number %d comes twice", p.Number)
			}
			numbers[p.Number] = true
		}
	})
}
