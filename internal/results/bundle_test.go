package results

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "logs 1.2 (pc)", "é", strings.Repeat("n", 250), "a.b"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	bad := []string{"", ".", "..", "\xff", "a\x00", strings.Repeat("n", 251)}
	for _, c := range "\":<>|*?\r\n\\/\t" {
		bad = append(bad, "a"+string(c)+"b")
	}
	for _, name := range bad {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

var entryNames = map[string]string{
	"a/b.txt": "a/b.txt", "/etc/passwd": "etc/passwd", "../../x": "%2E%2E/%2E%2E/x", "./a//b/.": "a/b", "": "", "/": "", "..": "%2E%2E",
	`a\..\b`: "a%5C..%5Cb", "C:/x": "C%3A/x", "a\xffb": "a%FFb", "a\nb\x1b": "a%0Ab%1B", "\u0085": "%C2%85", "é ü": "é ü",
	"100%": "100%", "100%25": "100%2525", "%zz%4": "%zz%4", "...": "...", `"<>|*?`: "%22%3C%3E%7C%2A%3F", "-rf": "-rf", "\ufffd": "\ufffd",
}

func TestEntryName(t *testing.T) {
	for in, want := range entryNames {
		if got := entryName(in); got != want {
			t.Errorf("entryName(%q) = %q, want %q", in, got, want)
		}
	}
}

// unescape undoes the escape as its documentation says.
func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) && hex(name[i+1]) && hex(name[i+2]) {
			n := 0
			for _, c := range strings.ToLower(name[i+1 : i+3]) {
				n = n*16 + strings.IndexRune("0123456789abcdef", c)
			}
			b.WriteByte(byte(n))
			i += 2
			continue
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// FuzzEntryName: a name is relative, local, extractable on every system, and
// its escape can be undone; two files never share a place.
func FuzzEntryName(f *testing.F) {
	for in := range entryNames {
		f.Add(in, in+"x")
	}
	f.Add("a", "a/b")
	f.Add("a/b", "a")
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, in := range []string{one, two} {
			got := entryName(in)
			if !utf8.ValidString(got) || strings.ContainsAny(got, "\":<>|*?\\\x00\r\n") {
				t.Fatalf("%q became %q", in, got)
			}
			if got != "" && (!filepath.IsLocal(got) || path.Clean(got) != got || strings.HasPrefix(got, "/")) {
				t.Fatalf("%q became %q, which leads elsewhere", in, got)
			}
			var elements []string
			for e := range strings.SplitSeq(in, "/") {
				if e != "" && e != "." {
					elements = append(elements, e)
				}
			}
			if back := unescape(got); back != strings.Join(elements, "/") {
				t.Fatalf("%q became %q, which is %q again", in, got, back)
			}
		}
		var n names
		a, b := n.take(entryName(one)), n.take(entryName(two))
		if a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
			t.Fatalf("%q and %q became %q and %q", one, two, a, b)
		}
	})
}

func TestDuplicatesGetNumbers(t *testing.T) {
	b := bundle("a.txt", "/a.txt", "./a.txt", "d/f", "d", "x", "x/y", "x/z", ".profile", "/.profile", "..", "/")
	var got []string
	for _, e := range b.entries {
		got = append(got, e.name)
	}
	want := []string{"a.txt", "a-2.txt", "a-3.txt", "d/f", "d-2", "x", "x-2/y", "x-2/z", ".profile", ".profile-2", "%2E%2E"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(b.Notes()) != 1 {
		t.Errorf("notes %q", b.Notes())
	}
}

// tree is a directory with everything that a guest may leave in one.
func tree(t *testing.T) (*os.Root, string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "workspace")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "out/empty"), 0o755))
	must(os.WriteFile(filepath.Join(top, "secret"), []byte("of the host"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "out/prog"), []byte("#!/bin/sh\n"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "out/n\xff"), []byte("latin"), 0o644))
	must(os.WriteFile(filepath.Join(dir, "top"), []byte("top"), 0o640))
	must(os.Chmod(filepath.Join(dir, "out/prog"), 0o4755|os.ModeSetuid))
	must(os.Chtimes(filepath.Join(dir, "out/prog"), clock, clock))
	must(os.Symlink("prog", filepath.Join(dir, "out/link")))
	must(os.Symlink("../../secret", filepath.Join(dir, "out/escape")))
	must(os.Symlink(filepath.Join(top, "secret"), filepath.Join(dir, "out/absolute")))
	must(os.Symlink("nowhere", filepath.Join(dir, "out/dangling")))
	must(os.Symlink(".", filepath.Join(dir, "out/loop")))
	must(syscall.Mkfifo(filepath.Join(dir, "out/pipe"), 0o644))
	root, err := os.OpenRoot(dir)
	must(err)
	t.Cleanup(func() { _ = root.Close() })
	return root, dir
}

