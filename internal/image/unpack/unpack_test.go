package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rawDisk is a disk with a boot sector, incompressible data and holes.
func rawDisk(size int) []byte {
	d := make([]byte, size)
	d[510], d[511] = 0x55, 0xaa
	r := rand.NewChaCha8([32]byte{1})
	for at := 8192; at+10_000 < size; at += 200_000 {
		_, _ = r.Read(d[at : at+10_000]) // never fails
	}
	copy(d[size-6:], "theend")
	return d
}

type member struct {
	name string
	data []byte
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data))}
		if strings.HasSuffix(m.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write(m.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		f, err := w.Create(m.name)
		must(t, err)
		_, err = f.Write(m.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func pack(t testing.TB, open func(io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	return pack(t, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, data)
}

func zst(t testing.TB, data []byte) []byte {
	return pack(t, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, data)
}

func xzed(t testing.TB, data []byte) []byte {
	t.Helper()
	needs(t, "xz")
	cmd := exec.Command("xz", "-0", "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	must(t, err)
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs skips a test without a program.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("the program %s is missing", program)
		}
		t.Skipf("the program %s is missing", program)
	}
}

// unpackBytes unpacks data and returns what was written.
func unpackBytes(t testing.TB, data []byte, o Options) (Image, []byte, error) {
	t.Helper()
	return unpackFrom(t.Context(), t, bytes.NewReader(data), data, o)
}

func unpackFrom(ctx context.Context, t testing.TB, r io.Reader, data []byte, o Options) (Image, []byte, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	must(t, err)
	defer func() { must(t, f.Close()) }()
	in := Input{Reader: r, File: func() (io.ReaderAt, int64, error) { return bytes.NewReader(data), int64(len(data)), nil }}
	img, err := Unpack(ctx, in, f, o)
	got, readErr := os.ReadFile(f.Name())
	must(t, readErr)
	if err == nil {
		sum, sumErr := sparse.Sum(t.Context(), f)
		must(t, sumErr)
		if sum != img.Content {
			t.Errorf("the digest made while writing is %s, that of the file %s", img.Content, sum)
		}
	}
	return img, got, err
}

func TestPackings(t *testing.T) {
	needs(t, "zstd")
	d := rawDisk(256 << 10)
	tarred := tarOf(t, member{"./", nil}, member{"./README", []byte("about the image")}, member{"./debian-hurd.img", d})
	for _, tc := range []struct {
		name   string
		packed []byte
		member string
	}{
		{"raw", d, ""},
		{"tar", tarred, "./debian-hurd.img"},
		{"gz", gz(t, d), ""}, {"xz", xzed(t, d), ""}, {"zst", zst(t, d), ""},
		{"tar.gz", gz(t, tarred), "./debian-hurd.img"},
		{"tar.xz", xzed(t, tarred), "./debian-hurd.img"},
		{"tar.zst", zst(t, tarred), "./debian-hurd.img"},
		{"gz in two members", append(gz(t, d[:1000]), gz(t, d[1000:])...), ""},
		{"zip", zipOf(t, member{"README", []byte("about")}, member{"disk.qcow2", d}), "disk.qcow2"},
		{"zip of an unnamed disk", zipOf(t, member{"README", []byte("about")}, member{"hurd", d}), "hurd"},
		{"zip of tar.xz", zipOf(t, member{"README", []byte("about")}, member{"hurd.tar.xz", xzed(t, tarred)}), "./debian-hurd.img"},
		{"Macintosh's tar", tarOf(t, member{"._disk.img", []byte("notes")}, member{"disk.img", d}), "disk.img"},
	} {
		for _, o := range []Options{{}, {XZ: "no-such-xz", Zstd: "no-such-zstd"}} {
			t.Run(tc.name+" "+o.XZ, func(t *testing.T) {
				img, got, err := unpackBytes(t, tc.packed, o)
				must(t, err)
				if !bytes.Equal(got, d) {
					t.Errorf("unpacked %d bytes differ from the %d that were packed", len(got), len(d))
				}
				if img.Name != tc.member || img.Size != units.Bytes(len(d)) || img.Data >= img.Size/4 {
					t.Errorf("image = %+v", img)
				}
			})
		}
	}
}

// TestGNUSparse unpacks what tar -S makes of a file with holes.
func TestGNUSparse(t *testing.T) {
	needs(t, "tar")
	d := rawDisk(4 << 20)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	must(t, err)
	w := sparse.NewWriter(f, nil)
	_, err = w.Write(d)
	must(t, err)
	must(t, errors.Join(w.Close(), f.Close()))
	for _, format := range []string{"gnu", "posix"} {
		packed, err := exec.Command("tar", "-C", dir, "--format="+format, "-cS", "disk.img").Output()
		must(t, err)
		if len(packed) > len(d)/2 {
			t.Fatalf("tar -S --format=%s did not find the holes", format)
		}
		_, got, err := unpackBytes(t, packed, Options{})
		must(t, err)
		if !bytes.Equal(got, d) {
			t.Errorf("%s: the unpacked disk differs", format)
		}
	}
}

func TestRefused(t *testing.T) {
	needs(t, "zstd")
	d := rawDisk(256 << 10)
	cut := func(b []byte) []byte { return b[:len(b)*2/3] }
	broken := func(b []byte) []byte {
		b = bytes.Clone(b)
		for i := len(b) / 2; i < len(b)/2+64; i++ {
			b[i] ^= 0x5a
		}
		return b
	}
	tarred := tarOf(t, member{"disk.img", d})
	many := tarOf(t, member{"a.img", d}, member{"b.img", d})
	deep := d
	for range maxLayers + 2 {
		deep = gz(t, deep)
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"tar cut", cut(tarred), ErrTruncated, "ends too early"},
		{"gz cut", cut(gz(t, d)), ErrTruncated, "unpacking gzip: the file ends too early"},
		{"xz cut", cut(xzed(t, d)), ErrTruncated, "unpacking xz: the file ends too early"},
		{"zst cut", cut(zst(t, d)), ErrTruncated, "unpacking zstd: the file ends too early"},
		{"tar.gz cut", cut(gz(t, tarred)), ErrTruncated, "unpacking gzip"},
		{"tar.xz cut", cut(xzed(t, tarred)), ErrTruncated, "unpacking xz"},
		{"tar.xz without its last bytes", xzed(t, tarred)[:len(xzed(t, tarred))-8], ErrTruncated, "unpacking xz"},
		{"zip cut", cut(zipOf(t, member{"disk.img", d})), ErrCorrupt, "zip: not a valid zip file"},
		{"gz corrupt", broken(gz(t, d)), ErrCorrupt, "unpacking gzip: the file is corrupt"},
		{"xz corrupt", broken(xzed(t, d)), ErrCorrupt, "unpacking xz: the file is corrupt"},
		{"zst corrupt", broken(zst(t, d)), ErrCorrupt, "unpacking zstd: the file is corrupt"},
		{"tar.xz corrupt", broken(xzed(t, tarred)), ErrCorrupt, "unpacking xz: the file is corrupt"},
		{"zip corrupt", broken(zipOf(t, member{"disk.img", d})), ErrCorrupt, "the file is corrupt"},
		{"two disks", many, ErrManyDisks, `more than one disk image in the archive: "a.img" and "b.img"`},
		{"two disks in tar.xz", xzed(t, many), ErrManyDisks, `"a.img" and "b.img"`},
		{"two disks in tar.gz", gz(t, many), ErrManyDisks, `"a.img" and "b.img"`},
		{"two disks in zip", zipOf(t, member{"a.img", d}, member{"b.img", d}), ErrManyDisks, `"a.img" and "b.img"`},
		{"no disk", tarOf(t, member{"README", []byte("text")}), ErrNoDisk, `no disk image in the archive: it holds ["README"]`},
		{"empty tar", tarOf(t), ErrTruncated, ""},
		{"only directories", tarOf(t, member{"a/", nil}), ErrNoDisk, "it holds no files"},
		{"no disk in zip", zipOf(t, member{"README", []byte("text")}), ErrNoDisk, `it holds ["README"]`},
		{"escape", tarOf(t, member{"../disk.img", d}), ErrEscape, `leads out of it: "../disk.img"`},
		{"absolute", tarOf(t, member{"/etc/passwd", d}), ErrEscape, `"/etc/passwd"`},
		{"escape in zip", zipOf(t, member{"x/../../disk.img", d}), ErrEscape, `"x/../../disk.img"`},
		{"bzip2", []byte("BZh91AY&SY"), ErrUnsupported, "a bzip2 file; pack the image as"},
		{"many layers", deep, ErrUnsupported, "more than 4 packings inside each other"},
		{"zip in gz", gz(t, zipOf(t, member{"disk.img", d})), ErrUnsupported, "a zip file inside another packing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := unpackBytes(t, tc.data, Options{})
			if tc.name == "empty tar" { // 1024 zeros are as good a disk as an archive
				must(t, err)
				return
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %q, want %q with %q", err, tc.want, tc.says)
			}
		})
	}
}

// TestBombs unpacks small files that claim or hold a lot.
func TestBombs(t *testing.T) {
	needs(t, "zstd")
	zeros := make([]byte, 2<<20)
	small := Options{Limit: units.MiB}
	for _, tc := range []struct {
		name string
		data []byte
		o    Options
		want error
	}{
		{"gz", gz(t, zeros), small, ErrTooLarge},
		{"xz", xzed(t, zeros), small, ErrTooLarge},
		{"zst", zst(t, zeros), small, ErrTooLarge},
		{"tar.gz announced", gz(t, tarOf(t, member{"disk.img", zeros})), small, ErrTooLarge},
		{"tar.gz beside", gz(t, tarOf(t, member{"README", zeros})), small, ErrTooLarge},
		{"zip", zipOf(t, member{"disk.img", zeros}), small, ErrTooLarge},
		{"gz in gz", gz(t, gz(t, zeros)), small, ErrTooLarge},
		{"members", tarOf(t, make([]member, maxMembers+1)...), Options{}, ErrNoDisk},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, got, err := unpackBytes(t, tc.data, tc.o)
			if !errors.Is(err, tc.want) {
				t.Errorf("error %q, want %q", err, tc.want)
			}
			if len(got) > 2<<20 {
				t.Errorf("%d bytes were written", len(got))
			}
		})
	}
}

