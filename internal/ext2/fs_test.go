package ext2

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// sampleTree makes a directory of everything that the reader must cope with.
func sampleTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	random := rand.NewChaCha8([32]byte{1})
	content := func(size int) []byte {
		b := make([]byte, size)
		_, _ = random.Read(b) // never fails
		return b
	}
	write := func(name string, data []byte, mode fs.FileMode) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", nil, 0o644)
	write("one", []byte("1"), 0o600)
	write("block", content(4096), 0o644)
	write("direct", content(12*1024), 0o644)
	write("large", content(3<<20+17), 0o644) // needs doubly indirect blocks of 1 KiB
	write("setuid", []byte("x"), 0o755|fs.ModeSetuid)
	write("dir/deep/er/file", []byte("deep\n"), 0o640)
	write("a name with spaces", []byte("spaces"), 0o644)
	write("new\nline", []byte("newline"), 0o644)
	for i := range 250 { // a hash tree
		write(fmt.Sprintf("many/a-file-with-a-name-so-long-that-only-a-few-fit-into-a-block-%04d", i), nil, 0o644)
	}
	holes, err := os.Create(filepath.Join(root, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{100 << 10, 900 << 10} {
		if _, err := holes.WriteAt([]byte("island"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(holes.Truncate(2<<20), holes.Close()); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"short": "dir/deep", "absolute": "/dir/deep/er/file", "up": "dir/../../../one", "dangling": "nowhere/at/all",
		"loop": "loop", "dir/long": strings.Repeat("../dir/", 20) + "deep", "dir/slash": "deep/",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "dir"), 0o1777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return root
}

// smallTree makes a directory of two files.
func smallTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for name, size := range map[string]int{"one": 1, "large": 3<<20 + 17} {
		if err := os.WriteFile(filepath.Join(root, name), bytes.Repeat([]byte("1"), size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestReadEveryFlavour compares what the reader finds with the directory that
// the file systems were made of.
func TestReadEveryFlavour(t *testing.T) {
	tools(t, "mke2fs", "debugfs")
	root := sampleTree(t)
	for _, fl := range flavours {
		t.Run(fl.name, func(t *testing.T) {
			image, part := makeFS(t, fl.args, root, 24*units.MiB)
			f := openFS(t, image, part)
			sb, err := f.Superblock()
			if err != nil || !sb.Clean || (sb.Creator == OSHurd) != fl.hurd || sb.Size() > part.Size {
				t.Errorf("superblock %+v, %v", sb, err)
			}
			err = filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				inside := "/" + strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
				compareWithHost(t, f, inside, name)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func compareWithHost(t *testing.T, f *FS, inside, outside string) {
	t.Helper()
	want, err := os.Lstat(outside)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Lstat(inside)
	if err != nil {
		t.Error(err)
		return
	}
	if inside != "/" && got.Mode != want.Mode() {
		t.Errorf("%s has mode %v, want %v", inside, got.Mode, want.Mode())
	}
	switch {
	case want.Mode().IsRegular():
		wantData, err := os.ReadFile(outside)
		if err != nil {
			t.Fatal(err)
		}
		data, err := f.ReadFile(inside)
		if err != nil || !bytes.Equal(data, wantData) || got.Size != units.Bytes(len(wantData)) {
			t.Errorf("%s holds other data (%d bytes for %d, %v)", inside, len(data), len(wantData), err)
		}
	case want.IsDir():
		wantNames := []string{}
		entries, err := os.ReadDir(outside)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			wantNames = append(wantNames, e.Name())
		}
		list, err := f.ReadDir(inside)
		names := []string{}
		for _, e := range list {
			if inside != "/" || e.Name != "lost+found" {
				names = append(names, e.Name)
			}
		}
		slices.Sort(names)
		if err != nil || !slices.Equal(names, wantNames) {
			t.Errorf("%s has %d names, want %d, %v", inside, len(names), len(wantNames), err)
		}
	case want.Mode().Type() == fs.ModeSymlink:
		wantTarget, err := os.Readlink(outside)
		if err != nil {
			t.Fatal(err)
		}
		if target, err := f.ReadLink(inside); err != nil || target != wantTarget {
			t.Errorf("%s leads to %q, %v, want %q", inside, target, err, wantTarget)
		}
	}
}

func TestSymbolicLinks(t *testing.T) {
	tools(t, "mke2fs")
	image, part := makeFS(t, flavour(t, "hurd"), sampleTree(t), 24*units.MiB)
	f := openFS(t, image, part)
	for path, want := range map[string]string{
		"/short/er/file":                "deep\n",
		"/absolute":                     "deep\n",
		"/up":                           "1",
		"/dir/long/er/file":             "deep\n",
		"/dir/slash/er/file":            "deep\n",
		"//dir/./deep/../deep/er//file": "deep\n",
		"/../one":                       "1",
	} {
		if data, err := f.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s holds %q, %v, want %q", path, data, err, want)
		}
	}
	for _, path := range []string{"/dangling", "/loop", "/one/below", "/nothing", "/short/nothing"} {
		if ok, err := f.Exists(path); ok || err != nil {
			t.Errorf("Exists(%s) = %v, %v", path, ok, err)
		}
	}
	if _, err := f.ReadFile("/loop"); err == nil || !strings.Contains(err.Error(), "read /loop: too many symbolic links") {
		t.Errorf("reading a loop: %v", err)
	}
	if _, err := f.ReadFile("/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading nothing: %v", err)
	}
	for path, want := range map[string]string{
		"relative": "not an absolute path",
		"/dir":     "not a regular file but d",
	} {
		if _, err := f.ReadFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("reading %s: %v, want %q", path, err, want)
		}
	}
}

func TestReadHeadOfLargeFile(t *testing.T) {
	tools(t, "mke2fs")
	root := t.TempDir()
	big, err := os.Create(filepath.Join(root, "big"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = big.WriteString("\x7fELF and so on")
	if err := errors.Join(err, big.Truncate(int64(MaxRead)+1), big.Close()); err != nil {
		t.Fatal(err)
	}
	image, part := makeFS(t, flavour(t, "hurd"), root, 8*units.MiB)
	f := openFS(t, image, part)
	if head, err := f.ReadHead("/big", 4); err != nil || string(head) != "\x7fELF" {
		t.Errorf("the head is %q, %v", head, err)
	}
	if _, err := f.ReadFile("/big"); !errors.Is(err, errTooLarge) {
		t.Errorf("reading it whole: %v", err)
	}
}

// TestBlocks reads files where Blocks says that they lie in the image.
func TestBlocks(t *testing.T) {
	tools(t, "mke2fs")
	root := sampleTree(t)
	for _, name := range []string{"hurd", "ext2-1k", "ext4"} {
		t.Run(name, func(t *testing.T) {
			image, part := makeFS(t, flavour(t, name), root, 24*units.MiB)
			f := openFS(t, image, part)
			raw, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"/empty", "/one", "/block", "/large"} {
				extents, err := f.Blocks(path)
				if err != nil {
					t.Error(err)
					continue
				}
				var data []byte
				for i, e := range extents {
					if i > 0 && extents[i-1].Offset+extents[i-1].Length == e.Offset {
						t.Errorf("%s: extents %d and %d could be one", path, i-1, i)
					}
					data = append(data, raw[e.Offset:e.Offset+e.Length]...)
				}
				want, err := os.ReadFile(filepath.Join(root, path))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(data, want) {
					t.Errorf("%s is not where its blocks are", path)
				}
			}
			if _, err := f.Blocks("/holes"); err == nil || !strings.Contains(err.Error(), "locate /holes: it has holes") {
				t.Errorf("a file with holes: %v", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	tools(t, "mke2fs")
	image, part := makeFS(t, flavour(t, "hurd"), "", 8*units.MiB)
	for name, tc := range map[string]struct {
		image string
		part  Partition
		is    error
		want  string
	}{
		"no file system":  {image, Partition{Size: part.Size}, ErrNotExt2, "no ext2 file system"},
		"beyond the end":  {image, Partition{Start: 100 * units.MiB}, ErrNotExt2, "no ext2 file system"},
		"truncated":       {image, Partition{Number: 1, Start: part.Start, Size: 4 * units.MiB, Type: "83"}, ErrTruncated, "the file system has 8 MiB, its partition only 4 MiB"},
		"a question mark": {image + "?x", part, nil, "e2fsprogs can't handle a '?'"},
		"no image":        {image + ".none", part, fs.ErrNotExist, "no such file"},
	} {
		_, err := Open(tc.image, tc.part)
		if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOwnersAndTranslator reads fields that a directory on the host can't have.
func TestOwnersAndTranslator(t *testing.T) {
	tools(t, "mke2fs", "debugfs")
	for _, name := range []string{"hurd", "ext4"} {
		image, part := makeFS(t, flavour(t, name), smallTree(t), 24*units.MiB)
		f := openFS(t, image, part)
		damage(t, f, "sif /one uid 123456", "sif /one gid 654321", "sif /one translator 77")
		info, err := f.Stat("/one")
		if err != nil || info.UID != 123456 || info.GID != 654321 {
			t.Errorf("%s: owner %d:%d, %v", name, info.UID, info.GID, err)
		}
		if want := map[string]uint32{"hurd": 77, "ext4": 0}[name]; info.Translator != want {
			t.Errorf("%s: translator %d, want %d", name, info.Translator, want)
		}
		if !strings.Contains(debugfs(t, f, "stat /one"), "User: 123456   Group: 654321") {
			t.Errorf("%s: debugfs sees other owners", name)
		}
	}
}
