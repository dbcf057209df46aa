package ext2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// smallDrive makes a file system of a few files: a, b/c, b/d, and e with two
// indirect blocks.
func smallDrive(t testing.TB, creator OS, more func(*Maker) error) *FS {
	t.Helper()
	m := newMakerFor(t, newImage(t), creator, 16*units.MiB, 300)
	a := Attributes{Mode: 0o755}
	err := errors.Join(
		m.File("a", a, 5, strings.NewReader("first")), m.Dir("b", a), m.File("b/c", a, 5, strings.NewReader("third")),
		m.Symlink("b/d", "target", a), m.File("e", a, 2000*makeBlock, bytes.NewReader(bytes.Repeat([]byte("e"), 2000*makeBlock))),
	)
	if more != nil {
		err = errors.Join(err, more(m))
	}
	if err != nil {
		t.Fatal(err)
	}
	return complete(t, m)
}

// paths walks and reads everything.
func paths(t testing.TB, f *FS) ([]string, error) {
	t.Helper()
	var all []string
	err := f.Walk(t.Context(), func(n Node) error {
		all = append(all, n.Path)
		if n.Mode.IsRegular() {
			return f.Data(n, func(units.Bytes, []byte) error { return nil })
		}
		return nil
	})
	return all, err
}

func TestWalkSkips(t *testing.T) {
	f := smallDrive(t, OSHurd, nil)
	own := errors.New("the visitor's own")
	for name, tc := range map[string]struct {
		at   string
		err  error
		want string
		ends error
	}{
		"all of it":   {"", nil, ". a b b/c b/d e", nil},
		"directory":   {"b", fs.SkipDir, ". a b e", nil},
		"rest of dir": {"b/c", fs.SkipDir, ". a b b/c e", nil},
		"rest of top": {"a", fs.SkipDir, ". a", nil},
		"the root":    {".", fs.SkipDir, ".", nil},
		"everything":  {"b", fs.SkipAll, ". a b", nil},
		"deeper":      {"b/c", fs.SkipAll, ". a b b/c", nil},
		"an error":    {"b/d", own, ". a b b/c b/d", own},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := f.Walk(t.Context(), func(n Node) error {
				got = append(got, n.Path)
				if n.Path == tc.at {
					return tc.err
				}
				return nil
			})
			if err != tc.ends || strings.Join(got, " ") != tc.want { //nolint:errorlint // it must come back as it is
				t.Errorf("%q, %v, want %q", got, err, tc.want)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := f.Walk(ctx, func(n Node) error {
			if n.Path == "b" {
				cancel(own)
			}
			return nil
		})
		if !errors.Is(err, own) {
			t.Errorf("%v", err)
		}
	})
	t.Run("data", func(t *testing.T) {
		for path, want := range map[string]error{"/e": own, "/b": nil} {
			info, err := f.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Data(Node{Path: "x", Info: info}, func(units.Bytes, []byte) error { return own })
			if want != nil && err != want || want == nil && (err == nil || err.Error() != "read x: not a regular file but d---------") { //nolint:errorlint // as above
				t.Errorf("%s: %v, want %v", path, err, want)
			}
		}
	})
}

