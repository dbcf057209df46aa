package snapshot

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// maxWindow is how far back a stream may refer: what the decoder keeps.
const maxWindow = 8 << 20

// spareSpace is what must be left free beside what is about to be written.
const spareSpace = 64 * units.MiB

// Admission decides whether a packed entry is wanted, from its manifest alone.
type Admission struct {
	// Wanted are the keys of the machines that would do; the manifest must have
	// one of them. Nil admits all, for who only keeps entries.
	Wanted []Key

	// MaxData is the most that the files may hold, without their zeros; 0 for
	// no limit but the space that is free.
	MaxData units.Bytes
}

func (a Admission) check(m *Manifest) error {
	if a.MaxData > 0 && m.Data() > a.MaxData {
		return fmt.Errorf("%w: it holds %s, allowed are %s", ErrSize, m.Data().Human(), a.MaxData.Human())
	}
	var refused error
	for _, k := range a.Wanted {
		err := Compatible(m.Key, k)
		if err == nil {
			return nil
		}
		if refused == nil {
			refused = err
		}
	}
	return refused
}

// Unpack reads a packed entry into the store, as it arrives, and takes it for
// use. Nothing of it is believed: it takes no more space than its manifest
// announced and was admitted with, and becomes an entry when all its sums are
// right. The error is ErrDamaged, ErrIncompatible, ErrSize, or that of r.
func (s *Store) Unpack(ctx context.Context, r io.Reader, a Admission) (*Entry, error) {
	src := &source{ctx: ctx, r: r}
	e, err := s.unpack(ctx, src, a)
	if src.err != nil && errors.Is(err, ErrDamaged) {
		err = src.err // the stream is not damaged, there is only no more of it
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking a saved machine: %w", err)
	}
	return e, nil
}

// source is a reader that ends with its context and remembers why it failed.
type source struct {
	ctx context.Context // of one Unpack
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	err := context.Cause(s.ctx)
	n := 0
	if err == nil {
		n, err = s.r.Read(p)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *Store) unpack(ctx context.Context, src io.Reader, a Admission) (*Entry, error) {
	dec, err := zstd.NewReader(src, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	r := bufio.NewReaderSize(dec, 64<<10)
	m, err := readManifest(r)
	if err != nil {
		return nil, err
	}
	if err := a.check(m); err != nil {
		return nil, err
	}
	d, err := s.Begin()
	if err != nil {
		return nil, err
	}
	defer d.Discard()
	if err := s.reserve(m.Data()); err != nil {
		return nil, err
	}
	if err := d.unpackFiles(ctx, r, m); err != nil {
		return nil, err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			return nil, fmt.Errorf("%w: something follows its files", ErrDamaged)
		}
		return nil, cut(err)
	}
	return d.publish(ctx, m)
}

// cut is the error for a stream that can't be read on.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrDamaged)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// ReadManifest reads the manifest of a packed entry and nothing more.
func ReadManifest(r io.Reader) (*Manifest, error) {
	dec, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	m, err := readManifest(dec)
	if err != nil {
		return nil, fmt.Errorf("reading a packed saved machine: %w", err)
	}
	return m, nil
}

func readManifest(r io.Reader) (*Manifest, error) {
	var head [len(packMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, cut(err)
	}
	if string(head[:len(packMagic)]) != packMagic {
		return nil, fmt.Errorf("%w: it is no packed saved machine", ErrDamaged)
	}
	if version := binary.BigEndian.Uint32(head[len(packMagic):]); version != Format {
		return nil, &IncompatibleError{[]Difference{{"format", fmt.Sprint(version), fmt.Sprint(Format)}}}
	}
	n := binary.BigEndian.Uint32(head[len(packMagic)+4:])
	if n > maxManifest {
		return nil, fmt.Errorf("%w: its manifest has %d bytes", ErrDamaged, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, cut(err)
	}
	return ParseManifest(data)
}

func (d *Draft) unpackFiles(ctx context.Context, r io.Reader, m *Manifest) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close() // what counts was written before
		}
	}()
	for _, want := range m.Files {
		f, err := d.Create(want.Name)
		if err != nil {
			return err
		}
		files = append(files, f)
		if err := d.unpackFile(ctx, r, files, want); err != nil {
			return err
		}
	}
	return nil
}

