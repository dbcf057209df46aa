package packed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/units"
)

// noise is bytes that do not compress.
func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p) // never fails
	return p
}

// disk writes a file of a size with some parts.
func disk(t testing.TB, size int64, parts map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, p := range parts {
		if _, err := f.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// example is a disk with all that may be in one: a piece with noise, text across
// two pieces, written zeros, holes, and an incomplete last block.
func example(t testing.TB) *os.File {
	return disk(t, 6*PieceSize+5000, map[int64][]byte{
		0:                   noise(PieceSize / 8),
		2*PieceSize - 100:   bytes.Repeat([]byte("text "), 1000),
		4 * PieceSize:       make([]byte, PieceSize),
		6*PieceSize + 4999:  {1},
		5*PieceSize + 12288: {2},
	})
}

// packOf packs a disk and returns the file's contents.
func packOf(t testing.TB, src *os.File, note string) ([]byte, Packing) {
	t.Helper()
	dst := disk(t, 0, nil)
	p, err := Pack(context.Background(), dst, src, []byte(note), 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(dst.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data, p
}

// index reads the index as a reader of a part of the file does.
func index(data []byte) (*Index, error) {
	n, err := HeadSize(data[:min(len(data), 100)])
	if err != nil {
		return nil, err
	}
	return ParseIndex(data[:min(n, int64(len(data)))])
}

func TestPack(t *testing.T) {
	src := example(t)
	data, p := packOf(t, src, "the note")
	x, err := index(data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src.Name())
	if err != nil {
		t.Fatal(err)
	}
	if string(x.Note) != "the note" || int(x.Size) != len(want) || x.FileSize() != int64(len(data)) || p.Size != units.Bytes(len(data)) || x.Pieces() != 7 {
		t.Errorf("note %q, disk of %d, file of %d (it has %d), %d pieces", x.Note, x.Size, x.FileSize(), len(data), x.Pieces())
	}
	if want := units.Bytes(PieceSize/8 + 3*4096 + 4096 + 5000 - 4096); p.Data != want {
		t.Errorf("%d bytes of data, want %d", p.Data, want)
	}
	digest, err := DigestOf(t.Context(), src)
	if err != nil || digest != x.Digest() || digest != p.Digest {
		t.Errorf("digests %s, %s, %s, %v", digest, x.Digest(), p.Digest, err)
	}
	got := make([]byte, len(want))
	for i := range x.Pieces() {
		if x.Zero(i) != (i == 3 || i == 4) {
			t.Errorf("piece %d: all zeros is %t", i, x.Zero(i))
		}
		if x.Zero(i) {
			continue
		}
		at, n := x.Packed(i, i+1)
		raw, err := x.Unpack(i, data[at:at+n], nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = Runs(raw, func(off int, run []byte) error {
			copy(got[i*PieceSize+off:], run)
			return nil
		})
	}
	if !bytes.Equal(got, want) {
		t.Error("what was unpacked is not what was packed")
	}
	// The frames are an ordinary zstd stream.
	d, err := zstd.NewReader(bytes.NewReader(data[headSize(8, x.Size):]))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if n, err := io.Copy(io.Discard, d); err != nil || n != 4*PieceSize+5000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestDigest holds that the digest is that of the contents, not of the holes,
// and changes with every byte and with the size.
func TestDigest(t *testing.T) {
	of := func(size int64, parts map[int64][]byte) string {
		t.Helper()
		d, err := DigestOf(t.Context(), disk(t, size, parts))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := of(3*PieceSize, map[int64][]byte{PieceSize: {7}})
	if again := of(3*PieceSize, map[int64][]byte{0: make([]byte, PieceSize), PieceSize: {7}}); again != one {
		t.Error("zeros that are written count")
	}
	for name, other := range map[string]string{
		"another place in the block": of(3*PieceSize, map[int64][]byte{PieceSize + 1: {7}}),
		"another block":              of(3*PieceSize, map[int64][]byte{PieceSize + 4096: {7}}),
		"another piece":              of(3*PieceSize, map[int64][]byte{2 * PieceSize: {7}}),
		"another byte":               of(3*PieceSize, map[int64][]byte{PieceSize: {8}}),
		"another size":               of(3*PieceSize-1, map[int64][]byte{PieceSize: {7}}),
	} {
		if other == one {
			t.Errorf("%s has the same digest", name)
		}
	}
}

// TestDamage changes every byte of the head, and some of the pieces.
func TestDamage(t *testing.T) {
	data, _ := packOf(t, example(t), "note")
	x, err := index(data)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := x.Packed(0, 0)
	for i := range head {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, err := index(bad); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d of the head was changed: %v", i, err)
		}
	}
	if _, err := ParseIndex(data[:head-1]); !errors.Is(err, ErrDamaged) {
		t.Errorf("a cut head: %v", err)
	}
	for i := range x.Pieces() {
		at, n := x.Packed(i, i+1)
		if n == 0 {
			continue
		}
		right, err := x.Unpack(i, data[at:at+n], nil)
		if err != nil {
			t.Fatal(err)
		}
		for k := range n {
			bad := bytes.Clone(data[at : at+n])
			bad[k] ^= 1
			// Some bits of a frame mean nothing.
			if raw, err := x.Unpack(i, bad, nil); !errors.Is(err, ErrDamaged) && !bytes.Equal(raw, right) {
				t.Fatalf("byte %d of piece %d was changed: %v", k, i, err)
			}
			if k > 50 {
				break
			}
		}
		if _, err := x.Unpack(i, data[at:at+n-1], nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("piece %d was cut: %v", i, err)
		}
		if _, err := x.Unpack(i, append(bytes.Clone(data[at:at+n]), 0), nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("piece %d is too long: %v", i, err)
		}
	}
	// A frame that is sound, and holds something else.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	other := enc.EncodeAll(noise(x.Length(0)), nil) // to its end
	x.entries[0].length = uint32(len(other))
	if _, err := x.Unpack(0, other, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "sum") {
		t.Errorf("another piece: %v", err)
	}
}

// TestBomb holds that a piece that would unpack to more than a piece is refused
// without being unpacked.
func TestBomb(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 1<<30), nil)
	x := &Index{Size: PieceSize, entries: []entry{{length: uint32(len(bomb)), sum: sum{1}}}}
	buffer := make([]byte, 0, PieceSize)
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := x.Unpack(0, bomb, buffer); !errors.Is(err, ErrDamaged) {
			t.Errorf("unpacking a bomb: %v", err)
		}
	})
	if allocated > 1000 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestLimits(t *testing.T) {
	dst := disk(t, 0, nil)
	if _, err := Pack(t.Context(), dst, example(t), nil, 1000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a limit of 1000 bytes: %v", err)
	}
	if _, err := Pack(t.Context(), dst, disk(t, int64(MaxDisk)+1, nil), nil, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a disk that is too large: %v", err)
	}
	if _, err := Pack(t.Context(), dst, disk(t, 0, nil), nil, 0); err == nil {
		t.Error("an empty disk was packed")
	}
	if _, err := Pack(t.Context(), dst, example(t), make([]byte, maxNote+1), 0); err == nil {
		t.Error("a long note was packed")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := Pack(ctx, dst, example(t), nil, 0); !errors.Is(err, why) {
		t.Errorf("canceled: %v", err)
	}
	closed := example(t)
	_ = closed.Close()
	if _, err := DigestOf(t.Context(), closed); err == nil {
		t.Error("a closed file has a digest")
	}
}

// FuzzIndex holds that whatever head is taken is a consistent one, which comes
// out as it went in, and that no piece of it is anything but right or refused.
func FuzzIndex(f *testing.F) {
	data, _ := packOf(f, example(f), "note")
	n, err := HeadSize(data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:n-sha256.Size], data[n:n+1000])
	small, _ := packOf(f, disk(f, 5000, map[int64][]byte{4096: {1}}), "")
	f.Add(small[:len(small)-50], small[len(small)-20:])
	f.Add([]byte(magic), []byte{})
	f.Fuzz(func(t *testing.T, body, piece []byte) {
		if len(body) > 1<<20 {
			return
		}
		all := sha256.Sum256(body) // else the fuzzer would only look for one
		head := append(bytes.Clone(body), all[:]...)
		x, err := ParseIndex(head)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		if !bytes.Equal(x.encode(), head) {
			t.Error("it does not come out as it went in")
		}
		at := int64(len(head))
		total := units.Bytes(0)
		for i := range x.Pieces() {
			off, n := x.Packed(i, i+1)
			if off != at || n < 0 || n > maxPacked || (n == 0) != x.Zero(i) || x.Length(i) <= 0 || x.Length(i) > PieceSize {
				t.Errorf("piece %d at %d, %d bytes, of %d", i, off, n, x.Length(i))
			}
			at += n
			total += units.Bytes(x.Length(i))
		}
		if at != x.FileSize() || total != x.Size || len(x.Digest()) != 64 {
			t.Errorf("the file has %d bytes, the pieces end at %d; the disk has %d, they %d", x.FileSize(), at, x.Size, total)
		}
		if binary.BigEndian.Uint32(head[8:]) != Format {
			t.Error("another version was taken")
		}
		if raw, err := x.Unpack(0, piece, nil); err == nil {
			if s, _ := sumOf(0, raw); s != x.entries[0].sum {
				t.Error("a wrong piece was taken")
			}
		}
	})
}
