package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

// guest is a Source made of values. Files hold text.
type guest struct {
	nodes []Node
	err   error // after the last node
}

func (g guest) Walk(ctx context.Context, visit func(Node) error) error {
	for _, n := range g.nodes {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := visit(n); err != nil {
			return err
		}
	}
	return g.err
}

// text is a file of the guest.
func text(path, content string) Node {
	return Node{Path: path, Mode: 0o644, Size: units.Bytes(len(content)), ModTime: time.Unix(2e9, 0), Data: func(visit func(units.Bytes, []byte) error) error {
		return visit(0, []byte(content))
	}}
}

func directory(path string) Node { return Node{Path: path, Mode: fs.ModeDir | 0o755} }
func symlink(path, target string) Node {
	return Node{Path: path, Mode: fs.ModeSymlink | 0o777, Target: target}
}

// drive is what a drive would deliver of a tree that was copied to it.
func drive(t testing.TB, tree *Tree) guest {
	t.Helper()
	must(t, tree.CopyTo(t.Context(), &record{}, Owner{}))
	var g guest
	inodes := map[string]uint64{}
	for i, e := range tree.Entries {
		if !e.sent {
			continue
		}
		at := guestTime(e.ModTime)
		n := Node{Path: e.Path, Mode: e.Mode, Size: e.Size, ModTime: at, ChangeTime: at, Target: e.Target}
		if e.Link != "" {
			n.Inode = inodes[e.Link]
		} else if slices.ContainsFunc(tree.Entries, func(o Entry) bool { return o.Link == e.Path }) {
			n.Inode = uint64(100 + i)
			inodes[e.Path] = n.Inode
		}
		if e.Mode.IsRegular() {
			data, err := os.ReadFile(filepath.Join(tree.dir, e.Path))
			must(t, err)
			n.Data = func(visit func(units.Bytes, []byte) error) error { return visit(0, data) }
		}
		g.nodes = append(g.nodes, n)
	}
	return g
}

func (g *guest) at(path string) *Node {
	for i := range g.nodes {
		if g.nodes[i].Path == path {
			return &g.nodes[i]
		}
	}
	panic(path)
}

func (g *guest) remove(paths ...string) {
	g.nodes = slices.DeleteFunc(g.nodes, func(n Node) bool { return slices.Contains(paths, n.Path) })
}

func copyBackOf(t testing.TB, text string) CopyBack {
	t.Helper()
	back, err := ParseCopyBack(text)
	must(t, err)
	return back
}

