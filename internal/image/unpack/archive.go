package unpack

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/units"
)

// maxMembers bounds the members of an archive. A tar that holds a disk image
// has a handful.
const maxMembers = 10_000

// maxDirectory bounds what is read of a zip to find out what it holds.
const maxDirectory = 8 * units.MiB

// diskSuffixes mark a member as a disk image whatever it holds.
var diskSuffixes = []string{".img", ".raw", ".qcow2", ".vmdk", ".vdi"}

// isDisk decides by name and beginning whether a member is what we look for.
func isDisk(name string, head []byte) bool {
	base := path.Base(name)
	if strings.HasPrefix(base, "._") {
		return false // a Macintosh's notes about the file
	}
	for _, suffix := range diskSuffixes {
		if strings.HasSuffix(strings.ToLower(base), suffix) {
			return true
		}
	}
	return disk.LooksLike(head)
}

// checkName refuses names that lead out of an archive. They are not used, but
// who makes such an archive means no good.
func checkName(name string) error {
	if !filepath.IsLocal(name) && name != "" {
		return fmt.Errorf("%w: %q", ErrEscape, name)
	}
	return nil
}

// untar takes the one disk image of a tar archive.
func (u *unpacking) untar(r io.Reader) (Image, error) {
	var img Image
	var others []string
	t := tar.NewReader(r)
	for members := 0; ; members++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && img.Name == "":
			return Image{}, noDisk(others)
		case errors.Is(err, io.EOF):
			_, err = io.Copy(io.Discard, r) // padding
			return img, asTruncated(err)
		case err != nil:
			return Image{}, tarVerdict(err)
		case members >= maxMembers:
			return Image{}, fmt.Errorf("%w: more than %d members", ErrNoDisk, maxMembers)
		}
		if err := checkName(h.Name); err != nil {
			return Image{}, err
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		b := bufio.NewReaderSize(t, disk.SniffLen)
		head, err := b.Peek(disk.SniffLen)
		if err != nil && !errors.Is(err, io.EOF) {
			return Image{}, tarVerdict(err)
		}
		if !isDisk(h.Name, head) {
			others = append(others, h.Name)
			continue
		}
		if img.Name != "" {
			return Image{}, fmt.Errorf("%w: %q and %q", ErrManyDisks, img.Name, h.Name)
		}
		u.name = h.Name
		if img, err = u.write(b, units.Bytes(h.Size)); err != nil {
			return Image{}, err
		}
	}
}

// tarVerdict translates archive/tar's errors, which may also be those of the
// input or of a limit.
func tarVerdict(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return asTruncated(err)
}

func noDisk(others []string) error {
	const shown = 5
	if len(others) == 0 {
		return fmt.Errorf("%w: it holds no files", ErrNoDisk)
	}
	rest := ""
	if len(others) > shown {
		others, rest = others[:shown], ", ..."
	}
	return fmt.Errorf("%w: it holds %q%s", ErrNoDisk, others, rest)
}

// unzip takes the one disk image of a zip file, or the one file of it when
// that is packed itself.
func (u *unpacking) unzip(ctx context.Context, r io.Reader, depth int) (Image, error) {
	if depth > 0 || u.in.File == nil {
		return Image{}, fmt.Errorf("%w: a zip file inside another packing", ErrUnsupported)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Image{}, err
	}
	file, size, err := u.in.File()
	if err != nil {
		return Image{}, err
	}
	m, err := OpenZip(file, size)
	if err != nil {
		return Image{}, err
	}
	u.name, u.size = m.Name, m.Size
	plain := u.limit(m)
	img, err := u.layer(ctx, plain, depth+1)
	return img, errors.Join(err, m.Close())
}

// Member is the one file of a zip that is a disk image, or is packed itself.
type Member struct {
	Name string
	Size units.Bytes // as the zip says
	body io.ReadCloser
}

// OpenZip finds the one disk image in a zip file of size bytes, or the one
// packed file when there is no disk image, and opens it.
func OpenZip(r io.ReaderAt, size int64) (*Member, error) {
	metered := &meteredReaderAt{r: r, left: int64(maxDirectory)}
	z, err := zip.NewReader(metered, size)
	if err != nil {
		return nil, zipVerdict(err)
	}
	metered.free = true
	f, err := choose(z.File)
	if err != nil {
		return nil, err
	}
	body, err := f.Open()
	if err != nil {
		return nil, zipVerdict(err)
	}
	return &Member{Name: f.Name, Size: units.Bytes(min(f.UncompressedSize64, 1<<62)), body: body}, nil // bounded here
}

// Read unpacks. The file is all there, its directory was found: also an early
// end is a corruption.
func (m *Member) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the zip file's member %q: %v", ErrCorrupt, m.Name, err) //nolint:errorlint // that one may say truncated
	}
	return n, err
}

// Close ends the reading.
func (m *Member) Close() error { return m.body.Close() }

// choose finds the member of a zip to unpack.
func choose(files []*zip.File) (*zip.File, error) {
	var disks, packed []*zip.File
	var others []string
	if len(files) > maxMembers {
		return nil, fmt.Errorf("%w: more than %d members", ErrNoDisk, maxMembers)
	}
	for _, f := range files {
		if err := checkName(f.Name); err != nil {
			return nil, err
		}
		if !f.Mode().IsRegular() {
			continue
		}
		head, err := beginning(f)
		if err != nil {
			return nil, err
		}
		switch {
		case isDisk(f.Name, head):
			disks = append(disks, f)
		case Packed(head):
			packed = append(packed, f)
		default:
			others = append(others, f.Name)
		}
	}
	if len(disks) == 0 {
		disks = packed
	}
	switch len(disks) {
	case 0:
		return nil, noDisk(others)
	case 1:
		return disks[0], nil
	}
	return nil, fmt.Errorf("%w: %q and %q", ErrManyDisks, disks[0].Name, disks[1].Name)
}

func beginning(f *zip.File) ([]byte, error) {
	rc, err := f.Open()
	if err != nil {
		return nil, zipVerdict(err)
	}
	head := make([]byte, disk.SniffLen)
	n, err := io.ReadFull(rc, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.Join(zipVerdict(err), rc.Close())
	}
	return head[:n], rc.Close()
}

func zipVerdict(err error) error {
	switch {
	case errors.Is(err, zip.ErrAlgorithm):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, zip.ErrFormat), errors.Is(err, zip.ErrChecksum):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return asTruncated(err)
}

// meteredReaderAt ends the reading of a zip's directory that is too large.
type meteredReaderAt struct {
	r    io.ReaderAt
	left int64
	free bool // the directory was read
}

func (m *meteredReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if !m.free {
		if m.left -= int64(len(p)); m.left < 0 {
			return 0, fmt.Errorf("%w: its directory has more than %s", ErrTooLarge, maxDirectory.Human())
		}
	}
	return m.r.ReadAt(p, off)
}
