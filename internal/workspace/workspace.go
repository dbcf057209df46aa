// Package workspace carries the checkout into the guest and the results back.
//
// In: Scan lists what the Filter lets through, and Tree.CopyTo hands it to a
// Sink: a tar stream, or the maker of a file system on a second drive. Back: a
// Source delivers what the guest has now, Compare finds what changed without
// reading file data, and Changes.Apply writes that into the checkout.
//
// What comes back was written by a guest that ran anybody's code. Apply opens
// every directory name by name without following symbolic links, never writes
// into a file in place, and names what it refuses.
package workspace

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// logDir is where the action keeps its own logs, at the top of the workspace.
// It never travels.
const logDir = ".hurd"

// Attr is what a file has besides its data.
type Attr struct {
	Mode     fs.FileMode // type, permissions, setuid, setgid, sticky
	UID, GID uint32
	ModTime  time.Time // whole seconds from 1970 to January 2038
}

// Owner is the guest's user that gets the workspace.
type Owner struct{ UID, GID uint32 }

// Sink takes a tree, parents before what is in them. Paths are relative, with
// slashes; "." is the workspace itself. Names are bytes, not text.
//
// After an error that wraps ErrShrank the sink must go on taking files; every
// other error ends the copy.
type Sink interface {
	Dir(path string, a Attr) error
	// File gets r as an *os.File, so that holes can be found. It must not be
	// kept after the call.
	File(path string, a Attr, size units.Bytes, r io.ReaderAt) error
	Symlink(path, target string, a Attr) error
	// Link gives another name to a file that the sink got before.
	Link(path, existing string) error
	// Special makes a named pipe.
	Special(path string, a Attr) error
}

// ErrShrank is wrapped by the error of a Sink about a file that became shorter
// while it was read.
var ErrShrank = errors.New("it became shorter while it was read")

// Node is one file of the guest.
type Node struct {
	Path    string      // relative to the workspace, with slashes; "." for the workspace itself
	Mode    fs.FileMode // type, permissions, setuid, setgid, sticky
	Size    units.Bytes
	ModTime time.Time
	// ChangeTime is when the guest last changed anything about the file. Zero
	// when it isn't known.
	ChangeTime time.Time
	Target     string // of a symbolic link

	// Inode is the same for all names of a file; 0 when it has only one or the
	// source can't tell. Link is an earlier node's path that is the same file.
	Inode uint64
	Link  string

	// Data delivers what a regular file holds in order of offsets; what is
	// left out is zeros. Good until the visit of the node ends. nil when the
	// source has no data for it.
	Data func(visit func(offset units.Bytes, data []byte) error) error
}

// Source delivers what a guest's workspace holds, parents before what is in
// them. It trusts nothing: whatever it delivers is checked by Compare and Apply.
type Source interface {
	// Walk ends with the first error of visit.
	Walk(ctx context.Context, visit func(Node) error) error
}

// Note is about one path, for the log.
type Note struct{ Path, Reason string }

// maxNotes bounds how many of a kind are kept, since a guest can cause them.
const maxNotes = 100

// Notes is a bounded list of notes.
type Notes struct {
	List []Note // the first 100
	More int    // how many others there were
}

func (n *Notes) add(path, reason string) {
	if len(n.List) == maxNotes {
		n.More++
		return
	}
	n.List = append(n.List, Note{path, reason})
}

// Len is how many there were.
func (n *Notes) Len() int { return len(n.List) + n.More }

// maxTime is where the Hurd's file systems and 32-bit guests end.
const maxTime = 1<<31 - 1

// guestTime is a time as every guest can keep it: whole seconds, 1970 to 2038.
func guestTime(t time.Time) time.Time {
	return time.Unix(min(max(t.Unix(), 0), maxTime), 0)
}
