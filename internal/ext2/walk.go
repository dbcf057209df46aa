package ext2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Node is a file that Walk found.
type Node struct {
	Path string // relative to the root, names separated by slashes; "." for the root itself
	Info
	ModTime time.Time
	// ChangeTime is when anything about the file was changed last. A Maker sets it
	// to ModTime.
	ChangeTime time.Time
	Links      int    // names that the file has; files with the same Inode are one
	Target     string // of a symbolic link
}

// Bounds of a walk. A real tree comes nowhere near.
const (
	maxWalkNames = 1 << 22
	maxWalkPath  = 32 << 10
)

// lostFound is where e2fsck puts files that have lost their names.
const lostFound = "lost+found"

// Walk visits every file below the root, a directory before what is in it,
// names in the order of their bytes. When visit returns fs.SkipDir for a
// directory, what is in it is left out; fs.SkipAll ends the walk; any other
// error ends it and is returned. A lost+found in the root as e2fsprogs make it
// (root's, mode 0700, empty) is not visited. A tree that can't be one is an
// error: a directory with two names, files that claim more than there is.
func (f *FS) Walk(ctx context.Context, visit func(Node) error) error {
	return f.walk(ctx, maxWalkNames, visit)
}

func (f *FS) walk(ctx context.Context, most int, visit func(Node) error) error {
	t, err := f.tree()
	if err != nil {
		return fmt.Errorf("walking %s: %w", f.part, err)
	}
	t.f = &FS{image: f.image, part: f.part, file: newPages(f.file)}
	w := &treeWalk{t: t, visit: visit, most: most, seen: map[uint32]bool{}}
	root, err := t.inode(rootInode)
	if err == nil && !root.mode().IsDir() {
		err = fmt.Errorf("%w: its root is no directory", errCorrupt)
	}
	if err == nil {
		err = w.node(ctx, ".", root)
	}
	var stopped visitError
	switch {
	case errors.As(err, &stopped):
		if errors.Is(stopped.err, fs.SkipAll) || errors.Is(stopped.err, fs.SkipDir) {
			return nil
		}
		return stopped.err
	case err != nil:
		return fmt.Errorf("walking %s: %w", f.part, err)
	}
	return nil
}

// visitError is what the caller's function returned, so that it comes back as
// it is.
type visitError struct{ err error }

func (e visitError) Error() string { return e.err.Error() }

// treeWalk is one walk.
type treeWalk struct {
	t       tree
	visit   func(Node) error
	seen    map[uint32]bool // directories, and files with several names
	most    int             // names that there may be
	sectors uint64          // that the files claim
}

func (w *treeWalk) node(ctx context.Context, path string, n inode) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := w.plausible(path, n); err != nil {
		return err
	}
	node := Node{Path: path, Info: n.info(w.t.sb), Links: int(n.links)}
	node.ModTime, node.ChangeTime = fileTime(w.t.sb, n.mtime, n.mtimeExtra), fileTime(w.t.sb, n.ctime, n.ctimeExtra)
	if n.mode().Type() == fs.ModeSymlink {
		var err error
		if node.Target, err = w.t.link(n); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	if err := w.visit(node); err != nil {
		if errors.Is(err, fs.SkipDir) && n.mode().IsDir() {
			return nil
		}
		return visitError{err}
	}
	if n.mode().IsDir() {
		return w.directory(ctx, path, n)
	}
	return nil
}

// plausible refuses an inode that no sound file system has at this point.
func (w *treeWalk) plausible(path string, n inode) error {
	if n.links == 0 || n.mode().Type() == fs.ModeIrregular {
		return fmt.Errorf("%w: %q leads to inode %d, which is not in use", errCorrupt, path, n.number)
	}
	if n.mode().IsDir() || n.links > 1 {
		if w.seen[n.number] {
			if n.mode().IsDir() {
				return fmt.Errorf("%w: %q is a directory that has another name", errCorrupt, path)
			}
			return nil
		}
		w.seen[n.number] = true
	}
	if w.sectors += uint64(n.sectors); w.t.sb.countsSectors() && w.sectors > uint64(w.t.sb.Size()/sectorSize) {
		return fmt.Errorf("%w: its files claim more space than it has", errCorrupt)
	}
	return nil
}

