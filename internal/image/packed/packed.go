// Package packed keeps a raw disk in a file from which any part of it can be
// read without the rest: pieces of the disk, each compressed by itself, behind
// an index that says where each one is and what it must contain. A guest can
// start from such a file on a server while most of it has not been received.
//
// All numbers are big-endian:
//
//	8 bytes   "hurdbase"
//	4 bytes   Format
//	4 bytes   length of the note
//	8 bytes   size of the disk
//	...       the note: what the packer wants to say of the disk
//	for each piece of the disk:
//	  4 bytes   length of the packed piece; 0 for one of zeros, of which nothing is kept
//	  32 bytes  its sum
//	32 bytes  SHA-256 over all of the above
//	then for each piece of the disk that is not all zeros: a zstd frame (RFC 8878)
//
// Lengths, not offsets, are kept, so that no index can name a place twice. The
// sum of a piece is SHA-256 over its index, a bit for each of its blocks that
// is not all zeros, and these blocks. Digest, the sum of the whole disk, is made
// from those of its pieces: an index is that of a disk if it has its digest, and
// whoever knows the digest can tell a right piece from a wrong one.
package packed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Format is the version of the file. Others are not read.
const Format = 1

// PieceSize is how much of the disk is in one piece. Larger pieces pack a
// little better, and cost more where only a block of them is wanted.
const PieceSize = 1 << 20

// Limits of what is packed and read.
const (
	MaxDisk   = 256 * units.GiB
	maxNote   = 1 << 20
	maxPacked = PieceSize + PieceSize/64 // of a piece: noise grows a little when packed
)

const (
	magic     = "hurdbase"
	fixedSize = len(magic) + 4 + 4 + 8
	entrySize = 4 + sha256.Size
	blockSize = 4096 // the granularity of holes
	blocks    = PieceSize / blockSize
)

// ErrDamaged says that a packed disk is not what was written.
var ErrDamaged = errors.New("the packed disk is damaged")

// ErrFormat says that a packed disk is of another version, or none at all.
var ErrFormat = errors.New("not a packed disk of this version")

// sum is that of a piece.
type sum [sha256.Size]byte

// entry is what the index says of a piece.
type entry struct {
	length uint32
	sum    sum
}

// Index says what is where in a packed disk. It does not change.
type Index struct {
	Size units.Bytes // of the disk
	Note []byte

	entries []entry
	offsets []int64 // of the packed pieces in the file, and their end
}

// pieces is how many pieces a disk has.
func pieces(size units.Bytes) int {
	return int((size + PieceSize - 1) / PieceSize) // below 2^18 for MaxDisk
}

// headSize is where the pieces begin.
func headSize(note int, size units.Bytes) int64 {
	return int64(fixedSize) + int64(note) + int64(pieces(size))*int64(entrySize) + sha256.Size
}

// HeadSize tells how much of a file ParseIndex needs, by the file's beginning.
func HeadSize(beginning []byte) (int64, error) {
	if len(beginning) < fixedSize || string(beginning[:len(magic)]) != magic {
		return 0, ErrFormat
	}
	b := beginning[len(magic):]
	if version := binary.BigEndian.Uint32(b); version != Format {
		return 0, fmt.Errorf("%w: version %d, this is %d", ErrFormat, version, Format)
	}
	note, size := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	if note > maxNote || size == 0 || size > uint64(MaxDisk) {
		return 0, fmt.Errorf("%w: a note of %d bytes, a disk of %d", ErrDamaged, note, size)
	}
	return headSize(int(note), units.Bytes(size)), nil
}

// ParseIndex reads the head of a file, all HeadSize bytes of it.
func ParseIndex(head []byte) (*Index, error) {
	want, err := HeadSize(head)
	if err != nil {
		return nil, err
	}
	if int64(len(head)) != want {
		return nil, fmt.Errorf("%w: its index has %d bytes of %d", ErrDamaged, len(head), want)
	}
	body := head[:len(head)-sha256.Size]
	if have := sha256.Sum256(body); !bytes.Equal(have[:], head[len(body):]) {
		return nil, fmt.Errorf("%w: its index does not have its sum", ErrDamaged)
	}
	note := int(binary.BigEndian.Uint32(head[len(magic)+4:]))
	x := &Index{Size: units.Bytes(binary.BigEndian.Uint64(head[len(magic)+8:]))}
	x.Note = bytes.Clone(body[fixedSize : fixedSize+note])
	x.entries = make([]entry, pieces(x.Size))
	table := body[fixedSize+note:]
	for i := range x.entries {
		e := &x.entries[i]
		e.length = binary.BigEndian.Uint32(table[i*entrySize:])
		copy(e.sum[:], table[i*entrySize+4:])
		if e.length > maxPacked || e.length == 0 && e.sum != (sum{}) {
			return nil, fmt.Errorf("%w: piece %d has %d bytes", ErrDamaged, i, e.length)
		}
	}
	x.place()
	return x, nil
}