func TestAddTree(t *testing.T) {
	root, _ := tree(t)
	b := &Bundle{}
	if err := b.Add(root, "out", "result"); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(root, "top", "top"); err != nil {
		t.Fatal(err)
	}
	for _, missing := range []string{"nope", "out/escape", "../secret"} {
		if err := b.Add(root, missing, "x"); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s was added: %v", missing, err)
		}
	}
	var out bytes.Buffer
	if err := b.zip(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"result/prog": "#!/bin/sh\n", "result/link": "#!/bin/sh\n", "result/n%FF": "latin", "top": "top"}
	if diff := cmp.Diff(want, unzip(t, out.Bytes())); diff != "" {
		t.Error(diff)
	}
	notes := strings.Join(b.Notes(), "\n")
	for _, left := range []string{"escape", "absolute", "dangling", "loop", "pipe"} {
		if !strings.Contains(notes, left) {
			t.Errorf("%s is left out without a note: %s", left, notes)
		}
	}
	r, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		if f.Name == "result/prog" && (f.Mode() != 0o755 || !f.Modified.Equal(clock)) {
			t.Errorf("mode %v, time %v", f.Mode(), f.Modified)
		}
		if f.Name == "top" && f.Mode() != 0o640 {
			t.Errorf("mode %v", f.Mode())
		}
	}
}

