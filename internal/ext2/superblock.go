package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/org/hurd-qemu-action/internal/units"
)

// OS is the system for which a file system was made; it decides what two
// fields of an inode mean.
type OS uint32

// The creators that matter here. Numbers as in ext2_fs.h.
const (
	OSLinux OS = 0
	OSHurd  OS = 1
)

// Superblock is what the first block of an ext2, ext3 or ext4 file system says.
type Superblock struct {
	BlockSize     units.Bytes
	Blocks        uint64
	Inodes        uint32
	FreeBlocks    uint64
	FreeInodes    uint32
	Creator       OS
	Clean         bool // unmounted cleanly, no errors seen, no journal to replay
	NeedsRecovery bool // an ext3 or ext4 journal was not replayed
	UUID          string
	Label         string

	Compat, Incompat, ROCompat uint32 // feature bits

	firstData      uint64 // block number of the first group's beginning
	blocksPerGroup uint32
	inodesPerGroup uint32
	inodeSize      uint32
	descSize       uint32
	lastTime       int64 // when it was last mounted, written or checked, in seconds since 1970
}

// Size is that of the whole file system.
func (s Superblock) Size() units.Bytes { return units.Bytes(s.Blocks) * s.BlockSize }

// groups is the number of block groups.
func (s Superblock) groups() int {
	per := uint64(s.blocksPerGroup)
	return int((s.Blocks - s.firstData + per - 1) / per)
}

// countsSectors tells whether every inode counts its blocks in sectors: with
// ext4's huge_file, some count otherwise.
func (s Superblock) countsSectors() bool { return s.ROCompat&roCompatHugeFile == 0 }

// ErrNotExt2 says that there is no ext2, ext3 or ext4 file system at a place.
var ErrNotExt2 = errors.New("no ext2 file system")

// Offsets and values of the superblock, from the kernel's documentation of ext4.
const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xef53

	stateClean  = 1
	stateErrors = 2

	incompatRecover    = 0x0004
	incompatJournalDev = 0x0008
	incompatMetaBG     = 0x0010
	incompat64Bit      = 0x0080

	// incompatReadable are the features with which file data and names are
	// where this package looks for them: filetype, recover, extents, 64bit,
	// mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, casefold.
	incompatReadable = 0x0002 | incompatRecover | 0x0040 | incompat64Bit | 0x0100 | 0x0200 | 0x0400 |
		0x2000 | 0x4000 | 0x8000 | 0x20000

	maxBlockSize = 64 << 10
)

// ReadSuperblock reads the superblock of the file system that begins at
// offset. The error wraps ErrNotExt2 when there is none, or one whose numbers
// contradict each other.
func ReadSuperblock(r io.ReaderAt, offset units.Bytes) (Superblock, error) {
	b := make([]byte, superSize)
	if _, err := r.ReadAt(b, int64(offset)+superOffset); err != nil {
		if errors.Is(err, io.EOF) {
			return Superblock{}, ErrNotExt2
		}
		return Superblock{}, fmt.Errorf("reading a superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(b[56:]) != superMagic {
		return Superblock{}, ErrNotExt2
	}
	state := le.Uint16(b[58:])
	s := Superblock{
		Inodes:     le.Uint32(b[0:]),
		Blocks:     uint64(le.Uint32(b[4:])),
		FreeBlocks: uint64(le.Uint32(b[12:])),
		FreeInodes: le.Uint32(b[16:]),
		Creator:    OS(le.Uint32(b[72:])),
		UUID:       uuid(b[104:120]),
		Label:      string(bytes.TrimRight(b[120:136], "\x00")),

		Compat: le.Uint32(b[92:]), Incompat: le.Uint32(b[96:]), ROCompat: le.Uint32(b[100:]),

		firstData:      uint64(le.Uint32(b[20:])),
		blocksPerGroup: le.Uint32(b[32:]),
		inodesPerGroup: le.Uint32(b[40:]),
		inodeSize:      128,
		descSize:       32,
		// Times of the last mount, the last write and the last check.
		lastTime: int64(max(le.Uint32(b[44:]), le.Uint32(b[48:]), le.Uint32(b[64:]))),
	}
	if le.Uint32(b[76:]) > 0 {
		s.inodeSize = uint32(le.Uint16(b[88:]))
	} else {
		s.Compat, s.Incompat, s.ROCompat = 0, 0, 0
	}
	if s.Incompat&incompat64Bit != 0 {
		s.Blocks |= uint64(le.Uint32(b[336:])) << 32
		s.FreeBlocks |= uint64(le.Uint32(b[344:])) << 32
		s.descSize = uint32(le.Uint16(b[254:]))
	}
	s.NeedsRecovery = s.Incompat&incompatRecover != 0
	s.Clean = state&stateClean != 0 && state&stateErrors == 0 && !s.NeedsRecovery
	if log := le.Uint32(b[24:]); log <= 6 {
		s.BlockSize = units.KiB << log
	}
	return s, s.valid()
}

// valid refuses what no mke2fs makes and what would make the reader divide by
// zero or read too much.
func (s Superblock) valid() error {
	perBlock := uint32(s.BlockSize) * 8
	switch {
	case s.BlockSize == 0 || s.BlockSize > maxBlockSize,
		s.Inodes == 0, s.Blocks == 0, s.Blocks > 1<<48,
		s.blocksPerGroup == 0, s.blocksPerGroup > perBlock*16, // bigalloc counts clusters
		s.inodesPerGroup == 0, s.inodesPerGroup > perBlock,
		s.inodeSize < 128, s.inodeSize > uint32(s.BlockSize), s.inodeSize&(s.inodeSize-1) != 0,
		s.descSize < 32, s.descSize > 1024, s.descSize&(s.descSize-1) != 0,
		s.firstData > 1:
		return fmt.Errorf("%w: there is a superblock, but its numbers contradict each other", ErrNotExt2)
	}
	return nil
}

// readable tells whether the reader understands every feature that changes
// where data lies.
func (s Superblock) readable() error {
	if unknown := s.Incompat &^ incompatReadable; unknown != 0 {
		return fmt.Errorf("the file system has features that are not supported (incompat bits %#x)", unknown)
	}
	return nil
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
