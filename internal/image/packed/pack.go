package packed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ErrTooLarge says that a disk is too large to be packed, or the result larger
// than the caller allows.
var ErrTooLarge = errors.New("the packed disk is too large")

// Packing is what became of a disk.
type Packing struct {
	Digest string      // of the disk
	Size   units.Bytes // of the file
	Data   units.Bytes // of the disk, in blocks that are not all zeros
}

// level is chosen for a processor that has a guest to run at the same time.
const level = zstd.SpeedDefault

// maxWorkers bounds how many pieces are in memory at once.
const maxWorkers = 4

func workers() int { return min(maxWorkers, runtime.GOMAXPROCS(0)) }

// job is a piece on its way.
type job struct {
	index       int
	raw, packed []byte
	sum         sum
	data        int
	done        chan struct{} // one value when it is complete
}

// Pack writes the disk in src, which must not change meanwhile, into the empty
// file dst. A limit of 0 is none. Memory use does not depend on the sizes.
func Pack(ctx context.Context, dst, src *os.File, note []byte, limit units.Bytes) (Packing, error) {
	p, err := pack(ctx, dst, src, note, limit)
	if err != nil {
		return Packing{}, fmt.Errorf("packing the disk: %w", err)
	}
	return p, nil
}

func pack(ctx context.Context, dst, src *os.File, note []byte, limit units.Bytes) (Packing, error) {
	if len(note) > maxNote {
		return Packing{}, fmt.Errorf("the note has %d bytes, more than %d", len(note), maxNote)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(workers()),
		zstd.WithWindowSize(PieceSize), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return Packing{}, err
	}
	defer func() { _ = enc.Close() }() // it holds nothing back: pieces are compressed whole
	x, out := &Index{Note: note}, Packing{}
	at := int64(-1)
	err = eachPiece(ctx, src, maxPacked, func(j *job) {
		j.packed = enc.EncodeAll(j.raw, j.packed[:0])
	}, func(size units.Bytes) {
		x.Size, x.entries = size, make([]entry, pieces(size))
		at = headSize(len(note), size)
	}, func(j *job) error {
		if _, err := dst.WriteAt(j.packed, at); err != nil {
			return err
		}
		x.entries[j.index] = entry{uint32(len(j.packed)), j.sum} // below maxPacked
		at += int64(len(j.packed))
		out.Data += units.Bytes(j.data)
		if limit > 0 && units.Bytes(at) > limit {
			return fmt.Errorf("%w: more than %s", ErrTooLarge, limit.Human())
		}
		return nil
	})
	if err != nil {
		return Packing{}, err
	}
	x.place()
	if _, err := dst.WriteAt(x.encode(), 0); err != nil {
		return Packing{}, err
	}
	out.Digest, out.Size = x.Digest(), units.Bytes(x.FileSize())
	return out, nil
}

// DigestOf is the digest of a raw disk, wherever the file's holes are.
func DigestOf(ctx context.Context, f *os.File) (string, error) {
	x := &Index{}
	err := eachPiece(ctx, f, 0, func(*job) {}, func(size units.Bytes) {
		x.Size, x.entries = size, make([]entry, pieces(size))
	}, func(j *job) error {
		x.entries[j.index] = entry{1, j.sum} // any length but 0
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("summing the disk: %w", err)
	}
	return x.Digest(), nil
}

// eachPiece reads a disk; a job gets room for its result. begin is told its size; work is called by several
// goroutines for the pieces that are not all zeros, and take in their order.
func eachPiece(ctx context.Context, f *os.File, room int, work func(*job), begin func(units.Bytes), take func(*job) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := units.Bytes(info.Size())
	if size == 0 {
		return errors.New("the disk is empty")
	}
	if size > MaxDisk {
		return fmt.Errorf("%w: a disk of %s; the largest is %s", ErrTooLarge, size.Human(), MaxDisk.Human())
	}
	begin(size)
	g, ctx := errgroup.WithContext(ctx)
	n := workers() + 1
	free, order := make(chan *job, n), make(chan *job, n)
	for range n {
		free <- &job{raw: make([]byte, 0, PieceSize), packed: make([]byte, 0, room), done: make(chan struct{}, 1)}
	}
	g.Go(func() error {
		for j := range order {
			<-j.done
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if j.data > 0 {
				if err := take(j); err != nil {
					return err
				}
			}
			free <- j // as many as there are jobs fit in
		}
		return nil
	})
	g.Go(func() error {
		defer close(order)
		return feed(ctx, f, size, free, func(j *job) {
			order <- j // as above
			g.Go(func() error {
				defer func() { j.done <- struct{}{} }()
				if j.sum, j.data = sumOf(j.index, j.raw); j.data > 0 {
					work(j)
				}
				return nil
			})
		})
	})
	return g.Wait()
}

// feed reads the pieces that are not in holes.
func feed(ctx context.Context, f *os.File, size units.Bytes, free <-chan *job, next func(*job)) error {
	for i := 0; i < pieces(size); i++ {
		i = nextPiece(f, i)
		if i >= pieces(size) {
			return nil
		}
		var j *job
		select {
		case j = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		j.index, j.raw = i, j.raw[:length(i, size)]
		if n, err := f.ReadAt(j.raw, int64(i)*PieceSize); n < len(j.raw) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it became shorter
			}
			return fmt.Errorf("reading %s: %w", f.Name(), err)
		}
		next(j)
	}
	return nil
}

// nextPiece is the first piece from i on that is not in a hole. A file system
// that knows no holes has data everywhere.
func nextPiece(f *os.File, i int) int {
	at, err := unix.Seek(int(f.Fd()), int64(i)*PieceSize, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // only a hole is left
		return pieces(MaxDisk)
	case err != nil:
		return i
	}
	return int(at / PieceSize)
}