// unpackFile reads one file. A goroutine reads the stream and writes, since
// later blocks may refer to earlier ones; others sum.
func (d *Draft) unpackFile(ctx context.Context, r io.Reader, files []*os.File, want File) error {
	f := files[len(files)-1]
	if err := f.Truncate(int64(want.Size)); err != nil {
		return fmt.Errorf("making room for %s: %w", want.Name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	n := workers() + 1
	free, full := make(chan *piece, n), make(chan *piece, n)
	for range n {
		free <- &piece{data: make([]byte, 0, pieceSize)}
	}
	var mu sync.Mutex
	var sums []pieceSums
	for range workers() {
		g.Go(func() error {
			for p := range full {
				s := sumPiece(p, true)
				mu.Lock()
				sums = append(sums, s)
				mu.Unlock()
				free <- p // as many as there are fit in
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(full)
		u := unpacker{r: r, files: files, size: int64(want.Size), left: int(want.Data), last: -1}
		return u.pieces(ctx, free, full)
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("%s: %w", want.Name, err)
	}
	if have := fileOf(want.Name, int64(want.Size), sumFile(int64(want.Size), sums)); have != want {
		return fmt.Errorf("%w: the contents of %s are not those that were packed", ErrDamaged, want.Name)
	}
	return nil
}

// unpacker reads the pieces of one file.
type unpacker struct {
	r     io.Reader
	files []*os.File // those begun; the last one is written
	size  int64
	left  int   // data that may follow
	last  int64 // index of the piece before
}

// pieces reads pieces into free ones, writes them and passes them on.
func (u *unpacker) pieces(ctx context.Context, free <-chan *piece, full chan<- *piece) error {
	for {
		var p *piece
		select {
		case p = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		more, err := u.piece(p)
		if err != nil || !more {
			return err
		}
		if err := p.write(u.files[len(u.files)-1]); err != nil {
			return err
		}
		full <- p // as many as there are fit in
	}
}

// piece reads the next piece; it is false at the end of the file.
func (u *unpacker) piece(p *piece) (bool, error) {
	var head [headSize + 8]byte
	if _, err := io.ReadFull(u.r, head[:4]); err != nil {
		return false, cut(err)
	}
	p.index = int64(binary.BigEndian.Uint32(head[:4]))
	if p.index == endOfFile {
		return false, nil
	}
	if _, err := io.ReadFull(u.r, head[4:]); err != nil {
		return false, cut(err)
	}
	if p.index <= u.last || p.index*pieceSize >= u.size {
		return false, fmt.Errorf("%w: piece %d follows piece %d", ErrDamaged, p.index, u.last)
	}
	u.last = p.index
	p.mask, p.data = binary.BigEndian.Uint64(head[4:]), p.data[:pieceLen(p.index, u.size)]
	copied := binary.BigEndian.Uint64(head[headSize:])
	n := dataLen(p.mask, len(p.data))
	if u.left -= n; n <= 0 || u.left < 0 || copied&^p.mask != 0 {
		return false, fmt.Errorf("%w: piece %d holds more than the manifest says, or nothing", ErrDamaged, p.index)
	}
	if err := p.readCopies(u.r, copied, u.files); err != nil {
		return false, err
	}
	rest := piece{data: p.data, mask: p.mask &^ copied}
	err := rest.runs(func(_ int, data []byte) error {
		if _, err := io.ReadFull(u.r, data); err != nil {
			return cut(err)
		}
		return nil
	})
	if err == nil && p.hasZeros() {
		err = fmt.Errorf("%w: piece %d has a block of zeros", ErrDamaged, p.index) // its sum would not be that of the file
	}
	return true, err
}

// reserve checks that need bytes can be written to the store.
func (s *Store) reserve(need units.Bytes) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: s.Dir, Err: err}
	}
	free := units.Bytes(st.Bavail) * units.Bytes(st.Bsize) // below 2^63 for every disk that exists
	if free < need+spareSpace {
		return fmt.Errorf("%w: %s are needed in %s and %s are free", ErrSize, (need + spareSpace).Human(), s.Dir, free.Human())
	}
	return nil
}

// Export packs the entry into a file, which appears when it is complete.
func (e *Entry) Export(ctx context.Context, path string) error {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("exporting the saved machine: %w", err)
	}
	defer func() { _ = f.Cleanup() }() // it has nothing to do after success
	if err := e.Pack(ctx, f); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("exporting the saved machine: %w", err)
	}
	return nil
}
