package qemu

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/platform"
)

var (
	update   = flag.Bool("update", false, "rewrite the golden files")
	qemuFlag = flag.String("qemu", DefaultBinary, "the QEMU that the end-to-end tests run")
	machFlag = flag.String("mach", "../../testdata/mach/gnumach-machprobe.qcow2", "the disk with GNU Mach that the end-to-end tests boot")
)

// The guests that the tests know.
var (
	hurd64     = Guest{platform.Hurd, platform.AMD64, platform.UserDrivers}
	hurd32     = Guest{platform.Hurd, platform.I386, platform.UserDrivers}
	hurdKernel = Guest{platform.Hurd, platform.I386, platform.KernelDrivers}
	linux64    = Guest{platform.Linux, platform.AMD64, ""}
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-nodefaults" {
		syscall.Exit(fakeQEMU(os.Args[1:])) // started by a test in QEMU's place; os.Exit takes a second under -race
	}
	if len(os.Args) == 3 && os.Args[1] == "-parent" {
		os.Exit(parentOfQEMU(os.Args[2]))
	}
	if len(os.Args) == 4 && os.Args[1] == "-forbidden-uring" {
		os.Exit(forbiddenUring(os.Args[2], os.Args[3]))
	}
	os.Exit(runTests(m))
}

// runTests keeps deferred functions apart from os.Exit.
func runTests(m *testing.M) int {
	flag.Parse()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return code
}

// deadline is a context that no test should outlive.
func deadline(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// recorded gives the features of a QEMU whose answers were recorded.
func recorded(t testing.TB, version string) *Features {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "answers", "qemu-"+version+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	f, err := parseAnswers(file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// golden compares a text with a file, or rewrites the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}
