// Package unpack reads a disk image out of whatever it is packed in, in one
// pass and without writing its zeros.
//
// Packings are recognised by their first bytes, never by a name, and may be
// nested: a zip that holds a tar.xz is one artifact upload away. An archive
// must hold exactly one disk image; other files beside it are left out. The
// image is written to one given file: no name in an archive is ever used as a
// path.
package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// The reasons for which nothing was unpacked. Errors wrap one of them, or are
// those of the input or of the file that is written.
var (
	ErrTruncated   = errors.New("the file ends too early")
	ErrCorrupt     = errors.New("the file is corrupt")
	ErrNoDisk      = errors.New("no disk image in the archive")
	ErrManyDisks   = errors.New("more than one disk image in the archive")
	ErrTooLarge    = errors.New("the unpacked size is above the limit")
	ErrEscape      = errors.New("the archive holds a name that leads out of it")
	ErrMemory      = errors.New("unpacking needs too much memory")
	ErrUnsupported = errors.New("a packing that is not supported")
)

// DefaultLimit is how much an archive may unpack to, disk images and other
// files together, when Options say nothing else.
const DefaultLimit = 256 * units.GiB

// maxLayers bounds the nesting of packings.
const maxLayers = 4

// bufferSize is how much is passed on at once; with the pipes to a program it
// is what this package needs beside a decompressor's dictionary.
const bufferSize = 1 << 20

// Options say how to unpack. The zero value is ready to use.
type Options struct {
	Limit units.Bytes // of everything unpacked, zeros included; 0 means DefaultLimit
	XZ    string      // program; "" means xz, and without one Go code that is several times slower
	Zstd  string      // program; "" means zstd, and without one Go code that takes twice as long
}

// Input is a packed file that is being received.
type Input struct {
	io.Reader
	// File gives access to the whole file once Reader is at its end: a zip's
	// directory is there. Without it a zip is not supported.
	File func() (io.ReaderAt, int64, error)
}

// Image is what was unpacked.
type Image struct {
	Name    string      // in the archive, quoted where it is odd; "" for a lone file
	Size    units.Bytes // of the file
	Data    units.Bytes // without the zeros
	Content string      // sparse.Digest
}

// Unpack writes the disk image in in to dst, an empty file, and reads in to its
// end. When it fails, dst holds something incomplete.
func Unpack(ctx context.Context, in Input, dst *os.File, o Options) (Image, error) {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	u := &unpacking{in: in, dst: dst, o: o}
	source := &source{r: in.Reader, ctx: ctx}
	img, err := u.layer(ctx, source, 0)
	if err == nil {
		// Nothing after the image is of interest, but its hash is.
		_, err = io.Copy(io.Discard, source)
	}
	if cause := source.failure(); cause != nil {
		err = cause // what the decompressors said of it is a consequence
	}
	return img, err
}

// source is the input; it keeps its error apart from those of decompressors.
type source struct {
	r   io.Reader
	ctx context.Context // a reader has no other way to be interrupted

	mu  sync.Mutex // a killed program's feeder may still be in Read
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.failure(); err != nil {
		return 0, err
	}
	n, err := 0, context.Cause(s.ctx)
	if err == nil {
		n, err = s.r.Read(p)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// unpacking is the state of one call of Unpack.
type unpacking struct {
	in   Input
	dst  *os.File
	o    Options
	used bool        // dst was written to
	name string      // of the member that is the image
	size units.Bytes // of it, where the archive tells
}

// layer recognises what r holds and unpacks it.
func (u *unpacking) layer(ctx context.Context, r io.Reader, depth int) (Image, error) {
	if depth > maxLayers {
		return Image{}, fmt.Errorf("%w: more than %d packings inside each other", ErrUnsupported, maxLayers)
	}
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(disk.SniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return Image{}, asTruncated(err)
	}
	switch p := recognise(head); p.kind {
	case compressed:
		return u.decompress(ctx, p, b, depth)
	case tarArchive:
		return u.untar(b)
	case zipArchive:
		return u.unzip(ctx, b, depth)
	case unsupported:
		return Image{}, fmt.Errorf("%w: %s; pack the image as tar.xz, tar.gz, xz, gz, zst or zip", ErrUnsupported, p.name)
	}
	return u.write(b, u.size)
}

// decompress unpacks what a decompressor gives.
func (u *unpacking) decompress(ctx context.Context, p packing, r io.Reader, depth int) (Image, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d, err := p.open(ctx, u.o, r)
	if err != nil {
		return Image{}, fmt.Errorf("unpacking %s: %w", p.name, err)
	}
	u.size = 0
	plain := u.limit(d)
	img, err := u.layer(ctx, plain, depth+1)
	if err == nil || errors.Is(err, ErrTruncated) || errors.Is(err, ErrCorrupt) {
		// The check sums are at the end, and with them the decompressor's own
		// verdict, which says more than what its output looks like.
		if _, rest := io.Copy(io.Discard, plain); err == nil {
			err = rest
		}
	} else if !plain.failed {
		stop() // the program would wait for somebody to read the rest
		_ = d.Close()
		return Image{}, err
	}
	if verdict := d.Close(); verdict != nil {
		return Image{}, fmt.Errorf("unpacking %s: %w", p.name, verdict)
	}
	return img, err
}

// limited counts what a decompressor gives against the limit.
type limited struct {
	r      io.Reader
	left   units.Bytes
	failed bool // r has failed, not its reader
}

func (u *unpacking) limit(r io.Reader) *limited { return &limited{r: r, left: u.o.Limit} }

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= units.Bytes(n); l.left < 0 {
		return 0, ErrTooLarge
	}
	if err != nil && !errors.Is(err, io.EOF) {
		l.failed = true
	}
	return n, err
}

// write stores r as the disk image. A size of 0 is one that is not known.
func (u *unpacking) write(r io.Reader, size units.Bytes) (Image, error) {
	if u.used {
		return Image{}, ErrManyDisks
	}
	u.used = true
	if size > u.o.Limit {
		return Image{}, fmt.Errorf("%w: %s is announced with %s, the limit is %s", ErrTooLarge, u.name, size.Human(), u.o.Limit.Human())
	}
	sum := sparse.NewDigest()
	w := sparse.NewWriter(u.dst, sum)
	// Also without a decompressor: a sparse tar makes zeros of nothing.
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, u.limit(r), make([]byte, bufferSize)); err != nil {
		return Image{}, asTruncated(err)
	}
	if err := w.Close(); err != nil {
		return Image{}, err
	}
	return Image{Name: u.name, Size: w.Size(), Data: w.Data(), Content: sum.Sum(w.Size())}, nil
}

// asTruncated names the end of an input that came too early.
func asTruncated(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return err
}