// place computes the offsets.
func (x *Index) place() {
	x.offsets = make([]int64, len(x.entries)+1)
	x.offsets[0] = headSize(len(x.Note), x.Size)
	for i, e := range x.entries {
		x.offsets[i+1] = x.offsets[i] + int64(e.length)
	}
}

// encode writes the head.
func (x *Index) encode() []byte {
	head := make([]byte, 0, headSize(len(x.Note), x.Size))
	head = append(head, magic...)
	head = binary.BigEndian.AppendUint32(head, Format)
	head = binary.BigEndian.AppendUint32(head, uint32(len(x.Note))) // below maxNote
	head = binary.BigEndian.AppendUint64(head, uint64(x.Size))      // a size is not negative
	head = append(head, x.Note...)
	for _, e := range x.entries {
		head = binary.BigEndian.AppendUint32(head, e.length)
		head = append(head, e.sum[:]...)
	}
	all := sha256.Sum256(head)
	return append(head, all[:]...)
}

// Pieces is how many pieces the disk has.
func (x *Index) Pieces() int { return len(x.entries) }

// FileSize is how long the whole file is.
func (x *Index) FileSize() int64 { return x.offsets[len(x.entries)] }

// Packed is where the packed pieces from first up to, and not with, end are.
func (x *Index) Packed(first, end int) (offset, length int64) {
	return x.offsets[first], x.offsets[end] - x.offsets[first]
}

// Zero tells whether a piece is all zeros, so that nothing of it is in the file.
func (x *Index) Zero(i int) bool { return x.entries[i].length == 0 }

// Length is how much of the disk is in a piece: PieceSize, but for the last one.
func (x *Index) Length(i int) int { return length(i, x.Size) }

func length(i int, size units.Bytes) int {
	return int(min(PieceSize, size-units.Bytes(i)*PieceSize))
}

// Digest is the digest of the disk, as DigestOf has it.
func (x *Index) Digest() string {
	h := sha256.New()
	var word [8]byte
	binary.BigEndian.PutUint64(word[:], uint64(x.Size)) // a size is not negative
	h.Write(word[:])
	for i, e := range x.entries {
		if e.length > 0 {
			binary.BigEndian.PutUint32(word[:4], uint32(i)) // below 2^18
			h.Write(word[:4])
			h.Write(e.sum[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// decoders share what zstd keeps; one that has no stream of its own may be used
// by several goroutines.
var decoder = func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(PieceSize), zstd.WithDecoderMaxWindow(PieceSize))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}()

// Unpack unpacks a piece into buffer, which has room for PieceSize bytes, and
// compares it with its sum. The error is ErrDamaged.
func (x *Index) Unpack(i int, data, buffer []byte) ([]byte, error) {
	if len(data) != int(x.entries[i].length) {
		return nil, fmt.Errorf("%w: piece %d has %d bytes of %d", ErrDamaged, i, len(data), x.entries[i].length)
	}
	raw, err := decoder.DecodeAll(data, buffer[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: unpacking piece %d: %w", ErrDamaged, i, err)
	}
	if len(raw) != x.Length(i) {
		return nil, fmt.Errorf("%w: piece %d unpacks to %d bytes of %d", ErrDamaged, i, len(raw), x.Length(i))
	}
	if have, _ := sumOf(i, raw); have != x.entries[i].sum {
		return nil, fmt.Errorf("%w: piece %d does not have its sum", ErrDamaged, i)
	}
	return raw, nil
}

var zeros [blockSize]byte

// Runs calls do for each run of blocks of a piece that are not all zeros.
func Runs(piece []byte, do func(offset int, data []byte) error) error {
	for at := 0; at < len(piece); {
		end := at
		for end < len(piece) && !isZero(block(piece, end)) {
			end += blockSize
		}
		if end = min(end, len(piece)); end > at {
			if err := do(at, piece[at:end]); err != nil {
				return err
			}
		}
		at = end
		for at < len(piece) && isZero(block(piece, at)) {
			at += blockSize
		}
	}
	return nil
}

// block is the block at an offset; the last one of a disk may be incomplete.
func block(piece []byte, at int) []byte { return piece[at:min(at+blockSize, len(piece))] }

func isZero(block []byte) bool { return bytes.Equal(block, zeros[:len(block)]) }

// sumOf is the sum of a piece, and how much of it is in blocks that are not all
// zeros. A piece of zeros has no sum.
func sumOf(i int, piece []byte) (s sum, data int) {
	var head [4 + blocks/8]byte
	binary.BigEndian.PutUint32(head[:], uint32(i)) // below 2^18
	mark := head[4:]
	_ = Runs(piece, func(at int, run []byte) error { // nothing in it fails
		for b := at / blockSize; b*blockSize < at+len(run); b++ {
			mark[b/8] |= 1 << (b % 8)
		}
		data += len(run)
		return nil
	})
	if data == 0 {
		return sum{}, 0
	}
	h := sha256.New()
	h.Write(head[:])
	_ = Runs(piece, func(_ int, run []byte) error { // as above
		h.Write(run)
		return nil
	})
	h.Sum(s[:0])
	return s, data
}
