package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// world is a workspace with something beside it that must stay as it is.
type world struct {
	top, dir string
	outside  map[string]string
}

func newWorld(t testing.TB, files ...string) *world {
	t.Helper()
	w := &world{top: t.TempDir()}
	w.dir = filepath.Join(w.top, "work")
	fill(t, w.top, "secret", "other/file", "work/")
	fill(t, w.dir, files...)
	w.outside = w.beside(t)
	return w
}

func (w *world) beside(t testing.TB) map[string]string {
	t.Helper()
	all := picture(t, w.top)
	for name := range all {
		if name == "work" || strings.HasPrefix(name, "work/") {
			delete(all, name)
			continue
		}
		all[name], _, _ = strings.Cut(all[name], " = ") // a name in the workspace may go
	}
	return all
}

// check holds that nothing beside the workspace was touched, and that no
// temporary file was left.
func (w *world) check(t testing.TB) {
	t.Helper()
	same(t, w.beside(t), w.outside)
	for name := range picture(t, w.dir) {
		if strings.HasPrefix(filepath.Base(name), ".hurd-") {
			t.Errorf("%q was left", name)
		}
	}
}

// apply compares and applies.
func (w *world) apply(t testing.TB, tree *Tree, g Source, o Options) Result {
	t.Helper()
	c, err := Compare(t.Context(), tree, g, o)
	must(t, err)
	r, err := c.Apply(t.Context(), g)
	must(t, err)
	w.check(t)
	return r
}

func (w *world) read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	must(t, err)
	return string(data)
}

// TestEscapes: no way leads out of the workspace; each is named, and what else
// there is comes back.
func TestEscapes(t *testing.T) {
	for _, test := range []struct {
		name   string
		files  []string // of the checkout
		nodes  []Node
		reason string // of a refusal or failure
	}{
		{"parent", nil, []Node{text("../secret", "evil")}, "plain path"},
		{"parent in the middle", nil, []Node{text("a/../../secret", "evil")}, "plain path"},
		{"parent at the end", nil, []Node{{Path: "a/..", Mode: fs.ModeDir | 0o777}}, "plain path"},
		{"just the parent", nil, []Node{{Path: "..", Mode: fs.ModeDir | 0o777}}, "plain path"},
		{"absolute", nil, []Node{text("/tmp/x", "evil")}, "plain path"},
		{"empty names", nil, []Node{text("a//b", "evil")}, "plain path"},
		{"no name", nil, []Node{text("", "evil")}, "plain path"},
		{"NUL", nil, []Node{text("a\x00b", "evil")}, "plain path"},
		{"long name", nil, []Node{text(strings.Repeat("x", 256), "evil")}, "too long"},
		{"long path", nil, []Node{text(strings.Repeat("x/", 3000)+"x", "evil")}, "too long"},
		{"deep path", nil, []Node{text(strings.Repeat("x/", 600)+"x", "evil")}, "directories in each other"},
		{"through the guest's link", nil, []Node{symlink("l", ".."), text("l/secret", "evil")}, "symbolic link"},
		{"through the guest's link, deeper", nil, []Node{symlink("l", "../other"), text("l/new/file", "evil")}, "symbolic link"},
		{"directory through a link", nil, []Node{symlink("l", "../other"), directory("l/new")}, "symbolic link"},
		{"through a link inside", nil, []Node{directory("d"), symlink("l", "d"), text("l/file", "evil")}, "symbolic link"},
		{"through the checkout's link", []string{"l -> ../other"}, []Node{symlink("l", "../other"), text("l/file", "evil")}, "symbolic link"},
		{"through a file", []string{"f"}, []Node{text("f/file", "evil")}, "symbolic link or a file"},
		{"hard link to the outside", nil, []Node{{Path: "h", Mode: 0o644, Link: "../secret"}}, "did not come back"},
		{"hard link through a link", nil, []Node{symlink("l", ".."), {Path: "h", Mode: 0o644, Link: "l/secret"}}, "did not come back"},
		{"hard link to the checkout", []string{".git/config"}, []Node{{Path: "h", Mode: 0o644, Link: ".git/config"}}, "did not come back"},
		{"data beyond the end", nil, []Node{{Path: "f", Size: 1, Data: func(visit func(units.Bytes, []byte) error) error { return visit(1<<50, []byte("x")) }}}, "beyond its end"},
		{"data over the end", nil, []Node{{Path: "f", Size: 1, Data: func(visit func(units.Bytes, []byte) error) error { return visit(0, []byte("xx")) }}}, "beyond its end"},
		{"negative offset", nil, []Node{{Path: "f", Size: 1, Data: func(visit func(units.Bytes, []byte) error) error { return visit(-1, []byte("x")) }}}, "beyond its end"},
		{"negative size", nil, []Node{{Path: "f", Size: -1, Data: func(func(units.Bytes, []byte) error) error { return nil }}}, "size is -1"},
		{"no data", nil, []Node{{Path: "f", Size: 1}}, "no data"},
		{"device", nil, []Node{{Path: "f", Mode: fs.ModeDevice | 0o666}}, "files of this type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.files...)
			tree := scanned(t, w.dir, Filter{})
			g := guest{nodes: append(test.nodes, text("honest", "work"))}
			r := w.apply(t, tree, g, Options{})
			if got := reasons(r.Refused) + reasons(r.Failed); !strings.Contains(got, test.reason) {
				t.Errorf("refused or failed:\n%s\nwant %q", got, test.reason)
			}
			if w.read(t, "honest") != "work" {
				t.Error("the honest file did not come back")
			}
		})
	}
}

