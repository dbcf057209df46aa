package ext2

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

type memory struct{ io.ReaderAt }

func (memory) Close() error { return nil }

// FuzzRead changes bytes of a small file system: whatever it then says, every
// question has an answer or an error, within bounds.
func FuzzRead(f *testing.F) {
	tools(f, "mke2fs")
	root := f.TempDir()
	for name, data := range map[string]string{"etc/passwd": "root:x:0:0\n", "etc/ssh/sshd_config": "Include x\n", "big": string(make([]byte, 40<<10))} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink("etc/ssh/../passwd", filepath.Join(root, "link")); err != nil {
		f.Fatal(err)
	}
	var images [][]byte
	for _, name := range []string{"ext2-1k", "ext4-1k"} {
		image, _ := makeFS(f, append([]string{"-N", "32"}, flavour(f, name)...), root, 256*units.KiB)
		raw, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, raw[fsStart:])
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0x40, 4, 0xff, 0x00, 0x10, 7, 7, 7})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		raw := bytes.Clone(images[int(which)%len(images)])
		for ; len(edits) >= 4; edits = edits[4:] {
			at := int(binary.LittleEndian.Uint32(edits)&0xffffff) % len(raw)
			raw[at] = edits[3]
		}
		fs := &FS{image: "/fuzz", part: Partition{Size: units.Bytes(len(raw))}, file: memory{bytes.NewReader(raw)}}
		walk(t, fs)
	})
}

// walk asks everything.
func walk(t *testing.T, f *FS) {
	for _, path := range []string{"/", "/etc", "/etc/passwd", "/link", "/big", "/etc/ssh/sshd_config", "/lost+found/../big"} {
		if info, err := f.Stat(path); err == nil && info.Size < 0 {
			t.Errorf("%s has %d bytes", path, info.Size)
		}
		data, err := f.ReadFile(path)
		if units.Bytes(len(data)) > MaxRead {
			t.Errorf("%s: %d bytes were read, %v", path, len(data), err)
		}
		extents, err := f.Blocks(path)
		var sum units.Bytes
		for _, e := range extents {
			if e.Offset < 0 || e.Length <= 0 || err == nil && e.Offset+e.Length > f.part.Size {
				t.Errorf("%s lies at %+v", path, e)
			}
			sum += e.Length
		}
		if err == nil && sum != units.Bytes(len(data)) {
			t.Errorf("%s has %d bytes in %d bytes of blocks", path, len(data), sum)
		}
		if entries, err := f.ReadDir(path); err == nil {
			for _, e := range entries {
				if e.Name == "" || e.Name == "." || e.Name == ".." || e.Inode == 0 {
					t.Errorf("%s holds %+v", path, e)
				}
			}
		}
		_, _ = f.ReadLink(path) // must return
	}
}
