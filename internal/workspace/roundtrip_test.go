package workspace

import (
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// guestTar is a guest's tar program.
type guestTar struct {
	name    string
	dialect TarDialect
	extract []string
	create  []string
}

var guestTars = []guestTar{
	{"GNU", GNUTar, []string{"tar", "-x", "-p", "--numeric-owner", "--warning=no-timestamp", "-f", "-"}, []string{"tar", "-c", "--format=gnu", "--sparse", "--numeric-owner", "-f", "-", "."}},
	{"GNU posix", GNUTar, []string{"tar", "-x", "-p", "--numeric-owner", "--warning=no-timestamp", "-f", "-"}, []string{"tar", "-c", "--format=posix", "--sparse", "--numeric-owner", "-f", "-", "."}},
	{"busybox", AnyTar, []string{"busybox", "tar", "-x", "-p", "-f", "-"}, []string{"busybox", "tar", "-c", "-f", "-", "."}},
}

// in extracts a tree into a directory as a guest would, and counts the bytes
// of the stream.
func (g guestTar) in(t testing.TB, tree *Tree, owner Owner, dir string) units.Bytes {
	t.Helper()
	tools(t, g.extract[0])
	cmd := exec.CommandContext(t.Context(), g.extract[0], g.extract[1:]...)
	cmd.Dir = dir
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	pipe, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	count := &counter{w: pipe}
	w := NewTarWriter(count, g.dialect)
	copied := tree.CopyTo(t.Context(), w, owner)
	closed := w.Close()
	must(t, pipe.Close())
	if err := cmd.Wait(); err != nil || complaint.Len() > 0 {
		t.Fatalf("%s tar: %v\n%.2000s", g.name, err, complaint.String())
	}
	must(t, copied)
	must(t, closed)
	return count.n
}

// out is the stream that a guest sends of a directory.
func (g guestTar) out(t testing.TB, dir string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), g.create[0], g.create[1:]...)
	cmd.Dir = dir
	out, err := cmd.Output()
	must(t, err)
	return out
}

type counter struct {
	w io.Writer
	n units.Bytes
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += units.Bytes(n)
	return n, err
}

// back applies a stream to an empty workspace.
func back(t testing.TB, stream []byte, dir string) Result {
	t.Helper()
	tree := scanned(t, dir, Filter{})
	changes, err := Compare(t.Context(), tree, NewTarSource(bytes.NewReader(stream), 8*units.GiB), Options{})
	must(t, err)
	result, err := changes.Apply(t.Context(), NewTarSource(bytes.NewReader(stream), 8*units.GiB))
	must(t, err)
	for what, notes := range map[string]Notes{"refused": result.Refused, "failed": result.Failed, "missing": result.Missing, "notice": result.Notices} {
		for _, n := range notes.List {
			t.Errorf("%s: %q: %s", what, n.Path, n.Reason)
		}
	}
	return result
}

