package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/units"
)

// selftestDisk is a raw copy of the selftest guest's disk.
func selftestDisk(t *testing.T) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "guest.img")
	if out, err := exec.Command("zstd", "-dq", "../selftest/assets/selftest.img.zst", "-o", raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return raw
}

// editDisk changes the file system on the first partition of a raw disk.
func editDisk(t *testing.T, raw string, edit func(root *ext2.FS, batch *ext2.Batch) error) {
	t.Helper()
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := ext2.Partitions(f, units.Bytes(info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	root, err := ext2.Open(raw, parts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	batch := root.Begin()
	if err := edit(root, batch); err != nil {
		t.Fatal(err)
	}
	if err := batch.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}
