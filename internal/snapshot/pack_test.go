package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/units"
)

// packed packs a small entry.
func packed(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := commit(t, &Store{Dir: t.TempDir()}, testKey()).Pack(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plain is a packed stream without its compression, and repack the reverse.
func plain(t testing.TB, stream []byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	data, err := io.ReadAll(dec)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func repack(t testing.TB, data []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(data, nil)
}

func TestPackAndUnpack(t *testing.T) {
	from, k := &Store{Dir: t.TempDir()}, testKey()
	e := commit(t, from, k)
	var stream bytes.Buffer
	if err := e.Pack(t.Context(), &stream); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream.Bytes()), "in halves": iotest.HalfReader(bytes.NewReader(stream.Bytes())),
		"with the end": iotest.DataErrReader(bytes.NewReader(stream.Bytes())),
	} {
		to := &Store{Dir: t.TempDir()}
		got, err := to.Unpack(t.Context(), r, Admission{Wanted: k.Usable()})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, got, files(t, k))
		if err := got.VerifyStrongly(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// What was unpacked is packed again: the same bytes, though holes lie elsewhere.
		var again bytes.Buffer
		if err := got.Pack(t.Context(), &again); err != nil || !bytes.Equal(again.Bytes(), stream.Bytes()) {
			t.Errorf("%s: packed again it differs (%d bytes, %d before), %v", name, again.Len(), stream.Len(), err)
		}
		_ = got.Close()
		if all, err := to.List(); err != nil || len(all) != 1 || all[0].Size > got.Manifest.Data()+64*units.KiB {
			t.Errorf("%s: List = %+v, %v", name, all, err)
		}
		if left := drafts(t, to); len(left) > 0 {
			t.Errorf("%s: drafts are left: %v", name, left)
		}
		if got, err = to.Open(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		_ = got.Close()
	}
	// Unpacked where it is already.
	got, err := from.Unpack(t.Context(), bytes.NewReader(stream.Bytes()), Admission{})
	if err != nil || got.Name() != e.Name() {
		t.Fatalf("unpacked twice: %v", err)
	}
	_ = got.Close()
}

// TestPackCopies holds that a block that was packed before takes next to
// nothing, also in another file, and that it is told from one with the same sum.
func TestPackCopies(t *testing.T) {
	k := testKey()
	k.Memory = 8 * units.MiB
	noise := make([]byte, 256<<10)
	for i := range noise {
		noise[i] = byte(i*i>>3 ^ i*7919>>5)
	}
	contents := files(t, k)
	ram := make([]byte, k.Memory)
	for at := 0; at < len(ram); at += 1 << 20 {
		copy(ram[at+at>>8:], noise[:100*1024])
	}
	contents[RAM], contents[Disk] = ram, overlay(k.Disks[0], noise)
	e, err := draft(t, &Store{Dir: t.TempDir()}, contents).Commit(t.Context(), testManifest(k))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	var stream bytes.Buffer
	if err := e.Pack(t.Context(), &stream); err != nil {
		t.Fatal(err)
	}
	if n := len(plain(t, stream.Bytes())); n > 500<<10 {
		t.Errorf("%d bytes before compression, of %d", n, e.Manifest.Data())
	}
	got, err := (&Store{Dir: t.TempDir()}).Unpack(t.Context(), &stream, Admission{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	same(t, got, contents)
	c := newCopies()
	p := piece{data: bytes.Repeat([]byte{1}, 2*blockSize)}
	p.look()
	f := written(t, bytes.Repeat([]byte{2}, 2*blockSize), false)
	crc := crc32.Checksum(p.data[:blockSize], castagnoli)
	c.crcs[crc%copySlots], c.files[crc%copySlots] = crc, 1 // as if the first block of f had the same sum
	if places, copied, err := c.find(&p, []*os.File{f}); len(places) > 0 || copied != 0 || err != nil {
		t.Errorf("blocks that differ are taken for copies: %v, %x, %v", places, copied, err)
	}
}

// TestManifestComesFirst holds that a reader can decide early.
func TestManifestComesFirst(t *testing.T) {
	stream := packed(t)
	m, err := ReadManifest(bytes.NewReader(stream[:2500]))
	if err != nil || m.Key.String() != testKey().String() {
		t.Fatalf("ReadManifest = %v, %v", m, err)
	}
	if _, err := ReadManifest(strings.NewReader("no zstd")); !errors.Is(err, ErrDamaged) {
		t.Errorf("ReadManifest of something else: %v", err)
	}
}

func TestAdmission(t *testing.T) {
	stream := packed(t)
	kvm, old := testKey(), testKey()
	kvm.Accel, old.QEMU = KVM, "7.2.21"
	for name, tc := range map[string]struct {
		a    Admission
		want error
	}{
		"any":         {Admission{}, nil},
		"under KVM":   {Admission{Wanted: kvm.Usable()}, nil},
		"one of two":  {Admission{Wanted: []Key{old, testKey()}}, nil},
		"other QEMU":  {Admission{Wanted: []Key{old}}, ErrIncompatible},
		"too large":   {Admission{MaxData: units.MiB}, ErrSize},
		"just enough": {Admission{MaxData: 4 * units.MiB}, nil},
	} {
		s := &Store{Dir: filepath.Join(t.TempDir(), "store")}
		e, err := s.Unpack(t.Context(), bytes.NewReader(stream), tc.a)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if err == nil {
			_ = e.Close()
		} else if _, err := os.Stat(s.Dir); err == nil {
			t.Errorf("%s: something was written", name)
		}
	}
	if err := (&Store{Dir: t.TempDir()}).reserve(units.Bytes(1) << 60); !errors.Is(err, ErrSize) {
		t.Errorf("reserve = %v", err)
	}
}

// TestUnpackDamaged cuts a stream, and flips its bits, everywhere: nothing of it
// is ever kept.
func TestUnpackDamaged(t *testing.T) {
	stream := packed(t)
	s := &Store{Dir: t.TempDir()}
	refused := func(what string, at int, data []byte) {
		t.Helper()
		e, err := s.Unpack(t.Context(), bytes.NewReader(data), Admission{})
		if err == nil {
			// A flag that changes nothing of what is unpacked is no damage.
			same(t, e, files(t, testKey()))
			_ = e.Close()
			if err := s.Remove(e.Name()); err != nil {
				t.Fatal(err)
			}
			if what == "cut" {
				t.Errorf("%s at %d passes", what, at)
			}
		} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrIncompatible) && !errors.Is(err, ErrSize) {
			t.Errorf("%s at %d: %v", what, at, err)
		}
		if left := drafts(t, s); len(left) > 0 {
			t.Fatalf("%s at %d leaves %v", what, at, left)
		}
	}
	step := len(stream)/40 + 1
	for at := 0; at < len(stream); at += step {
		refused("cut", at, stream[:at])
		changed := bytes.Clone(stream)
		changed[at] ^= 0x04
		refused("flip", at, changed)
	}
	for at := 1; at < 64; at++ {
		refused("cut", len(stream)-at, stream[:len(stream)-at])
	}
	data := plain(t, stream)
	for at := 0; at < len(data); at += len(data)/40 + 1 {
		changed := bytes.Clone(data)
		changed[at] ^= 0x04
		refused("flip inside", at, repack(t, changed))
	}
	refused("cut", len(data), repack(t, append(bytes.Clone(data), 0)))
	if all, err := s.List(); len(all) > 0 || err != nil {
		t.Errorf("an entry is left: %v, %v", all, err)
	}
}

// TestUnpackHostile has streams that are well formed and lie.
func TestUnpackHostile(t *testing.T) {
	data := plain(t, packed(t))
	start := len(packMagic) + 8 + int(binary.BigEndian.Uint32(data[len(packMagic)+4:])) // of the first piece
	piece := func(index uint32, mask, copied uint64, rest []byte) []byte {
		b := binary.BigEndian.AppendUint32(bytes.Clone(data[:start]), index)
		b = binary.BigEndian.AppendUint64(b, mask)
		return append(binary.BigEndian.AppendUint64(b, copied), rest...)
	}
	block := bytes.Repeat([]byte{1}, 64*blockSize)
	for name, tc := range map[string]struct {
		data []byte
		says string
	}{
		"a piece behind the end":        {piece(1, 1, 0, block), "piece 1 follows"},
		"a piece far behind":            {piece(endOfFile-1, 1, 0, block), "follows piece -1"},
		"blocks behind the end":         {piece(0, 1<<5, 0, block), "holds more"},
		"a piece of nothing":            {piece(0, 0, 0, block), "or nothing"},
		"a block of zeros":              {piece(0, 1, 0, make([]byte, blockSize)), "a block of zeros"},
		"a copy of what is not there":   {piece(0, 1, 2, block), "holds more"},
		"a copy of itself":              {piece(0, 1, 1, []byte{0, 0, 0, 0, 0}), "does not precede"},
		"a copy from a later file":      {piece(0, 1, 1, []byte{1, 0, 0, 0, 0}), "does not precede"},
		"a copy from no file":           {piece(0, 1, 1, []byte{255, 0, 0, 0, 0}), "does not precede"},
		"an end in place of a file":     {binary.BigEndian.AppendUint32(bytes.Clone(data[:start]), endOfFile), "are not those that were packed"},
		"a cut place":                   {piece(0, 1, 1, []byte{0, 0}), "ends too early"},
		"another magic":                 {append([]byte("hurdsnaq"), data[8:]...), "no packed saved machine"},
		"another version":               {append(append([]byte(packMagic), 0, 0, 0, 9), data[12:]...), "format"},
		"a huge manifest":               {append(append([]byte(packMagic), 0, 0, 0, Format), 255, 255, 255, 255), "its manifest has"},
		"only zeros":                    {make([]byte, 32<<20), "no packed saved machine"},
		"a piece again and again (big)": {piece(0, 1, 0, append(block[:blockSize:blockSize], piece(0, 1, 0, block)[start:]...)), "piece 0 follows piece 0"},
	} {
		s := &Store{Dir: t.TempDir()}
		_, err := s.Unpack(t.Context(), bytes.NewReader(repack(t, tc.data)), Admission{})
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
		if left := drafts(t, s); len(left) > 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
}

// TestUnpackStops holds that a failed transfer is not taken for damage, and
// that the end of a context is the end.
func TestUnpackStops(t *testing.T) {
	stream := packed(t)
	lost := errors.New("connection reset")
	s := &Store{Dir: t.TempDir()}
	for _, at := range []int{0, 100, len(stream) / 2, len(stream)} {
		_, err := s.Unpack(t.Context(), io.MultiReader(bytes.NewReader(stream[:at]), iotest.ErrReader(lost)), Admission{})
		if !errors.Is(err, lost) || errors.Is(err, ErrDamaged) {
			t.Errorf("lost at %d: %v", at, err)
		}
	}
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), readerFunc(func([]byte) (int, error) {
		cancel(stop)
		return 0, nil
	}), bytes.NewReader(stream[len(stream)/2:]))
	if _, err := s.Unpack(ctx, r, Admission{}); !errors.Is(err, stop) || errors.Is(err, ErrDamaged) {
		t.Errorf("canceled: %v", err)
	}
	if left := drafts(t, s); len(left) > 0 {
		t.Errorf("drafts are left: %v", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPackFails(t *testing.T) {
	e := commit(t, &Store{Dir: t.TempDir()}, testKey())
	full := errors.New("quota exceeded")
	for _, after := range []int{0, 1} {
		if err := e.Pack(t.Context(), &failing{after, full}); !errors.Is(err, full) {
			t.Errorf("a writer that fails after %d: %v", after, err)
		}
	}
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if err := e.Pack(ctx, io.Discard); !errors.Is(err, stop) {
		t.Errorf("canceled: %v", err)
	}
	damage(t, e.Path(Disk), 70000)
	if err := e.Pack(t.Context(), io.Discard); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged entry is packed: %v", err)
	}
	if err := os.Remove(e.Path(RAM)); err != nil {
		t.Fatal(err)
	}
	if err := e.Pack(t.Context(), io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an entry is packed: %v", err)
	}
}

type failing struct {
	after int
	err   error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func TestExport(t *testing.T) {
	e := commit(t, &Store{Dir: t.TempDir()}, testKey())
	path := filepath.Join(t.TempDir(), "machine"+Extension)
	if err := e.Export(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it has a key in it and is %v, %v", info.Mode(), err)
	}
	got, err := (&Store{Dir: t.TempDir()}).Unpack(t.Context(), f, Admission{})
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	damage(t, e.Path(State), 0)
	other := filepath.Join(filepath.Dir(path), "other"+Extension)
	if err := e.Export(t.Context(), other); !errors.Is(err, ErrDamaged) {
		t.Errorf("Export = %v", err)
	}
	if found, err := os.ReadDir(filepath.Dir(path)); len(found) != 1 || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	if err := e.Export(t.Context(), filepath.Join(path, "x")); err == nil {
		t.Error("Export below a file succeeds")
	}
}
