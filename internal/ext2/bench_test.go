package ext2

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// benchTree writes 2,000 files of 50 MB together.
func benchTree(b *testing.B) string {
	b.Helper()
	root := b.TempDir()
	random := rand.NewChaCha8([32]byte{3})
	data := make([]byte, 25000)
	for i := range 2000 {
		_, _ = random.Read(data) // never fails
		dir := filepath.Join(root, fmt.Sprintf("dir%d", i%40))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

// makeFrom makes a file system of a directory.
func makeFrom(b *testing.B, image, root string) {
	b.Helper()
	m := newMakerFor(b, image, OSHurd, units.GiB, 2100)
	err := filepath.WalkDir(root, func(name string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		a := Attributes{Mode: info.Mode(), ModTime: info.ModTime()}
		if e.IsDir() {
			return m.Dir(path, a)
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // opened for reading
		return m.File(path, a, units.Bytes(info.Size()), f)
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMake makes 50 MB and 2,000 files into a file system, e2fsck
// included, and lets mke2fs do it without e2fsck.
func BenchmarkMake(b *testing.B) {
	root := benchTree(b)
	dir := b.TempDir()
	var mke2fs time.Duration
	n := 0
	for b.Loop() {
		image := filepath.Join(dir, fmt.Sprint(n))
		n++
		makeFrom(b, image, root)
		b.StopTimer()
		began := time.Now()
		tool(b, "mke2fs", "-q", "-F", "-t", "ext2", "-o", "hurd", "-b", "4096", "-m", "0", "-d", root, image+".2", "1g")
		mke2fs += time.Since(began)
		if err := os.Remove(image); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(image + ".2"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(mke2fs.Milliseconds())/float64(n), "mke2fs-ms/op")
}

// BenchmarkWalk reads it back without writing it anywhere, and lets debugfs
// copy it out.
func BenchmarkWalk(b *testing.B) {
	tools(b, "debugfs")
	image := filepath.Join(b.TempDir(), "image")
	makeFrom(b, image, benchTree(b))
	f, err := Open(image, Partition{Size: units.GiB})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	var rdump time.Duration
	n := 0
	for b.Loop() {
		read := 0
		err := f.Walk(b.Context(), func(node Node) error {
			if !node.Mode.IsRegular() {
				return nil
			}
			return f.Data(node, func(_ units.Bytes, data []byte) error { read += len(data); return nil })
		})
		if err != nil || read != 2000*25000 {
			b.Fatal(read, err)
		}
		b.StopTimer()
		n++
		to := b.TempDir()
		began := time.Now()
		debugfs(b, f, "rdump / "+to)
		rdump += time.Since(began)
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(rdump.Milliseconds())/float64(n), "rdump-ms/op")
}
