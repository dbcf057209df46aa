package results

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bundle is the list of what an artifact is to hold. Files are read when it is
// uploaded. The zero value is empty and ready to use.
//
// Files may come from a guest. Nothing outside the root that Add is given is
// read, and names are made so that the artifact can be extracted
// anywhere, Windows included: they are relative; an element ".." becomes
// %2E%2E; what is not UTF-8, control characters and " : < > | * ? \ become %XX
// for each byte, and a % before two hexadecimal digits becomes %25. Of files
// with one name the second gets a number.
type Bundle struct {
	names   names
	entries []entry
	notes   []string
}

type entry struct {
	name     string
	mode     fs.FileMode // permissions only
	modified time.Time
	open     func() (io.ReadCloser, error)
}

// Len is the number of files.
func (b *Bundle) Len() int { return len(b.entries) }

// Notes says what was left out or cut short so far, and why, for people.
func (b *Bundle) Notes() []string { return slices.Clone(b.notes) }

// maxNotes bounds what a tree full of oddities can make us say.
const maxNotes = 20

func (b *Bundle) note(format string, args ...any) {
	switch {
	case len(b.notes) < maxNotes:
		b.notes = append(b.notes, fmt.Sprintf(format, args...))
	case len(b.notes) == maxNotes:
		b.notes = append(b.notes, "and so on")
	}
}

// AddBytes adds a file with the given contents. A zero time is left out.
func (b *Bundle) AddBytes(name string, modified time.Time, data []byte) {
	b.add(name, 0o644, modified, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
}

// Add adds a file, or what is in a directory, under a name. The root leads
// nowhere else; it must stay open until the upload. (An fs.FS would not do: it
// knows no names that are not UTF-8.)
//
// A link to a file is followed, as actions/upload-artifact does; a link to a
// directory, one that leads nowhere or out of the root, and what is neither
// file nor directory is left out and noted. An error means that the path
// itself is not there or can't be read.
func (b *Bundle) Add(root *os.Root, path, name string) error {
	info, err := root.Stat(path)
	if err == nil && !info.IsDir() {
		b.addFile(root, path, name)
		return nil
	}
	if err == nil {
		err = b.addDir(root, path, name)
	}
	if err != nil {
		return fmt.Errorf("adding %q to an artifact: %w", path, cause(err))
	}
	return nil
}

func (b *Bundle) addDir(root *os.Root, dir, name string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	list, err := d.ReadDir(-1)
	_ = d.Close() // it was only read
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	for _, e := range list {
		p, n := dir+"/"+e.Name(), name+"/"+e.Name()
		if !e.IsDir() {
			b.addFile(root, p, n)
		} else if err := b.addDir(root, p, n); err != nil {
			b.note("%q is left out: %v", p, cause(err))
		}
	}
	return nil
}

// addFile adds what a path leads to if it is a file.
func (b *Bundle) addFile(root *os.Root, path, name string) {
	info, err := root.Stat(path)
	switch {
	case err != nil:
		b.note("%q is left out: %v", path, cause(err))
	case info.IsDir():
		b.note("%q is left out: a link to a directory", path)
	case !info.Mode().IsRegular():
		b.note("%q is left out: neither a file nor a directory", path)
	default:
		b.add(name, info.Mode().Perm(), info.ModTime(), func() (io.ReadCloser, error) { return openFile(root, path) })
	}
}

// openFile opens a file to be read up to the size that it has now: a log may
// grow faster than it is read. What has become a named pipe meanwhile does not
// block.
func openFile(root *os.Root, path string) (io.ReadCloser, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("no longer a file")
	}
	if err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, info.Size()), f}, nil
}

// maxFiles bounds what a guest that makes files for ever can cost us.
const maxFiles = 200_000

func (b *Bundle) add(name string, mode fs.FileMode, modified time.Time, open func() (io.ReadCloser, error)) {
	if len(b.entries) >= maxFiles {
		b.note("%.60q is left out: it would be file %d", name, maxFiles+1)
		return
	}
	clean := entryName(name)
	if clean == "" || len(clean) > maxEntryName {
		b.note("a file is left out, because its name has %d bytes: %.60q...", len(name), name)
		return
	}
	b.entries = append(b.entries, entry{name: b.names.take(clean), mode: mode, modified: modified, open: open})
}

// cause takes the path out of an error that has been given one.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// each copies every file, in the order of their names, to the writer that begin
// gives for it. A file that can't be read must not cost the others: it is
// noted, with what there was of it. The size is of the files' contents.
func (b *Bundle) each(ctx context.Context, begin func(e entry, head []byte) (io.Writer, error)) (size int64, err error) {
	slices.SortStableFunc(b.entries, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	buffer := make([]byte, 64<<10)
	for _, e := range b.entries {
		n, err := b.copyEntry(ctx, e, buffer, begin)
		if size += n; err != nil {
			return size, err
		}
	}
	return size, nil
}

func (b *Bundle) copyEntry(ctx context.Context, e entry, buffer []byte, begin func(entry, []byte) (io.Writer, error)) (int64, error) {
	if cause := context.Cause(ctx); cause != nil {
		return 0, cause
	}
	r, err := e.open()
	if err != nil {
		b.note("%q is left out: %v", e.name, cause(err))
		return 0, nil
	}
	defer func() { _ = r.Close() }() // it was only read
	n, readErr := io.ReadFull(r, buffer)
	w, err := begin(e, buffer[:n])
	var size int64
	for {
		if err == nil {
			_, err = w.Write(buffer[:n])
		}
		if size += int64(n); err != nil || readErr != nil {
			break
		}
		if cause := context.Cause(ctx); cause != nil {
			return size, cause
		}
		n, readErr = r.Read(buffer)
	}
	if err == nil && !errors.Is(readErr, io.EOF) && !errors.Is(readErr, io.ErrUnexpectedEOF) {
		b.note("%q ends after %d bytes: %v", e.name, size, cause(readErr))
	}
	return size, err
}