// TestCompare holds what counts as a change, and what comes back of it.
func TestCompare(t *testing.T) {
	now := time.Now().Add(time.Hour) // the files were made in this very second
	for _, test := range []struct {
		name    string
		filter  Filter
		back    string
		del     bool
		do      func(*guest)
		want    []string // with "-" in front for what is deleted
		refused string   // part of a note
	}{
		{"nothing", Filter{}, "", true, func(*guest) {}, nil, ""},
		{"new, in a new directory", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, directory("n"), text("n/f", "x")) }, []string{"n", "n/f"}, ""},
		{"content, same size and time", Filter{}, "", false, func(g *guest) { g.at("a").ChangeTime = now }, []string{"a"}, ""},
		{"size", Filter{}, "", false, func(g *guest) { g.at("a").Size = 77 }, []string{"a"}, ""},
		{"time", Filter{}, "", false, func(g *guest) { g.at("a").ModTime = now }, []string{"a"}, ""},
		{"mode", Filter{}, "", false, func(g *guest) { g.at("a").Mode = 0o755 }, []string{"a"}, ""},
		{"only setuid", Filter{}, "", false, func(g *guest) { g.at("a").Mode |= fs.ModeSetuid }, nil, ""},
		{"target", Filter{}, "", false, func(g *guest) { g.at("l").Target = "b" }, []string{"l"}, ""},
		{"time of a symbolic link", Filter{}, "", false, func(g *guest) { g.at("l").ModTime = now }, nil, ""},
		{"type", Filter{}, "", false, func(g *guest) { *g.at("l") = text("l", "x") }, []string{"l"}, ""},
		{"times of a directory", Filter{}, "", false, func(g *guest) { g.at("d").ModTime, g.at("d").ChangeTime = now, now }, nil, ""},
		{"mode of a directory", Filter{}, "", false, func(g *guest) { g.at("d").Mode = fs.ModeDir | 0o700 }, []string{"d"}, ""},
		{"all names of a file", Filter{}, "", false, func(g *guest) { g.at("h1").Size, g.at("h2").Size = 5, 5 }, []string{"h1", "h2"}, ""},
		{"one file by now, as a tar stream tells it", Filter{}, "", false, func(g *guest) { *g.at("d/x") = Node{Path: "d/x", Mode: 0o644, Link: "a"} }, []string{"a", "d/x"}, ""},
		{"one file as before, as a tar stream tells it", Filter{}, "", false, func(g *guest) {
			g.at("h1").Inode = 0
			*g.at("h2") = Node{Path: "h2", Mode: 0o644, Link: "h1"}
		}, nil, ""},
		{"another name for an old file", Filter{}, "", false, func(g *guest) {
			g.at("a").Inode = 5
			g.nodes = append(g.nodes, Node{Path: "z", Mode: 0o644, Inode: 5})
		}, []string{"a", "z"}, ""},
		{"deleted, not asked", Filter{}, "", false, func(g *guest) { g.remove("d", "d/x") }, nil, ""},
		{"deleted, asked", Filter{}, "", true, func(g *guest) { g.remove("d", "d/x") }, []string{"-d/x", "-d"}, ""},
		{"all", Filter{}, "all", false, func(*guest) {}, []string{".git", ".git/HEAD", "a", "build", "build/o", "d", "d/x", "h1", "h2", "l"}, ""},
		{"none", Filter{}, "none", true, func(g *guest) { g.nodes = nil }, nil, ""},
		{"paths", Filter{}, "d\n*.new\n!d/no*", true, func(g *guest) {
			g.nodes = append(g.nodes, text("x.new", ""), text("y", ""), text("d/new", ""), text("d/no", ""))
			g.remove("a", "d/x")
		}, []string{"x.new", "d/new", "-d/x"}, ""},
		{"excluded and here", NewFilter("", "build/"), "", true, func(g *guest) {
			g.nodes = append(g.nodes, directory("build"), text("build/o", ""), text("build/p", ""))
		}, nil, "\"build\": the host has its own"},
		{"excluded and here, but named", NewFilter("", "build/"), "build/p", true, func(g *guest) {
			g.nodes = append(g.nodes, directory("build"), text("build/o", ""), text("build/p", ""))
		}, []string{"build/p"}, ""},
		{"excluded and not here", NewFilter("", "*.o\nout/"), "", false, func(g *guest) {
			g.nodes = append(g.nodes, directory("out"), text("out/x.o", ""))
		}, []string{"out", "out/x.o"}, ""},
		{"not included and here", NewFilter("/d/", ""), "", true, func(g *guest) {
			g.nodes = append(g.nodes, directory("build"), text("build/o", ""), symlink("build/p", "x"), text("a", ""))
		}, []string{"build/p"}, "\"build/o\": the host has its own"},
		{"included by name, beside others", NewFilter("*x", ""), "", true, func(g *guest) {
			g.nodes = append(g.nodes, text("build", ""))
		}, nil, "\"build\": the host has its own"},
		{"excluded is not deleted", NewFilter("", "build/"), "", true, func(*guest) {}, nil, ""},
		{"git's data", Filter{}, "", false, func(g *guest) {
			g.nodes = append(g.nodes, directory(".git/refs"), text(".git/refs/hooks", ""), text(".git/index", ""), text(".git/refs/config", ""))
		}, []string{".git/refs", ".git/refs/hooks", ".git/index", ".git/refs/config"}, ""},
		{"git's configuration", Filter{}, "", true, func(g *guest) { g.at(".git/config").Size++ }, nil, "\".git/config\": git would run"},
		{"git's configuration deleted", Filter{}, "", true, func(g *guest) { g.remove(".git/config") }, nil, "it was deleted in the guest, but git would run"},
		{"git's hooks", Filter{}, "", false, func(g *guest) {
			g.nodes = append(g.nodes, directory(".git/hooks"), text(".git/hooks/post-checkout", ""))
		}, nil, "\".git/hooks/post-checkout\": git would run"},
		{"a submodule's hooks", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, text(".git/modules/m/HOOKS/x", "")) }, nil, "git would run"},
		{"another repository's configuration", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, text("sub/.GIT/config", "")) }, nil, "git would run"},
		{"a pointer to a repository", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, text("sub/.git", "gitdir: ../evil")) }, nil, "git would take its configuration"},
		{"our logs", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, directory(".hurd"), text(".hurd/x", "")) }, nil, "logs"},
		{"a device", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, Node{Path: "dev", Mode: fs.ModeDevice}) }, nil, "files of this type"},
		{"a socket", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, Node{Path: "s", Mode: fs.ModeSocket}) }, nil, "files of this type"},
		{"twice", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, text("n", ""), text("n", "x")) }, []string{"n"}, "\"n\": the guest delivers it twice"},
		{"no target", Filter{}, "", false, func(g *guest) { g.nodes = append(g.nodes, symlink("n", "")) }, nil, "its target"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, "a", "d/x", "l -> a", "h1", "h2 = h1", ".git/config", ".git/HEAD", "build/o", ".hurd/log")
			tree := scanned(t, dir, test.filter)
			g := drive(t, tree)
			test.do(&g)
			c, err := Compare(t.Context(), tree, g, Options{Back: copyBackOf(t, test.back), Delete: test.del})
			must(t, err)
			got := slices.Clone(c.paths)
			for _, name := range c.Deleted {
				got = append(got, "-"+name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if notes := reasons(c.Refused); !strings.Contains(notes, test.refused) || test.refused == "" && notes != "" {
				t.Errorf("refused:\n%s", notes)
			}
			if test.name == "all names of a file" && c.Bytes != 5 {
				t.Errorf("%d bytes", c.Bytes)
			}
			if c.New+c.Changed != len(c.paths) || c.Empty() != (len(got) == 0) {
				t.Errorf("%d new, %d changed", c.New, c.Changed)
			}
		})
	}
}

