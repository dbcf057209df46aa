package results

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// benchServer takes blocks and forgets them, and gives zeros.
func benchServer(tb testing.TB, size int64) string {
	zeros, err := os.Create(filepath.Join(tb.TempDir(), "zeros"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = zeros.Close() })
	if err := zeros.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.ServeFile(w, r, zeros.Name())
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// BenchmarkTransfer moves 1 GiB over the loopback in each direction, server
// and client in one process. The metric rss-MiB is the process's peak.
func BenchmarkTransfer(b *testing.B) {
	const size = int64(units.GiB)
	address := benchServer(b, size)
	file, err := os.Create(filepath.Join(b.TempDir(), "entry"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := file.Truncate(size); err != nil {
		b.Fatal(err)
	}
	for _, azure := range []bool{false, true} {
		b.Run(fmt.Sprintf("upload/parallel=%v", azure), func(b *testing.B) {
			s, to := &Service{}, address
			if azure {
				s.Client = lead(b, address)
				to = "http://account.blob.core.windows.net/"
			}
			measure(b, size, func() error { return s.upload(b.Context(), to, file, size, nil) })
		})
	}
	b.Run("download", func(b *testing.B) {
		c := &Cache{Service: &Service{}}
		measure(b, size, func() error {
			_, err := c.Download(b.Context(), &Hit{address: address}, file, 0, nil)
			return err
		})
	})
}

func measure(b *testing.B, size int64, do func() error) {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // resets the peak, where allowed
	b.SetBytes(size)
	for b.Loop() {
		if err := do(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(peak(b))/float64(units.MiB), "rss-MiB")
}

// peak is the most memory that this process has had.
func peak(tb testing.TB) units.Bytes {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return units.Bytes(n) * units.KiB
}
