package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Fields of the qcow2 header (big-endian) by offset.
const (
	qcow2HeaderMin     = 72
	qcow2HeaderV3      = 104
	qcow2Incompatible  = 72
	qcow2MaxName       = 1023
	qcow2DirtyBit      = 1 << 0
	qcow2CorruptBit    = 1 << 1
	qcow2DataFileBit   = 1 << 2
	qcow2KnownBits     = 1<<5 - 1
	qcow2DataFileName  = 0x44415441
	qcow2MaxExtensions = 64 << 10
)

func inspectQCOW2(r io.ReaderAt, head []byte, size units.Bytes) (Info, error) {
	be := binary.BigEndian
	if len(head) < qcow2HeaderMin {
		return Info{}, fmt.Errorf("%w: it ends within its qcow2 header (%d bytes)", ErrTruncated, size)
	}
	version := be.Uint32(head[4:])
	if version != 2 && version != 3 {
		return Info{}, fmt.Errorf("%w: qcow2 version %d", ErrUnsupported, version)
	}
	if offset, length := be.Uint64(head[8:]), be.Uint32(head[16:]); offset != 0 {
		name := readName(r, offset, length)
		return Info{}, fmt.Errorf("%w: its backing file is %q; make it stand alone with qemu-img convert -O qcow2", ErrForeignFile, name)
	}
	if crypt := be.Uint32(head[32:]); crypt != 0 {
		return Info{}, fmt.Errorf("%w: it is encrypted (method %d)", ErrUnsupported, crypt)
	}
	headerLength := uint32(qcow2HeaderMin)
	if version == 3 {
		if len(head) < qcow2HeaderV3 {
			return Info{}, fmt.Errorf("%w: it ends within its qcow2 header (%d bytes)", ErrTruncated, size)
		}
		if err := checkFeatures(be.Uint64(head[qcow2Incompatible:])); err != nil {
			return Info{}, err
		}
		headerLength = be.Uint32(head[100:])
	}
	if name, ok := dataFileName(r, int64(headerLength)); ok {
		return Info{}, fmt.Errorf("%w: its external data file is %q; make it stand alone with qemu-img convert -O qcow2", ErrForeignFile, name)
	}
	return checkVirtual(QCOW2, be.Uint64(head[24:]))
}

func checkFeatures(bits uint64) error {
	switch {
	case bits&qcow2DataFileBit != 0:
		return fmt.Errorf("%w: its data is in an external data file; make it stand alone with qemu-img convert -O qcow2", ErrForeignFile)
	case bits&qcow2CorruptBit != 0:
		return fmt.Errorf("%w: its qcow2 header is marked corrupt; repair it with qemu-img check -r all", ErrCorrupt)
	case bits&^uint64(qcow2KnownBits) != 0:
		return fmt.Errorf("%w: unknown qcow2 features %#x", ErrUnsupported, bits&^uint64(qcow2KnownBits))
	}
	return nil
}

// dataFileName walks the header extensions, which QEMU reads whatever the
// feature bits say, for the one that names an external data file.
func dataFileName(r io.ReaderAt, at int64) (string, bool) {
	var ext [8]byte
	for end := at + qcow2MaxExtensions; at < end; {
		if _, err := r.ReadAt(ext[:], at); err != nil {
			return "", false
		}
		kind, length := binary.BigEndian.Uint32(ext[:]), binary.BigEndian.Uint32(ext[4:])
		if kind == 0 {
			return "", false
		}
		if kind == qcow2DataFileName {
			return readName(r, uint64(at)+8, length), true // at is small and positive
		}
		at += 8 + (int64(length)+7)&^7
	}
	return "", false
}

// readName reads a file name of an image for an error message, as far as it is
// there.
func readName(r io.ReaderAt, offset uint64, length uint32) string {
	buf := make([]byte, min(length, qcow2MaxName))
	n, _ := r.ReadAt(buf, int64(offset)) // a negative offset only fails; what could be read is shown
	return string(buf[:n])
}

// Fields of the VMDK sparse extent header (little-endian) and the place of the
// descriptor that QEMU looks for a parent in.
const (
	vmdkHeaderLen    = 512
	vmdkDescriptor   = 0x200
	vmdkDescriptorSz = 20 * sectorSize
)

func inspectVMDK(r io.ReaderAt, head []byte, size units.Bytes) (Info, error) {
	if len(head) < vmdkHeaderLen {
		return Info{}, fmt.Errorf("%w: it ends within its VMDK header (%d bytes)", ErrTruncated, size)
	}
	sectors := binary.LittleEndian.Uint64(head[12:])
	if sectors == 0 {
		return Info{}, fmt.Errorf("%w: its VMDK extents are in other files; make it one file with qemu-img convert -O qcow2", ErrForeignFile)
	}
	descriptor := make([]byte, vmdkDescriptorSz)
	n, err := r.ReadAt(descriptor, vmdkDescriptor)
	if err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("reading the VMDK descriptor: %w", err)
	}
	if bytes.Contains(descriptor[:n], []byte("parentFileNameHint")) {
		return Info{}, fmt.Errorf("%w: the VMDK has a parent; make it stand alone with qemu-img convert -O qcow2", ErrForeignFile)
	}
	if sectors > uint64(maxVirtual/sectorSize) {
		return Info{}, fmt.Errorf("%w: its VMDK header claims %d sectors", ErrCorrupt, sectors)
	}
	return checkVirtual(VMDK, sectors*sectorSize)
}

// Fields of the VDI header (little-endian) by offset.
const (
	vdiVersion     = 68
	vdiImageType   = 76
	vdiDiskSize    = 368
	vdiHeaderLen   = 400
	vdiVersion11   = 0x00010001
	vdiTypeDynamic = 1
	vdiTypeStatic  = 2
)

func inspectVDI(head []byte, size units.Bytes) (Info, error) {
	le := binary.LittleEndian
	if len(head) < vdiHeaderLen {
		return Info{}, fmt.Errorf("%w: it ends within its VDI header (%d bytes)", ErrTruncated, size)
	}
	if v := le.Uint32(head[vdiVersion:]); v != vdiVersion11 {
		return Info{}, fmt.Errorf("%w: VDI version %#x", ErrUnsupported, v)
	}
	if kind := le.Uint32(head[vdiImageType:]); kind != vdiTypeDynamic && kind != vdiTypeStatic {
		return Info{}, fmt.Errorf("%w: a VDI image of type %d depends on another one", ErrForeignFile, kind)
	}
	return checkVirtual(VDI, le.Uint64(head[vdiDiskSize:]))
}