// TestCompareSince: without a drive, the time when the copy ended tells.
func TestCompareSince(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "before", "same second", "after")
	tree := scanned(t, dir, Filter{})
	g := drive(t, tree)
	end := time.Unix(1e9, 0)
	g.at("before").ChangeTime = end.Add(-1)
	g.at("same second").ChangeTime = end
	g.at("after").ChangeTime = end.Add(time.Hour)
	c, err := Compare(t.Context(), tree, g, Options{Since: end})
	must(t, err)
	if want := []string{"after", "same second"}; !slices.Equal(c.paths, want) {
		t.Errorf("%q, want %q", c.paths, want)
	}
}

// TestCompareEndsEarly: after an error of the source, what was seen can come
// back, but nothing is taken for deleted.
func TestCompareEndsEarly(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "a", "b")
	tree := scanned(t, dir, Filter{})
	g := drive(t, tree)
	g.nodes, g.err = []Node{text("new", "")}, errors.New("damaged")
	c, err := Compare(t.Context(), tree, g, Options{Delete: true})
	if !errors.Is(err, g.err) || c.New != 1 || len(c.Deleted) != 0 {
		t.Errorf("error %v, changes %+v", err, c)
	}
}

// TestCompareBounds: a guest can't make us remember without end.
func TestCompareBounds(t *testing.T) {
	tree := scanned(t, t.TempDir(), Filter{})
	long := strings.Repeat("x", 1<<20)
	g := source(func(visit func(Node) error) error {
		for i := 0; ; i++ {
			if err := visit(symlink(fmt.Sprint(i), long)); err != nil {
				return err
			}
		}
	})
	if _, err := Compare(t.Context(), tree, g, Options{}); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v", err)
	}
	g = func(visit func(Node) error) error {
		for {
			if err := visit(Node{Path: "/", Mode: fs.ModeDevice}); err != nil {
				return err
			}
		}
	}
	c, err := Compare(t.Context(), tree, g, Options{})
	if !errors.Is(err, ErrTooMany) || len(c.Refused.List) != maxNotes || c.Refused.Len() != maxNodes {
		t.Errorf("error %v, %d refused", err, c.Refused.Len())
	}
}

type source func(visit func(Node) error) error

func (s source) Walk(_ context.Context, visit func(Node) error) error { return s(visit) }

