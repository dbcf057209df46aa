package ext2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestSparse(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSHurd, 4*units.GiB, 10)
	const size = 64 * units.MiB
	for name, r := range map[string]io.ReaderAt{
		"file":   islands{[]int64{40 << 20}, [][]byte{[]byte("x")}}.file(t, size),
		"reader": bytes.NewReader(append(make([]byte, size-1), 'x')),
		"zeros":  zeros64{},
	} {
		if err := m.File(name, Attributes{}, size, r); err != nil {
			t.Fatal(err)
		}
	}
	f := complete(t, m)
	err := f.Walk(t.Context(), func(n Node) error {
		if !n.Mode.IsRegular() {
			return nil
		}
		read := 0
		err := f.Data(n, func(_ units.Bytes, data []byte) error { read += len(data); return nil })
		if want := map[string]int{"file": makeBlock, "reader": makeBlock, "zeros": 0}[n.Path]; read != want || n.Size != size {
			t.Errorf("%s has %d bytes of data in %s, want %d", n.Path, read, n.Size, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	stat, err := os.Stat(m.image)
	if err != nil {
		t.Fatal(err)
	}
	if used := units.Bytes(sysStat(stat).Blocks) * 512; used > 2*units.MiB || stat.Size() != int64(4*units.GiB) {
		t.Errorf("the image has %s, and takes %s", units.Bytes(stat.Size()), used)
	}
}

type zeros64 struct{}

func (zeros64) ReadAt(b []byte, _ int64) (int, error) { clear(b); return len(b), nil }

func TestSpace(t *testing.T) {
	fill := func(m *Maker, files int, size units.Bytes) error {
		for i := range files {
			data := bytes.Repeat([]byte{byte(i + 1)}, int(size))
			if err := m.File(fmt.Sprint(i), Attributes{}, size, bytes.NewReader(data)); err != nil {
				return err
			}
		}
		return m.Close(t.Context())
	}
	for name, tc := range map[string]struct {
		size   units.Bytes
		inodes int
		files  int
		each   units.Bytes
		most   units.Bytes
	}{
		"data":            {8 * units.MiB, 100, 20, 5 * units.MiB, 106 * units.MiB},
		"another group":   {120 * units.MiB, 100, 30, 5 * units.MiB, 157 * units.MiB},
		"small files":     {16 * units.MiB, 3000, 3000, 8000, 28 * units.MiB},
		"inodes at first": {2 * units.MiB, 5000, 5000, 0, 24 * units.MiB},
	} {
		for _, creator := range []OS{OSHurd, OSLinux} {
			t.Run(fmt.Sprint(name, creator), func(t *testing.T) {
				tools(t, "mke2fs", "e2fsck")
				o := MakeOptions{Size: tc.size, Creator: creator, UUID: [16]byte{1}, Inodes: tc.inodes}
				image := newImage(t)
				m, err := Make(t.Context(), image, o)
				if err == nil {
					err = fill(m, tc.files, tc.each)
					if err := m.Discard(); err != nil {
						t.Error(err)
					}
				}
				var space *SpaceError
				if !errors.As(err, &space) || space.Size != tc.size || space.Need > tc.most ||
					!strings.Contains(err.Error(), "it has "+tc.size.Human()+", but the files need "+space.Need.Human()) {
					t.Fatalf("%v", err)
				}
				if _, err := os.Stat(image); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the image is still there: %v", err)
				}
				o.Size = space.Need
				if m, err = Make(t.Context(), image, o); err != nil {
					t.Fatal(err)
				}
				if err := fill(m, tc.files, tc.each); err != nil {
					t.Errorf("with %s: %v", o.Size.Human(), err)
				}
			})
		}
	}
}

func TestTooManyFiles(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSHurd, 2*units.MiB, 10)
	for i := range 300 {
		if err := m.Symlink(fmt.Sprint(i), "x", Attributes{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "300 files were made, but there was to be room for 10") {
		t.Errorf("%v", err)
	}
}

func TestInodes(t *testing.T) {
	for _, tc := range []struct {
		size        units.Bytes
		files       int
		least, most int
	}{
		{units.MiB, 0, 64, 100}, {units.MiB, 120, 120, 270}, {units.GiB, 10, 65546, 66000}, {units.GiB, 200000, 262000, 262144},
		{100 * units.GiB, 10, 262154, 300000}, {100 * units.GiB, 500000, 762144, 800000},
	} {
		m := newMakerFor(t, newImage(t), OSHurd, tc.size, tc.files)
		if got := int(m.sb.Inodes) - 10; got < tc.least || got > tc.most {
			t.Errorf("%s for %d files has %d inodes", tc.size, tc.files, got)
		}
	}
}

func TestSizes(t *testing.T) {
	const group = 128 * units.MiB
	for _, size := range []units.Bytes{
		units.MiB, units.MiB + 4095, 3*units.MiB + 4096, group - 4096, group, group + 4096, group + 200*units.KiB,
		group + 3*units.MiB, 2*group - 8192, 5*group + 12345, 65 * units.GiB,
	} {
		for name, creator := range creators {
			t.Run(fmt.Sprint(name, int64(size)), func(t *testing.T) {
				m := newMakerFor(t, newImage(t), creator, size, 30)
				p := &planter{t: t, m: m, random: rand.New(rand.NewPCG(1, 1)), want: map[string]sample{}}
				p.dir(".")
				for i := range 30 {
					p.file(fmt.Sprintf("%02d", i), p.bytes(100))
				}
				f := complete(t, m)
				compareSamples(t, p.sorted(), collect(t, f))
				sb, err := f.Superblock()
				if err != nil || sb.FreeInodes < sb.Inodes-11-30 || size > 4*units.MiB && sb.Size() < size*9/10 {
					t.Errorf("%+v, %v", sb, err)
				}
			})
		}
	}
}
