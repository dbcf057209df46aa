package ext2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

// sample is a file as a test wants it, or as a reader found it.
type sample struct {
	Path    string
	Mode    fs.FileMode
	UID     uint32
	GID     uint32
	ModTime int64
	Size    units.Bytes // of regular files only
	Digest  [32]byte    // of the blocks that aren't zero, and of where they are
	Target  string
	Same    string // the first path, in order, of a file with several names
}

// islands is the data of a file that is mostly holes.
type islands struct {
	at   []int64 // ascending
	data [][]byte
}

// blockDigest digests data in ascending order as sample.Digest says.
type blockDigest struct {
	at    int64
	block [makeBlock]byte
	sum   []byte
}

func (d *blockDigest) add(at int64, data []byte) {
	for len(data) > 0 {
		if begin := at / makeBlock * makeBlock; begin != d.at {
			d.end()
			d.at = begin
		}
		n := copy(d.block[at%makeBlock:], data)
		at, data = at+int64(n), data[n:]
	}
}

func (d *blockDigest) end() [32]byte {
	if d.block != zeroBlock {
		s := sha256.Sum256(append(binary.LittleEndian.AppendUint64(d.sum, uint64(d.at)), d.block[:]...))
		d.sum = s[:]
	}
	d.block = zeroBlock
	var all [32]byte
	copy(all[:], d.sum)
	return all
}

func (i islands) digest() [32]byte {
	var d blockDigest
	for k, at := range i.at {
		d.add(at, i.data[k])
	}
	return d.end()
}