func (w *treeWalk) directory(ctx context.Context, path string, n inode) error {
	var entries []Entry
	err := w.t.scan(n, func(name []byte, number uint32) bool {
		entries = append(entries, Entry{string(name), number})
		return len(entries) <= w.most
	})
	if err == nil && len(entries) > w.most {
		err = fmt.Errorf("%w: there are too many names", errCorrupt)
	}
	if err != nil {
		return fmt.Errorf("the directory %q: %w", path, err)
	}
	w.most -= len(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for i, e := range entries {
		if i > 0 && e.Name == entries[i-1].Name {
			return fmt.Errorf("%w: the directory %q holds %q twice", errCorrupt, path, e.Name)
		}
		child := e.Name
		if path != "." {
			child = path + "/" + e.Name
		}
		if len(child) > maxWalkPath {
			return fmt.Errorf("%w: a path has more than %d bytes", errCorrupt, maxWalkPath)
		}
		c, err := w.t.inode(e.Inode)
		if err != nil {
			return fmt.Errorf("%q: %w", child, err)
		}
		if child == lostFound && w.emptyLostFound(c) {
			continue
		}
		err = w.node(ctx, child, c)
		var stopped visitError
		if errors.As(err, &stopped) && errors.Is(stopped.err, fs.SkipDir) {
			return nil // said of a file: the rest of its directory is left out
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyLostFound tells whether a directory is one that mke2fs or e2fsck made.
func (w *treeWalk) emptyLostFound(n inode) bool {
	if !n.mode().IsDir() || rawPermissions(n.mode()) != 0o700 || n.uid != 0 || n.gid != 0 {
		return false
	}
	entries, err := w.t.entries(n)
	return err == nil && len(entries) == 0
}

// dataChunk is how much Data hands out at once, at most.
const dataChunk = units.MiB

// Data reads a regular file that Walk found: visit gets what isn't a hole, in
// order, in pieces of at most 1 MiB, which it must not keep. Where nothing
// comes, up to the file's size, are zeros.
func (f *FS) Data(n Node, visit func(offset units.Bytes, data []byte) error) error {
	var failed visitError
	err := f.data(n.Inode, func(offset units.Bytes, data []byte) error {
		if err := visit(offset, data); err != nil {
			return visitError{err}
		}
		return nil
	})
	if errors.As(err, &failed) {
		return failed.err
	}
	if err != nil {
		return &fs.PathError{Op: "read", Path: n.Path, Err: err}
	}
	return nil
}

func (f *FS) data(number uint32, visit func(units.Bytes, []byte) error) error {
	t, err := f.tree()
	if err != nil {
		return err
	}
	n, err := t.inode(number)
	if err != nil {
		return err
	}
	if !n.mode().IsRegular() {
		return fmt.Errorf("not a regular file but %s", n.mode().Type())
	}
	if units.Bytes(n.size) < 0 {
		return fmt.Errorf("%w: a file of %d bytes", errCorrupt, n.size)
	}
	size := uint64(t.sb.BlockSize)
	var buf []byte
	emit := func(r run) error {
		for r.count > 0 && r.physical != 0 {
			count := min(r.count, uint64(dataChunk)/size)
			length := min(count*size, n.size-r.logical*size)
			if uint64(cap(buf)) < length {
				buf = make([]byte, length)
			}
			if _, err := f.file.ReadAt(buf[:length], int64(f.part.Start)+int64(r.physical*size)); err != nil {
				return err
			}
			if err := visit(units.Bytes(r.logical*size), buf[:length]); err != nil {
				return err
			}
			r = run{r.logical + count, r.physical + count, r.count - count}
		}
		return nil
	}
	var pending run // rows that follow each other on the disk too are read at once
	err = t.runs(n, units.Bytes(n.size), func(r run) error {
		if r.physical != 0 && r.physical == pending.physical+pending.count && r.logical == pending.logical+pending.count {
			pending.count += r.count
			return nil
		}
		before := pending
		pending = r
		return emit(before)
	})
	if err != nil {
		return err
	}
	return emit(pending)
}
