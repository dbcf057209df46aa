package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Entry is one file of the checkout.
type Entry struct {
	Path    string // relative, with slashes; "." for the workspace itself
	Mode    fs.FileMode
	Size    units.Bytes // 0 but for regular files
	ModTime time.Time
	Target  string // of a symbolic link
	// Link is the path of an earlier entry that is the same file.
	Link string

	inode uint64
	sent  bool // it is in the guest
}

// Tree is what of the checkout travels.
type Tree struct {
	Entries []Entry     // parents before what is in them
	Files   int         // all but directories
	Bytes   units.Bytes // of regular files, each counted once
	// Skipped is what the filter let through and yet does not travel, and why.
	Skipped Notes

	dir    string
	filter Filter
	index  map[string]int
	left   map[string]left // what stays on the host; of a directory that isn't looked into only itself
}

// left tells why something stays on the host.
type left uint8

const (
	leftOut      left = 1 + iota // include patterns don't match it
	leftExcluded                 // it was taken away, with all that is in it
)

// Scan lists the files in dir that the filter lets through. Sockets and
// devices are skipped, and so is what vanishes meanwhile. It fails when
// something can't be read.
func Scan(ctx context.Context, dir string, filter Filter) (*Tree, error) {
	t := &Tree{dir: dir, filter: filter, index: map[string]int{}, left: map[string]left{}}
	d, err := openDirs(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the workspace: %w", err)
	}
	defer d.close()
	s := &scan{tree: t, links: map[[2]uint64]string{}}
	var st unix.Stat_t
	if err := unix.Fstat(d.fds[0], &st); err != nil {
		return nil, fmt.Errorf("reading the workspace %s: %w", dir, err)
	}
	t.add(entry(".", &st))
	if err := s.dir(ctx, d, ".", filter.root()); err != nil {
		return nil, fmt.Errorf("reading the workspace %s: %w", dir, err)
	}
	return t, nil
}

// Dir is the workspace's directory on the host.
func (t *Tree) Dir() string { return t.dir }

func (t *Tree) add(e Entry) {
	t.index[e.Path] = len(t.Entries)
	t.Entries = append(t.Entries, e)
	if e.Mode.IsDir() {
		return
	}
	t.Files++
	if e.Link == "" {
		t.Bytes += e.Size
	}
}

// sameFile tells whether two paths were names of one file.
func (t *Tree) sameFile(a, b string) bool {
	first := func(name string) string {
		if i, ok := t.index[name]; ok && t.Entries[i].Link != "" {
			return t.Entries[i].Link
		}
		return name
	}
	return first(a) == first(b)
}

// scan is one Scan.
type scan struct {
	tree  *Tree
	links map[[2]uint64]string // device and inode to the first path
}

// dir adds what is in a directory.
func (s *scan) dir(ctx context.Context, d *dirs, dir string, v verdict) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	fd, err := d.at(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errLink) {
		s.tree.Skipped.add(dir, "it vanished while the workspace was read")
		return nil
	}
	var names []string
	if err == nil {
		names, err = readNames(fd)
	}
	if err != nil {
		return &fs.PathError{Op: "reading the directory", Path: dir, Err: err}
	}
	for _, name := range names {
		if err := s.entry(ctx, d, dir, name, v); err != nil {
			return err
		}
	}
	return nil
}

func readNames(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", openDir, 0) // closing what os.File has would close fd
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), ".")
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, f.Close())
}

// entry adds one file, and what is in it.
func (s *scan) entry(ctx context.Context, d *dirs, dir, name string, above verdict) error {
	t, full := s.tree, path.Join(dir, name)
	fd, err := d.at(dir) // what was in the last directory moved the chain
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errLink) {
		t.Skipped.add(full, "it vanished while the workspace was read")
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: full, Err: err}
	}
	e := entry(full, &st)
	v := t.filter.enter(above, full, e.Mode.IsDir())
	switch e.Mode.Type() {
	case fs.ModeDir:
		return s.subdir(ctx, d, e, v)
	case fs.ModeSymlink:
		if e.Target, err = readLink(fd, name); err != nil {
			return &fs.PathError{Op: "readlink", Path: full, Err: err}
		}
	case 0, fs.ModeNamedPipe:
	default:
		if v.in {
			t.Skipped.add(full, "it is a "+kindOf(e.Mode))
		}
		v = verdict{excluded: true}
	}
	if !v.in {
		t.leave(full, v)
		return nil
	}
	if st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if e.Link = s.links[id]; e.Link == "" {
			s.links[id] = full
		}
	}
	t.add(e)
	return nil
}

// subdir adds a directory and what is in it. One that does not travel for
// itself is kept when something in it does.
func (s *scan) subdir(ctx context.Context, d *dirs, e Entry, v verdict) error {
	t := s.tree
	if !v.descend {
		t.leave(e.Path, v)
		return nil
	}
	t.add(e)
	at := len(t.Entries)
	if err := s.dir(ctx, d, e.Path, v); err != nil {
		return err
	}
	if !v.in && len(t.Entries) == at {
		t.Entries = t.Entries[:at-1]
		delete(t.index, e.Path)
		t.leave(e.Path, v)
	}
	return nil
}

func (t *Tree) leave(name string, v verdict) {
	t.left[name] = leftOut
	if v.excluded {
		t.left[name] = leftExcluded
	}
}

func entry(name string, st *unix.Stat_t) Entry {
	e := Entry{Path: name, Mode: fileMode(st.Mode), ModTime: time.Unix(st.Mtim.Unix()), inode: st.Ino}
	if e.Mode.IsRegular() {
		e.Size = units.Bytes(st.Size)
	}
	return e
}

// maxTarget is one more than Linux lets a symbolic link hold.
const maxTarget = 4096

func readLink(fd int, name string) (string, error) {
	buf := make([]byte, maxTarget)
	n, err := unix.Readlinkat(fd, name, buf)
	return string(buf[:max(n, 0)]), err
}

// special are the bits of a mode besides permissions and type.
var special = []struct {
	raw  uint32
	mode fs.FileMode
}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}}

// types are the types of files, by what they are called.
var types = []struct {
	raw  uint32
	mode fs.FileMode
	name string
}{
	{unix.S_IFREG, 0, "regular file"},
	{unix.S_IFDIR, fs.ModeDir, "directory"},
	{unix.S_IFLNK, fs.ModeSymlink, "symbolic link"},
	{unix.S_IFIFO, fs.ModeNamedPipe, "named pipe"},
	{unix.S_IFSOCK, fs.ModeSocket, "socket"},
	{unix.S_IFBLK, fs.ModeDevice, "block device"},
	{unix.S_IFCHR, fs.ModeDevice | fs.ModeCharDevice, "character device"},
}

// permissions translates the bits that chmod takes.
func permissions(raw uint32) fs.FileMode {
	mode := fs.FileMode(raw & 0o777)
	for _, s := range special {
		if raw&s.raw != 0 {
			mode |= s.mode
		}
	}
	return mode
}

// fileMode translates st_mode.
func fileMode(raw uint32) fs.FileMode {
	mode := permissions(raw)
	for _, t := range types {
		if raw&unix.S_IFMT == t.raw {
			return mode | t.mode
		}
	}
	return mode | fs.ModeIrregular
}

// kindOf is what people call a type.
func kindOf(mode fs.FileMode) string {
	for _, t := range types {
		if mode.Type() == t.mode {
			return t.name
		}
	}
	return "file of an unknown type"
}
