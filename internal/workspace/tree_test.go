package workspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// record is a Sink that writes down what it gets.
type record struct {
	lines  []string
	onFile func(path string) error // called before a file is read
	fail   error
}

func (r *record) add(format string, arg ...any) error {
	r.lines = append(r.lines, fmt.Sprintf(format, arg...))
	return r.fail
}

func (r *record) Dir(path string, a Attr) error {
	return r.add("dir %s %v %d:%d", path, a.Mode, a.UID, a.GID)
}

func (r *record) File(path string, _ Attr, size units.Bytes, in io.ReaderAt) error {
	if r.onFile != nil {
		if err := r.onFile(path); err != nil {
			return err
		}
	}
	data := make([]byte, size)
	if n, err := in.ReadAt(data, 0); n < len(data) && !errors.Is(err, io.EOF) {
		return err
	}
	return r.add("file %s %q", path, data)
}

func (r *record) Symlink(path, target string, _ Attr) error {
	return r.add("symlink %s -> %s", path, target)
}
func (r *record) Link(path, existing string) error { return r.add("link %s = %s", path, existing) }
func (r *record) Special(path string, a Attr) error {
	return r.add("special %s %v", path, a.Mode.Type())
}

func names(tree *Tree) []string {
	var list []string
	for _, e := range tree.Entries {
		list = append(list, e.Path)
	}
	return list
}

func reasons(n Notes) string {
	var b strings.Builder
	for _, note := range n.List {
		fmt.Fprintf(&b, "%q: %s\n", note.Path, note.Reason)
	}
	return b.String()
}

// TestScanAndCopy: all kinds of files, in order, with the guest's owner.
func TestScanAndCopy(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "b/x", "a", "b/y/", "l -> ../../etc", "z = b/x", "fifo |", ".hurd/serial.log", "b/.hurd")
	must(t, os.Chmod(filepath.Join(dir, "a"), 0o755|fs.ModeSetuid))
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer func() { _ = socket.Close() }()

	tree := scanned(t, dir, Filter{})
	if want := []string{".", "a", "b", "b/.hurd", "b/x", "b/y", "fifo", "l", "z"}; !slices.Equal(names(tree), want) {
		t.Errorf("entries %q, want %q", names(tree), want)
	}
	if got := reasons(tree.Skipped); got != "\"socket\": it is a socket\n" {
		t.Errorf("skipped %s", got)
	}
	if tree.Files != 6 || tree.Bytes != units.Bytes(len("a"+"b/.hurd"+"b/x")) {
		t.Errorf("%d files with %d bytes", tree.Files, tree.Bytes)
	}
	var sink record
	must(t, tree.CopyTo(t.Context(), &sink, Owner{7, 8}))
	want := []string{
		"dir . drwxr-xr-x 7:8", `file a "a"`, "dir b drwxr-xr-x 7:8", `file b/.hurd "b/.hurd"`, `file b/x "b/x"`, "dir b/y drwxr-xr-x 7:8",
		"special fifo p---------", "symlink l -> ../../etc", "link z = b/x",
	}
	if !slices.Equal(sink.lines, want) {
		t.Errorf("the sink got\n%s\nwant\n%s", strings.Join(sink.lines, "\n"), strings.Join(want, "\n"))
	}
	if i := tree.index["a"]; tree.Entries[i].Mode != 0o755|fs.ModeSetuid {
		t.Errorf("mode %v", tree.Entries[i].Mode)
	}
}

// TestSymlinkIsNotEntered: neither a loop nor a way out is followed, and what
// is swapped for a symbolic link after the scan is not either.
func TestSymlinkIsNotEntered(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	fill(t, outside, "secret", "d/secret")
	fill(t, dir, "loop -> .", "d/secret", "file", "out -> "+outside)
	tree := scanned(t, dir, Filter{})
	must(t, os.RemoveAll(filepath.Join(dir, "d")))
	must(t, os.Symlink(filepath.Join(outside, "d"), filepath.Join(dir, "d")))
	must(t, os.Remove(filepath.Join(dir, "file")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "file")))
	var sink record
	must(t, tree.CopyTo(t.Context(), &sink, Owner{}))
	if got := strings.Join(sink.lines, "\n"); strings.Contains(got, "file ") {
		t.Errorf("it was followed:\n%s", got)
	}
	if tree.Skipped.Len() != 2 {
		t.Errorf("skipped:\n%s", reasons(tree.Skipped))
	}
}