// TestEscapeOnlyInApply: the source says something else to Apply than to
// Compare.
func TestEscapeOnlyInApply(t *testing.T) {
	w := newWorld(t)
	tree := scanned(t, w.dir, Filter{})
	c, err := Compare(t.Context(), tree, guest{nodes: []Node{text("a", ""), text("l/x", ""), text("twice", "")}}, Options{})
	must(t, err)
	r, err := c.Apply(t.Context(), guest{nodes: []Node{
		{Path: "a", Mode: fs.ModeSocket}, symlink("l", ".."), symlink("twice", "../secret"), text("twice", "evil"), text("../secret", "evil"),
	}})
	must(t, err)
	w.check(t)
	if got := reasons(r.Refused); !strings.Contains(got, `"a": files of this type`) || !strings.Contains(got, `"twice": the guest delivers it twice`) {
		t.Errorf("refused:\n%s", got)
	}
	if got := reasons(r.Missing); !strings.Contains(got, "l/x") {
		t.Errorf("missing:\n%s", got)
	}
}

// TestApply: every kind of change ends as it should on the host.
func TestApply(t *testing.T) {
	w := newWorld(t, "changed", "gone", "dir/gone", "dir/kept", "h1", "h2 = h1", "outer = h1", "l -> changed", "file to dir", "link to dir -> ../other", "empty dir/", "full dir/x", "setuid")
	must(t, os.Rename(filepath.Join(w.dir, "outer"), filepath.Join(w.top, "outer"))) // another name of h1 beside the workspace
	w.outside = w.beside(t)
	must(t, os.Chmod(filepath.Join(w.dir, "dir"), 0o755|fs.ModeSetgid))
	own(t, w.dir)
	tree := scanned(t, w.dir, Filter{})
	g := drive(t, tree)
	*g.at("changed") = text("changed", "by the guest")
	g.at("dir").Mode = fs.ModeDir | 0o500
	g.at("dir").ModTime = time.Unix(77, 0)
	g.remove("gone", "dir/gone", "file to dir", "link to dir", "empty dir", "full dir", "full dir/x")
	for _, name := range []string{"h1", "h2"} {
		n := text(name, "both")
		n.Inode = 9
		*g.at(name) = n
	}
	*g.at("l") = symlink("l", "/etc/passwd")
	suid := text("setuid", "suid")
	suid.Mode = 0o755 | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	*g.at("setuid") = suid
	g.nodes = append(g.nodes, directory("file to dir"), text("file to dir/x", "x"), directory("link to dir"), text("link to dir/file", "mine"),
		text("empty dir", "now a file"), symlink("full dir", "dir"), Node{Path: "pipe", Mode: fs.ModeNamedPipe | 0o622}, text("new/deep/file", "deep"))
	r := w.apply(t, tree, g, Options{Delete: true})
	if r.Failed.Len()+r.Refused.Len()+r.Missing.Len() != 0 || r.Deleted != 5-1-1 {
		t.Errorf("deleted %d; failed\n%srefused\n%smissing\n%snotices\n%s", r.Deleted, reasons(r.Failed), reasons(r.Refused), reasons(r.Missing), reasons(r.Notices))
	}
	got := picture(t, w.dir)
	for name, want := range map[string]string{
		"changed": "-rw-r--r--", "dir": "dgr-x------", "h1": "= h1", "h2": "= h1", "l": "-> /etc/passwd", "setuid": "-rwxr-xr-x", "file to dir": "drwxr-xr-x",
		"link to dir": "drwxr-xr-x", "empty dir": "-rw-r--r--", "full dir": "-> dir", "pipe": "prw--w--w-", "new/deep": "drwxr-xr-x", "dir/kept": "-rw-r--r--",
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"changed", "h1", "l", "file to dir", "pipe", "new", "new/deep", "new/deep/file"} {
			if !strings.Contains(got[name], " 77:88") {
				t.Errorf("%s is %q, and not the workspace's owner's", name, got[name])
			}
		}
	}
	for _, name := range []string{"gone", "dir/gone", "full dir/x"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is still there", name)
		}
	}
	if w.read(t, "h2") != "both" || w.read(t, "link to dir/file") != "mine" {
		t.Error("content")
	}
	if !strings.Contains(reasons(r.Notices), `"setuid": its setuid`) {
		t.Errorf("notices:\n%s", reasons(r.Notices))
	}
	if st, err := os.Stat(filepath.Join(w.dir, "dir")); err != nil || st.ModTime().Unix() != 77 {
		t.Errorf("time of dir: %v, %v", st.ModTime(), err)
	}
}

