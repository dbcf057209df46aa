package snapshot

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// A packed entry is a zstd stream (RFC 8878), cut into frames so that several
// processors can compress it; the first frame ends with the manifest, so that a
// reader learns early whether it wants the rest. All numbers are big-endian.
//
//	8 bytes  "hurdsnap"
//	4 bytes  Format
//	4 bytes  length of the manifest
//	...      the manifest, JSON
//	then for each file of the manifest, in its order:
//	  for each piece (256 KiB) that is not all zeros, in ascending order:
//	    4 bytes  index of the piece
//	    8 bytes  mask: bit i is set when block i (4096 bytes) is not all zeros
//	    8 bytes  copies: those bits of the mask whose blocks are also in an
//	             earlier file or an earlier piece of this file
//	    for each of the copies:
//	      1 byte   number of that file, from 0
//	      4 bytes  index of the block in it
//	    ...      the other blocks; the last block of a file may be incomplete
//	  4 bytes  0xffffffff
//
// Whoever packs the same machine with the same version of this program gets the
// same bytes. Copies are written down, since they are common (a file's contents
// in the guest's cache are on its disk too, or were moved about in its memory)
// and too far apart for a compressor that is to take little memory: without it
// a measured entry was a tenth larger.
const (
	packMagic = "hurdsnap"
	endOfFile = math.MaxUint32

	// Extension is what the names of files with packed entries end with.
	Extension = ".hurdsnap"
)

// frameSize is how much is compressed by itself. Frames of 2 MiB were no smaller
// when packed, those of 8 MiB 1 %, and both take more memory.
const frameSize = 1 << 20

// maxFrame is the most that a frame has, packed or not: one that is not full
// takes another piece, and noise grows a little when packed.
const maxFrame = frameSize + pieceSize + maxHead + frameSize>>8

// level is chosen for a processor that has a guest to run at the same time:
// the next one took 2.5 times as long for 3 % less, the fastest nearly as long
// for 4 % more.
const level = zstd.SpeedDefault

// frame is a part of the stream on its way.
type frame struct {
	raw, packed []byte
	done        chan struct{} // one value when packed is complete
}

// packer compresses what is written to it, by several goroutines.
type packer struct {
	ctx   context.Context // of one Pack
	enc   *zstd.Encoder
	now   *frame
	free  chan *frame
	order chan *frame // to the writer
	group *errgroup.Group
	slots chan struct{}

	files []*os.File // those begun
	seen  *copies
}

// Pack writes the entry as one stream. What it reads is compared with the
// manifest, so that a damaged entry is not handed on: then the error is
// ErrDamaged and what was written is of no use.
func (e *Entry) Pack(ctx context.Context, w io.Writer) error {
	if err := e.pack(ctx, w); err != nil {
		return fmt.Errorf("packing the saved machine: %w", err)
	}
	return nil
}

func (e *Entry) pack(ctx context.Context, w io.Writer) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(workers()),
		zstd.WithWindowSize(frameSize), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	defer func() { _ = enc.Close() }() // it holds nothing back: frames are compressed whole
	g, ctx := errgroup.WithContext(ctx)
	n := workers() + 1
	p := &packer{
		ctx: ctx, enc: enc, group: g, seen: newCopies(),
		free: make(chan *frame, n), order: make(chan *frame, n), slots: make(chan struct{}, workers()),
	}
	defer p.close()
	for range n {
		p.free <- &frame{raw: make([]byte, 0, maxFrame), packed: make([]byte, 0, maxFrame), done: make(chan struct{}, 1)}
	}
	g.Go(func() error { return p.writeTo(w) })
	g.Go(func() error {
		defer close(p.order)
		return p.entry(e)
	})
	return g.Wait()
}

// entry feeds the whole stream.
func (p *packer) entry(e *Entry) error {
	data, err := e.Manifest.encode()
	if err != nil {
		return err
	}
	if err := p.next(); err != nil {
		return err
	}
	raw := append(p.now.raw, packMagic...)
	raw = binary.BigEndian.AppendUint32(raw, Format)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(data))) // below maxManifest
	p.now.raw = append(raw, data...)
	if err := p.flush(); err != nil {
		return err
	}
	for _, f := range e.Manifest.Files {
		if err := p.file(e.Path(f.Name), f); err != nil {
			return err
		}
	}
	return p.submit()
}

// close closes the files, which were only read.
func (p *packer) close() {
	for _, f := range p.files {
		_ = f.Close()
	}
}

// file feeds one file.
func (p *packer) file(path string, want File) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	p.files = append(p.files, f)
	var sums []pieceSums
	err = readPieces(p.ctx, f, int64(want.Size), func(pc *piece) error {
		sums = append(sums, sumPiece(pc, false))
		if err := p.piece(pc); err != nil {
			return err
		}
		return p.flushFull()
	})
	if err != nil {
		return err
	}
	if s := sumFile(int64(want.Size), sums); s.CRC32C != want.CRC32C {
		return fmt.Errorf("%w: the contents of %s are not those that were saved", ErrDamaged, path)
	}
	p.now.raw = binary.BigEndian.AppendUint32(p.now.raw, endOfFile)
	return p.flushFull()
}

// piece feeds one piece.
func (p *packer) piece(pc *piece) error {
	places, copied, err := p.seen.find(pc, p.files)
	if err != nil {
		return err
	}
	head := pc.head()
	raw := append(p.now.raw, head[:]...)
	raw = binary.BigEndian.AppendUint64(raw, copied)
	for _, at := range places {
		raw = append(raw, at.file)
		raw = binary.BigEndian.AppendUint32(raw, at.block)
	}
	rest := piece{data: pc.data, mask: pc.mask &^ copied}
	_ = rest.runs(func(_ int, data []byte) error { // nothing in it fails
		raw = append(raw, data...)
		return nil
	})
	p.now.raw = raw
	return nil
}

func (p *packer) flushFull() error {
	if len(p.now.raw) < frameSize {
		return nil
	}
	return p.flush()
}

// flush ends a frame and begins another one.
func (p *packer) flush() error {
	if err := p.submit(); err != nil {
		return err
	}
	return p.next()
}

func (p *packer) next() error {
	select {
	case p.now = <-p.free:
		p.now.raw = p.now.raw[:0]
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// submit hands the frame to a goroutine that compresses it, and to the writer.
func (p *packer) submit() error {
	f := p.now
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.group.Go(func() error {
		f.packed = p.enc.EncodeAll(f.raw, f.packed[:0])
		<-p.slots
		f.done <- struct{}{}
		return nil
	})
	p.order <- f // as many as there are frames fit in
	return nil
}

// writeTo writes the frames in their order.
func (p *packer) writeTo(w io.Writer) error {
	for f := range p.order {
		<-f.done
		if err := context.Cause(p.ctx); err != nil {
			return err
		}
		if _, err := w.Write(f.packed); err != nil {
			return err
		}
		p.free <- f // as above
	}
	return nil
}
