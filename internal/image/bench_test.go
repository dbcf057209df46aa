package image

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// benchSize is the raw disk's size; the official images have 4096 MiB.
var benchSize = flag.Int("image.mib", 512, "size in MiB of the raw disk that BenchmarkObtain fetches")

// BenchmarkObtain fetches, verifies and unpacks an image from a server on this
// machine, and compares the time with that of unpacking alone by the usual
// programs, in the same run: the metric ratio is at most 1.15.
func BenchmarkObtain(b *testing.B) {
	for _, kind := range []struct{ name, pack, unpack string }{
		{"tar.xz", "xz -1 -T1", "xz -dc"}, {"tar.gz", "gzip -6", "gzip -dc"}, {"tar.zst", "zstd -q -3", "zstd -qdc"},
	} {
		b.Run(kind.name, func(b *testing.B) {
			dir := b.TempDir()
			packed := filepath.Join(dir, "disk."+kind.name)
			writeBenchDisk(b, filepath.Join(dir, "disk.img"), units.Bytes(*benchSize)*units.MiB)
			shell(b, dir, "tar -cf - disk.img | "+kind.pack+" > "+packed+" && rm disk.img && mkdir x")
			hash := fileHash(b, packed)
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, packed) }))
			defer web.Close()
			src, err := ParseSource(web.URL + "/disk." + kind.name)
			if err != nil {
				b.Fatal(err)
			}
			var usual, ours time.Duration
			for b.Loop() {
				start := time.Now()
				shell(b, dir, kind.unpack+" "+packed+" | tar -xf - -C x")
				usual += time.Since(start)
				shell(b, dir, "rm -r x && mkdir x")
				s := &Store{Dir: filepath.Join(dir, "store")}
				start = time.Now()
				base, err := s.Obtain(b.Context(), src, Want{SHA256: hash})
				ours += time.Since(start)
				if err != nil {
					b.Fatal(err)
				}
				if err := base.Close(); err != nil {
					b.Fatal(err)
				}
				shell(b, dir, "rm -rf store")
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(usual.Seconds()/float64(b.N), "s-usual")
			b.ReportMetric(ours.Seconds()/float64(b.N), "s-ours")
			b.ReportMetric(ours.Seconds()/usual.Seconds(), "ratio")
		})
	}
}

func shell(b *testing.B, dir, script string) {
	b.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func fileHash(b *testing.B, path string) string {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	feed := newFeed(b.Context(), f, nil)
	if _, err := io.Copy(io.Discard, feed); err != nil {
		b.Fatal(err)
	}
	have, err := feed.wait()
	if err != nil {
		b.Fatal(err)
	}
	return have.sha256
}

// writeBenchDisk fills somewhat less than half of a disk with real files, those
// of the Go toolchain, over and over, with holes between them.
func writeBenchDisk(b *testing.B, path string, size units.Bytes) {
	b.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	root := strings.TrimSpace(string(out))
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := sparse.NewWriter(f, nil)
	header := make([]byte, 1<<20)
	header[510], header[511] = 0x55, 0xaa
	_, err = w.Write(header)
	for err == nil && w.Size() < size {
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || w.Size() >= size {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data = data[:min(len(data), int(size-w.Size()))]
			if _, err := w.Write(data); err != nil {
				return err
			}
			hole := min(int64(len(data))*5/4, int64(size-w.Size()))
			return w.Skip(hole)
		})
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Fatal(fmt.Errorf("making the disk: %w", err))
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}
