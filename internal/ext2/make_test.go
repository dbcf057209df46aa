package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// complete finishes a file system and opens it.
func complete(t testing.TB, m *Maker) *FS {
	t.Helper()
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return openFS(t, m.image, Partition{Size: m.options.Size})
}

func newImage(t testing.TB) string { return filepath.Join(t.TempDir(), "drive.raw") }

// TestDialects holds what the Hurd's ext2fs and Linux demand. The numbers are
// those of the Hurd's ext2_fs.h, written out so that a change of the package's
// constants shows.
func TestDialects(t *testing.T) {
	for name, tc := range map[string]struct {
		creator               OS
		number                uint32
		incompat, ro, compat  uint32
		inodeSize             uint32
		directoryType         byte // of a subdirectory's entry
		author                uint32
		modTime               time.Time
		wantSeconds, wantNano int64
	}{
		// The Hurd: EXT2_FEATURE_INCOMPAT_SUPP is 2, EXT2_FEATURE_RO_COMPAT_SUPP 7.
		"hurd":  {OSHurd, 1, 0, 3, 8, 128, 0, 70000, time.Unix(1700000000, 5), 1700000000, 0},
		"linux": {OSLinux, 0, 2, 3, 8, 256, 2, 0, time.Unix(1700000000, 5), 1700000000, 5},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMakerFor(t, newImage(t), tc.creator, 300*units.MiB, 100)
			if err := errors.Join(
				m.Dir("dir", Attributes{Mode: 0o755, UID: 70000, GID: 70001, ModTime: tc.modTime}),
				m.File("dir/file", Attributes{Mode: 0o644}, 3, strings.NewReader("abc")),
			); err != nil {
				t.Fatal(err)
			}
			f := complete(t, m)
			raw := make([]byte, 2048)
			if _, err := f.file.ReadAt(raw, 0); err != nil {
				t.Fatal(err)
			}
			le := binary.LittleEndian
			sb := raw[1024:]
			got := []uint32{
				le.Uint32(sb[72:]), le.Uint32(sb[96:]), le.Uint32(sb[100:]), le.Uint32(sb[92:]), uint32(le.Uint16(sb[88:])),
				1024 << le.Uint32(sb[24:]), 1024 << le.Uint32(sb[28:]), le.Uint32(sb[8:]), uint32(le.Uint16(sb[58:])),
			}
			want := []uint32{tc.number, tc.incompat, tc.ro, tc.compat, tc.inodeSize, 4096, 4096, 0, 1}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("creator, features, inode, block and fragment size, reserved blocks, state: %v, want %v", got, want)
			}
			if id := uuid(sb[104:120]); id != "11000000-0000-0000-0000-000000000022" || !bytes.HasPrefix(sb[120:136], []byte("workspace\x00")) {
				t.Errorf("UUID %s, label %q", id, sb[120:136])
			}
			dir := rawInode(t, f, "/dir")
			if author, translator := le.Uint32(dir[124:]), le.Uint32(dir[36:]); author != tc.author || translator != 0 {
				t.Errorf("author %d, translator %d", author, translator)
			}
			root := make([]byte, makeBlock)
			if _, err := f.file.ReadAt(root, int64(le.Uint32(rawInode(t, f, "/")[40:]))*makeBlock); err != nil {
				t.Fatal(err)
			}
			if root[24+6] != 3 || root[24+7] != tc.directoryType || string(root[24+8:][:3]) != "dir" {
				t.Errorf("the root's third entry is %q", root[24:36])
			}
			err := f.Walk(t.Context(), func(n Node) error {
				if n.Path == "dir" && (n.ModTime.Unix() != tc.wantSeconds || int64(n.ModTime.Nanosecond()) != tc.wantNano || n.UID != 70000 || n.GID != 70001) {
					t.Errorf("%+v", n)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func rawInode(t *testing.T, f *FS, path string) []byte {
	t.Helper()
	tree, n, err := f.lookup(path, false)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := tree.descriptor(0)
	if err != nil {
		t.Fatal(err)
	}
	at := units.Bytes(binary.LittleEndian.Uint32(desc[8:]))*makeBlock + units.Bytes(n.number-1)*units.Bytes(tree.sb.inodeSize)
	b, err := tree.at(at, units.Bytes(tree.sb.inodeSize))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTimes(t *testing.T) {
	for _, tc := range []struct{ in, hurd, linux int64 }{
		{0, 0, 0}, {1, 1, 1}, {-1, 0, -1}, {math.MinInt32, 0, math.MinInt32}, {math.MinInt32 - 1, 0, math.MinInt32},
		{math.MaxInt32, math.MaxInt32, math.MaxInt32}, {math.MaxInt32 + 1, math.MaxInt32, math.MaxInt32 + 1},
		{1 << 32, math.MaxInt32, 1 << 32}, {1<<34 - 1 + math.MinInt32, math.MaxInt32, 1<<34 - 1 + math.MinInt32},
		{1 << 34, math.MaxInt32, 1<<34 - 1 + math.MinInt32}, {time.Time{}.Unix(), 0, math.MinInt32},
	} {
		for creator, want := range map[OS]int64{OSHurd: tc.hurd, OSLinux: tc.linux} {
			seconds, extra := diskTime(time.Unix(tc.in, 0), creator)
			if got := fileTime(Superblock{Creator: creator}, seconds, extra); got.Unix() != want || got.Nanosecond() != 0 {
				t.Errorf("%d becomes %d for the system %d, want %d", tc.in, got.Unix(), creator, want)
			}
		}
	}
	if got := fileTime(Superblock{Creator: OSHurd}, 1<<31, 0).Unix(); got != 1<<31 {
		t.Errorf("the Hurd wrote 2^31, which was read as %d", got)
	}
}

func TestMakerRefuses(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSHurd, 16*units.MiB, 100)
	var a Attributes
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(m.Dir("d", a))
	ok(m.File("f", a, 0, strings.NewReader("")))
	ok(m.File(strings.Repeat("n", 255), a, 0, strings.NewReader("")))
	reader := strings.NewReader("12345")
	for name, tc := range map[string]struct {
		err  error
		is   error
		says string
	}{
		"no name":           {m.File("", a, 0, reader), ErrName, "write : a name must have 1 to 255 bytes"},
		"long":              {m.Dir(strings.Repeat("n", 256), a), ErrName, "none of them NUL"},
		"NUL":               {m.Symlink("a\x00b", "x", a), ErrName, ""},
		"absolute":          {m.Dir("/d", a), ErrName, "mkdir /d: "},
		"dots":              {m.Dir("d/../e", a), ErrName, ""},
		"dot":               {m.File("d/.", a, 0, reader), ErrName, ""},
		"trailing slash":    {m.Dir("d/e/", a), ErrName, ""},
		"again":             {m.File("f", a, 0, reader), fs.ErrExist, "write f: file already exists"},
		"again a directory": {m.Dir("f", a), fs.ErrExist, ""},
		"no directory":      {m.File("e/f", a, 0, reader), fs.ErrNotExist, "write e/f: the directory e: file does not exist"},
		"in a file":         {m.Symlink("f/g", "x", a), errNotDir, "symlink f/g: f is not a directory"},
		"empty target":      {m.Symlink("s", "", a), nil, "1 to 4095 bytes"},
		"long target":       {m.Symlink("s", strings.Repeat("x", 4096), a), nil, "this has 4096"},
		"NUL in a target":   {m.Symlink("s", "x\x00", a), nil, "NUL"},
		"device":            {m.Special("s", Attributes{Mode: fs.ModeDevice}), nil, "mknod s: a file of type D--------- can't be made"},
		"no type":           {m.Special("s", a), nil, "only named pipes and sockets"},
		"link to nothing":   {m.Link("l", "nothing"), fs.ErrNotExist, "link nothing l: the existing file: file does not exist"},
		"link to a dir":     {m.Link("l", "d"), nil, "a directory can't have two names"},
		"link over":         {m.Link("d", "f"), fs.ErrExist, ""},
		"too large":         {m.File("s", a, maxFileSize+1, reader), ErrFileSize, "write s: ext2 allows files of 2194719883264 bytes, this has 2194719883265"},
		"negative":          {m.File("s", a, -1, reader), ErrFileSize, ""},
		"too short":         {m.File("s", a, 6, reader), ErrShrank, "write s: the file became shorter while it was read: from 6 to 5 bytes"},
		"unreadable":        {m.File("s", a, 6, failing{}), io.ErrClosedPipe, "write s: io: read/write on closed pipe"},
	} {
		if tc.err == nil || tc.is != nil && !errors.Is(tc.err, tc.is) || !strings.Contains(tc.err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, tc.err, tc.says)
		}
	}
	if _, err := reader.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	ok(m.File("s", a, 3, reader)) // one that grew is cut
	f := complete(t, m)
	if data, err := f.ReadFile("/s"); err != nil || string(data) != "123" {
		t.Errorf("%q, %v", data, err)
	}
	var paths []string
	ok(f.Walk(t.Context(), func(n Node) error { paths = append(paths, n.Path); return nil }))
	if got, want := strings.Join(paths, " "), ". d f "+strings.Repeat("n", 255)+" s"; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
	for name, err := range map[string]error{"file": m.File("x", a, 0, reader), "link": m.Link("y", "f"), "close": m.Close(t.Context())} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestLinkLimit(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSHurd, 600*units.MiB, 33000)
	var a Attributes
	if err := m.File("f", a, 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	for i := range 31999 {
		if err := errors.Join(m.Link(fmt.Sprintf("l%d", i), "f")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 31998 {
		if err := m.Dir(fmt.Sprintf("d%d", i), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Link("l", "f"); !errors.Is(err, ErrLinks) {
		t.Errorf("the 32001st link: %v", err)
	}
	if err := m.Dir("d", a); !errors.Is(err, ErrLinks) {
		t.Errorf("the 32001st link to the root: %v", err)
	}
	complete(t, m) // e2fsck agrees
}

// TestShrunkFile has an error for a file that ends sooner, though its missing
// end looks like a hole.
func TestShrunkFile(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSLinux, 16*units.MiB, 10)
	f := islands{[]int64{0}, [][]byte{[]byte("beginning")}}.file(t, 5*makeBlock)
	err := m.File("log", Attributes{}, 2*units.MiB, f)
	if !errors.Is(err, ErrShrank) || !strings.Contains(err.Error(), "from 2097152 to 20480 bytes") {
		t.Errorf("%v", err)
	}
	if err := m.File("log", Attributes{}, 5*makeBlock, f); err != nil {
		t.Error(err)
	}
	complete(t, m)
}

// TestSparse holds that holes take no room, however a reader shows them.
// TestSpace holds that the size that an error asks for is enough, and no waste.
// TestInodes holds that there is room for the files and for as many as the
// size allows, but not for millions, which e2fsck would have to read.
func TestMakeRefuses(t *testing.T) {
	tools(t, "mke2fs")
	good := MakeOptions{Size: 8 * units.MiB, UUID: [16]byte{1}}
	for name, tc := range map[string]struct {
		change func(*MakeOptions)
		image  string
		stub   string
		says   string
	}{
		"small":       {change: func(o *MakeOptions) { o.Size = units.MiB - 1 }, says: "is too small: it must be at least 1M"},
		"huge":        {change: func(o *MakeOptions) { o.Size = 16 * 1024 * units.GiB }, says: "ext2 ends at 16 TiB"},
		"label":       {change: func(o *MakeOptions) { o.Label = "seventeen letters" }, says: "at most 16 bytes"},
		"NUL":         {change: func(o *MakeOptions) { o.Label = "\x00" }, says: "at most 16 bytes"},
		"no UUID":     {change: func(o *MakeOptions) { o.UUID = [16]byte{} }, says: "it has no UUID"},
		"inodes":      {change: func(o *MakeOptions) { o.Inodes = -1 }, says: "room for -1 files"},
		"system":      {change: func(o *MakeOptions) { o.Creator = 3 }, says: "the system with the number 3"},
		"path":        {image: "a?b", says: "can't handle a '?'"},
		"directory":   {image: "no/such", says: "no such file or directory"},
		"mke2fs":      {stub: "echo 'mke2fs: no luck' >&2; exit 1", says: "mke2fs: exit status 1: mke2fs: no luck"},
		"other":       {stub: `for a; do last="$prev"; prev="$a"; done; exec $REAL -q -F -b 1024 "$last"`, says: "mke2fs made another file system than it was asked for"},
		"does little": {stub: "exit 0", says: "no ext2 file system"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.stub != "" {
				stubTool(t, "mke2fs", tc.stub)
			}
			o := good
			if tc.change != nil {
				tc.change(&o)
			}
			image := filepath.Join(t.TempDir(), "image")
			if tc.image != "" {
				image = filepath.Join(t.TempDir(), tc.image)
			}
			if _, err := Make(t.Context(), image, o); err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "making the file system") {
				t.Errorf("%v, want %q", err, tc.says)
			}
			if _, err := os.Stat(image); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was left behind: %v", err)
			}
		})
	}
}

// TestCloseProves holds that nobody gets a file system that e2fsck finds
// wanting, and that Discard removes only what Close did not complete.
func TestCloseProves(t *testing.T) {
	image := newImage(t)
	m := newMakerFor(t, image, OSHurd, 8*units.MiB, 10)
	m.root.links = 7
	var check *CheckError
	if err := m.Close(t.Context()); !errors.As(err, &check) || !strings.Contains(err.Error(), "Inode 2 ref count is 7, should be 2") {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := m.Discard(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(image); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	m = newMakerFor(t, image, OSHurd, 8*units.MiB, 10)
	complete(t, m)
	if err := m.Discard(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(image); err != nil {
		t.Error(err)
	}
}

// failsAt reads endless data up to a place.
type failsAt int64

func (r failsAt) ReadAt(b []byte, at int64) (int, error) {
	for i := range b {
		if at+int64(i) >= int64(r) {
			return i, io.ErrClosedPipe
		}
		b[i] = byte(at>>12) | 1
	}
	return len(b), nil
}

// TestFailureGivesBack holds that a file which could not be read to its end
// takes no room and spoils nothing.
func TestFailureGivesBack(t *testing.T) {
	free := func(fail bool) uint64 {
		m := newMakerFor(t, newImage(t), OSHurd, 40*units.MiB, 10)
		const size = 30 * units.MiB
		for i := range 3 {
			if err := m.File("whole", Attributes{}, 5*units.MiB, failsAt(size)); i == 0 && err != nil {
				t.Fatal(err)
			}
			if !fail {
				continue
			}
			for _, at := range []failsAt{1, 1 << 20, 1<<20 + 5, 29 << 20} {
				if err := m.File("broken", Attributes{}, size, at); !errors.Is(err, io.ErrClosedPipe) {
					t.Fatal(err)
				}
			}
		}
		if err := m.File("last", Attributes{}, size, failsAt(size)); err != nil {
			t.Fatal(err)
		}
		f := complete(t, m)
		data, err := f.ReadHead("/last", MaxRead)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, MaxRead)
		_, _ = failsAt(size).ReadAt(want, 0) // as above
		if !bytes.Equal(data, want) {
			t.Error("the last file holds other data")
		}
		sb, err := f.Superblock()
		if err != nil {
			t.Fatal(err)
		}
		return sb.FreeBlocks
	}
	if with, without := free(true), free(false); with != without {
		t.Errorf("%d blocks are free after failures, %d without", with, without)
	}
}

// TestSizes makes file systems whose last group is odd.

// TestFailureOnAFullDrive counts no blocks of a file that isn't there.
func TestFailureOnAFullDrive(t *testing.T) {
	m := newMakerFor(t, newImage(t), OSHurd, 8*units.MiB, 10)
	if err := m.File("broken", Attributes{}, 30*units.MiB, failsAt(29<<20)); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	if err := m.File("small", Attributes{}, 7*units.MiB, failsAt(7<<20)); err != nil {
		t.Fatal(err)
	}
	complete(t, m)
}