// TestRemovedDirectory: a directory that was removed is not taken for the one
// that comes in its place, nor for the file.
func TestRemovedDirectory(t *testing.T) {
	for _, test := range []struct {
		nodes   []Node
		deleted []string
		refused string
	}{
		{[]Node{text("d/y", "y")}, []string{"d/x", "d"}, ""},
		{[]Node{text("d", "file"), text("d/y", "y")}, []string{"d/x"}, `"d/y": ` + errLink.Error() + "\n"},
	} {
		w := newWorld(t, "d/x")
		tree := scanned(t, w.dir, Filter{})
		must(t, tree.CopyTo(t.Context(), &record{}, Owner{}))
		c, err := Compare(t.Context(), tree, guest{nodes: test.nodes}, Options{})
		must(t, err)
		c.Deleted = test.deleted
		r, err := c.Apply(t.Context(), guest{nodes: test.nodes})
		must(t, err)
		if r.Failed.Len() != 0 || reasons(r.Refused) != test.refused || r.Files != 1 || r.Deleted != len(test.deleted) {
			t.Errorf("%+v", r)
		}
		w.check(t)
	}
}

// TestNotAsked: without Delete nothing is deleted, also not to make room.
func TestNotAsked(t *testing.T) {
	w := newWorld(t, "gone", "full/x", "empty/")
	tree := scanned(t, w.dir, Filter{})
	g := drive(t, tree)
	g.remove("gone", "full", "full/x", "empty")
	g.nodes = append(g.nodes, text("full", "x"), text("empty", "x"))
	r := w.apply(t, tree, g, Options{})
	if got := reasons(r.Failed); got != "\"full\": a directory that is not empty is in its place\n" {
		t.Errorf("failed:\n%s", got)
	}
	if w.read(t, "gone") != "gone" || w.read(t, "full/x") != "full/x" || w.read(t, "empty") != "x" || r.Deleted != 0 {
		t.Errorf("%+v", r)
	}
}

