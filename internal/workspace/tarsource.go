package workspace

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TarSource is a Source that reads the tar stream of a guest. Modification
// times are all it knows of times.
type TarSource struct {
	r    io.Reader
	left units.Bytes
}

// ErrTooMuch says that a guest sent more than it may.
var ErrTooMuch = errors.New("the guest sends more than it may; copy back less with \"copy-back\" and a list of patterns")

// NewTarSource reads a stream, which Walk can do only once. Holes counted as
// zeros, the files may have limit bytes together, 0 being 64 GiB; the stream is
// read to its end.
func NewTarSource(r io.Reader, limit units.Bytes) *TarSource {
	if limit == 0 {
		limit = defaultLimit
	}
	return &TarSource{r: r, left: limit}
}

// Walk reads the stream.
func (s *TarSource) Walk(ctx context.Context, visit func(Node) error) error {
	in := limit(ctx, s.r, int64(s.left)+maxNodes*4*tarBlock) // headers, long names, padding
	t := tar.NewReader(in)
	buf := make([]byte, tarBuffer)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("reading the guest's tar stream: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if s.left -= units.Bytes(h.Size); s.left < 0 {
			return fmt.Errorf("reading the guest's tar stream at %q: %w", h.Name, ErrTooMuch)
		}
		n := tarNode(h)
		if n.Mode.IsRegular() && n.Link == "" {
			n.Data = func(visit func(units.Bytes, []byte) error) error { return tarData(t, buf, visit) }
		}
		if err := visit(n); err != nil {
			return err
		}
	}
	// A tar program fills its last record. It must not find the pipe closed.
	_, err := io.Copy(io.Discard, in)
	return err
}

func tarNode(h *tar.Header) Node {
	n := Node{Path: cleanMember(h.Name), Size: units.Bytes(h.Size), ModTime: h.ModTime, Mode: permissions(uint32(h.Mode))}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
	case tar.TypeDir:
		n.Mode |= fs.ModeDir
	case tar.TypeSymlink:
		n.Mode |= fs.ModeSymlink
		n.Target = h.Linkname
	case tar.TypeLink:
		n.Link = cleanMember(h.Linkname)
	case tar.TypeFifo:
		n.Mode |= fs.ModeNamedPipe
	case tar.TypeBlock:
		n.Mode |= fs.ModeDevice
	case tar.TypeChar:
		n.Mode |= fs.ModeDevice | fs.ModeCharDevice
	default:
		n.Mode |= fs.ModeIrregular
	}
	return n
}

// cleanMember undoes what tar programs add to names. Whether the rest is a
// path is for Compare and Apply to check.
func cleanMember(name string) string {
	name = strings.TrimPrefix(name, "./")
	if name = strings.TrimSuffix(name, "/"); name == "" {
		return "."
	}
	return name
}

func tarData(t *tar.Reader, buf []byte, visit func(units.Bytes, []byte) error) error {
	for at := units.Bytes(0); ; {
		n, err := t.Read(buf)
		if n > 0 {
			if err := visit(at, buf[:n]); err != nil {
				return err
			}
			at += units.Bytes(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the guest's tar stream: %w", err)
		}
	}
}

// limit reads until the context ends, and no more than n bytes.
func limit(ctx context.Context, r io.Reader, n int64) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		got, err := r.Read(p)
		if n -= int64(got); n < 0 {
			return got, ErrTooMuch
		}
		return got, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
