package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/hurd-qemu-action/internal/image/packed"
	"github.com/org/hurd-qemu-action/internal/units"
)

// elsewhere is a packed disk that is read by parts.
type elsewhere struct {
	data  []byte
	reads atomic.Int64
	bytes atomic.Int64
	fault func(p []byte, offset int64) error // nil: none
}

func (e *elsewhere) Size() int64 { return int64(len(e.data)) }

func (e *elsewhere) ReadAt(ctx context.Context, p []byte, offset int64) error {
	e.reads.Add(1)
	e.bytes.Add(int64(len(p)))
	copy(p, e.data[offset:])
	if e.fault != nil {
		if err := e.fault(p, offset); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// manyPieces has 24 pieces: every third one is a hole, and the rest does not compress.
func manyPieces() []byte {
	raw := make([]byte, 24*packed.PieceSize+1536)
	r := rand.NewChaCha8([32]byte{5})
	for i := range 24 {
		if i%3 != 1 {
			_, _ = r.Read(raw[i*packed.PieceSize : (i+1)*packed.PieceSize-4096]) // never fails
		}
	}
	raw[len(raw)-1] = 1
	return raw
}

// packedDisk prepares a disk, packs it, and tells by what it is known.
func packedDisk(t *testing.T, raw []byte) (Identity, *elsewhere) {
	t.Helper()
	s := newStore(t)
	s.Embedded = embedded(raw)
	p := mustPrepare(t, s, mustObtain(t, s, "selftest", Want{}), "key", func(context.Context, string) ([]byte, error) { return []byte("manifest"), nil })
	path := filepath.Join(t.TempDir(), "packed")
	size, err := s.Pack(t.Context(), p, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || int(size) != len(data) {
		t.Fatalf("%d bytes, it says %d, %v", len(data), size, err)
	}
	digest, err := DigestOf(t.Context(), p.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pack(t.Context(), p, path+"2", 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a limit of 100 bytes: %v", err)
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a part of a packed disk is left")
	}
	t.Logf("%d bytes packed, digest %s", size, digest)
	return Identity{Origin: "somewhere", expect: expectation{sums: sums{sha256: strings.TrimPrefix(p.Digest, "sha256:")}, how: Given}}, &elsewhere{data: data}
}

func open(t *testing.T, s *Store, id Identity, e *elsewhere) *OnDemand {
	t.Helper()
	d, err := s.OpenOnDemand(t.Context(), id, "key", filepath.Join(t.TempDir(), "link"), e.data[:min(len(e.data), 1000)], e)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// bare holds that nothing of a disk is in a store.
func bare(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"tmp", preparedDir} {
		if left := s.entries(dir); len(left) > 0 {
			t.Errorf("in %s: %v", dir, left)
		}
	}
}

func TestOnDemand(t *testing.T) {
	raw := manyPieces()
	id, e := packedDisk(t, raw)
	s := newStore(t)
	d := open(t, s, id, e)
	if string(d.Manifest) != "manifest" || d.Size() != int64(len(raw)) || int(d.VirtualSize) != len(raw) || d.Origin != "somewhere" || d.Verified.How != Given || d.Digest() == "" {
		t.Errorf("%+v", d.Prepared)
	}
	info, err := os.Stat(d.Path)
	if err != nil || info.Size() != int64(len(raw)) {
		t.Errorf("the file: %v, %v", info, err)
	}
	before := e.bytes.Load()
	read := func(offset, n int) {
		t.Helper()
		p := bytes.Repeat([]byte{0xee}, n)
		if err := d.ReadAt(t.Context(), p, int64(offset)); err != nil || !bytes.Equal(p, raw[offset:offset+n]) {
			t.Errorf("%d bytes at %d: %v", n, offset, err)
		}
	}
	read(packed.PieceSize+5, 100) // a hole
	if e.bytes.Load() != before {
		t.Error("something was fetched for a hole")
	}
	read(2*packed.PieceSize-10, 20)
	read(0, 3*packed.PieceSize)
	read(len(raw)-3, 3)
	if got := e.bytes.Load() - before; got > 7*packed.PieceSize {
		t.Errorf("%d bytes were fetched for 3 pieces", got)
	}
	have, all := d.Received()
	if have != units.Bytes(e.bytes.Load()+1000) || int(all) != len(e.data) {
		t.Errorf("received %d of %d", have, all)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	bare(t, s)
}

// TestOnDemandSize holds that a disk that is not whole sectors is served as if it were.
func TestOnDemandSize(t *testing.T) {
	raw := append(make([]byte, 1<<20), "the end"...)
	id, e := packedDisk(t, raw)
	d := open(t, newStore(t), id, e)
	p := bytes.Repeat([]byte{0xee}, 512)
	if err := d.ReadAt(t.Context(), p, 1<<20); err != nil || !bytes.Equal(p, append([]byte("the end"), make([]byte, 505)...)) || d.Size() != 1<<20+512 {
		t.Errorf("a disk of %d ends with %q, %v", d.Size(), p, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestFill completes a disk while others read it: each piece is fetched once,
// and the store has an entry like one that was prepared here.
func TestFill(t *testing.T) {
	raw := manyPieces()
	id, e := packedDisk(t, raw)
	s := newStore(t)
	if _, ok := s.FindPrepared(t.Context(), id, "key"); ok || s.Has(t.Context(), id) {
		t.Error("an empty store has it")
	}
	d := open(t, s, id, e)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := make([]byte, 10000)
			for n := range 40 {
				off := (i*7919 + n*611953) % (len(raw) - len(p))
				if err := d.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, raw[off:off+len(p)]) {
					t.Errorf("reading at %d: %v", off, err)
				}
			}
		})
	}
	if err := d.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if have, all := d.Received(); have != all {
		t.Errorf("received %d of %d bytes", have, all)
	}
	path, err := filepath.EvalSymlinks(d.Path)
	if err != nil || !strings.HasPrefix(path, filepath.Join(s.Dir, preparedDir)) {
		t.Errorf("the link leads to %s, %v", path, err)
	}
	entries, err := s.List()
	if err != nil || len(entries) != 1 || entries[0].Type != EntryPrepared || !entries[0].InUse || entries[0].Digest != id.String() {
		t.Errorf("in the store: %+v, %v", entries, err)
	}
	second := open(t, s, id, e) // another run, which is later
	if err := second.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*OnDemand{d, second} {
		got := make([]byte, len(raw))
		if err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("the disk is another one: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := s.entries("tmp"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	p, ok := s.FindPrepared(t.Context(), id, "key")
	if !ok || string(p.Manifest) != "manifest" || !p.Reused {
		t.Fatalf("found %+v", p)
	}
	defer func() { _ = p.Close() }()
	if got, err := os.ReadFile(p.Path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the entry is another disk: %v", err)
	}
	if _, ok := s.FindPrepared(t.Context(), id, "other"); ok {
		t.Error("found under another key")
	}
	id.expect.sha256 = strings.Repeat("0", 64)
	if _, ok := s.FindPrepared(t.Context(), id, "key"); ok {
		t.Error("found for another image")
	}
}

// TestDamagedPiece holds that a wrong piece is fetched again, and never given
// out; what is right beside it is.
func TestDamagedPiece(t *testing.T) {
	raw := manyPieces()
	id, e := packedDisk(t, raw)
	s := newStore(t)
	d := open(t, s, id, e)
	bad := 1
	e.fault = func(p []byte, _ int64) error {
		if bad > 0 {
			p[len(p)-100] ^= 1
			bad--
		}
		return nil
	}
	p := make([]byte, 10)
	if err := d.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, raw[:10]) || bad != 0 {
		t.Errorf("a piece that was wrong once: %v", err)
	}
	bad = 2
	if err := d.ReadAt(t.Context(), p, 5*packed.PieceSize); !errors.Is(err, ErrPacked) || !bytes.Equal(p, raw[:10]) {
		t.Errorf("a wrong piece: %v", err)
	}
	if err := d.Fill(t.Context()); err != nil { // it is right by now
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestRemoteGone holds that a disk that can't be completed leaves nothing.
func TestRemoteGone(t *testing.T) {
	id, e := packedDisk(t, manyPieces())
	s := newStore(t)
	d := open(t, s, id, e)
	gone := errors.New("gone")
	var left atomic.Int64
	left.Store(2)
	e.fault = func([]byte, int64) error {
		if left.Add(-1) < 0 {
			return gone
		}
		return nil
	}
	if err := d.Fill(t.Context()); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	e.fault = func([]byte, int64) error {
		cancel(enough)
		return nil
	}
	if err := d.Fill(ctx); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	bare(t, s)
}

// TestWaiting holds that who waits for a piece that another one fetches is not
// bound to how that ends.
func TestWaiting(t *testing.T) {
	raw := manyPieces()
	id, e := packedDisk(t, raw)
	d := open(t, newStore(t), id, e)
	defer func() { _ = d.Close() }()
	begun, goOn := make(chan struct{}, 1), make(chan struct{})
	var first atomic.Bool
	e.fault = func([]byte, int64) error {
		if first.CompareAndSwap(false, true) {
			begun <- struct{}{}
			<-goOn
			return errors.New("the first one fails")
		}
		return nil
	}
	failed := make(chan error, 1)
	go func() { failed <- d.Ensure(t.Context(), 0, 1) }()
	<-begun
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := d.Ensure(ctx, 0, 1); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
	second := make(chan error, 1)
	go func() { second <- d.ReadAt(t.Context(), make([]byte, 1), 0) }()
	close(goOn)
	if err := <-failed; err == nil {
		t.Error("the first one does not know that it failed")
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// TestOpenRefuses opens what is not the disk that is wanted.
func TestOpenRefuses(t *testing.T) {
	id, e := packedDisk(t, manyPieces())
	s := newStore(t)
	other := id
	other.expect.sha256 = strings.Repeat("1", 64)
	cut := &elsewhere{data: e.data[:len(e.data)-1]}
	broken := &elsewhere{data: bytes.Clone(e.data)}
	broken.data[700] ^= 1
	for name, tc := range map[string]struct {
		id   Identity
		key  string
		from *elsewhere
		want error
	}{
		"another image":  {other, "key", e, ErrOther},
		"another key":    {id, "other", e, ErrOther},
		"cut":            {id, "key", cut, ErrPacked},
		"broken index":   {id, "key", broken, ErrPacked},
		"something else": {id, "key", &elsewhere{data: make([]byte, 2000)}, packed.ErrFormat},
	} {
		_, err := s.OpenOnDemand(t.Context(), tc.id, tc.key, filepath.Join(t.TempDir(), "link"), tc.from.data[:1000], tc.from)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.OpenOnDemand(t.Context(), id, "key", "/nowhere/link", e.data[:1000], e); err == nil {
		t.Error("there is no place for the link")
	}
	bare(t, s)
}

// TestIdentify holds what is known of an image before it is fetched, and by
// which requests.
func TestIdentify(t *testing.T) {
	raw := rawDisk(1 << 20)
	site := newSite(t, httptest.NewTLSServer)
	s := site.store(t)
	site.files["/dir/disk.img"] = raw
	address := site.URL + "/dir/disk.img"
	for _, tc := range []struct {
		image    string
		want     Want
		id       string // "": it is not known
		requests string
	}{
		{"debian", Want{}, "sha512:" + presets[0].SHA512, ""},
		{address, Want{SHA256: sha(raw)}, "sha256:" + sha(raw), ""},
		{address, Want{SHA256: sha(raw), SHA512: strings.ToUpper(sha2(raw))}, "sha512:" + sha2(raw), ""},
		{address + "?sig=1", Want{SHA256: sha(raw)}, "", ""},
		{address, Want{SHA256: sha(raw), Signature: "s", Key: "k"}, "", ""},
		{address, Want{Verify: VerifyNone}, "", ""},
		{"selftest", Want{}, "", ""},
		{"./disk.img", Want{SHA256: sha(raw)}, "", ""},
		{"a/b@v1:disk.img", Want{SHA256: sha(raw)}, "", ""},
		{"artifact:disk", Want{SHA256: sha(raw), Token: "t", Run: Run{"a/b", 1}}, "", ""},
	} {
		id, ok, err := s.Identify(t.Context(), mustParse(t, tc.image), tc.want)
		if err != nil || ok != (tc.id != "") || ok && id.String() != tc.id || site.requests() != tc.requests {
			t.Errorf("%s: %t, %s, %v, after %q", tc.image, ok, id, err, site.requests())
		}
	}
	if _, _, err := s.Identify(t.Context(), mustParse(t, address), Want{SHA256: "1"}); err == nil {
		t.Error("a hash that is none")
	}
	if _, _, err := s.Identify(t.Context(), mustParse(t, address), Want{}); !errors.Is(err, ErrNoList) {
		t.Errorf("without a list: %v", err)
	}
	site.files["/dir/SHA256SUMS"] = []byte(sha(raw) + "  disk.img\n")
	id, ok, err := s.Identify(t.Context(), mustParse(t, address), Want{})
	if err != nil || !ok || id.String() != "sha256:"+sha(raw) {
		t.Errorf("by the list it is %s, %t, %v", id, ok, err)
	}
	if s.Has(t.Context(), id) {
		t.Error("it is here before it is fetched")
	}
	site.requests()
	b := mustObtain(t, s, address, Want{})
	if got := site.requests(); got != "/dir/disk.img" {
		t.Errorf("the list is fetched once more: %s", got)
	}
	if !s.Has(t.Context(), id) {
		t.Error("it is not here after it was fetched")
	}
	p := mustPrepare(t, s, b, "key", keep)
	if found, ok := s.FindPrepared(t.Context(), id, "key"); !ok || found.Path != p.Path || found.Close() != nil {
		t.Errorf("found %+v, %t", found, ok)
	}
}