// TestHostChanged: what was changed on the host meanwhile is replaced, and
// named; what the guest deleted then stays.
func TestHostChanged(t *testing.T) {
	w := newWorld(t, "both", "del", "dir/x", "same")
	tree := scanned(t, w.dir, Filter{})
	g := drive(t, tree)
	*g.at("both") = text("both", "guest")
	*g.at("same") = text("same", "guest")
	g.remove("del", "dir", "dir/x")
	g.nodes = append(g.nodes, text("appeared", "guest"))
	must(t, os.WriteFile(filepath.Join(w.dir, "both"), []byte("host"), 0o644))
	must(t, os.WriteFile(filepath.Join(w.dir, "del"), []byte("host!"), 0o644))
	fill(t, w.dir, "appeared", "dir/new")
	r := w.apply(t, tree, g, Options{Delete: true})
	for _, want := range []string{`"both": it had been changed`, `"del": the guest deleted it, but it had been changed`, `"appeared": it replaces something`, `"dir": the guest deleted it, but it holds`} {
		if !strings.Contains(reasons(r.Notices), want) {
			t.Errorf("notices:\n%s\nwant %s", reasons(r.Notices), want)
		}
	}
	if r.Notices.Len() != 4 || w.read(t, "both") != "guest" || w.read(t, "del") != "host!" || w.read(t, "dir/new") != "dir/new" || r.Deleted != 1 {
		t.Errorf("%+v", r)
	}
}

// TestCancel: what was not copied is named, nothing half is left, and
// directories got their permissions.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	tree := scanned(t, w.dir, Filter{})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the budget ended")
	d := directory("d")
	d.Mode = fs.ModeDir | 0o751
	half := text("d/half", "")
	half.Size = 10
	half.Data = func(visit func(units.Bytes, []byte) error) error {
		err := visit(0, []byte("half"))
		cancel(stop)
		return errors.Join(err, visit(4, []byte("more")))
	}
	g := guest{nodes: []Node{d, text("d/whole", "whole"), half, text("never", "x")}}
	c, err := Compare(t.Context(), tree, g, Options{})
	must(t, err)
	r, err := c.Apply(ctx, g)
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	w.check(t)
	if got := reasons(r.Missing); got != "\"d/half\": it did not come\n\"never\": it did not come\n" || r.Files != 1 || r.Failed.Len() != 0 {
		t.Errorf("%+v", r)
	}
	if st, err := os.Stat(filepath.Join(w.dir, "d")); err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestSourceEnds: a stream that breaks off leaves what came before.
func TestSourceEnds(t *testing.T) {
	w := newWorld(t)
	tree := scanned(t, w.dir, Filter{})
	var stream bytes.Buffer
	out := NewTarWriter(&stream, GNUTar)
	for _, name := range []string{"a", "b", "c"} {
		data := strings.Repeat(name, 5000)
		must(t, out.File(name, Attr{Mode: 0o644}, 5000, strings.NewReader(data)))
	}
	must(t, out.Close())
	c, err := Compare(t.Context(), tree, NewTarSource(bytes.NewReader(stream.Bytes()), units.MiB), Options{})
	must(t, err)
	r, err := c.Apply(t.Context(), NewTarSource(bytes.NewReader(stream.Bytes()[:9000]), units.MiB))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	w.check(t)
	if w.read(t, "a") != strings.Repeat("a", 5000) || !strings.Contains(reasons(r.Failed), `"b"`) || !strings.Contains(reasons(r.Missing), `"c"`) {
		t.Errorf("%+v", r)
	}
}

// TestFull: a file that finds no room is named, the others come back.
func TestFull(t *testing.T) {
	w := newWorld(t)
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	small := old
	small.Cur = 100 << 10
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small))
	defer func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)) }()
	tree := scanned(t, w.dir, Filter{})
	r := w.apply(t, tree, guest{nodes: []Node{text("a", "x"), text("large", strings.Repeat("x", 200<<10)), text("z", "x")}}, Options{})
	if got := reasons(r.Failed); got != "\"large\": file too large\n" || r.Files != 2 {
		t.Errorf("failed:\n%s", got)
	}
}

