package snapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Sums identify the contents of a file, wherever its holes are: sums over each
// piece that is not all zeros (its index as 4 bytes, the mask of its blocks as
// 8, both big-endian, and the blocks), then SHA-256 over the file's size (8
// bytes) and these sums, in the order of the pieces.
//
// SHA-256 holds against people and is compared when an entry comes from
// elsewhere. CRC-32C is compared each time that an entry is used: it is several
// times as fast, as processors have instructions for it, and a piece with one
// changed byte never has the sum of the other.
type Sums struct {
	Data   units.Bytes // in blocks that are not all zeros
	SHA256 string      // in hexadecimal
	CRC32C string      // in hexadecimal; SHA-256 over the pieces' CRC-32C, cut to crcSize bytes
}

// crcSize is the length of Sums.CRC32C in bytes.
const crcSize = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pieceSums are those of one piece.
type pieceSums struct {
	index  int64
	length int
	crc    uint32
	sha    [sha256.Size]byte
}

// sumPiece sums one piece, and leaves SHA-256 out when only the other is wanted.
func sumPiece(p *piece, both bool) pieceSums {
	s := pieceSums{index: p.index}
	head := p.head()
	s.crc = crc32.Update(0, castagnoli, head[:])
	h := sha256.New()
	if both {
		h.Write(head[:])
	}
	_ = p.runs(func(_ int, data []byte) error { // only what is passed fails
		s.length += len(data)
		s.crc = crc32.Update(s.crc, castagnoli, data)
		if both {
			h.Write(data)
		}
		return nil
	})
	if both {
		h.Sum(s.sha[:0])
	}
	return s
}

// sumFile is the sum of a file of a size with these pieces.
func sumFile(size int64, pieces []pieceSums) Sums {
	slices.SortFunc(pieces, func(a, b pieceSums) int { return cmp.Compare(a.index, b.index) })
	var s Sums
	strong, quick := sha256.New(), sha256.New()
	var word [8]byte
	binary.BigEndian.PutUint64(word[:], uint64(size)) // a size is not negative
	strong.Write(word[:])
	quick.Write(word[:])
	for _, p := range pieces {
		s.Data += units.Bytes(p.length)
		strong.Write(p.sha[:])
		binary.BigEndian.PutUint32(word[:4], p.crc)
		quick.Write(word[:4])
	}
	s.SHA256 = hex.EncodeToString(strong.Sum(nil))
	s.CRC32C = hex.EncodeToString(quick.Sum(nil)[:crcSize])
	return s
}

// Sum computes both sums of a file. It moves the file's offset.
func Sum(ctx context.Context, f *os.File) (Sums, error) { return sum(ctx, f, true) }

func sum(ctx context.Context, f *os.File, both bool) (Sums, error) {
	info, err := f.Stat()
	if err != nil {
		return Sums{}, err
	}
	var mu sync.Mutex
	var all []pieceSums
	err = eachPiece(ctx, f, info.Size(), func(p *piece) error {
		s := sumPiece(p, both)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, s)
		return nil
	})
	if err != nil {
		return Sums{}, fmt.Errorf("summing: %w", err)
	}
	s := sumFile(info.Size(), all)
	if !both {
		s.SHA256 = ""
	}
	return s, nil
}

// maxWorkers is how many goroutines read, sum or compress at once, at most:
// memory is busy then, and each of them has buffers of its own.
const maxWorkers = 4

func workers() int { return min(maxWorkers, runtime.GOMAXPROCS(0)) }

// eachPiece is readPieces by several goroutines, in any order.
func eachPiece(ctx context.Context, f *os.File, size int64, do func(*piece) error) error {
	s := scanner{f: f, size: size}
	var mu sync.Mutex
	next := func() (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return s.next()
	}
	g, ctx := errgroup.WithContext(ctx)
	for range workers() {
		g.Go(func() error { return pieceLoop(ctx, f, size, next, do) })
	}
	return g.Wait()
}

// pieceLoop reads the pieces that next names, and calls do for those that hold
// something. The piece is do's only until it returns.
func pieceLoop(ctx context.Context, f *os.File, size int64, next func() (int64, error), do func(*piece) error) error {
	p := piece{data: make([]byte, 0, pieceSize)}
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		index, err := next()
		if err != nil || index < 0 {
			return err
		}
		if err := p.read(f, index, size); err != nil {
			return err
		}
		if p.mask == 0 {
			continue
		}
		if err := do(&p); err != nil {
			return err
		}
	}
}
