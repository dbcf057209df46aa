package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// FuzzWalk changes bytes of file systems that a Maker and mke2fs made. Walk and
// Data then end, with names that are names, parents before children, no path
// twice, data in order within the file, and no more of it in all files together
// than the file system has blocks for.
func FuzzWalk(f *testing.F) {
	images := fuzzImages(f)
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0x40, 4, 0, 0, 0x10, 7, 0, 7})
	f.Add(uint8(2), []byte{0x40, 4, 0, 0, 0x10, 7, 0, 7})
	f.Add(uint8(3), []byte{0, 0x50, 0, 1})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		raw := bytes.Clone(images[int(which)%len(images)])
		for ; len(edits) >= 4; edits = edits[4:] {
			at := int(binary.LittleEndian.Uint32(edits)&0xffffff) % len(raw)
			raw[at] = edits[3]
		}
		f := &FS{image: "/fuzz", part: Partition{Size: units.Bytes(len(raw))}, file: memory{bytes.NewReader(raw)}}
		sb, err := f.Superblock()
		if err != nil {
			return
		}
		dirs := map[string]bool{".": true}
		seen := map[string]bool{}
		read := map[uint32]units.Bytes{}
		err = f.Walk(t.Context(), func(n Node) error {
			dir, name := split(n.Path)
			if seen[n.Path] || !dirs[dir] || name == "" || name == ".." || name == "." && n.Path != "." || strings.ContainsAny(name, "/\x00") {
				t.Errorf("%q is no path, or comes again or too soon", n.Path)
			}
			seen[n.Path] = true
			if n.IsDir() {
				dirs[n.Path] = true
			}
			if (n.Target != "") != (n.Mode.Type() == fs.ModeSymlink) && n.Target != "" || len(n.Target) > maxPath {
				t.Errorf("%q leads to %q", n.Path, n.Target)
			}
			if _, again := read[n.Inode]; again || !n.Mode.IsRegular() {
				return nil // a name more for the same data
			}
			end, sum := units.Bytes(0), units.Bytes(0)
			_ = f.Data(n, func(offset units.Bytes, data []byte) error { // an error is an answer
				if offset < end || len(data) == 0 || len(data) > int(dataChunk) || offset+units.Bytes(len(data)) > n.Size {
					t.Errorf("%q: %d bytes at %d after %d", n.Path, len(data), offset, end)
				}
				end, sum = offset+units.Bytes(len(data)), sum+units.Bytes(len(data))
				return nil
			})
			read[n.Inode] = sum
			return nil
		})
		all := units.Bytes(0)
		for _, n := range read {
			all += n
		}
		if sb.countsSectors() && all > sb.Size() {
			t.Errorf("%d bytes were read from a file system of %d, %v", all, sb.Size(), err)
		}
	})
}

// fuzzImages are two file systems of ours and two of mke2fs'.
func fuzzImages(f *testing.F) [][]byte {
	f.Helper()
	var images [][]byte
	add := func(image string, from units.Bytes) {
		raw, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, raw[from:])
	}
	for _, creator := range []OS{OSHurd, OSLinux} {
		m := newMakerFor(f, newImage(f), creator, units.MiB, 50)
		a := Attributes{Mode: 0o755}
		if err := errors.Join(
			m.Dir("etc", a), m.Dir("etc/ssh", a), m.Symlink("link", "etc/ssh/../passwd", a),
			m.File("big", a, 60*units.KiB, bytes.NewReader(bytes.Repeat([]byte("x"), 60<<10))), m.Link("etc/big", "big"),
			m.File("etc/small", a, 1, strings.NewReader("1")), m.Symlink("etc/ssh/long", strings.Repeat("long/", 40), a),
		); err != nil {
			f.Fatal(err)
		}
		add(complete(f, m).image, 0)
	}
	for _, name := range []string{"ext2-1k", "ext4-1k"} {
		image, _ := makeFS(f, append([]string{"-N", "32"}, flavour(f, name)...), smallTreeFor(f), 512*units.KiB)
		add(image, fsStart)
	}
	return images
}

func smallTreeFor(f *testing.F) string {
	f.Helper()
	root := f.TempDir()
	for name, size := range map[string]int{"one": 1, "dir/other": 80 << 10} {
		if err := errors.Join(os.MkdirAll(root+"/dir", 0o755), os.WriteFile(root+"/"+name, bytes.Repeat([]byte("1"), size), 0o600)); err != nil {
			f.Fatal(err)
		}
	}
	return root
}
