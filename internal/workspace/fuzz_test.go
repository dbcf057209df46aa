package workspace

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// FuzzTar feeds streams to everything that a guest's stream reaches, and holds
// that nothing outside the workspace is touched, nothing temporary is left, and
// nothing is followed.
func FuzzTar(f *testing.F) {
	seed := func(headers ...*tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			_ = w.WriteHeader(h)
			_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	seed(&tar.Header{Name: "./d/", Typeflag: tar.TypeDir, Mode: 0o755}, &tar.Header{Name: "./d/f", Size: 3, Mode: 0o4755}, &tar.Header{Name: "./d/g", Typeflag: tar.TypeLink, Linkname: "./d/f"})
	seed(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, &tar.Header{Name: "l/secret", Size: 1}, &tar.Header{Name: "../secret", Size: 1})
	seed(&tar.Header{Name: "file", Typeflag: tar.TypeDir}, &tar.Header{Name: "link/file", Size: 1}, &tar.Header{Name: "p", Typeflag: tar.TypeFifo}, &tar.Header{Name: "c", Typeflag: tar.TypeChar})
	var sparse bytes.Buffer
	w := NewTarWriter(&sparse, GNUTar)
	name := filepath.Join(f.TempDir(), "sparse")
	sparseFile(f, name, 1<<20, 9)
	if in, err := os.Open(name); err == nil {
		_ = w.File(strings.Repeat("n", 150), Attr{Mode: 0o600}, 1<<20, in)
		_ = in.Close()
	}
	_ = w.Close()
	f.Add(sparse.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 64<<10 {
			return
		}
		stream = checksums(stream)
		hostile(t, func() Source { return NewTarSource(bytes.NewReader(stream), 4*units.MiB) })
	})
}

// checksums makes the headers of a mutated stream good again, or nearly all of
// them would be refused for nothing else.
func checksums(stream []byte) []byte {
	stream = bytes.Clone(stream)
	for b := range slices.Chunk(stream, tarBlock) {
		if len(b) < tarBlock || !bytes.HasPrefix(b[offMagic:], []byte("ustar")) {
			continue
		}
		copy(b[offChecksum:offChecksum+8], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[offChecksum:], fmt.Sprintf("%06o\x00 ", sum))
	}
	return stream
}

// hostile holds what must be true whatever a source delivers.
func hostile(t *testing.T, in func() Source) {
	t.Helper()
	w := newWorld(t, "file", "dir/x", "link -> ../other", ".git/config", ".hurd/log")
	protected := func() []string {
		return []string{w.read(t, ".git/config"), w.read(t, ".hurd/log")}
	}
	before := protected()
	tree := scanned(t, w.dir, Filter{})
	must(t, tree.CopyTo(t.Context(), &record{}, Owner{}))
	c, _ := Compare(t.Context(), tree, in(), Options{Delete: true})
	r, _ := c.Apply(t.Context(), in())
	must(t, filepath.WalkDir(w.dir, func(full string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() != fs.ModeSymlink {
			_ = os.Chmod(full, 0o700) // so that it can be looked at and removed
		}
		return nil
	}))
	w.check(t)
	if after := protected(); !slices.Equal(after, before) {
		t.Errorf("%q became %q", before, after)
	}
	for _, n := range slices.Concat(r.Refused.List, r.Failed.List) {
		if len(n.Path) > maxPath+3 || n.Reason == "" {
			t.Errorf("note %+v", n)
		}
	}
}

// FuzzApply makes nodes of lines, "kind path argument", and holds the same.
func FuzzApply(f *testing.F) {
	for _, lines := range []string{
		"d a\nf a/b text\nl a/c ..\nh a/d a/b\np fifo\nc dev", "l x ..\nf x/secret evil\nd x\nf x/y z", "f file\nd file\nf file/x", "l .git dir\nf .git/config x\nf .hurd/log x",
		"f ../secret x\nf /secret x\nf a//b x\nf . x\nh y ../secret", "i a text\ni b text\ni link/c text\nd link\nf link/file x\nf file x",
	} {
		f.Add(lines)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		if len(lines) > 4000 {
			return
		}
		var g guest
		for line := range strings.SplitSeq(lines, "\n") {
			if n, ok := nodeOf(line); ok {
				g.nodes = append(g.nodes, n)
			}
		}
		hostile(t, func() Source { return g })
	})
}

func nodeOf(line string) (Node, bool) {
	if len(line) < 2 {
		return Node{}, false
	}
	path, arg, _ := strings.Cut(line[2:], " ")
	n := text(path, arg)
	switch line[0] {
	case 'f':
	case 'i':
		n.Inode = 1 + uint64(len(arg))
	case 'h':
		n.Link, n.Data = arg, nil
	case 'd':
		n.Mode = fs.ModeDir | 0o755
	case 'l':
		n = symlink(path, arg)
	case 'p':
		n.Mode |= fs.ModeNamedPipe
	case 'c':
		n.Mode |= fs.ModeDevice | fs.ModeCharDevice
	default:
		return Node{}, false
	}
	return n, true
}

// FuzzListing holds that no listing makes it panic, and that Compare keeps
// only paths below the workspace.
func FuzzListing(f *testing.F) {
	f.Add([]byte("f\x00644\x003\x001.5\x002.25\x009\x002\x00\x00name\x00"))
	f.Fuzz(func(t *testing.T, list []byte) {
		tree := &Tree{index: map[string]int{}, left: map[string]left{}}
		c, _ := Compare(t.Context(), tree, NewListing(bytes.NewReader(list)), Options{})
		for _, name := range c.paths {
			if !filepath.IsLocal(name) || name == "." || strings.HasPrefix(name, logDir+"/") {
				t.Errorf("%q comes back", name)
			}
		}
	})
}
