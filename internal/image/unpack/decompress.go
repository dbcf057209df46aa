package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// maxDictionary bounds the memory that a decompressor may take because the
// file says so: xz -9 needs 65 MiB, zstd --ultra --long=27 needs 128 MiB.
const maxDictionary = 256 * units.MiB

type packingKind int

const (
	plain packingKind = iota // a disk image, or anything unknown
	compressed
	tarArchive
	zipArchive
	unsupported
)

// packing is a way to pack a file.
type packing struct {
	name   string
	kind   packingKind
	offset int
	magic  string
	open   func(ctx context.Context, o Options, r io.Reader) (io.ReadCloser, error)
}

// packings are looked up in order; the first that matches decides.
var packings = []packing{
	{"gzip", compressed, 0, "\x1f\x8b\x08", openGzip},
	{"xz", compressed, 0, "\xfd7zXZ\x00", openXZ},
	{"zstd", compressed, 0, "\x28\xb5\x2f\xfd", openZstd},
	{"zip", zipArchive, 0, "PK\x03\x04", nil},
	{"an empty zip file", unsupported, 0, "PK\x05\x06", nil},
	{"a bzip2 file", unsupported, 0, "BZh", nil},
	{"a 7-Zip file", unsupported, 0, "7z\xbc\xaf\x27\x1c", nil},
	{"a RAR file", unsupported, 0, "Rar!\x1a\x07", nil},
	{"an lzip file", unsupported, 0, "LZIP", nil},
	{"an lz4 file", unsupported, 0, "\x04\x22\x4d\x18", nil},
	{"a Debian package", unsupported, 0, "!<arch>\ndebian", nil},
}

// Packed tells whether a file that begins with head is packed in some way,
// supported or not.
func Packed(head []byte) bool { return recognise(head).kind != plain }

func recognise(head []byte) packing {
	for _, p := range packings {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return p
		}
	}
	// A tar archive has no magic at its beginning, and a disk may hold
	// anything at 257 if it has a boot sector.
	const ustar, signature = 257, 510
	if len(head) >= 512 && string(head[ustar:ustar+5]) == "ustar" && (head[signature] != 0x55 || head[signature+1] != 0xaa) {
		return packing{name: "tar", kind: tarArchive}
	}
	return packing{}
}

func openGzip(_ context.Context, _ Options, r io.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, verdict(err)
	}
	return ahead(z), nil
}

func openXZ(ctx context.Context, o Options, r io.Reader) (io.ReadCloser, error) {
	// One thread: more would need the memory of several blocks.
	limit := fmt.Sprintf("--memlimit-decompress=%d", int64(maxDictionary))
	d, err := openProgram(ctx, r, program(o.XZ, "xz"), "--decompress", "--stdout", "--threads=1", "--no-sparse", "--quiet", limit)
	if !errors.Is(err, exec.ErrNotFound) {
		return d, err
	}
	z, err := (xz.ReaderConfig{DictCap: int(64 * units.MiB)}).NewReader(r)
	if err != nil {
		return nil, verdict(err)
	}
	return ahead(io.NopCloser(z)), nil
}

func openZstd(ctx context.Context, o Options, r io.Reader) (io.ReadCloser, error) {
	limit := fmt.Sprintf("--memory=%dMB", maxDictionary.MiB())
	d, err := openProgram(ctx, r, program(o.Zstd, "zstd"), "--decompress", "--stdout", "--no-sparse", "--quiet", limit)
	if !errors.Is(err, exec.ErrNotFound) {
		return d, err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(maxDictionary)))
	if err != nil {
		return nil, verdict(err)
	}
	return ahead(z.IOReadCloser()), nil
}

func program(chosen, usual string) string {
	if chosen != "" {
		return chosen
	}
	return usual
}

// filter is a running program between two pipes.
type filter struct {
	*os.File
	done chan error
	stop context.CancelFunc
}

// openProgram starts a decompressor. Its error is exec.ErrNotFound when there
// is no such program.
func openProgram(ctx context.Context, r io.Reader, name string, arg ...string) (io.ReadCloser, error) {
	if _, err := exec.LookPath(name); err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	widen(out)
	ctx, stop := context.WithCancel(ctx)
	cmd := process.Command(ctx, name, arg...)
	cmd.Stdin, cmd.Stdout = r, w
	f := &filter{File: out, done: make(chan error, 1), stop: stop}
	go func() {
		err := process.Run(ctx, cmd)
		_ = w.Close() // the reader's end of file; nothing is buffered here
		f.done <- err
	}()
	return f, nil
}

// widen makes a pipe hold more, for fewer switches between its two ends. It may
// be refused, and then the pipe is as it was.
func widen(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, bufferSize)
	})
}

// Close waits for the program and returns its verdict on the input.
func (f *filter) Close() error {
	_ = f.File.Close() // a program that still writes gets SIGPIPE
	err := <-f.done
	f.stop()
	return programVerdict(err)
}

// programVerdict translates what a decompressor says.
func programVerdict(err error) error {
	var e *process.Error
	if !errors.As(err, &e) {
		return err
	}
	text := strings.ToLower(e.Stderr)
	for _, v := range []struct {
		says string
		err  error
	}{
		{"unexpected end", ErrTruncated}, {"premature end", ErrTruncated},
		{"memory usage limit", ErrMemory}, {"memory required", ErrMemory}, {"too much memory", ErrMemory},
		{"corrupt", ErrCorrupt}, {"not recognized", ErrCorrupt}, {"decoding error", ErrCorrupt}, {"checksum", ErrCorrupt},
		{"unsupported", ErrUnsupported}, {"unknown header", ErrCorrupt},
	} {
		if strings.Contains(text, v.says) {
			return fmt.Errorf("%w (%w)", v.err, err)
		}
	}
	return err
}

// verdict translates what a Go decompressor says: whatever it is, the file is
// not as it should be.
func verdict(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, ErrTooLarge):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w (%w)", ErrTruncated, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w (%w)", ErrMemory, err)
	}
	return fmt.Errorf("%w (%w)", ErrCorrupt, err)
}

// readAhead decompresses in a goroutine of its own, so that decompressing and
// writing use two processors.
type readAhead struct {
	*io.PipeReader
	done chan error
}

// errAbandoned ends a decompressor whose output nobody wants.
var errAbandoned = errors.New("the rest is not wanted")

func ahead(z io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	a := &readAhead{r, make(chan error, 1)}
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{z}, make([]byte, bufferSize/4))
		if errors.Is(err, errAbandoned) {
			err = nil
		}
		err = errors.Join(verdict(err), z.Close())
		_ = w.CloseWithError(err) // never fails
		a.done <- err
	}()
	return a
}

// Close waits for the decompressor and returns its verdict on the input.
func (a *readAhead) Close() error {
	_ = a.CloseWithError(errAbandoned) // never fails
	return <-a.done
}