// TestCopyWhatChanges: files that vanish, shrink, grow or become something
// else between Scan and CopyTo don't end the copy, and the tree knows.
func TestCopyWhatChanges(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "gone", "grown", "pipe", "shrinks", "stays", "twin", "twin2 = twin", "twin3 = twin")
	tree := scanned(t, dir, Filter{})
	must(t, os.Remove(filepath.Join(dir, "gone")))
	must(t, os.Remove(filepath.Join(dir, "twin")))
	must(t, os.WriteFile(filepath.Join(dir, "grown"), []byte("much more"), 0o644))
	must(t, os.Remove(filepath.Join(dir, "pipe")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	sink := record{onFile: func(path string) error {
		if path == "shrinks" {
			return fmt.Errorf("writing: %w", ErrShrank)
		}
		return nil
	}}
	must(t, tree.CopyTo(t.Context(), &sink, Owner{}))
	if got, want := strings.Join(sink.lines[1:], ","), `file grown "much more",file stays "stays",file twin2 "twin",link twin3 = twin2`; got != want {
		t.Errorf("the sink got %s, want %s", got, want)
	}
	for _, name := range []string{"gone", "pipe", "shrinks", "twin"} {
		if e := tree.Entries[tree.index[name]]; e.sent || tree.left[name] == 0 || !strings.Contains(reasons(tree.Skipped), name) {
			t.Errorf("%s: sent %v; skipped:\n%s", name, e.sent, reasons(tree.Skipped))
		}
	}
	if e := tree.Entries[tree.index["grown"]]; e.Size != 9 || !e.sent {
		t.Errorf("the tree has %+v", e)
	}
}

// TestShrinkInTar: the stream stays a stream when a file shrinks in it.
func TestShrinkInTar(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a"), []byte("long enough"), 0o644))
	f, err := os.Open(filepath.Join(dir, "a"))
	must(t, err)
	defer func() { _ = f.Close() }()
	r, w, err := os.Pipe()
	must(t, err)
	go func() {
		out := NewTarWriter(w, GNUTar)
		if err := out.File("a", Attr{Mode: 0o644}, 20, f); !errors.Is(err, ErrShrank) {
			t.Errorf("error %v", err)
		}
		_ = out.Symlink("b", "c", Attr{})
		_ = out.Close()
		_ = w.Close()
	}()
	n := 0
	must(t, NewTarSource(r, units.MiB).Walk(t.Context(), func(n2 Node) error {
		n++
		if n2.Path == "a" && n2.Size != 20 {
			t.Errorf("size %d", n2.Size)
		}
		return nil
	}))
	if n != 2 {
		t.Errorf("%d files", n)
	}
}

// TestUnreadable: what can't be read is an error that names it.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // testing's, for this test only
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err == nil && info.Mode()&0o005 != 0o005 {
			t.Skipf("%s can't be reached by another user", up)
		}
	}
	fill(t, dir, "file", "dir/")
	must(t, os.Chmod(filepath.Join(dir, "file"), 0))
	asNobody(t)
	tree := scanned(t, dir, Filter{})
	err := tree.CopyTo(t.Context(), &record{}, Owner{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), `"file"`) {
		t.Errorf("error %v", err)
	}
	setUser(t, os.Geteuid())
	must(t, os.Chmod(filepath.Join(dir, "dir"), 0))
	asNobody(t)
	if _, err := Scan(t.Context(), dir, Filter{}); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "dir") {
		t.Errorf("error %v", err)
	}
}

