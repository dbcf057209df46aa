package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/units"
)

// tiny is a packed stream of a few blocks, so that a fuzzer tries many.
func tiny(t testing.TB) []byte {
	t.Helper()
	k := testKey()
	k.Memory = 40 * units.KiB
	contents := map[string][]byte{
		State: []byte("state"), RAM: patches(int(k.Memory), 0, 4096, 8192, 39<<10),
		Disk: overlay(k.Disks[0], patches(300<<10, 0, 8192, 290<<10)),
	}
	e, err := draft(t, &Store{Dir: t.TempDir()}, contents).Commit(t.Context(), testManifest(k))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	var b bytes.Buffer
	if err := e.Pack(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fuzzLimit is what a fuzzed entry may hold.
const fuzzLimit = 8 * units.MiB

// FuzzUnpack holds that a stream, whatever is in it, is refused or unpacked to
// an entry that has the contents of its manifest, takes no more than admitted,
// and leaves nothing else behind. What is fuzzed is compressed first.
func FuzzUnpack(f *testing.F) {
	data := plain(f, tiny(f))
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(packMagic))
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryUnpack(t, enc.EncodeAll(data, nil)) })
}

// FuzzUnpackRaw is FuzzUnpack for what need not be a zstd stream.
func FuzzUnpackRaw(f *testing.F) {
	stream := tiny(f)
	f.Add(stream)
	f.Add(stream[:100])
	f.Fuzz(tryUnpack)
}

func tryUnpack(t *testing.T, stream []byte) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "store")}
	e, err := s.Unpack(t.Context(), bytes.NewReader(stream), Admission{MaxData: fuzzLimit})
	if left := drafts(t, s); len(left) > 0 {
		t.Fatalf("drafts are left: %v", left)
	}
	all, listErr := s.List()
	if listErr != nil {
		t.Fatal(listErr)
	}
	if err != nil {
		if len(all) > 0 {
			t.Fatalf("refused (%v) and kept: %v", err, all)
		}
		return
	}
	if err := errors.Join(e.VerifyStrongly(t.Context()), e.Close()); err != nil {
		t.Fatalf("unpacked: %v", err)
	}
	if len(all) != 1 || all[0].Size > fuzzLimit+64*units.KiB {
		t.Fatalf("List = %+v", all)
	}
	if beside, err := os.ReadDir(filepath.Dir(s.Dir)); err != nil || len(beside) != 1 {
		t.Fatalf("beside the store: %v, %v", beside, err)
	}
}

// FuzzPieces holds that pieces that are accepted give a file whose sum is that
// of the pieces, and that has no more data than was announced: so that what is
// unpacked is what is verified later.
func FuzzPieces(f *testing.F) {
	stream := plain(f, tiny(f))
	f.Add(stream[bytes.IndexByte(stream, '\n'):], int64(40<<10), 40<<10)
	packed := func(mask, copied byte, rest ...byte) []byte {
		return append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, mask, 0, 0, 0, 0, 0, 0, 0, copied}, rest...)
	}
	end := []byte{255, 255, 255, 255}
	block := bytes.Repeat([]byte{1}, blockSize)
	f.Add(append(packed(1, 0, block...), end...), int64(blockSize), blockSize)
	f.Add(append(packed(1, 0, 7), end...), int64(1), 1)
	f.Add(append(packed(3, 2, append([]byte{0, 0, 0, 0, 1}, block...)...), end...), int64(2*blockSize), 2*blockSize)
	before := written(f, patches(3*blockSize, 0, blockSize), false)
	f.Fuzz(func(t *testing.T, data []byte, size int64, announced int) {
		if size <= 0 || size > 4*pieceSize || announced < 0 || int64(announced) > size {
			return // ParseManifest refuses it, but for the first limit
		}
		file := written(t, nil, true)
		if err := file.Truncate(size); err != nil {
			t.Fatal(err)
		}
		u := unpacker{r: bytes.NewReader(data), files: []*os.File{before, file}, size: size, left: announced, last: -1}
		free, full := make(chan *piece, 8), make(chan *piece, 8)
		for range 8 { // as many as there are pieces, and more
			free <- &piece{data: bytes.Repeat([]byte{0xee}, pieceSize)}
		}
		if u.pieces(t.Context(), free, full) != nil {
			return
		}
		close(full)
		var sums []pieceSums
		for p := range full {
			sums = append(sums, sumPiece(p, true))
		}
		want := sumFile(size, sums)
		got, err := Sum(t.Context(), file)
		if err != nil || got != want || got.Data > units.Bytes(announced) {
			t.Fatalf("the file has %+v, the pieces %+v, announced are %d, %v", got, want, announced, err)
		}
	})
}
