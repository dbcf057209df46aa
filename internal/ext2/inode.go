package ext2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// tree reads inodes and their data with one superblock's numbers.
type tree struct {
	f  *FS
	sb Superblock
}

func (f *FS) tree() (tree, error) {
	sb, err := f.Superblock()
	if err != nil {
		return tree{}, err
	}
	return tree{f, sb}, sb.readable()
}

// errCorrupt is wrapped where the file system contradicts itself.
var errCorrupt = errors.New("the file system is damaged")

const rootInode = 2

const (
	inodeExtents    = 0x80000    // data is found through an extent tree
	inodeInlineData = 0x10000000 // data lies in the inode itself
	inodeEncrypted  = 0x800
)

// largeInode is the size from which on an inode has the fields that ext4 added
// and that are read here.
const largeInode = 256

// inode holds the fields that are needed, as on disk.
type inode struct {
	number     uint32
	rawMode    uint16
	uid, gid   uint32
	size       uint64
	sectors    uint32 // 512-byte sectors, attributes included
	flags      uint32
	osd1       uint32 // the translator on a Hurd
	attributes uint32 // block of extended attributes
	links      uint16
	ctime      uint32
	ctimeExtra uint32 // as mtimeExtra
	mtime      uint32
	mtimeExtra uint32 // two more bits of seconds, and nanoseconds; Linux only
	block      [60]byte
}

// at reads from the file system, never from outside it.
func (t tree) at(offset, length units.Bytes) ([]byte, error) {
	if offset < 0 || offset+length > t.sb.Size() {
		return nil, fmt.Errorf("%w: it points beyond its end", errCorrupt)
	}
	buf := make([]byte, length)
	_, err := t.f.file.ReadAt(buf, int64(t.f.part.Start+offset))
	return buf, err
}

func (t tree) block(number uint64) ([]byte, error) {
	if number == 0 || number >= t.sb.Blocks {
		return nil, fmt.Errorf("%w: block %d does not exist", errCorrupt, number)
	}
	return t.at(units.Bytes(number)*t.sb.BlockSize, t.sb.BlockSize)
}

// descriptorAt is where the descriptor of a group lies.
func (t tree) descriptorAt(group uint32) units.Bytes {
	return units.Bytes(t.sb.firstData+1)*t.sb.BlockSize + units.Bytes(group)*units.Bytes(t.sb.descSize)
}

func (t tree) descriptor(group uint32) ([]byte, error) {
	return t.at(t.descriptorAt(group), units.Bytes(t.sb.descSize))
}

func (t tree) inode(number uint32) (inode, error) {
	if number == 0 || number > t.sb.Inodes {
		return inode{}, fmt.Errorf("%w: inode %d does not exist", errCorrupt, number)
	}
	group := (number - 1) / t.sb.inodesPerGroup
	desc, err := t.descriptor(group)
	if err != nil {
		return inode{}, err
	}
	le := binary.LittleEndian
	at := uint64(le.Uint32(desc[8:]))
	if len(desc) >= 64 {
		at |= uint64(le.Uint32(desc[40:])) << 32
	}
	if at >= t.sb.Blocks {
		return inode{}, fmt.Errorf("%w: the inode table of group %d lies beyond its end", errCorrupt, group)
	}
	offset := units.Bytes(at)*t.sb.BlockSize + units.Bytes((number-1)%t.sb.inodesPerGroup)*units.Bytes(t.sb.inodeSize)
	b, err := t.at(offset, min(units.Bytes(t.sb.inodeSize), largeInode))
	if err != nil {
		return inode{}, err
	}
	n := inode{
		number:     number,
		rawMode:    le.Uint16(b[0:]),
		uid:        uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[120:]))<<16,
		gid:        uint32(le.Uint16(b[24:])) | uint32(le.Uint16(b[122:]))<<16,
		size:       uint64(le.Uint32(b[4:])),
		ctime:      le.Uint32(b[12:]),
		mtime:      le.Uint32(b[16:]),
		links:      le.Uint16(b[26:]),
		sectors:    le.Uint32(b[28:]),
		flags:      le.Uint32(b[32:]),
		osd1:       le.Uint32(b[36:]),
		attributes: le.Uint32(b[104:]),
		block:      [60]byte(b[40:100]),
	}
	if len(b) >= largeInode && le.Uint16(b[128:]) >= 12 { // so many bytes of the larger part are in use
		n.ctimeExtra, n.mtimeExtra = le.Uint32(b[132:]), le.Uint32(b[136:])
	}
	if n.mode().IsRegular() {
		n.size |= uint64(le.Uint32(b[108:])) << 32
	}
	return n, nil
}

// fileTypes maps the top four bits of an inode's mode.
var fileTypes = map[uint16]fs.FileMode{
	0x8000: 0,
	0x4000: fs.ModeDir,
	0xa000: fs.ModeSymlink,
	0x2000: fs.ModeDevice | fs.ModeCharDevice,
	0x6000: fs.ModeDevice,
	0x1000: fs.ModeNamedPipe,
	0xc000: fs.ModeSocket,
}

func (n inode) mode() fs.FileMode {
	kind, ok := fileTypes[n.rawMode&0xf000]
	if !ok {
		kind = fs.ModeIrregular
	}
	mode := kind | fs.FileMode(n.rawMode&0o777)
	for _, bit := range specialBits {
		if n.rawMode&bit.raw != 0 {
			mode |= bit.mode
		}
	}
	return mode
}

var specialBits = []struct {
	raw  uint16
	mode fs.FileMode
}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}

// rawPermissions is the reverse of mode without the type.
func rawPermissions(mode fs.FileMode) uint16 {
	raw := uint16(mode & 0o777)
	for _, bit := range specialBits {
		if mode&bit.mode != 0 {
			raw |= bit.raw
		}
	}
	return raw
}

// fileTime is a time of an inode as the file system's own system reads it: the
// reverse of diskTime.
func fileTime(sb Superblock, seconds, extra uint32) time.Time {
	if sb.Creator == OSHurd {
		return time.Unix(int64(seconds), 0)
	}
	return time.Unix(int64(int32(seconds))+int64(extra&3)<<32, int64(extra>>2))
}

func (n inode) info(sb Superblock) Info {
	i := Info{Inode: n.number, Mode: n.mode(), UID: n.uid, GID: n.gid, Size: units.Bytes(n.size)}
	if sb.Creator == OSHurd {
		i.Translator = n.osd1
	}
	return i
}