// TestAddAll adds a whole root without a directory above.
func TestAddAll(t *testing.T) {
	root, _ := tree(t)
	b := &Bundle{}
	if err := b.Add(root, ".", ""); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range b.entries {
		got = append(got, e.name)
	}
	if diff := cmp.Diff([]string{"out/link", "out/n%FF", "out/prog", "top"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestZipIsTheSame holds that order and bytes depend on the files alone.
func TestZipIsTheSame(t *testing.T) {
	var zips [3]bytes.Buffer
	files := []string{"b", "a/z", "a/b", "c.log"}
	for i := range zips {
		rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		if err := bundle(files...).zip(t.Context(), &zips[i]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(zips[0].Bytes(), zips[i].Bytes()) {
			t.Errorf("the order %q gives another zip", files)
		}
	}
}

// TestZip64 has more files than the old format's 16 bits can count.
func TestZip64(t *testing.T) {
	const files = 1<<16 + 10
	b := &Bundle{}
	for i := range files {
		b.AddBytes(strconv.Itoa(i), time.Time{}, []byte("x"))
	}
	var out bytes.Buffer
	if err := b.zip(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if n := len(unzip(t, out.Bytes())); n != files {
		t.Errorf("%d files of %d", n, files)
	}
}

func TestShrinks(t *testing.T) {
	text := []byte(strings.Repeat("a line of a log\n", 1000))
	for name, c := range map[string]struct {
		head []byte
		want bool
	}{
		"serial.log": {text, true}, "x.tar.gz": {text, false}, "IMAGE.PNG": {text, false}, "core": {noise(64 << 10), false},
		"short": {noise(100), true}, "empty": {nil, false}, "text.bin": {text, true},
	} {
		if got := new(deflate).shrinks(name, c.head); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	b := &Bundle{}
	b.AddBytes("text", time.Time{}, text)
	b.AddBytes("noise", time.Time{}, noise(len(text)))
	var out bytes.Buffer
	if err := b.zip(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if n := out.Len(); n < len(text) || n > len(text)+1500 {
		t.Errorf("the zip has %d bytes, the files have %d each", n, len(text))
	}
}

// TestBrokenFiles: one that can't be read costs itself only.
func TestBrokenFiles(t *testing.T) {
	broken := errors.New("input/output error")
	b := bundle("a", "z")
	open := func(r io.Reader, err error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(r), err }
	}
	b.add("gone", 0, clock, open(nil, fs.ErrNotExist))
	b.add("early", 0, clock, open(iotest.ErrReader(broken), nil))
	b.add("late", 0, clock, open(io.MultiReader(bytes.NewReader(noise(200_000)), iotest.ErrReader(broken)), nil))
	b.add("slow", 0, clock, open(iotest.OneByteReader(strings.NewReader("byte by byte")), nil))
	var out bytes.Buffer
	if err := b.zip(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a": "contents of a", "early": "", "late": string(noise(200_000)), "slow": "byte by byte", "z": "contents of z",
	}
	if diff := cmp.Diff(want, unzip(t, out.Bytes())); diff != "" {
		t.Error(diff)
	}
	notes := []string{
		`"early" ends after 0 bytes: input/output error`, `"gone" is left out: file does not exist`,
		`"late" ends after 200000 bytes: input/output error`,
	}
	if diff := cmp.Diff(notes, b.Notes()); diff != "" {
		t.Error(diff)
	}
	if err := b.zip(t.Context(), failingWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("to a full disk: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNotesAreBounded(t *testing.T) {
	var b Bundle
	for range 1000 {
		b.AddBytes("/", clock, nil)
	}
	if n := len(b.Notes()); n != maxNotes+1 {
		t.Errorf("%d notes", n)
	}
	b.AddBytes(strings.Repeat("d/", 3000)+"f", clock, nil)
	if b.Len() != 0 {
		t.Error("a name of 6 KB was taken")
	}
}

// TestGrowingFile: a log that is written all the time ends somewhere.
func TestGrowingFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "log")
	if err := os.WriteFile(file, []byte("now"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	r, err := openFile(root, "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := os.WriteFile(file, []byte("now and later"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); string(text) != "now" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{".", "pipe"} {
		if _, err := openFile(root, odd); err == nil {
			t.Errorf("%s was opened", odd)
		}
	}
}

func TestFilesAreBounded(t *testing.T) {
	b := &Bundle{entries: make([]entry, maxFiles)}
	b.AddBytes("one more", clock, nil)
	if b.Len() != maxFiles || len(b.Notes()) != 1 {
		t.Errorf("%d files, notes %q", b.Len(), b.Notes())
	}
}

func TestZipIsCanceled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	b := &Bundle{}
	b.add("endless", 0, clock, func() (io.ReadCloser, error) {
		return io.NopCloser(readerFunc(func(p []byte) (int, error) { cancel(interrupted); return len(p), nil })), nil
	})
	if err := b.zip(ctx, io.Discard); !errors.Is(err, interrupted) {
		t.Errorf("error %v", err)
	}
	dir := t.TempDir()
	if _, err := b.writeZip(ctx, dir); !errors.Is(err, interrupted) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := b.writeZip(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestDirectory(t *testing.T) {
	root, _ := tree(t)
	b := bundle("../up", "a", "a/b")
	if err := b.Add(root, "out", "result"); err != nil {
		t.Fatal(err)
	}
	d := Directory{Path: filepath.Join(t.TempDir(), "new", "artifacts")}
	made, err := d.Upload(t.Context(), Upload{Name: "logs", Bundle: b})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	_ = filepath.WalkDir(made.Path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			text, _ := os.ReadFile(p)
			rel, _ := filepath.Rel(made.Path, p)
			files[rel] = string(text)
		}
		return err
	})
	want := map[string]string{
		"%2E%2E/up": "contents of ../up", "a": "contents of a", "a-2/b": "contents of a/b",
		"result/prog": "#!/bin/sh\n", "result/link": "#!/bin/sh\n", "result/n%FF": "latin",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(made.Path, "result/prog"))
	if err != nil || info.Mode() != 0o755 || !info.ModTime().Equal(clock) {
		t.Errorf("%v, %v", info, err)
	}
	if made != (Artifact{Name: "logs", Size: 70, Path: filepath.Join(d.Path, "logs")}) {
		t.Errorf("made %+v", made)
	}
	if _, err := d.Upload(t.Context(), Upload{Name: "logs", Bundle: b}); !errors.Is(err, ErrExists) {
		t.Errorf("the second time: %v", err)
	}
	if left, _ := os.ReadDir(d.Path); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
