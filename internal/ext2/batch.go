package ext2

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Attr is the owner and the permissions that a file gets.
type Attr struct {
	Mode     fs.FileMode // permission bits, setuid, setgid and sticky; the type is ignored
	UID, GID uint32
}

// Batch collects edits of one file system, which Commit makes all at once: a
// process per edit would cost more than the edits. Paths are absolute;
// symbolic links are followed. A method that fails leaves the batch unchanged.
type Batch struct {
	f        *FS
	requests []request
	want     []expectation
	made     map[string]bool // paths that earlier edits of this batch make
	gone     map[string]bool // paths that earlier edits of this batch remove
}

// request is one line for debugfs.
type request struct {
	line   string
	source bool // the line holds sourceMark, which stands for the name of a file with data
	data   []byte
}

// sourceMark can't be part of a path.
const sourceMark = "\x00"

// expectation is what must be found at a path when the batch was made.
type expectation struct {
	path string
	kind fs.FileMode // fs.ModeDir, or 0 for a regular file
	gone bool
	attr Attr

	content bool // data is known
	data    []byte
}

// Begin starts an empty batch.
func (f *FS) Begin() *Batch {
	return &Batch{f: f, made: map[string]bool{}, gone: map[string]bool{}}
}

// Empty tells whether Commit would do nothing.
func (b *Batch) Empty() bool { return len(b.requests) == 0 }

// MkdirAll makes a directory and the missing ones above it, all with attr.
// A directory that exists is left as it is.
func (b *Batch) MkdirAll(dir string, attr Attr) error {
	_, p, err := b.locate(dir)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if len(p.missing) == 0 {
		if !p.inode.mode().IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errNotDir}
		}
		return nil
	}
	for i := range p.missing {
		at := place{names: p.names, missing: p.missing[:i+1]}.path()
		if b.made[at] {
			continue
		}
		b.do("mkdir %q", at)
		b.attr(at, 0o040000, attr)
		b.want = append(b.want, expectation{path: at, kind: fs.ModeDir, attr: attr})
		b.made[at] = true
	}
	return nil
}

// WriteFile makes or replaces a regular file. The directory must exist or have
// been made by this batch.
func (b *Batch) WriteFile(name string, data []byte, attr Attr) error {
	if err := b.writeFile(name, data, attr); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func (b *Batch) writeFile(name string, data []byte, attr Attr) error {
	t, p, err := b.locate(name)
	if err != nil {
		return err
	}
	at := p.path()
	switch {
	case len(p.missing) > 1 && !b.made[path.Dir(at)]:
		return fs.ErrNotExist
	case len(p.missing) == 0 && !p.inode.mode().IsRegular():
		return fmt.Errorf("not a regular file but %s", p.inode.mode().Type())
	case len(p.missing) == 0 && p.inode.info(t.sb).Translator != 0:
		return errors.New("a translator is set on it")
	}
	if (len(p.missing) == 0 && !b.gone[at]) || b.made[at] {
		b.do("rm %q", at)
	}
	b.do("cd %q", path.Dir(at)) // "write" makes its file in the current directory
	b.requests = append(b.requests, request{"write " + sourceMark + " " + quote(path.Base(at)), true, slices.Clone(data)})
	b.attr(at, 0o100000, attr)
	b.want = append(b.want, expectation{path: at, attr: attr, content: true, data: slices.Clone(data)})
	b.made[at] = true
	delete(b.gone, at)
	return nil
}

// SetAttr changes owner and permissions of a file or directory that existed
// before the batch.
func (b *Batch) SetAttr(name string, attr Attr) error {
	_, p, err := b.locate(name)
	if err == nil && len(p.missing) > 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	at := p.path()
	b.attr(at, p.inode.rawMode&0xf000, attr)
	b.want = append(b.want, expectation{path: at, kind: p.inode.mode().Type(), attr: attr})
	return nil
}

// Remove removes a file that is no directory. It follows no symbolic link in
// the last component.
func (b *Batch) Remove(name string) error {
	err := b.remove(name)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

func (b *Batch) remove(name string) error {
	if err := checkPath(name); err != nil {
		return err
	}
	t, err := b.f.tree()
	if err != nil {
		return err
	}
	p, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	at := p.path()
	if err := checkPath(at); err != nil {
		return err
	}
	switch {
	case b.gone[at], len(p.missing) > 0 && !b.made[at]:
		return fs.ErrNotExist
	case len(p.missing) == 0 && p.inode.mode().IsDir():
		return errors.New("it is a directory")
	}
	b.do("rm %q", at)
	b.want = append(b.want, expectation{path: at, gone: true})
	b.gone[at] = true
	delete(b.made, at)
	return nil
}

// locate resolves a path that an edit is about, and refuses names that can't
// be said to debugfs.
func (b *Batch) locate(name string) (tree, place, error) {
	if err := checkPath(name); err != nil {
		return tree{}, place{}, err
	}
	t, err := b.f.tree()
	if err != nil {
		return t, place{}, err
	}
	p, err := t.resolve(name, true)
	if err != nil {
		return t, p, err
	}
	return t, p, checkPath(p.path()) // symbolic links brought new names
}

// maxEditPath keeps a request, which may hold two paths, within debugfs' line
// buffer of 8192 bytes.
const maxEditPath = 1024

// ErrPath says that a path can't be handed to debugfs.
var ErrPath = errors.New("a path that debugfs can't be given: it must be absolute, shorter than 1024 bytes, and without quotes, backslashes and control characters")

func checkPath(name string) error {
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }
	if !strings.HasPrefix(name, "/") || len(name) >= maxEditPath || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%q: %w", name, ErrPath)
	}
	return nil
}

// quote writes a checked path as debugfs' command lines want it.
func quote(name string) string { return `"` + name + `"` }

// do requests something about an absolute path, said as "/./path": debugfs
// takes what is before the last slash for the directory, and would take
// nothing at all for the current one.
func (b *Batch) do(format, name string) {
	b.requests = append(b.requests, request{line: strings.Replace(format, "%q", quote("/."+name), 1)})
}

func (b *Batch) attr(at string, kind uint16, attr Attr) {
	for _, field := range []struct {
		name  string
		value string
	}{
		{"mode", fmt.Sprintf("0%o", kind|rawPermissions(attr.Mode))},
		{"uid", fmt.Sprint(attr.UID)},
		{"gid", fmt.Sprint(attr.GID)},
	} {
		b.do("sif %q "+field.name+" "+field.value, at)
	}
}
