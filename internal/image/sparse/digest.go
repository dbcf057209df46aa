package sparse

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Digest identifies a file's contents at the cost of what is in it: SHA-256
// over the offset and the bytes of each block that is not all zeros, then the
// size. It is the same however the file was written and wherever its holes are.
type Digest struct{ h hash.Hash }

// NewDigest begins an empty digest.
func NewDigest() *Digest { return &Digest{sha256.New()} }

// Add takes blocks that follow each other in the file, beginning at off, in
// the order of their offsets. Only the file's last block may be incomplete.
func (d *Digest) Add(off int64, p []byte) {
	var at [8]byte
	for len(p) > 0 {
		n := min(BlockSize, len(p))
		binary.BigEndian.PutUint64(at[:], uint64(off)) // an offset is not negative
		d.h.Write(at[:])
		d.h.Write(p[:n])
		off, p = off+int64(n), p[n:]
	}
}

// Sum is the digest of a file of the given size, in hexadecimal. Nothing can
// be added after it.
func (d *Digest) Sum(size units.Bytes) string {
	var end [8]byte
	binary.BigEndian.PutUint64(end[:], uint64(size)) // a size is not negative
	d.h.Write(end[:])
	return hex.EncodeToString(d.h.Sum(nil))
}