// TestWalkLostFound leaves out what e2fsprogs make, and nothing else.
func TestWalkLostFound(t *testing.T) {
	for name, tc := range map[string]struct {
		attr  Attributes
		below bool
		want  bool
	}{
		"e2fsprogs'":   {Attributes{Mode: 0o700}, false, false},
		"the user's":   {Attributes{Mode: 0o755}, false, true},
		"of a user":    {Attributes{Mode: 0o700, UID: 1000}, false, true},
		"with a group": {Attributes{Mode: 0o700, GID: 1000}, false, true},
		"not empty":    {Attributes{Mode: 0o700}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := smallDrive(t, OSLinux, func(m *Maker) error {
				err := errors.Join(m.Dir("lost+found", tc.attr), m.Dir("b/lost+found", Attributes{Mode: 0o700}))
				if tc.below {
					err = errors.Join(err, m.Symlink("lost+found/x", "y", Attributes{}))
				}
				return err
			})
			got, err := paths(t, f)
			if err != nil || slices.Contains(got, "lost+found") != tc.want || !slices.Contains(got, "b/lost+found") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestRepairAndWalk is what happens after a guest was lost: e2fsck on a drive
// without a partition table, and then everything that is left.
func TestRepairAndWalk(t *testing.T) {
	for name, tc := range map[string]struct {
		damage []string
		says   string
		gone   string
		found  bool // something is in lost+found
	}{
		"not unmounted": {damage: []string{"ssv state 0"}},
		"bitmap":        {damage: []string{"ssv state 0", "freeb 300 200", "set_bg 0 free_blocks_count 7"}, says: "Block bitmap differences"},
		"inode bitmap":  {damage: []string{"freei <12>", "ssv state 0"}, says: "Inode bitmap differences"},
		"a lost file":   {damage: []string{"unlink /a", "ssv state 0"}, says: "Unattached inode", gone: "a", found: true},
		"a lost dir":    {damage: []string{"unlink /b", "ssv state 3"}, says: "Unconnected directory inode", gone: "b", found: true},
		"links":         {damage: []string{"sif /a links_count 9", "ssv state 0"}, says: "ref count is 9, should be 1"},
	} {
		for creatorName, creator := range creators {
			t.Run(name+" "+creatorName, func(t *testing.T) {
				f := smallDrive(t, creator, nil)
				damage(t, f, tc.damage...)
				if sb, err := f.Superblock(); err != nil || sb.Clean {
					t.Errorf("%+v, %v", sb, err)
				}
				did, err := f.Repair(t.Context())
				if err != nil || !strings.Contains(strings.Join(did, "\n"), tc.says) {
					t.Errorf("%q, %v", did, err)
				}
				if sb, err := f.Superblock(); err != nil || !sb.Clean || sb.Creator != creator {
					t.Errorf("after the repair: %+v, %v", sb, err)
				}
				got, err := paths(t, f)
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range []string{"a", "b", "e"} {
					if slices.Contains(got, path) == (path == tc.gone) {
						t.Errorf("found %q", got)
					}
				}
				if lost := slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, "lost+found/#") }); lost != tc.found || slices.Contains(got, "lost+found") != tc.found {
					t.Errorf("found %q", got)
				}
			})
		}
	}
}

// TestWalkHostile has an error for what no sound file system is like.
func TestWalkHostile(t *testing.T) {
	for name, tc := range map[string]struct {
		damage  []string
		own     int64 // a block that is made a block of pointers to itself
		replace [2]string
		more    func(*Maker) error
		says    string
	}{
		"loop":               {damage: []string{"ln <2> b/up"}, says: `"b/up" is a directory that has another name`},
		"itself":             {damage: []string{"ln b b/b"}, says: `"b/b" is a directory that has another name`},
		"two names":          {damage: []string{"ln b f"}, says: `"f" is a directory that has another name`},
		"deleted":            {damage: []string{"sif a links_count 0"}, says: `"a" leads to inode 11, which is not in use`},
		"no type":            {damage: []string{"sif a mode 0644"}, says: `which is not in use`},
		"no inode":           {replace: [2]string{"\x10\x00\x00\x00\x10\x00\x05\x00nameA", "\x0f\x27\x00\x00\x10\x00\x05\x00nameA"}, says: `"nameA": the file system is damaged: inode 9999 does not exist`},
		"root is a file":     {damage: []string{"sif <2> mode 0100644"}, says: "its root is no directory"},
		"same name":          {replace: [2]string{"nameA", "nameB"}, says: `holds "nameB" twice`},
		"name with a slash":  {replace: [2]string{"nameA", "na/eA"}, says: `a directory holds the name "na/eA"`},
		"name with NUL":      {replace: [2]string{"nameA", "name\x00"}, says: `a directory holds the name`},
		"claims":             {damage: []string{"sif e blocks 4000000"}, says: "its files claim more space than it has"},
		"few sectors":        {damage: []string{"sif e blocks 16"}, says: "read e: the file system is damaged: a file has more blocks than it says"},
		"pointers to itself": {damage: []string{"sif e size 4398000000000", "sif e block[TIND] 400"}, own: 400, says: "read e: the file system is damaged: a file has more blocks than it says"},
		"block outside":      {damage: []string{"sif a block[0] 99999"}, says: "block 99999 does not exist"},
		"indirect outside":   {damage: []string{"sif e block[IND] 99999"}, says: "block 99999 does not exist"},
		"negative size":      {damage: []string{"sif a size 0xffffffffffffffff"}, says: "read a: the file system is damaged: a file of 18446744073709551615 bytes"},
		"large directory":    {damage: []string{"sif b size 0x20000000"}, says: `the directory "b": the file system is damaged: a directory is larger than the file system`},
		"directory of holes": {damage: []string{"sif b size 8192"}, says: `the directory "b": the file system is damaged: a directory entry is invalid`},
		"no inode table":     {damage: []string{"set_bg 0 inode_table 99999"}, says: "the inode table of group 0 lies beyond its end"},
		"long path": {more: func(m *Maker) error {
			path := "p"
			for ; len(path) < maxWalkPath; path += "/" + strings.Repeat("p", 255) {
				if err := m.Dir(path, Attributes{}); err != nil {
					return err
				}
			}
			return m.Dir(path, Attributes{})
		}, says: "a path has more than 32768 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			f := smallDrive(t, OSHurd, func(m *Maker) error {
				err := errors.Join(m.Dir("nameA", Attributes{}), m.Dir("nameB", Attributes{}))
				if tc.more != nil {
					err = errors.Join(err, tc.more(m))
				}
				return err
			})
			if len(tc.damage) > 0 {
				damage(t, f, tc.damage...)
			}
			if tc.own != 0 {
				pointers := bytes.Repeat(binary.LittleEndian.AppendUint32(nil, uint32(tc.own)), pointersPerBlock)
				writeAt(t, f.image, tc.own*makeBlock, pointers)
			}
			if tc.replace[0] != "" {
				replaceInImage(t, f.image, tc.replace[0], tc.replace[1])
			}
			_, err := paths(t, f)
			if !errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q", err, tc.says)
			}
		})
	}
}

