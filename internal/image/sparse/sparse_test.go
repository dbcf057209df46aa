package sparse

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

func create(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func content(t testing.TB, f *os.File) []byte {
	t.Helper()
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func space(t testing.TB, f *os.File) units.Bytes {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Allocated(info)
}

// patches makes contents of a size with data at some places.
func patches(size int, at ...int) []byte {
	d := make([]byte, size)
	for _, a := range at {
		copy(d[a:], "data")
	}
	return d
}

func TestWriter(t *testing.T) {
	const b = BlockSize
	for name, tc := range map[string]struct {
		data []byte
		kept units.Bytes
	}{
		"empty":                {nil, 0},
		"only a hole":          {make([]byte, 100*b), 0},
		"data":                 {patches(b, 0), b},
		"hole at the end":      {patches(100*b, 0), b},
		"hole at the start":    {patches(100*b, 99*b), b},
		"data across a block":  {patches(100*b, 50*b-2), 2 * b},
		"incomplete block":     {patches(10*b+100, 10*b), 100},
		"incomplete, zero":     {patches(10*b+100, 0), b},
		"neighbours and apart": {patches(100*b, b, 2*b, 3*b, 7*b), 4 * b},
	} {
		for _, chunk := range []int{1, 1000, b, 3*b + 7, 1 << 20} {
			if chunk == 1 && len(tc.data) > 20*b {
				continue
			}
			f, sum := create(t), NewDigest()
			w := NewWriter(f, sum)
			for rest := tc.data; len(rest) > 0; {
				n := min(chunk, len(rest))
				if m, err := w.Write(rest[:n]); m != n || err != nil {
					t.Fatalf("%s: Write = %d, %v", name, m, err)
				}
				rest = rest[n:]
			}
			if w.Size() != units.Bytes(len(tc.data)) {
				t.Errorf("%s in %d: size %d before Close", name, chunk, w.Size())
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content(t, f), tc.data) {
				t.Errorf("%s in %d: contents differ", name, chunk)
			}
			if w.Data() != tc.kept {
				t.Errorf("%s in %d: %d bytes of data, want %d", name, chunk, w.Data(), tc.kept)
			}
			if space(t, f) > tc.kept+BlockSize {
				t.Errorf("%s in %d: takes %s", name, chunk, space(t, f))
			}
			if again, err := Sum(t.Context(), f); err != nil || again != sum.Sum(w.Size()) {
				t.Errorf("%s in %d: the digest of the file differs from the writer's: %v", name, chunk, err)
			}
		}
	}
}

func TestWriterFails(t *testing.T) {
	f := create(t)
	w := NewWriter(f, nil)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(patches(BlockSize, 0)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write to a closed file: %v", err)
	}
}

// TestDigestDiffers holds that a block's place, the size and the contents count.
func TestDigestDiffers(t *testing.T) {
	const b = BlockSize
	seen := map[string]int{}
	for i, d := range [][]byte{
		patches(10*b, 0), patches(10*b, b), patches(11*b, 0), patches(10*b, 1), make([]byte, 10*b), make([]byte, 11*b), nil,
	} {
		f := create(t)
		if _, err := f.Write(d); err != nil {
			t.Fatal(err)
		}
		sum, err := Sum(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if j, ok := seen[sum]; ok {
			t.Errorf("contents %d and %d have the same digest", i, j)
		}
		seen[sum] = i
	}
}

func TestCopy(t *testing.T) {
	const b = BlockSize
	for name, tc := range map[string]struct {
		data  []byte
		holes bool // whether the source is made with holes
	}{
		"sparse":     {patches(1000*b, 0, 500*b, 999*b), true},
		"full":       {patches(1000*b, 0, 500*b, 999*b), false},
		"all zeros":  {make([]byte, 1000*b), false},
		"all hole":   {make([]byte, 1000*b+5), true},
		"odd size":   {patches(300*b+77, 3, 300*b+1), true},
		"empty":      {nil, true},
		"two chunks": {patches(bufferSize+3*b, 0, bufferSize, bufferSize+2*b), false},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := create(t), create(t)
			if tc.holes {
				w := NewWriter(src, nil)
				if _, err := w.Write(tc.data); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			} else if _, err := src.Write(tc.data); err != nil {
				t.Fatal(err)
			}
			if err := Copy(t.Context(), dst, src); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content(t, dst), tc.data) {
				t.Error("contents differ")
			}
			if got := space(t, dst); got > 5*b {
				t.Errorf("the copy takes %s", got)
			}
		})
	}
}

func TestCopyCanceled(t *testing.T) {
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	src := create(t)
	if _, err := src.Write(patches(BlockSize, 0)); err != nil {
		t.Fatal(err)
	}
	if err := Copy(ctx, create(t), src); !errors.Is(err, stop) {
		t.Errorf("Copy = %v, want the cause of the cancellation", err)
	}
	if _, err := Sum(ctx, src); !errors.Is(err, stop) {
		t.Errorf("Sum = %v, want the cause of the cancellation", err)
	}
}

// FuzzWriter holds that contents written in any pieces, skips among them, are
// read back, and that the digest depends on the contents alone.
func FuzzWriter(f *testing.F) {
	f.Add(uint64(1), 5)
	f.Add(uint64(7), 40)
	f.Fuzz(func(t *testing.T, seed uint64, pieces int) {
		r := rand.New(rand.NewPCG(seed, 0))
		file, sum := create(t), NewDigest()
		w := NewWriter(file, sum)
		var want []byte
		for range min(pieces, 64) {
			n := r.IntN(3 * BlockSize)
			piece := make([]byte, n)
			switch r.IntN(3) {
			case 0:
				if err := w.Skip(int64(n)); err != nil {
					t.Fatal(err)
				}
			case 1:
				for i := range piece {
					piece[i] = byte(r.Uint32())
				}
				fallthrough
			default:
				if _, err := w.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			want = append(want, piece...)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, file), want) {
			t.Fatal("contents differ")
		}
		plain := create(t)
		if _, err := plain.Write(want); err != nil {
			t.Fatal(err)
		}
		again, err := Sum(t.Context(), plain)
		if err != nil || again != sum.Sum(w.Size()) {
			t.Fatalf("the digests differ: %v", err)
		}
	})
}
