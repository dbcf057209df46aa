package results

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	stdhex "encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
)

// zipFile is a finished zip on the disk: its size and hash must be known
// before its last byte is sent, and a block may have to be sent twice.
type zipFile struct {
	file   *os.File
	size   int64
	sha256 string // of the zip, in hexadecimal
}

// writeZip makes a zip of a bundle in a file that has no name any more, so
// that nothing is left of it however we end. The caller closes it.
func (b *Bundle) writeZip(ctx context.Context, dir string) (*zipFile, error) {
	f, err := os.CreateTemp(dir, "artifact-*.zip")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	z := &zipFile{file: f}
	h := sha256.New()
	if err := b.zip(ctx, io.MultiWriter(f, h)); err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	if z.size, err = f.Seek(0, io.SeekCurrent); err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	z.sha256 = stdhex.EncodeToString(h.Sum(nil))
	return z, nil
}

// zip writes a zip. The same files give the same bytes.
func (b *Bundle) zip(ctx context.Context, w io.Writer) error {
	zw := zip.NewWriter(w)
	var text, trial deflate
	zw.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return text.to(out, flate.DefaultCompression)
	})
	_, err := b.each(ctx, func(e entry, head []byte) (io.Writer, error) {
		// The time is kept in seconds of UTC; zero is no time.
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if !e.modified.IsZero() {
			h.Modified = e.modified.UTC().Truncate(time.Second)
		}
		h.SetMode(e.mode.Perm())
		if !trial.shrinks(e.name, head) {
			h.Method = zip.Store
		}
		return zw.CreateHeader(h)
	})
	if err != nil {
		return fmt.Errorf("writing a zip: %w", err)
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("writing a zip: %w", err)
	}
	return nil
}

// deflate is one compressor, used for one file after the other: a new one
// takes a megabyte of memory and more time than a small file. The library's is
// several times faster than the standard one.
type deflate struct{ w *flate.Writer }

func (d *deflate) to(out io.Writer, level int) (w *flate.Writer, err error) {
	if d.w == nil {
		d.w, err = flate.NewWriter(out, level)
	} else {
		d.w.Reset(out)
	}
	return d.w, err
}

// compressed are the suffixes of files that no zip makes smaller.
var compressed = []string{
	".7z", ".br", ".bz2", ".deb", ".gif", ".gz", ".jpeg", ".jpg", ".lz4", ".lzma", ".mp4", ".png",
	".tgz", ".txz", ".webp", ".whl", ".xz", ".zip", ".zst",
}

// shrinks tells whether to compress a file: by its name, else by trying it on
// the file's beginning.
func (d *deflate) shrinks(name string, head []byte) bool {
	if len(head) == 0 || slices.Contains(compressed, strings.ToLower(path.Ext(name))) {
		return false
	}
	if len(head) < 512 {
		return true // what is lost or won is nothing
	}
	var n counter
	w, err := d.to(&n, flate.BestSpeed)
	if err != nil {
		return true
	}
	_, _ = w.Write(head) // counter never fails
	_ = w.Close()
	return int(n) < len(head)*19/20
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