// file writes the islands to a sparse file.
func (i islands) file(t testing.TB, size units.Bytes) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for k, at := range i.at {
		if _, err := f.WriteAt(i.data[k], at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	return f
}

// planter makes files with a Maker and remembers what they must be like.
type planter struct {
	t      testing.TB
	m      *Maker
	random *rand.Rand
	want   map[string]sample
}

func newMakerFor(t testing.TB, image string, creator OS, size units.Bytes, inodes int) *Maker {
	t.Helper()
	tools(t, "mke2fs", "e2fsck")
	m, err := Make(t.Context(), image, MakeOptions{Size: size, Creator: creator, UUID: [16]byte{0x11, 15: 0x22}, Label: "workspace", Inodes: inodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Discard(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (p *planter) attributes() Attributes {
	mode := fs.FileMode(p.random.IntN(0o1000))
	for _, bit := range specialBits {
		if p.random.IntN(8) == 0 {
			mode |= bit.mode
		}
	}
	id := func() uint32 {
		return []uint32{0, 1000, 65534, 65536, 100000, 1<<32 - 2}[p.random.IntN(6)]
	}
	return Attributes{Mode: mode, UID: id(), GID: id(), ModTime: time.Unix(p.random.Int64N(1<<31), 0)}
}

// record remembers a file that was made.
func (p *planter) record(path string, kind fs.FileMode, a Attributes, s sample) {
	s.Path, s.Mode, s.UID, s.GID, s.ModTime = path, kind|a.Mode&^fs.ModeType, a.UID, a.GID, a.ModTime.Unix()
	p.want[path] = s
}

func (p *planter) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *planter) dir(path string) string {
	p.t.Helper()
	a := p.attributes()
	p.must(p.m.Dir(path, a))
	p.record(path, fs.ModeDir, a, sample{})
	return path
}

func (p *planter) file(path string, data []byte) {
	p.t.Helper()
	a := p.attributes()
	p.must(p.m.File(path, a, units.Bytes(len(data)), bytes.NewReader(data)))
	p.record(path, 0, a, sample{Size: units.Bytes(len(data)), Digest: islands{[]int64{0}, [][]byte{data}}.digest()})
}

func (p *planter) sparse(path string, size units.Bytes, i islands) {
	p.t.Helper()
	a := p.attributes()
	p.must(p.m.File(path, a, size, i.file(p.t, size)))
	p.record(path, 0, a, sample{Size: size, Digest: i.digest()})
}

func (p *planter) symlink(path, target string) {
	p.t.Helper()
	a := p.attributes()
	a.Mode = 0o777 // as Linux shows every symbolic link
	p.must(p.m.Symlink(path, target, a))
	p.record(path, fs.ModeSymlink, a, sample{Target: target})
}

func (p *planter) special(path string, kind fs.FileMode) {
	p.t.Helper()
	a := p.attributes()
	a.Mode |= kind
	p.must(p.m.Special(path, a))
	p.record(path, kind, a, sample{})
}

func (p *planter) link(path, existing string) {
	p.t.Helper()
	p.must(p.m.Link(path, existing))
	s := p.want[existing]
	first := min(path, existing)
	if s.Same != "" {
		first = min(path, s.Same)
	}
	p.want[path] = s
	for other, o := range p.want {
		if other == path || other == existing || o.Same != "" && o.Same == s.Same {
			o.Path, o.Same = other, first
			p.want[other] = o
		}
	}
}

func (p *planter) bytes(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(p.random.Uint32())
	}
	return data
}

// name makes a name of up to 255 odd bytes.
func (p *planter) name() string {
	for {
		b := p.bytes(1 + p.random.IntN(12))
		switch p.random.IntN(8) {
		case 0:
			b = p.bytes(255)
		case 1:
			b = append([]byte("-rf "), b...)
		case 2:
			b = []byte("new\nline \\ \" ' $(x) \x1b[31m " + string(b))
		case 3:
			b = []byte("." + string(b))
		}
		for i, c := range b { // as bytes: names need not be UTF-8
			if c == 0 || c == '/' {
				b[i] = 'x'
			}
		}
		if name := string(b); len(name) <= 255 && name != "." && name != ".." {
			return name
		}
	}
}

// sorted returns what was planted in the order in which Walk finds it.
func (p *planter) sorted() []sample { return inWalkOrder(slices.Collect(maps.Values(p.want))) }

func inWalkOrder(all []sample) []sample {
	slices.SortFunc(all, func(a, b sample) int {
		return slices.Compare(components(a.Path), components(b.Path))
	})
	return all
}

func components(path string) []string {
	if path == "." {
		return nil
	}
	return strings.Split(path, "/")
}

// collect walks a file system.
func collect(t testing.TB, f *FS) []sample {
	t.Helper()
	var all []sample
	first := map[uint32]string{}
	links := map[uint32]int{}
	err := f.Walk(t.Context(), func(n Node) error {
		s := sample{Path: n.Path, Mode: n.Mode, UID: n.UID, GID: n.GID, ModTime: n.ModTime.Unix(), Target: n.Target}
		if n.Translator != 0 {
			return fmt.Errorf("%q has the translator %d", n.Path, n.Translator)
		}
		if n.Mode.IsRegular() {
			s.Size = n.Size
			digest := blockDigest{}
			end := units.Bytes(0)
			err := f.Data(n, func(offset units.Bytes, data []byte) error {
				if offset < end || len(data) == 0 || len(data) > int(dataChunk) || offset+units.Bytes(len(data)) > n.Size {
					return fmt.Errorf("%q: %d bytes at %d after %d", n.Path, len(data), offset, end)
				}
				end = offset + units.Bytes(len(data))
				digest.add(int64(offset), data)
				return nil
			})
			if err != nil {
				return err
			}
			s.Digest = digest.end()
		}
		if !n.IsDir() && n.Links > 1 {
			if first[n.Inode] == "" {
				first[n.Inode] = n.Path
			}
			s.Same = first[n.Inode]
			if links[n.Inode]++; links[n.Inode] > n.Links {
				return fmt.Errorf("%q has more names than %d", n.Path, n.Links)
			}
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// firstNames sets Same to the first name in the order of a walk.
func firstNames(all []sample) []sample {
	first := map[string]string{}
	for i, s := range all {
		if s.Same == "" {
			continue
		}
		if first[s.Same] == "" {
			first[s.Same] = s.Path
		}
		all[i].Same = first[s.Same]
	}
	return all
}

// compareSamples reports the first differences only: trees are large.
func compareSamples(t testing.TB, want, got []sample) {
	t.Helper()
	want, got = firstNames(want), firstNames(got)
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Errorf("file %d of %d: (-want +got)\n%s", i, len(want), cmp.Diff(want[i], got[i]))
			return
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d files were found, want %d", len(got), len(want))
	}
}

// hostTree describes a directory of this machine, which may be a mounted file
// system.
func hostTree(t testing.TB, root string) []sample {
	t.Helper()
	var all []sample
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if path == lostFound {
			return fs.SkipDir
		}
		s, err := hostSample(name, first)
		s.Path = path
		if s.Same == name {
			s.Same = path
		} else if s.Same != "" {
			s.Same = strings.TrimPrefix(s.Same, root+"/")
		}
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return inWalkOrder(all)
}

func hostSample(name string, first map[uint64]string) (sample, error) {
	stat, err := os.Lstat(name)
	if err != nil {
		return sample{}, err
	}
	sys := sysStat(stat)
	s := sample{Mode: stat.Mode(), UID: sys.Uid, GID: sys.Gid, ModTime: stat.ModTime().Unix()}
	if !stat.IsDir() && sys.Nlink > 1 {
		if first[sys.Ino] == "" {
			first[sys.Ino] = name
		}
		s.Same = first[sys.Ino]
	}
	switch {
	case stat.Mode().IsRegular():
		s.Size = units.Bytes(stat.Size())
		f, err := os.Open(name)
		if err != nil {
			return s, err
		}
		var d blockDigest
		buf := make([]byte, writeBuffer)
		err = dataRanges(f, s.Size, func(from, to units.Bytes) error {
			for ; from < to; from += writeBuffer {
				part := buf[:min(to-from, writeBuffer)]
				if _, err := f.ReadAt(part, int64(from)); err != nil {
					return err
				}
				d.add(int64(from), part)
			}
			return nil
		})
		s.Digest = d.end()
		return s, errors.Join(err, f.Close())
	case stat.Mode().Type() == fs.ModeSymlink:
		s.Target, err = os.Readlink(name)
	}
	return s, err
}
