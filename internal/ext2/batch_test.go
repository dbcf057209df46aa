package ext2

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

var rootFile = Attr{Mode: 0o644}

// commit makes edits that must all be accepted and proves the file system.
func commit(t *testing.T, f *FS, edits ...func(*Batch) error) {
	t.Helper()
	b := f.Begin()
	for i, edit := range edits {
		if err := edit(b); err != nil {
			t.Fatalf("edit %d: %v", i, err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func write(name, data string, attr Attr) func(*Batch) error {
	return func(b *Batch) error { return b.WriteFile(name, []byte(data), attr) }
}

func TestBatch(t *testing.T) {
	tools(t, "mke2fs", "debugfs", "e2fsck")
	root := sampleTree(t)
	large := strings.Repeat("0123456789abcde\n", 10000)
	for _, fl := range flavours {
		t.Run(fl.name, func(t *testing.T) {
			image, part := makeFS(t, fl.args, root, 24*units.MiB)
			f := openFS(t, image, part)
			commit(t, f,
				func(b *Batch) error { return b.MkdirAll("/new/er/dir", Attr{Mode: 0o700, UID: 1000, GID: 100}) },
				func(b *Batch) error { return b.MkdirAll("/new/er/other", Attr{Mode: 0o755}) },
				func(b *Batch) error { return b.MkdirAll("/dir/deep", Attr{Mode: 0o700}) }, // exists: stays
				write("/new/er/dir/key", "secret\n", Attr{Mode: 0o600, UID: 1000, GID: 100}),
				write("/one", "replaced", rootFile),
				write("/large", large, Attr{Mode: 0o640, UID: 70000, GID: 80000}),
				write("/empty", "", rootFile),
				write("/twice", "first", rootFile),
				write("/twice", "second", Attr{Mode: 0o755 | fs.ModeSetuid}),
				write("/absolute", "through a link", rootFile),
				write("/short/er/100% <12> -name", "odd", rootFile),
				func(b *Batch) error { return b.Remove("/block") },
				func(b *Batch) error { return b.Remove("/dangling") },
				func(b *Batch) error { return b.SetAttr("/dir", Attr{Mode: 0o711, UID: 3, GID: 4}) },
				func(b *Batch) error { return b.SetAttr("/one", Attr{Mode: 0o700}) },
			)
			for path, want := range map[string]string{
				"/new/er/dir/key": "secret\n", "/one": "replaced", "/large": large, "/empty": "", "/twice": "second",
				"/dir/deep/er/file": "through a link", "/dir/deep/er/100% <12> -name": "odd", "/direct": "",
			} {
				data, err := f.ReadFile(path)
				if err != nil || string(data) != want && path != "/direct" {
					t.Errorf("%s holds %.20q, %v", path, data, err)
				}
				if seen := debugfs(t, f, `cat "`+path+`"`); !bytes.Equal([]byte(seen), data) {
					t.Errorf("debugfs sees something else in %s", path)
				}
			}
			for path, want := range map[string]Info{
				"/new":            {Mode: fs.ModeDir | 0o700, UID: 1000, GID: 100},
				"/new/er/other":   {Mode: fs.ModeDir | 0o755},
				"/dir/deep":       {Mode: fs.ModeDir | 0o755},
				"/new/er/dir/key": {Mode: 0o600, UID: 1000, GID: 100},
				"/large":          {Mode: 0o640, UID: 70000, GID: 80000},
				"/dir":            {Mode: fs.ModeDir | 0o711, UID: 3, GID: 4},
				"/twice":          {Mode: 0o755 | fs.ModeSetuid},
				"/one":            {Mode: 0o700},
			} {
				got, err := f.Stat(path)
				if err != nil || got.Mode != want.Mode || got.UID != want.UID || got.GID != want.GID || got.Translator != 0 {
					t.Errorf("%s is %v %d:%d, %v", path, got.Mode, got.UID, got.GID, err)
				}
			}
			for _, path := range []string{"/block", "/dangling"} {
				if _, err := f.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}

func TestBatchRefuses(t *testing.T) {
	tools(t, "mke2fs")
	image, part := makeFS(t, flavour(t, "hurd"), sampleTree(t), 24*units.MiB)
	f := openFS(t, image, part)
	damage(t, f, "sif /one translator 77")
	attr := Attr{Mode: 0o600}
	for name, tc := range map[string]struct {
		edit func(*Batch) error
		want string
	}{
		"relative":            {write("x", "", attr), "must be absolute"},
		"newline":             {write("/a\nrm /one", "", attr), "without quotes, backslashes and control characters"},
		"quote":               {write(`/a" "b`, "", attr), "without quotes"},
		"backslash":           {write(`/a\b`, "", attr), "without quotes"},
		"long":                {write("/"+strings.Repeat("x", 1024), "", attr), "shorter than 1024 bytes"},
		"no directory":        {write("/no/such", "", attr), "write /no/such: file does not exist"},
		"a directory":         {write("/dir", "", attr), "write /dir: not a regular file but d"},
		"a loop":              {write("/loop", "", attr), "too many symbolic links"},
		"a translator":        {write("/one", "", attr), "write /one: a translator is set on it"},
		"mkdir over a file":   {func(b *Batch) error { return b.MkdirAll("/block", attr) }, "mkdir /block: not a directory"},
		"mkdir below a file":  {func(b *Batch) error { return b.MkdirAll("/block/x", attr) }, "not a directory"},
		"remove nothing":      {func(b *Batch) error { return b.Remove("/none") }, "remove /none: file does not exist"},
		"remove a directory":  {func(b *Batch) error { return b.Remove("/dir") }, "remove /dir: it is a directory"},
		"remove a quote":      {func(b *Batch) error { return b.Remove(`/"`) }, "without quotes"},
		"attributes of none":  {func(b *Batch) error { return b.SetAttr("/none", attr) }, "chmod /none: file does not exist"},
		"dots out of nowhere": {write("/no/../one", "", attr), "file does not exist"},
	} {
		b := f.Begin()
		err := tc.edit(b)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if !b.Empty() {
			t.Errorf("%s: the batch is not empty", name)
		}
	}
	// Names that only a symbolic link brings in are refused as well.
	if err := f.Begin().WriteFile("/new\nline", nil, attr); !errors.Is(err, ErrPath) {
		t.Errorf("a newline: %v", err)
	}
}

// TestCommitReadsBack replaces debugfs by programs that claim success.
func TestCommitReadsBack(t *testing.T) {
	after := func(request string) string {
		return `"$REAL" "$@" || exit 1; for target; do :; done; "$REAL" -w -R '` + request + `' "$target" 2>/dev/null`
	}
	for name, tc := range map[string]struct{ script, want string }{
		"does nothing":  {"cat >/dev/null; echo 'sif: nonsense' >&2", "editing /d: stat"},
		"other data":    {after("zap_block -f /d/f -p 65 0"), "editing /d/f: it holds other data (4 bytes) than was written (4 bytes)"},
		"other size":    {after("sif /d/f size 3"), "it holds other data (3 bytes)"},
		"other mode":    {after("sif /d/f mode 0100644"), "it has the mode 0644 and the owner 5:6 instead of 0600 and 5:6"},
		"other owner":   {after("sif /d/f uid 9"), "the owner 9:6 instead of"},
		"other type":    {after("sif /d mode 0120700"), "editing /d: it has the type L--------- instead of d---------"},
		"translator":    {after("sif /d/f translator 9"), "its translator field is 9 instead of 0"},
		"not removed":   {`sed '/^rm/d' | "$REAL" "$@"`, "editing /one: it was not removed"},
		"debugfs fails": {"cat >/dev/null; echo no luck >&2; exit 1", "editing partition 1 (type 83, 24 MiB at 1M): debugfs: exit status 1: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			tools(t, "mke2fs")
			image, part := makeFS(t, flavour(t, "hurd"), smallTree(t), 24*units.MiB)
			f := openFS(t, image, part)
			b := f.Begin()
			for _, edit := range []func(*Batch) error{
				func(b *Batch) error { return b.MkdirAll("/d", Attr{Mode: 0o700}) },
				write("/d/f", "data", Attr{Mode: 0o600, UID: 5, GID: 6}),
				func(b *Batch) error { return b.Remove("/one") },
			} {
				if err := edit(b); err != nil {
					t.Fatal(err)
				}
			}
			stubTool(t, "debugfs", tc.script)
			err := b.Commit(t.Context())
			if err == nil || !strings.Contains(strings.Replace(err.Error(), "lstat", "stat", 1), tc.want) {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			var edit *EditError
			if !errors.As(err, &edit) && name != "debugfs fails" {
				t.Errorf("%T instead of *EditError", err)
			}
			if name == "does nothing" && !strings.Contains(err.Error(), "(debugfs said: sif: nonsense)") {
				t.Errorf("%v does not say what debugfs said", err)
			}
		})
	}
}

func TestCommitDiskFull(t *testing.T) {
	tools(t, "mke2fs", "debugfs")
	image, part := makeFS(t, flavour(t, "hurd"), "", 2*units.MiB)
	f := openFS(t, image, part)
	b := f.Begin()
	if err := b.WriteFile("/big", bytes.Repeat([]byte("x"), 4<<20), rootFile); err != nil {
		t.Fatal(err)
	}
	err := b.Commit(t.Context())
	var edit *EditError
	if !errors.As(err, &edit) || edit.Path != "/big" || !strings.Contains(err.Error(), "Could not allocate block") {
		t.Errorf("a full file system: %v", err)
	}
}

func TestEmptyBatch(t *testing.T) {
	tools(t, "mke2fs")
	image, part := makeFS(t, flavour(t, "hurd"), "", 2*units.MiB)
	f := openFS(t, image, part)
	stubTool(t, "debugfs", "exit 1")
	if err := f.Begin().Commit(t.Context()); err != nil {
		t.Errorf("committing nothing: %v", err)
	}
}