// TestDictionary refuses an xz file that wants more memory than anybody has.
func TestDictionary(t *testing.T) {
	needs(t, "xz")
	cmd := exec.Command("xz", "-c", "--format=xz", "--lzma2=preset=0,dict=512MiB")
	cmd.Stdin = bytes.NewReader(rawDisk(64 << 10))
	packed, err := cmd.Output()
	must(t, err)
	_, _, err = unpackBytes(t, packed, Options{})
	if !errors.Is(err, ErrMemory) {
		t.Errorf("error %q, want %q", err, ErrMemory)
	}
}

// TestInputError holds that the input's own failure is what is reported, and
// not what a decompressor thinks of a file that ends there.
func TestInputError(t *testing.T) {
	needs(t, "zstd")
	lost := errors.New("connection lost")
	d := tarOf(t, member{"disk.img", rawDisk(256 << 10)})
	for name, data := range map[string][]byte{"raw": d, "gz": gz(t, d), "xz": xzed(t, d), "zst": zst(t, d)} {
		r := io.MultiReader(bytes.NewReader(data[:len(data)/2]), failing{lost})
		if _, _, err := unpackFrom(t.Context(), t, r, data, Options{}); !errors.Is(err, lost) {
			t.Errorf("%s: error %q, want %q", name, err, lost)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		r = io.MultiReader(bytes.NewReader(data[:len(data)/2]), canceling{cancel, lost})
		if _, _, err := unpackFrom(ctx, t, r, data, Options{}); !errors.Is(err, lost) {
			t.Errorf("%s canceled: error %q, want the cause %q", name, err, lost)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// canceling cancels while it is read, and then gives zeros for ever.
type canceling struct {
	cancel context.CancelCauseFunc
	cause  error
}

func (c canceling) Read(p []byte) (int, error) {
	c.cancel(c.cause)
	clear(p)
	return len(p), nil
}

// FuzzUnpack holds that whatever the input, unpacking ends, writes no more
// than the limit, and reads all of an input that it accepts.
func FuzzUnpack(f *testing.F) {
	d := rawDisk(16 << 10)
	tarred := tarOf(f, member{"README", []byte("text")}, member{"disk.img", d})
	for _, seed := range [][]byte{
		d, tarred, gz(f, tarred), zipOf(f, member{"disk.img", d}), zipOf(f, member{"a", gz(f, tarred)}), []byte("BZh"), nil,
	} {
		f.Add(seed)
	}
	const limit = units.MiB
	f.Fuzz(func(t *testing.T, data []byte) {
		if p := recognise(data); p.name == "xz" || p.name == "zstd" {
			t.Skip("those programs' own business")
		}
		r := bytes.NewReader(data)
		img, got, err := unpackFrom(t.Context(), t, r, data, Options{Limit: limit, XZ: "none", Zstd: "none"})
		if units.Bytes(len(got)) > limit+units.MiB {
			t.Fatalf("%d bytes were written", len(got))
		}
		if err == nil && (r.Len() != 0 || img.Size != units.Bytes(len(got))) {
			t.Fatalf("accepted with %d bytes unread, %d written, %d said", r.Len(), len(got), img.Size)
		}
	})
}

// TestZipGuards holds that a zip's directory is not read without bounds, and
// that odd members are told or left out.
func TestZipGuards(t *testing.T) {
	d := rawDisk(64 << 10)
	many := make([]member, maxMembers+1)
	for i := range many {
		many[i].name = fmt.Sprint(i)
	}
	long := make([]member, 200)
	for i := range long {
		long[i].name = fmt.Sprintf("%0*d", 60_000, i)
	}
	method := zipOf(t, member{"disk.img", d})
	for _, magic := range []string{"PK\x03\x04", "PK\x01\x02"} {
		at := bytes.LastIndex(method, []byte(magic))
		method[at+map[string]int{"PK\x03\x04": 8, "PK\x01\x02": 10}[magic]] = 99 // an encryption
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"many members", zipOf(t, many...), ErrNoDisk, "more than 10000 members"},
		{"long names", zipOf(t, long...), ErrTooLarge, "its directory has more than 8 MiB"},
		{"unknown method", method, ErrUnsupported, "unsupported compression algorithm"},
		{"two packed", zipOf(t, member{"a.gz", gz(t, d)}, member{"b.gz", gz(t, d)}), ErrManyDisks, `"a.gz" and "b.gz"`},
		{"nothing", zipOf(t), ErrUnsupported, "an empty zip file"},
		{"a zip in it", zipOf(t, member{"a.zip", zipOf(t, member{"disk.img", d})}), ErrUnsupported, "a zip file inside another packing"},
	} {
		_, _, err := unpackBytes(t, tc.data, Options{})
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.says)
		}
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	_, err := w.Create("dir/")
	must(t, err)
	h := &zip.FileHeader{Name: "link.img"}
	h.SetMode(os.ModeSymlink | 0o777)
	f, err := w.CreateHeader(h)
	must(t, err)
	_, err = f.Write([]byte("/etc/shadow"))
	must(t, err)
	f, err = w.Create("dir/disk.img")
	must(t, err)
	_, err = f.Write(d)
	must(t, err)
	must(t, w.Close())
	img, got, err := unpackBytes(t, b.Bytes(), Options{})
	if err != nil || img.Name != "dir/disk.img" || !bytes.Equal(got, d) {
		t.Errorf("with a directory and a link: %+v, %v", img, err)
	}
}

// TestTarLinks holds that links and devices of an archive are left out.
func TestTarLinks(t *testing.T) {
	d := rawDisk(64 << 10)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "a.img", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"},
		{Name: "b.img", Typeflag: tar.TypeLink, Linkname: "disk.img"},
		{Name: "c.img", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		{Name: "d.img", Typeflag: tar.TypeFifo},
		{Name: "disk.img", Typeflag: tar.TypeReg, Size: int64(len(d))},
	} {
		must(t, w.WriteHeader(&h))
	}
	_, err := w.Write(d)
	must(t, err)
	must(t, w.Close())
	img, got, err := unpackBytes(t, b.Bytes(), Options{})
	if err != nil || img.Name != "disk.img" || !bytes.Equal(got, d) {
		t.Errorf("%+v, %v", img, err)
	}
}

// TestOutputFails has a file that can't be written to.
func TestOutputFails(t *testing.T) {
	f, err := os.Open(os.DevNull)
	must(t, err)
	must(t, f.Close())
	for name, data := range map[string][]byte{"raw": rawDisk(64 << 10), "gz": gz(t, rawDisk(64<<10)), "xz": xzed(t, rawDisk(64<<10))} {
		if _, err := Unpack(t.Context(), Input{Reader: bytes.NewReader(data)}, f, Options{}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