// TestListing: what find prints chooses what tar then brings.
func TestListing(t *testing.T) {
	tools(t, "find", "tar")
	host, inGuest := t.TempDir(), t.TempDir()
	fill(t, host, "a", "d/line\nbreak", "-dash", "h1", "h2 = h1", "l -> a", "same", "gone", "p |")
	tree := scanned(t, host, Filter{})
	guestTars[0].in(t, tree, Owner{uint32(os.Geteuid()), uint32(os.Getegid())}, inGuest)

	later := time.Now().Add(time.Hour) // nothing is changed after that
	c, err := Compare(t.Context(), tree, listing(t, inGuest), Options{Since: later})
	must(t, err)
	if !c.Empty() {
		t.Errorf("unchanged, and yet %q", c.paths)
	}

	for _, name := range []string{"h2", "-dash"} {
		must(t, os.WriteFile(filepath.Join(inGuest, name), []byte("changed"), 0o644))
	}
	fill(t, inGuest, "d/n\xff", "new |")
	must(t, os.Remove(filepath.Join(inGuest, "gone")))
	c, err = Compare(t.Context(), tree, listing(t, inGuest), Options{Since: later, Delete: true})
	must(t, err)
	got := slices.Sorted(slices.Values(c.paths))
	if want := []string{"-dash", "d/n\xff", "h1", "h2", "new"}; !slices.Equal(got, want) {
		t.Errorf("%q comes back, want %q", got, want)
	}
	var list bytes.Buffer
	must(t, c.WriteList(&list))
	cmd := exec.CommandContext(t.Context(), "tar", "-c", "--format=gnu", "--sparse", "--null", "--no-recursion", "--files-from=-", "-f", "-")
	cmd.Dir, cmd.Stdin = inGuest, &list
	stream, err := cmd.Output()
	must(t, err)
	result, err := c.Apply(t.Context(), NewTarSource(bytes.NewReader(stream), units.MiB))
	must(t, err)
	if result.Files != 5 || result.Deleted != 1 || result.Failed.Len()+result.Refused.Len()+result.Missing.Len() != 0 {
		t.Errorf("%+v", result)
	}
	want, have := picture(t, inGuest), picture(t, host)
	for _, dir := range []string{".", "d"} {
		delete(want, dir)
		delete(have, dir)
	}
	same(t, have, want)
}

func listing(t testing.TB, dir string) *Listing {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "find", ListingArgs...)
	cmd.Dir = dir
	out, err := cmd.Output()
	must(t, err)
	return NewListing(bytes.NewReader(out))
}

// TestListingErrors: what isn't a listing is an error, and no path is cut.
func TestListingErrors(t *testing.T) {
	good := "f\x00644\x003\x001.5\x002.25\x009\x002\x00\x00name\x00"
	for name, in := range map[string]string{
		"cut": good[:len(good)-3], "half a record": good + "f\x00", "mode": strings.Replace(good, "644", "9", 1), "negative size": strings.Replace(good, "\x003\x00", "\x00-3\x00", 1),
		"time": strings.Replace(good, "1.5", "x", 1), "fraction": strings.Replace(good, "1.5", "1.-5", 1), "endless": strings.Repeat("x", 1<<20),
	} {
		if err := NewListing(strings.NewReader(in)).Walk(t.Context(), func(Node) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	err := NewListing(strings.NewReader(good)).Walk(t.Context(), func(n Node) error {
		want := Node{Path: "name", Mode: 0o644, Size: 3, ModTime: time.Unix(1, 5e8), ChangeTime: time.Unix(2, 25e7), Inode: 9}
		if diff := cmp.Diff(want, n); diff != "" {
			t.Error(diff)
		}
		return nil
	})
	must(t, err)
}

// TestParseGlobs holds the rules that Globs documents.
func TestParseGlobs(t *testing.T) {
	for _, test := range []struct {
		text string
		yes  []string
		no   []string
	}{
		{"build", []string{"build", "build/a/b"}, []string{"builder", "x/build"}},
		{"./build/", []string{"build/a"}, []string{"x"}},
		{"*.log\n# comment\n\n", []string{"a.log", "d.log/x"}, []string{"d/a.log"}},
		{"**/*.log\r\n", []string{"a.log", "d/e/a.log"}, []string{"a.lo"}},
		{"out\n!out/*.o", []string{"out/a"}, []string{"out/a.o"}},
		{"! out/tmp\nout", []string{"out/a"}, []string{"out/tmp", "out/tmp/x"}},
		{"{a,b}/[0-9]?", []string{"a/1x", "b/22"}, []string{"c/11"}},
		{".", []string{"x", "x/y"}, nil},
		{`\!x`, []string{"!x"}, []string{"x"}},
	} {
		g, err := ParseGlobs(test.text)
		must(t, err)
		for _, name := range test.yes {
			if !g.Match(name) {
				t.Errorf("%q does not match %q", test.text, name)
			}
		}
		for _, name := range test.no {
			if g.Match(name) {
				t.Errorf("%q matches %q", test.text, name)
			}
		}
	}
	for _, text := range []string{"", "!x", "/etc/passwd", "a/../b", "..", "[a", "{a", "!", "#x"} {
		if _, err := ParseGlobs(text); !errors.Is(err, ErrGlob) {
			t.Errorf("%q: error %v", text, err)
		}
	}
	if _, err := ParseCopyBack("/x"); !errors.Is(err, ErrGlob) {
		t.Errorf("error %v", err)
	}
	if !copyBackOf(t, " none\n").None() || copyBackOf(t, "").None() {
		t.Error("None")
	}
}
