package disk

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/org/hurd-qemu-action/internal/units"
)

// What an empty qcow2 image of version 3 is made of (docs/interop/qcow2.rst in
// QEMU's source). All numbers in it are big-endian.
const (
	clusterBits   = 16
	clusterSize   = 1 << clusterBits
	refcountOrder = 4                               // 16 bits per cluster
	l1Reach       = clusterSize * (clusterSize / 8) // bytes of the disk that an entry of the first table stands for
	headerLength  = 104
	maxBacking    = 1023        // bytes of a backing file's name
	backingFormat = 0xe2792aca  // the header extension with the backing file's format
	maxOverlay    = 1 << 51     // bytes of a disk: the first table has 32 MiB then, the most that QEMU reads
	refcountsAt   = clusterSize // where the table of the reference counts is,
	countsAt      = 2 * clusterSize
	l1At          = 3 * clusterSize
)

// CreateOverlay makes a new qcow2 file at path, which must not exist, whose
// unwritten parts are read from base. Nothing below is opened: a base that is
// itself an overlay may name, as what lies below it, a file of another host.
// base is an absolute path of at most 1023 bytes, and size a multiple of 512.
//
// qemu-img makes the same in 30 ms, which every run would wait for before its
// machine starts; the file has a few hundred bytes of data.
func CreateOverlay(path, base string, format Format, size units.Bytes) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = writeOverlay(f, base, format, size)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path) // it is of no use
		}
	}
	if err != nil {
		return fmt.Errorf("creating the overlay %s: %w", path, err)
	}
	return nil
}

func writeOverlay(f *os.File, base string, format Format, size units.Bytes) error {
	if len(base) > maxBacking {
		return fmt.Errorf("the path of the image below it has %d bytes, and %d are possible: use a shorter one", len(base), maxBacking)
	}
	if size <= 0 || size > maxOverlay || size%sectorSize != 0 {
		return fmt.Errorf("a disk can't have %d bytes", int64(size))
	}
	l1Entries := (int64(size) + l1Reach - 1) / l1Reach
	l1Clusters := (l1Entries*8 + clusterSize - 1) / clusterSize

	extension := binary.BigEndian.AppendUint32(nil, backingFormat)
	extension = binary.BigEndian.AppendUint32(extension, uint32(len(format)))
	extension = append(extension, format...)
	extension = append(extension, make([]byte, -len(format)&7)...) // padded to 8 bytes
	extension = append(extension, make([]byte, 8)...)              // no more of them

	h := make([]byte, headerLength)
	u32 := func(at int, n int64) { binary.BigEndian.PutUint32(h[at:], uint32(n)) }
	u64 := func(at int, n int64) { binary.BigEndian.PutUint64(h[at:], uint64(n)) }
	copy(h, "QFI\xfb")
	u32(4, 3) // version
	u64(8, int64(len(h)+len(extension)))
	u32(16, int64(len(base)))
	u32(20, clusterBits)
	u64(24, int64(size))
	u32(36, l1Entries)
	u64(40, l1At)
	u64(48, refcountsAt)
	u32(56, 1) // clusters of that table, which is enough for 16 TiB of data
	u32(96, refcountOrder)
	u32(100, headerLength)
	h = append(append(h, extension...), base...)

	used := l1At/clusterSize + l1Clusters // all clusters so far, each in use once
	counts := make([]byte, 0, 2*used)
	for range used {
		counts = binary.BigEndian.AppendUint16(counts, 1)
	}
	if err := f.Truncate(used * clusterSize); err != nil { // the first table is all holes: nothing was written
		return err
	}
	for _, part := range []struct {
		at   int64
		data []byte
	}{{0, h}, {refcountsAt, binary.BigEndian.AppendUint64(nil, countsAt)}, {countsAt, counts}} {
		if _, err := f.WriteAt(part.data, part.at); err != nil {
			return err
		}
	}
	return nil
}
