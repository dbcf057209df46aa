package workspace

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// The fields of a header in the old GNU format. Source: GNU tar's src/tar.h,
// and https://www.gnu.org/software/tar/manual/html_node/Standard.html.
const (
	typeLongName = 'L'
	longLink     = "././@LongLink"

	nameLen     = 100
	offMode     = 100
	offUID      = 108
	offGID      = 116
	offSize     = 124
	offModTime  = 136
	offChecksum = 148
	offType     = 156
	offMagic    = 257
	offSparse   = 386 // up to four parts, each an offset and a length
	offExtended = 482 // whether a block with more parts follows
	offRealSize = 483

	sparseField   = 12
	inHeader      = 4
	inExtension   = 21
	offNextFollow = 2 * sparseField * inExtension // in an extension
)

// sparse writes a file with holes as a member of type S: a map of its parts,
// and only what is in them.
func (t *TarWriter) sparse(h *tar.Header, parts []part, size int64, f *os.File) error {
	if err := t.tar.Flush(); err != nil { // what follows goes around archive/tar
		return err
	}
	if len(h.Name) >= nameLen {
		long := &tar.Header{Typeflag: typeLongName, Name: longLink, Size: int64(len(h.Name)) + 1}
		if err := errors.Join(t.block(gnuHeader(long)), t.padded(append([]byte(h.Name), 0))); err != nil {
			return err
		}
	}
	stored := int64(0)
	for _, p := range parts {
		stored += p.end - p.start
	}
	head := *h
	head.Typeflag, head.Size = tar.TypeGNUSparse, stored
	if err := t.sparseMap(gnuHeader(&head), append(parts, part{size, size}), size); err != nil {
		return err
	}
	var shrank error
	for _, p := range parts {
		err := t.copy(t.out, f, p)
		if err != nil && !errors.Is(err, ErrShrank) {
			return err
		}
		shrank = errors.Join(shrank, err)
	}
	if err := t.pad(stored); err != nil {
		return err
	}
	return shrank
}

// sparseMap writes the header with the parts, the last of which is empty and
// tells where the file ends, and the blocks that continue it.
func (t *TarWriter) sparseMap(b [tarBlock]byte, parts []part, size int64) error {
	n := min(len(parts), inHeader)
	putParts(b[offSparse:], parts[:n])
	parts = parts[n:]
	if len(parts) > 0 {
		b[offExtended] = 1
	}
	putNumber(b[offRealSize:offRealSize+sparseField], size)
	if err := t.block(b); err != nil {
		return err
	}
	for len(parts) > 0 {
		var more [tarBlock]byte
		n := min(len(parts), inExtension)
		putParts(more[:], parts[:n])
		if parts = parts[n:]; len(parts) > 0 {
			more[offNextFollow] = 1
		}
		if _, err := t.out.Write(more[:]); err != nil {
			return err
		}
	}
	return nil
}

func putParts(b []byte, parts []part) {
	for i, p := range parts {
		at := b[2*sparseField*i:]
		putNumber(at[:sparseField], p.start)
		putNumber(at[sparseField:2*sparseField], p.end-p.start)
	}
}

func gnuHeader(h *tar.Header) [tarBlock]byte {
	var b [tarBlock]byte
	copy(b[:nameLen], h.Name)
	putNumber(b[offMode:offMode+8], h.Mode)
	putNumber(b[offUID:offUID+8], int64(h.Uid))
	putNumber(b[offGID:offGID+8], int64(h.Gid))
	putNumber(b[offSize:offSize+12], h.Size)
	modTime := int64(0)
	if !h.ModTime.IsZero() {
		modTime = h.ModTime.Unix()
	}
	putNumber(b[offModTime:offModTime+12], modTime)
	b[offType] = h.Typeflag
	copy(b[offMagic:], "ustar  \x00")
	return b
}

// putNumber writes octal digits, or where those are too few the number itself
// with the highest bit set.
func putNumber(field []byte, n int64) {
	digits := len(field) - 1
	if n < 1<<(3*digits) {
		copy(field, fmt.Sprintf("%0*o\x00", digits, n))
		return
	}
	binary.BigEndian.PutUint64(field[len(field)-8:], uint64(n))
	field[0] |= 0x80
}

// block writes a header with its checksum.
func (t *TarWriter) block(b [tarBlock]byte) error {
	copy(b[offChecksum:offChecksum+8], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[offChecksum:], fmt.Sprintf("%06o\x00 ", sum))
	_, err := t.out.Write(b[:])
	return err
}

func (t *TarWriter) padded(data []byte) error {
	if _, err := t.out.Write(data); err != nil {
		return err
	}
	return t.pad(int64(len(data)))
}

// pad fills the last block of n bytes.
func (t *TarWriter) pad(n int64) error {
	var zeros [tarBlock]byte
	_, err := t.out.Write(zeros[:(tarBlock-n%tarBlock)%tarBlock])
	return err
}
