package ext2

import (
	"errors"
	"io"
)

// pages reads small pieces from memory where it can: inodes, descriptors and
// directories lie close together, and a walk asks for them one by one. What it
// has read it does not read again, so it lives as long as one walk.
type pages struct {
	readerAtCloser
	held [256]page // 4 MiB: the inodes of 32,000 files of the Hurd
}

type page struct {
	index int64 // plus one
	data  []byte
}

const pageSize = 16 << 10

func newPages(file readerAtCloser) *pages { return &pages{readerAtCloser: file} }

// ReadAt reads as io.ReaderAt says.
func (p *pages) ReadAt(b []byte, offset int64) (int, error) {
	if len(b) > pageSize || offset < 0 {
		return p.readerAtCloser.ReadAt(b, offset)
	}
	done := 0
	for done < len(b) {
		data, err := p.page(offset / pageSize)
		if err != nil {
			return done, err
		}
		at := int(offset % pageSize)
		if at >= len(data) {
			return done, io.EOF
		}
		n := copy(b[done:], data[at:])
		done, offset = done+n, offset+int64(n)
	}
	return done, nil
}

// page reads a page, which may be short at the end.
func (p *pages) page(index int64) ([]byte, error) {
	slot := &p.held[index%int64(len(p.held))]
	if slot.index == index+1 {
		return slot.data, nil
	}
	if slot.data == nil {
		slot.data = make([]byte, pageSize)
	}
	n, err := p.readerAtCloser.ReadAt(slot.data[:pageSize], index*pageSize)
	if err != nil && !errors.Is(err, io.EOF) {
		slot.index = 0
		return nil, err
	}
	slot.index, slot.data = index+1, slot.data[:n]
	return slot.data, nil
}