// TestRoundTrip: any tree comes through a guest's tar programs as it was.
func TestRoundTrip(t *testing.T) {
	for _, g := range guestTars {
		t.Run(g.name, func(t *testing.T) {
			for seed := range uint64(3) {
				host, guest, again := t.TempDir(), t.TempDir(), t.TempDir()
				randomTree(t, host, rand.New(rand.NewPCG(seed, 1)), 600)
				sparseFile(t, filepath.Join(host, "sparse"), 8<<20, 30)
				sparseFile(t, filepath.Join(host, "empty but large"), 1<<20, 0)
				must(t, os.Chtimes(host, time.Unix(5, 0), time.Unix(5, 0)))
				own(t, again)
				tree := scanned(t, host, Filter{})
				g.in(t, tree, Owner{1234, 4321}, guest)
				want, got := picture(t, host), picture(t, guest)
				if os.Geteuid() == 0 {
					want = owned(want, "1234:4321") // in the guest all is the user's
				}
				if g.dialect == AnyTar {
					want, got = withoutLinks(want), withoutLinks(got)
				}
				same(t, got, want)

				want = picture(t, guest)
				if os.Geteuid() == 0 {
					want = owned(want, "77:88") // and back here the workspace's owner's
				}
				back(t, g.out(t, guest), again)
				got = picture(t, again)
				delete(want, ".")
				delete(got, ".")
				same(t, got, want)
				if a := allocated(t, filepath.Join(again, "sparse")); a > 1<<20 {
					t.Errorf("the sparse file takes %d bytes on the host", a)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// own gives an empty workspace to somebody else, where that is possible.
func own(t testing.TB, dir string) {
	t.Helper()
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 77, 88))
	}
}

func owned(pictures map[string]string, owner string) map[string]string {
	other := map[string]string{}
	for name, line := range pictures {
		fields := strings.SplitN(line, " ", 3)
		fields[1] = owner
		other[name] = strings.Join(fields, " ")
	}
	return other
}

// withoutLinks takes away what busybox does not restore: it makes all links
// after everything else, which changes the times of directories, and leaves
// symbolic links to root.
func withoutLinks(pictures map[string]string) map[string]string {
	other := maps.Clone(pictures)
	for name, line := range pictures {
		if strings.HasPrefix(line, "L") {
			other[name] = line[strings.Index(line, "->"):]
		}
		if dir := path.Dir(name); strings.Contains(line, " -> ") || strings.Contains(line, " = ") {
			other[dir] = strings.Join(strings.Split(pictures[dir], " ")[:2], " ")
		}
	}
	return other
}

// TestRoundTripMany: ten thousand files.
func TestRoundTripMany(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	host, guest, again := t.TempDir(), t.TempDir(), t.TempDir()
	randomTree(t, host, rand.New(rand.NewPCG(9, 9)), 10_500)
	tree := scanned(t, host, Filter{})
	if len(tree.Entries) < 10_000 {
		t.Fatalf("only %d files", len(tree.Entries))
	}
	g := guestTars[0]
	g.in(t, tree, Owner{}, guest)
	back(t, g.out(t, guest), again)
	want, got := picture(t, host), picture(t, again)
	delete(want, ".")
	delete(got, ".")
	same(t, got, want)
}

// TestSparseGiB: a sparse file of 1 GiB costs what it holds, for GNU tar.
func TestSparseGiB(t *testing.T) {
	host, guest, again := t.TempDir(), t.TempDir(), t.TempDir()
	name := strings.Repeat("d", 120) + "\xff"
	sparseFile(t, filepath.Join(host, name), 1<<30, 100)
	must(t, os.Chtimes(filepath.Join(host, name), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	g := guestTars[0]
	if n := g.in(t, scanned(t, host, Filter{}), Owner{}, guest); n > units.MiB {
		t.Errorf("the stream has %s", n.Human())
	}
	result := back(t, g.out(t, guest), again)
	want, got := picture(t, host), picture(t, again)
	delete(want, ".")
	delete(got, ".")
	same(t, got, want)
	if a := allocated(t, filepath.Join(again, name)); a > 1<<20 || result.Bytes > units.MiB {
		t.Errorf("it takes %d bytes on the host, and %s were written", a, result.Bytes.Human())
	}
}

// TestSparseShapes: files that begin and end with data or holes, at sizes that
// are no multiple of anything.
func TestSparseShapes(t *testing.T) {
	host, guest := t.TempDir(), t.TempDir()
	for name, shape := range map[string]struct {
		size  int64
		parts []int64
	}{
		"hole at the end":       {100_001, []int64{0}},
		"hole at the beginning": {100_001, []int64{98_000}},
		"data at both ends":     {1_000_003, []int64{0, 999_900}},
		"nine GiB":              {9 << 30, []int64{9<<30 - 10}},
		"exactly four parts":    {1 << 20, []int64{0, 100_000, 200_000, 300_000}},
		"five parts":            {1 << 20, []int64{0, 100_000, 200_000, 300_000, 400_000}},
		"nothing":               {1 << 20, nil},
	} {
		f, err := os.Create(filepath.Join(host, name))
		must(t, err)
		must(t, f.Truncate(shape.size))
		for _, at := range shape.parts {
			_, err := f.WriteAt([]byte("data"), at)
			must(t, err)
		}
		must(t, f.Close())
	}
	guestTars[0].in(t, scanned(t, host, Filter{}), Owner{uint32(os.Geteuid()), uint32(os.Getegid())}, guest)
	same(t, picture(t, guest), picture(t, host))
}