// TestLimit: a guest can't fill the host.
func TestLimit(t *testing.T) {
	w := newWorld(t)
	tree := scanned(t, w.dir, Filter{})
	g := guest{nodes: []Node{text("a", "1234"), text("b", "1234567"), text("c", "x")}}
	c, err := Compare(t.Context(), tree, g, Options{Limit: 10})
	must(t, err)
	r, err := c.Apply(t.Context(), g)
	if !errors.Is(err, ErrTooMuch) || r.Files != 1 || r.Missing.Len() != 2 {
		t.Errorf("error %v, %+v", err, r)
	}
	w.check(t)

	var stream bytes.Buffer
	out := tar.NewWriter(&stream)
	must(t, out.WriteHeader(&tar.Header{Name: "x", Size: 1 << 40, Mode: 0o644}))
	err = NewTarSource(&stream, units.GiB).Walk(t.Context(), func(Node) error { return nil })
	if !errors.Is(err, ErrTooMuch) {
		t.Errorf("error %v", err)
	}
	endless := readerFunc(func(p []byte) (int, error) { clear(p); p[0] = 'x'; return len(p), nil })
	if _, err := io.Copy(io.Discard, limit(t.Context(), endless, 1<<20)); !errors.Is(err, ErrTooMuch) {
		t.Errorf("error %v", err)
	}
}

// TestNoLimit reads a stream without a limit of its own, which is not one of 0 bytes.
func TestNoLimit(t *testing.T) {
	w := newWorld(t)
	tree := scanned(t, w.dir, Filter{})
	var stream bytes.Buffer
	out := tar.NewWriter(&stream)
	must(t, out.WriteHeader(&tar.Header{Name: "./new", Typeflag: tar.TypeReg, Size: 5, Mode: 0o644}))
	_, err := out.Write([]byte("hello"))
	must(t, err)
	must(t, out.Close())
	c, err := Compare(t.Context(), tree, NewTarSource(bytes.NewReader(stream.Bytes()), 0), Options{})
	must(t, err)
	r, err := c.Apply(t.Context(), NewTarSource(bytes.NewReader(stream.Bytes()), 0))
	must(t, err)
	if got := w.read(t, "new"); r.Files != 1 || got != "hello" {
		t.Errorf("%d files came, new holds %q", r.Files, got)
	}
}

// TestHoles: blocks of zeros are not written, whatever the pieces they come in.
func TestHoles(t *testing.T) {
	data := make([]byte, 40_000)
	copy(data[5000:], "data")
	copy(data[39_999:], "x")
	for _, step := range []int{1, 7, 4096, 5000, 40_000} {
		got := make([]byte, len(data))
		written := 0
		for at := 0; at < len(data); at += step {
			part := data[at:min(at+step, len(data))]
			must(t, notZero(units.Bytes(at), part, func(offset units.Bytes, p []byte) error {
				written += copy(got[offset:], p)
				return nil
			}))
		}
		if !bytes.Equal(got, data) || written > 2*holeGrain {
			t.Errorf("in steps of %d: %d bytes were written", step, written)
		}
	}
}

// TestNothingToDo: Apply does not even read.
func TestNothingToDo(t *testing.T) {
	tree := scanned(t, t.TempDir(), Filter{})
	c, err := Compare(t.Context(), tree, guest{}, Options{})
	must(t, err)
	if _, err := c.Apply(t.Context(), source(func(func(Node) error) error { return errors.New("read") })); err != nil {
		t.Error(err)
	}
}

// TestDescriptors: no descriptor stays open.
func TestDescriptors(t *testing.T) {
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	w := newWorld(t, "a/b/c/d", "e")
	before := open()
	tree := scanned(t, w.dir, Filter{})
	g := drive(t, tree)
	*g.at("e") = text("e", "x")
	twin := text("a/e", "x")
	twin.Inode, g.at("e").Inode = 3, 3
	g.nodes = append(g.nodes, twin, symlink("l", ".."), text("l/x", "x"))
	g.remove("a/b/c/d", "a/b/c")
	w.apply(t, tree, g, Options{Delete: true})
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
