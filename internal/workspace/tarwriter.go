package workspace

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TarDialect is the tar program that reads what a TarWriter writes.
type TarDialect int

// The dialects.
const (
	// AnyTar stands for busybox and others: holes are sent as zeros, and
	// directories are named a second time at the end, since such programs do
	// not restore their modification times after filling them.
	AnyTar TarDialect = iota
	// GNUTar understands the sparse files of the old GNU format.
	GNUTar
)

// TarWriter is a Sink that writes a tar stream in GNU format, which is the one
// in which names are bytes for every program. It writes sparse files by
// itself, because archive/tar can only read them.
type TarWriter struct {
	out     *bufio.Writer
	tar     *tar.Writer
	dialect TarDialect
	dirs    []*tar.Header // for AnyTar, to be repeated
	buf     []byte
}

// tarBuffer is how much is written at once.
const tarBuffer = 128 << 10

// NewTarWriter starts a stream. Close ends it.
func NewTarWriter(w io.Writer, dialect TarDialect) *TarWriter {
	out := bufio.NewWriterSize(w, tarBuffer)
	return &TarWriter{out: out, tar: tar.NewWriter(out), dialect: dialect, buf: make([]byte, tarBuffer)}
}

// Close writes what ends the stream. It does not close the writer below.
func (t *TarWriter) Close() error {
	for i := len(t.dirs) - 1; i >= 0; i-- {
		if err := t.tar.WriteHeader(t.dirs[i]); err != nil {
			return err
		}
	}
	return errors.Join(t.tar.Close(), t.out.Flush())
}

// member names a path so that no program takes it for an option.
func member(path string) string {
	if path == "." {
		return "./"
	}
	return "./" + path
}

func tarHeader(kind byte, path string, a Attr) *tar.Header {
	return &tar.Header{
		Typeflag: kind, Name: member(path), Mode: int64(rawMode(a.Mode)), Uid: int(a.UID), Gid: int(a.GID),
		ModTime: a.ModTime, Format: tar.FormatGNU,
	}
}

// rawMode is permissions, setuid, setgid and sticky as chmod takes them.
func rawMode(mode fs.FileMode) uint32 {
	raw := uint32(mode.Perm())
	for _, s := range special {
		if mode&s.mode != 0 {
			raw |= s.raw
		}
	}
	return raw
}

// Dir writes a directory.
func (t *TarWriter) Dir(path string, a Attr) error {
	h := tarHeader(tar.TypeDir, path, a)
	if path != "." {
		h.Name += "/"
	}
	if t.dialect == AnyTar {
		again := *h
		t.dirs = append(t.dirs, &again)
		h.Mode |= 0o700 // until it is full
	}
	return t.tar.WriteHeader(h)
}

// Symlink writes a symbolic link.
func (t *TarWriter) Symlink(path, target string, a Attr) error {
	h := tarHeader(tar.TypeSymlink, path, a)
	h.Linkname = target
	return t.tar.WriteHeader(h)
}

// Link writes another name of a file.
func (t *TarWriter) Link(path, existing string) error {
	h := tarHeader(tar.TypeLink, path, Attr{})
	h.Linkname = member(existing)
	return t.tar.WriteHeader(h)
}

// Special writes a named pipe.
func (t *TarWriter) Special(path string, a Attr) error {
	return t.tar.WriteHeader(tarHeader(tar.TypeFifo, path, a))
}

// File writes a regular file. One that becomes shorter meanwhile is filled up
// with zeros, and the error wraps ErrShrank.
func (t *TarWriter) File(path string, a Attr, size units.Bytes, r io.ReaderAt) error {
	h := tarHeader(tar.TypeReg, path, a)
	if f, ok := r.(*os.File); ok && t.dialect == GNUTar {
		parts, err := dataParts(f, int64(size))
		if err != nil {
			return err
		}
		if parts != nil {
			return t.sparse(h, parts, int64(size), f)
		}
	}
	h.Size = int64(size)
	if err := t.tar.WriteHeader(h); err != nil {
		return err
	}
	return t.copy(t.tar, r, part{0, int64(size)})
}

// copy copies a part of a file.
func (t *TarWriter) copy(w io.Writer, r io.ReaderAt, p part) error {
	var shrank error
	for p.start < p.end {
		buf := t.buf[:min(int64(len(t.buf)), p.end-p.start)]
		n, err := r.ReadAt(buf, p.start)
		if n < len(buf) && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading at %d: %w", p.start, err)
		}
		if n < len(buf) {
			clear(buf[n:])
			shrank = ErrShrank
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		p.start += int64(len(buf))
	}
	return shrank
}

// part is a range of a file that is not a hole.
type part struct{ start, end int64 }

const (
	tarBlock = 512
	// holeGrain is what parts begin at multiples of, as file systems do.
	holeGrain = 4096
	// worthwhile is how many bytes of holes a file must have to be written as
	// sparse.
	worthwhile = 16 << 10
)

// dataParts finds what is not a hole, or returns nil when there are no holes
// to speak of.
func dataParts(f *os.File, size int64) ([]part, error) {
	if size < worthwhile {
		return nil, nil
	}
	parts, holes := []part{}, size
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			return nil, nil //nolint:nilerr // a file system that knows no holes: all is data
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("finding holes: %w", err)
		}
		p := part{start &^ (holeGrain - 1), min((end+holeGrain-1)&^(holeGrain-1), size)}
		p.start = max(p.start, at)
		if p.start >= p.end {
			break // it shrank
		}
		parts, holes, at = append(parts, p), holes-(p.end-p.start), p.end
	}
	if holes < worthwhile {
		return nil, nil
	}
	return parts, nil
}
