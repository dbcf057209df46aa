package snapshot

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// realDir names a directory with the files state, ram and disk.qcow2 of a real
// machine, to be measured instead of made up ones.
const realDir = "HURD_QEMU_ACTION_SNAPSHOT"

// large commits an entry as large as real ones: 150 MB of 1 GiB.
func large(b testing.TB, s *Store) *Entry {
	b.Helper()
	k := testKey()
	k.Memory = units.GiB
	d, err := s.Begin()
	if err != nil {
		b.Fatal(err)
	}
	defer d.Discard()
	if dir := os.Getenv(realDir); dir != "" {
		for _, name := range names {
			src, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Copy(b.Context(), name, src); err != nil {
				b.Fatal(err)
			}
			if info, err := src.Stat(); name == RAM && err == nil {
				k.Memory = units.Bytes(info.Size())
			}
			_ = src.Close()
		}
	} else {
		for name, data := range files(b, testKey()) {
			if err := os.WriteFile(d.Path(name), data, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		f, err := d.Create(RAM)
		if err != nil {
			b.Fatal(err)
		}
		guestMemory(b, f, int64(k.Memory), 150<<20)
		_ = f.Close()
	}
	if f, err := os.Open(d.Path(Disk)); err == nil {
		var h [8]byte
		_, _ = f.ReadAt(h[:], qcow2Size)
		k.Disks = []units.Bytes{units.Bytes(be64(h))}
		_ = f.Close()
	}
	e, err := d.Commit(b.Context(), testManifest(k))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	return e
}

func be64(b [8]byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

func BenchmarkCopyFromMemory(b *testing.B) {
	e := large(b, &Store{Dir: b.TempDir()})
	ram, err := os.Open(e.Path(RAM))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ram.Close() }()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	mem := os.NewFile(uintptr(fd), "ram")
	defer func() { _ = mem.Close() }()
	if err := CopySparse(b.Context(), mem, ram); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "copy")
	b.SetBytes(int64(e.Manifest.file(RAM).Data))
	for b.Loop() {
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := CopySparse(b.Context(), f, mem); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
		b.StopTimer()
		_ = os.Remove(path)
		b.StartTimer()
	}
}

func BenchmarkFind(b *testing.B) {
	s := &Store{Dir: b.TempDir()}
	e := large(b, s)
	for b.Loop() {
		again, err := s.Find(b.Context(), e.Manifest.Key)
		if err != nil {
			b.Fatal(err)
		}
		_ = again.Close()
	}
}

func BenchmarkVerify(b *testing.B) {
	e := large(b, &Store{Dir: b.TempDir()})
	for name, verify := range map[string]func() error{
		"CRC32C": func() error { return e.Verify(b.Context()) },
		"SHA256": func() error { return e.VerifyStrongly(b.Context()) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(e.Manifest.Data()))
			for b.Loop() {
				if err := verify(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	e := large(b, &Store{Dir: b.TempDir()})
	b.SetBytes(int64(e.Manifest.Data()))
	n := &counter{}
	for b.Loop() {
		n.bytes = 0
		if err := e.Pack(b.Context(), n); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n.bytes)/1e6, "packed-MB")
}

type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

func BenchmarkUnpack(b *testing.B) {
	e := large(b, &Store{Dir: b.TempDir()})
	var packed bytes.Buffer
	if err := e.Pack(b.Context(), &packed); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(e.Manifest.Data()))
	dir := b.TempDir()
	for b.Loop() {
		s := &Store{Dir: dir}
		got, err := s.Unpack(b.Context(), io.Reader(bytes.NewReader(packed.Bytes())), Admission{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = got.Close()
		if err := s.Remove(got.Name()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