// asNobody makes file accesses of this test those of nobody.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	t.Cleanup(func() {
		setUser(t, 0)
		runtime.UnlockOSThread()
	})
	setUser(t, 65534)
}

func setUser(t *testing.T, uid int) {
	t.Helper()
	if os.Geteuid() == 0 {
		// The system call returns the previous user and never an error.
		_, _ = unix.SetfsuidRetUid(uid)
	}
}

// TestSinkFails: the error of a sink names the file.
func TestSinkFails(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "a")
	full := errors.New("full")
	err := scanned(t, dir, Filter{}).CopyTo(t.Context(), &record{fail: full}, Owner{})
	if !errors.Is(err, full) || !strings.Contains(err.Error(), `copying "."`) {
		t.Errorf("error %v", err)
	}
}

// TestTimes: times that a guest can't keep are the nearest that it can.
func TestTimes(t *testing.T) {
	for in, want := range map[int64]int64{-5: 0, 0: 0, 1e9: 1e9, 1 << 40: maxTime} {
		if got := guestTime(time.Unix(in, 999)); got.Unix() != want || got.Nanosecond() != 0 {
			t.Errorf("guestTime(%d) = %v", in, got)
		}
	}
}

// TestTooDeep: a chain of directories that would take every descriptor ends
// with an error.
func TestTooDeep(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, openDir, 0)
	must(t, err)
	for range maxDepth + 1 {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", openDir, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	if _, err := Scan(t.Context(), dir, Filter{}); !errors.Is(err, errDepth) {
		t.Errorf("error %v", err)
	}
}

func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		full := filepath.Join(dir, fmt.Sprintf("d%d/e%d", i/1000, i/50%20))
		if i%50 == 0 {
			must(b, os.MkdirAll(full, 0o755))
		}
		must(b, os.WriteFile(filepath.Join(full, fmt.Sprint("file", i)), []byte("x"), 0o644))
	}
	for _, bench := range []struct{ name, include, exclude string }{
		{"everything", "", ""}, {"patterns", "", "*.o\n/build/\n**/cache/**/x\n[a-c]*.tmp"}, {"pruned", "", "/d*/"}, {"included", "d1/e1/", ""},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Scan(b.Context(), dir, NewFilter(bench.include, bench.exclude)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestRandomFilter: pruning never changes what travels.
func TestRandomFilter(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var parts []string
		for range 1 + r.IntN(5) {
			parts = append(parts, string("abcd"[r.IntN(4)]))
		}
		full := filepath.Join(dir, strings.Join(parts, "/"))
		if os.MkdirAll(filepath.Dir(full), 0o755) == nil {
			_ = os.WriteFile(full, nil, 0o644) // may be a directory already
		}
	}
	all := scanned(t, dir, Filter{})
	pieces := []string{"a", "b", "c", "d", "/", "/", "*", "**", "?", "[ab]"}
	random := func() string {
		var text strings.Builder
		for range r.IntN(4) {
			if r.IntN(4) == 0 {
				text.WriteString("!")
			}
			for range 1 + r.IntN(6) {
				text.WriteString(pieces[r.IntN(len(pieces))])
			}
			text.WriteString("\n")
		}
		return text.String()
	}
	for range 300 {
		include, exclude := random(), random()
		f := NewFilter(include, exclude)
		want := map[string]bool{".": true}
		for _, e := range all.Entries[1:] {
			if !f.Match(e.Path, e.Mode.IsDir()) {
				continue
			}
			for at := e.Path; at != "."; at = filepath.Dir(at) {
				want[at] = true
			}
		}
		got := scanned(t, dir, f)
		for _, name := range names(got) {
			if !want[name] {
				t.Errorf("include %q exclude %q: %q travels", include, exclude, name)
			}
			delete(want, name)
		}
		for name := range want {
			t.Errorf("include %q exclude %q: %q does not travel", include, exclude, name)
		}
		if t.Failed() {
			return
		}
	}
}
