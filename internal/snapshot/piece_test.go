package snapshot

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// written makes a file of these contents; with holes, blocks of zeros are left out.
func written(t testing.TB, data []byte, holes bool) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(data); off += blockSize {
		block := data[off:min(off+blockSize, len(data))]
		if holes && isZero(block) {
			continue
		}
		if _, err := f.WriteAt(block, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// patches makes contents of a size with data at some places.
func patches(size int, at ...int) []byte {
	d := make([]byte, size)
	for _, a := range at {
		copy(d[a:], "data")
	}
	return d
}

// shapes are contents whose zeros lie differently.
var shapes = map[string][]byte{
	"empty":            nil,
	"one byte":         {1},
	"zeros":            make([]byte, 3*pieceSize+5),
	"begin and end":    patches(2*pieceSize, 0, 2*pieceSize-4),
	"across pieces":    patches(3*pieceSize, pieceSize-2, 2*pieceSize-1),
	"a whole piece":    bytes.Repeat([]byte{7}, pieceSize),
	"all but a block":  append(bytes.Repeat([]byte{7}, pieceSize-blockSize), make([]byte, blockSize)...),
	"incomplete block": patches(pieceSize+100, 5, pieceSize+1),
	"incomplete zeros": patches(pieceSize+100, 5),
	"far apart":        patches(40*pieceSize, 0, 20*pieceSize+7*blockSize, 39*pieceSize),
	"checkered":        patches(pieceSize, 0, 2*blockSize, 4*blockSize, 62*blockSize),
}

func TestRuns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		p := piece{data: make([]byte, 1+rng.IntN(pieceSize))}
		want := uint64(0)
		for i := range (len(p.data) + blockSize - 1) / blockSize {
			if rng.IntN(3) > 0 {
				p.data[i*blockSize] = 1
				want |= 1 << i
			}
		}
		p.look()
		if p.mask != want {
			t.Fatalf("mask %x, want %x", p.mask, want)
		}
		total, end := 0, -1
		copied := make([]byte, len(p.data))
		_ = p.runs(func(off int, data []byte) error {
			if off <= end {
				t.Fatalf("a run at %d follows one that ends at %d", off, end)
			}
			total, end = total+len(data), off+len(data)
			copy(copied[off:], data)
			return nil
		})
		if !bytes.Equal(copied, p.data) || total != dataLen(p.mask, len(p.data)) {
			t.Fatalf("runs have %d bytes, dataLen is %d", total, dataLen(p.mask, len(p.data)))
		}
	}
	if dataLen(1<<5, 5*blockSize) != -1 || dataLen(1<<4, 4*blockSize+1) != 1 || dataLen(^uint64(0), pieceSize) != pieceSize || dataLen(0, 7) != 0 {
		t.Error("dataLen at its edges")
	}
	stop := errors.New("stop")
	p := piece{data: []byte{1}, mask: 1}
	if err := p.runs(func(int, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("runs = %v", err)
	}
}

// TestSumAndCopy holds that contents alone make a sum, and that a copy is one,
// with holes where there are zeros.
func TestSumAndCopy(t *testing.T) {
	seen := map[string]string{}
	for name, data := range shapes {
		full, holes := written(t, data, false), written(t, data, true)
		want, err := Sum(t.Context(), full)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Sum(t.Context(), holes); err != nil || got != want {
			t.Errorf("%s: with holes %v, %v; without %v", name, got, err, want)
		}
		if other, ok := seen[want.CRC32C+want.SHA256]; ok {
			t.Errorf("%s and %s have the same sum", name, other)
		}
		seen[want.CRC32C+want.SHA256] = name
		dst := written(t, nil, true)
		if err := CopySparse(t.Context(), dst, full); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dst.Name())
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the copy differs, %v", name, err)
		}
		info, err := dst.Stat()
		if err != nil || allocated(info) > want.Data+blockSize {
			t.Errorf("%s: the copy takes %d bytes for %d", name, allocated(info), want.Data)
		}
	}
}

// TestSumSeesEveryByte flips each bit of a byte in turn, in data and in a hole.
func TestSumSeesEveryByte(t *testing.T) {
	data := patches(2*pieceSize+100, 0, 5*blockSize, pieceSize+9, 2*pieceSize+50)
	f := written(t, data, true)
	before, err := Sum(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 3, blockSize, 5*blockSize + 1, pieceSize - 1, pieceSize + 9, 2*pieceSize + 50, 2*pieceSize + 99} {
		for bit := range 8 {
			if _, err := f.WriteAt([]byte{data[at] ^ 1<<bit}, at); err != nil {
				t.Fatal(err)
			}
			after, err := Sum(t.Context(), f)
			if err != nil || after.CRC32C == before.CRC32C || after.SHA256 == before.SHA256 {
				t.Errorf("bit %d of byte %d makes no difference: %v, %v", bit, at, after, err)
			}
		}
		if _, err := f.WriteAt(data[at:at+1], at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(data)) + 1); err != nil {
		t.Fatal(err)
	}
	if after, err := Sum(t.Context(), f); err != nil || after.CRC32C == before.CRC32C {
		t.Errorf("the size makes no difference: %v", err)
	}
}

// TestCopyFromMemory copies from what a guest's memory is kept in.
func TestCopyFromMemory(t *testing.T) {
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	mem := os.NewFile(uintptr(fd), "ram")
	defer func() { _ = mem.Close() }()
	guestMemory(t, mem, 16<<20, 4<<20)
	disk, back := written(t, nil, true), written(t, nil, true)
	for _, c := range [][2]*os.File{{disk, mem}, {back, disk}} {
		if err := CopySparse(t.Context(), c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
	want, err := Sum(t.Context(), mem)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{disk, back} {
		if got, err := Sum(t.Context(), f); err != nil || got != want {
			t.Errorf("the copy differs: %v", err)
		}
	}
	info, err := disk.Stat()
	if err != nil || allocated(info) > want.Data+want.Data/10 {
		t.Errorf("the copy takes %d bytes for %d", allocated(info), want.Data)
	}
}

func TestCopyAndSumFail(t *testing.T) {
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	src := written(t, patches(pieceSize, 0), false)
	if err := CopySparse(ctx, written(t, nil, true), src); !errors.Is(err, stop) {
		t.Errorf("CopySparse = %v, want the cause of the cancellation", err)
	}
	if _, err := Sum(ctx, src); !errors.Is(err, stop) {
		t.Errorf("Sum = %v, want the cause of the cancellation", err)
	}
	readOnly, err := os.Open(written(t, nil, true).Name())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = readOnly.Close() }()
	if err := CopySparse(t.Context(), readOnly, src); err == nil {
		t.Error("a copy to a file that can't be written succeeds")
	}
}
