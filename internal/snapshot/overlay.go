package snapshot

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Offsets in a qcow2 header (docs/interop/qcow2.txt in QEMU's source).
const (
	qcow2Magic        = 0x514649fb
	qcow2Version      = 4
	qcow2Size         = 24
	qcow2Crypt        = 32
	qcow2Incompatible = 72
	qcow2Header       = 80

	qcow2ExternalData = 1 << 2
)

// checkOverlay refuses a disk that is no qcow2 image of the size that the
// manifest announces, or that names another file to read its data from: an
// entry may be a stranger's. What it names as the file below it is not looked
// at, since QEMU is told what to use instead.
func checkOverlay(f *os.File, virtual units.Bytes) error {
	var h [qcow2Header]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return fmt.Errorf("%w: reading the header of %s: %w", ErrDamaged, Disk, err)
	}
	version := binary.BigEndian.Uint32(h[qcow2Version:])
	features := uint64(0)
	if version > 2 {
		features = binary.BigEndian.Uint64(h[qcow2Incompatible:])
	}
	size := binary.BigEndian.Uint64(h[qcow2Size:])
	switch {
	case binary.BigEndian.Uint32(h[:]) != qcow2Magic || version < 2 || version > 3:
		return fmt.Errorf("%w: %s is no qcow2 image", ErrDamaged, Disk)
	case size != uint64(virtual):
		return fmt.Errorf("%w: %s is a disk of %d bytes, the manifest says %d", ErrDamaged, Disk, size, int64(virtual))
	case features&qcow2ExternalData != 0 || binary.BigEndian.Uint32(h[qcow2Crypt:]) != 0:
		return fmt.Errorf("%w: %s has its data in another file, or encrypted", ErrDamaged, Disk)
	}
	return nil
}
