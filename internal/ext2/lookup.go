package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Bounds of a walk through names.
const (
	maxDirectory = 64 * units.MiB
	maxPath      = 4096
	maxLinks     = 40 // as Linux
)

var (
	errNotDir = errors.New("not a directory")
	errLoop   = errors.New("too many symbolic links")
)

// entries lists a directory.
func (t tree) entries(dir inode) ([]Entry, error) {
	var entries []Entry
	err := t.scan(dir, func(name []byte, number uint32) bool {
		entries = append(entries, Entry{string(name), number})
		return true
	})
	return entries, err
}

// child finds a name in a directory.
func (t tree) child(dir inode, name string) (inode, error) {
	found := uint32(0)
	err := t.scan(dir, func(n []byte, number uint32) bool {
		if string(n) == name {
			found = number
		}
		return found == 0
	})
	if err != nil {
		return inode{}, err
	}
	if found == 0 {
		return inode{}, fs.ErrNotExist
	}
	return t.inode(found)
}

// scan hands out the names of a directory until visit returns false.
func (t tree) scan(dir inode, visit func(name []byte, number uint32) bool) error {
	if !dir.mode().IsDir() {
		return errNotDir
	}
	if dir.size > uint64(t.sb.Size()) { // a directory has no holes
		return fmt.Errorf("%w: a directory is larger than the file system", errCorrupt)
	}
	data, err := t.content(dir, maxDirectory)
	if err != nil {
		return err
	}
	for block := range slices.Chunk(data, int(t.sb.BlockSize)) {
		if more, err := scanBlock(block, visit); err != nil || !more {
			return err
		}
	}
	return nil
}

// scanBlock decodes one block of a directory. Blocks of a hash tree's index
// look like one unused entry.
func scanBlock(b []byte, visit func(name []byte, number uint32) bool) (bool, error) {
	for len(b) > 0 {
		if len(b) < 8 {
			return false, fmt.Errorf("%w: a directory entry is cut off", errCorrupt)
		}
		number := binary.LittleEndian.Uint32(b)
		length := int(binary.LittleEndian.Uint16(b[4:]))
		if (length == 0 || length == 0xffff) && len(b) == maxBlockSize {
			length = maxBlockSize // does not fit into its field
		}
		nameLength := int(b[6])
		if length < 8 || length%4 != 0 || length > len(b) || nameLength > length-8 {
			return false, fmt.Errorf("%w: a directory entry is invalid", errCorrupt)
		}
		name := b[8 : 8+nameLength]
		b = b[length:]
		if number == 0 || string(name) == "." || string(name) == ".." {
			continue
		}
		if len(name) == 0 || bytes.ContainsAny(name, "/\x00") {
			return false, fmt.Errorf("%w: a directory holds the name %q", errCorrupt, name)
		}
		if !visit(name, number) {
			return false, nil
		}
	}
	return true, nil
}

func (t tree) link(n inode) (string, error) {
	if n.size > maxPath {
		return "", fmt.Errorf("%w: a symbolic link of %d bytes", errCorrupt, n.size)
	}
	own := uint32(0) // sectors of the attribute block are no data
	if n.attributes != 0 {
		own = uint32(t.sb.BlockSize / sectorSize)
	}
	if n.size < uint64(len(n.block)) && n.sectors == own {
		return string(n.block[:n.size]), nil
	}
	data, err := t.content(n, maxPath)
	return string(data), err
}

// lookup finds the inode at an absolute path.
func (f *FS) lookup(path string, follow bool) (tree, inode, error) {
	t, err := f.tree()
	if err != nil {
		return t, inode{}, err
	}
	p, err := t.resolve(path, follow)
	if err != nil {
		return t, inode{}, err
	}
	if len(p.missing) > 0 {
		return t, inode{}, fs.ErrNotExist
	}
	return t, p.inode, nil
}

// place is where a path leads: to an inode, or to missing names below it.
type place struct {
	names   []string // the way there without symbolic links
	inode   inode    // of the last one that exists
	missing []string
}

// path is the absolute path without symbolic links.
func (p place) path() string { return "/" + strings.Join(append(p.names, p.missing...), "/") }

// resolve follows a path from the root.
func (t tree) resolve(path string, follow bool) (place, error) {
	if !strings.HasPrefix(path, "/") || len(path) > maxPath {
		return place{}, fmt.Errorf("%q is not an absolute path of a reasonable length", path)
	}
	root, err := t.inode(rootInode)
	if err != nil {
		return place{}, err
	}
	chain := []inode{root} // chain[i+1] belongs to names[i]
	var names []string
	todo := strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(names) > 0 {
				names, chain = names[:len(names)-1], chain[:len(chain)-1]
			}
			continue
		}
		n, err := t.child(chain[len(chain)-1], name)
		if errors.Is(err, fs.ErrNotExist) {
			return t.missing(place{names, chain[len(chain)-1], nil}, name, todo)
		}
		if err != nil {
			return place{}, err
		}
		if n.mode().Type() == fs.ModeSymlink && (follow || strings.Trim(strings.Join(todo, ""), "/") != "") {
			if links++; links > maxLinks {
				return place{}, errLoop
			}
			target, err := t.link(n)
			if err != nil {
				return place{}, err
			}
			if strings.HasPrefix(target, "/") {
				names, chain = nil, chain[:1]
			}
			todo = append(strings.Split(target, "/"), todo...)
			if len(todo) > maxPath {
				return place{}, errLoop
			}
			continue
		}
		names, chain = append(names[:len(names):len(names)], name), append(chain, n)
	}
	return place{names, chain[len(chain)-1], nil}, nil
}

// missing completes a place below which nothing exists yet.
func (t tree) missing(p place, name string, rest []string) (place, error) {
	p.missing = []string{name}
	for _, r := range rest {
		switch r {
		case "", ".":
		case "..":
			return place{}, fs.ErrNotExist
		default:
			p.missing = append(p.missing, r)
		}
	}
	return p, nil
}