func writeAt(t *testing.T, image string, at int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

func replaceInImage(t *testing.T, image, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(raw, []byte(from)) != 1 {
		t.Fatalf("the image holds %q %d times", from, bytes.Count(raw, []byte(from)))
	}
	if err := os.WriteFile(image, bytes.Replace(raw, []byte(from), []byte(to), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWalkBounds counts names in all directories together.
func TestWalkBounds(t *testing.T) {
	f := smallDrive(t, OSLinux, nil)
	for most, ok := range map[int]bool{5: true, 4: false, 3: false, 2: false} {
		err := f.walk(t.Context(), most, func(Node) error { return nil })
		if (err == nil) != ok || err != nil && (!errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), "too many names")) {
			t.Errorf("%d: %v", most, err)
		}
	}
}

// counter counts what is read from an image.
type counter struct {
	readerAtCloser
	reads int
}

func (c *counter) ReadAt(b []byte, offset int64) (int, error) {
	c.reads++
	return c.readerAtCloser.ReadAt(b, offset)
}

// TestWalkIsLinear holds that a directory of many files and their inodes are
// read once.
func TestWalkIsLinear(t *testing.T) {
	reads := func(files int) int {
		m := newMakerFor(t, newImage(t), OSHurd, 200*units.MiB, files)
		for i := range files {
			if err := m.File(fmt.Sprintf("a name of some length %d", i), Attributes{}, 0, strings.NewReader("")); err != nil {
				t.Fatal(err)
			}
		}
		f := complete(t, m)
		c := &counter{readerAtCloser: f.file}
		n := 0
		if err := (&FS{image: f.image, part: f.part, file: c}).Walk(t.Context(), func(Node) error { n++; return nil }); err != nil || n != files+1 {
			t.Errorf("%d files were found, want %d, %v", n, files+1, err)
		}
		return c.reads
	}
	few, many := reads(1000), reads(10000)
	if few > 30 || many > 200 {
		t.Errorf("%d reads for 1,000 files, %d for 10,000", few, many)
	}
}

func TestPages(t *testing.T) {
	data := make([]byte, 3*pageSize+100)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	c := &counter{readerAtCloser: memory{bytes.NewReader(data)}}
	p := newPages(c)
	for _, tc := range []struct{ at, length, reads int }{
		{0, 10, 1}, {100, 1000, 0}, {pageSize - 5, 10, 1}, {pageSize, pageSize, 0}, {len(data) - 3, 3, 1}, {len(data) - 3, 4, 0},
		{len(data), 1, 0}, {len(data) + pageSize, 1, 1}, {0, pageSize + 1, 1}, {256 * pageSize, 1, 1}, {0, 1, 1},
	} {
		before := c.reads
		got, want := make([]byte, tc.length), make([]byte, tc.length)
		n, err := p.ReadAt(got, int64(tc.at))
		wantN, wantErr := bytes.NewReader(data).ReadAt(want, int64(tc.at))
		if n != wantN || !errors.Is(err, wantErr) || !bytes.Equal(got, want) || c.reads-before != tc.reads {
			t.Errorf("%d bytes at %d: %d, %v in %d reads, want %d, %v in %d", tc.length, tc.at, n, err, c.reads-before, wantN, wantErr, tc.reads)
		}
	}
}
