package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
)

func TestLook(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data string, size int64) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var s Store
	for _, tc := range []struct {
		path, want string
		err        error
	}{
		{put("blank.img", "", 8<<20), "raw, a disk of 8 MiB", nil},
		{put("disk.xz", "\xfd7zXZ\x00 and so on", 0), "packed, 16 B", nil},
		{put("page.img", "<!DOCTYPE html><title>404</title>", 0), "it is a web page", disk.ErrNotDisk},
		{put("cut.qcow2", "QFI\xfb\x00\x00\x00\x03", 0), "cut.qcow2", disk.ErrTruncated},
		{filepath.Join(dir, "missing"), "missing", os.ErrNotExist},
		{dir, "a directory", disk.ErrNotDisk},
		{fifo, "no regular file", disk.ErrNotDisk},
	} {
		text, err := s.Look(t.Context(), tc.path)
		if err != nil {
			text = err.Error()
		}
		if !errors.Is(err, tc.err) || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %q, %v; want %q, %v", tc.path, text, err, tc.want, tc.err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 5 {
		t.Errorf("something was written: %v, %v", left, err)
	}
}

func TestPresetAddresses(t *testing.T) {
	p := presets[0]
	for mirror, base := range map[string]string{"": Publisher, "http://mirror.example/x": "http://mirror.example/x/", "https://mirror.example/": "https://mirror.example/"} {
		got := p.Addresses(mirror)
		if len(got) != len(p.Dirs) || got[0] != base+p.Dirs[0]+p.File {
			t.Errorf("mirror %q: %q", mirror, got)
		}
	}
}
