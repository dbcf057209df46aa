package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// maxNodes bounds how many files a guest's workspace may have.
const maxNodes = 1 << 20

// ErrTooMany says that a guest's workspace has more files than are looked at.
var ErrTooMany = fmt.Errorf("the guest's workspace has more than %d files", maxNodes)

// maxNames bounds the names and targets of all of them together.
const maxNames = 256 * units.MiB

// Options say what comes back, and how a change is known.
type Options struct {
	Back CopyBack
	// Delete also deletes here what was deleted in the guest.
	Delete bool
	// Since is when the copy into the guest had ended, by the guest's clock: a
	// file that was changed then or later counts as changed, even when its size
	// and modification time say otherwise. Zero for a drive, where the time of
	// change was set to that of modification and any other means a change.
	// Without a Node's ChangeTime only size, mode and modification time tell.
	Since time.Time
	// Limit is how many bytes the files that come back may have together, holes
	// aside. 0 is 64 GiB.
	Limit units.Bytes
}

const defaultLimit = 64 * units.GiB

// Changes is what Compare found to come back.
type Changes struct {
	New, Changed int         // files and directories that come back
	Bytes        units.Bytes // of the regular files among them, holes included
	Deleted      []string    // what will be deleted, what is in a directory before it
	// Refused is what doesn't come back though it is new or changed, and why.
	Refused Notes

	tree  *Tree
	paths []string        // what comes back, parents first
	want  map[string]bool // the same
	limit units.Bytes
}

// Compare finds what a guest did to the workspace, without reading data.
//
// New is what the guest didn't get; changed is a file with another type, size,
// permissions, modification time (in seconds), target or time of change. For a
// directory only type and permissions count. When one name of a file comes
// back, all do, so that they stay one file. With "all" everything comes back.
//
// What the filter kept from the guest stays as it is on the host. Where exclude
// patterns took away something that the host has, nothing comes back, also not
// into an excluded directory. Where include patterns did not match, only what
// the host has itself is kept. What the host doesn't have comes back whatever
// the filter says.
//
// When the source ends with an error, that error comes with the changes seen
// so far; nothing is deleted then.
func Compare(ctx context.Context, t *Tree, src Source, o Options) (*Changes, error) {
	c := &comparison{
		Changes: &Changes{tree: t, want: map[string]bool{}, limit: o.Limit},
		options: o,
		seen:    map[string]bool{},
		groups:  map[string][]*state{},
		group:   map[string]string{},
		named:   map[string]bool{},
		counted: map[uint64]bool{},
	}
	if o.Limit == 0 {
		c.limit = defaultLimit
	}
	if o.Back.None() {
		return c.Changes, nil
	}
	err := src.Walk(ctx, c.node)
	c.joinLinks()
	for _, s := range c.states {
		c.decide(s)
	}
	if err != nil {
		return c.Changes, fmt.Errorf("comparing the workspace with the guest's: %w", err)
	}
	if o.Delete {
		c.deletions()
	}
	return c.Changes, nil
}

// comparison is one Compare.
type comparison struct {
	*Changes
	options Options
	nodes   int
	names   units.Bytes // length of names and targets
	seen    map[string]bool
	states  []*state
	groups  map[string][]*state // names of one file
	group   map[string]string   // path to the group, where a Source tells by Link
	named   map[string]bool     // what of the host's was in the guest's way
	counted map[uint64]bool     // files with several names
}

// state is what is known of one node.
type state struct {
	node    Node
	isNew   bool
	travels bool
	refusal error
	hosts   string // what of the host's is in its way
}

func (c *comparison) node(n Node) error {
	c.nodes++
	c.names += units.Bytes(len(n.Path) + len(n.Target) + len(n.Link))
	if c.nodes > maxNodes || c.names > maxNames {
		return ErrTooMany
	}
	if n.Path == "." {
		return nil
	}
	n.Data = nil
	s := &state{node: n}
	if err := checkPath(n.Path); err != nil {
		c.Refused.add(clip(n.Path), err.Error())
		return nil
	}
	if c.seen[n.Path] {
		c.Refused.add(n.Path, "the guest delivers it twice")
		return nil
	}
	c.seen[n.Path] = true
	s.judge(c)
	if key := c.key(n); key != "" {
		c.groups[key] = append(c.groups[key], s)
	}
	c.states = append(c.states, s)
	return nil
}

// key tells names of one file from others.
func (c *comparison) key(n Node) string {
	switch {
	case n.Mode.IsDir():
		return ""
	case n.Link != "" && c.group[n.Link] != "":
		c.group[n.Path] = c.group[n.Link]
	case n.Inode != 0:
		return fmt.Sprint("inode ", n.Inode)
	default:
		c.group[n.Path] = "./" + n.Path // a tar stream tells only later that there are more
	}
	return c.group[n.Path]
}

// judge decides about one node by itself.
func (s *state) judge(c *comparison) {
	n, o := s.node, c.options
	i, known := c.tree.index[n.Path]
	known = known && c.tree.Entries[i].sent
	s.isNew = !known
	changed := s.isNew || c.differs(c.tree.Entries[i], n)
	s.travels = (changed || o.Back.mode == backAll) && o.Back.wants(n.Path)
	if !s.travels {
		return
	}
	s.refusal = checkNode(n)
	if s.refusal == nil && s.isNew && o.Back.mode != backPaths {
		at, both := c.hostHas(n)
		if both {
			s.travels = false
		} else if at != "" {
			s.hosts, s.refusal = at, errHosts
		}
	}
	if s.refusal != nil && !changed {
		s.travels, s.refusal = false, nil // not worth a word
	}
}

var errHosts = errors.New("the host has its own, which was kept from the guest; name it in \"copy-back\" to replace it")

// hostHas finds what of the host's a new node would replace or add to, though
// it was kept from the guest. A directory that both have is no matter; it does
// not travel.
func (c *comparison) hostHas(n Node) (at string, both bool) {
	for at := n.Path; at != "."; at = path.Dir(at) {
		switch c.tree.left[at] {
		case leftExcluded:
			return at, false
		case leftOut: // it may not have been looked into
			info, err := os.Lstat(filepath.Join(c.tree.dir, n.Path))
			if err != nil {
				return "", false
			}
			return n.Path, info.IsDir() && n.Mode.IsDir()
		}
	}
	return "", false
}

// differs tells whether a node isn't what was sent.
func (c *comparison) differs(e Entry, n Node) bool {
	switch {
	case n.Link != "": // all it tells is which file it is; that one is compared itself
		return !c.tree.sameFile(e.Path, n.Link)
	case e.Mode.Type() != n.Mode.Type():
		return true
	case e.Mode.Type() == fs.ModeSymlink: // without permissions and often without times
		return e.Target != n.Target
	case e.Mode.Perm() != n.Mode.Perm():
		return true
	case e.Mode.IsDir():
		return false
	}
	sent := guestTime(e.ModTime)
	since := c.options.Since
	switch {
	case e.Size != n.Size && e.Mode.IsRegular(), n.ModTime.Unix() != sent.Unix():
		return true
	case n.ChangeTime.IsZero():
		return false
	case since.IsZero():
		return n.ChangeTime.Unix() != sent.Unix()
	}
	return !n.ChangeTime.Before(since)
}

// joinLinks makes all names of a file come back when one does.
func (c *comparison) joinLinks() {
	for _, group := range c.groups {
		moves := func(s *state) bool { return s.travels && s.refusal == nil }
		if len(group) < 2 || !slices.ContainsFunc(group, moves) {
			continue
		}
		for _, s := range group {
			if !s.travels && c.options.Back.wants(s.node.Path) && checkNode(s.node) == nil {
				s.travels = true
			}
		}
	}
}

func (c *comparison) decide(s *state) {
	switch {
	case !s.travels:
		return
	case s.hosts != "": // once for all that is in it
		if !c.named[s.hosts] {
			c.Refused.add(s.hosts, s.refusal.Error())
		}
		c.named[s.hosts] = true
		return
	case s.refusal != nil:
		c.Refused.add(s.node.Path, s.refusal.Error())
		return
	case s.isNew:
		c.New++
	default:
		c.Changed++
	}
	if n := s.node; n.Mode.IsRegular() && n.Link == "" && !c.counted[n.Inode] {
		c.Bytes += n.Size
		c.counted[n.Inode] = n.Inode != 0
	}
	c.paths = append(c.paths, s.node.Path)
	c.want[s.node.Path] = true
}

// deletions finds what was sent and is gone.
func (c *comparison) deletions() {
	for i := len(c.tree.Entries) - 1; i >= 0; i-- {
		e := c.tree.Entries[i]
		if !e.sent || c.seen[e.Path] || e.Path == "." || !c.options.Back.wants(e.Path) {
			continue
		}
		if err := checkGit(e.Path, e.Mode.IsDir()); err != nil {
			c.Refused.add(e.Path, "it was deleted in the guest, but "+err.Error())
			continue
		}
		c.Deleted = append(c.Deleted, e.Path)
	}
}

// Empty tells whether nothing needs to be done.
func (c *Changes) Empty() bool { return len(c.paths) == 0 && len(c.Deleted) == 0 }

// WriteList writes the paths that come back for GNU tar's options
// "--null --no-recursion --files-from", with a NUL behind each.
func (c *Changes) WriteList(w io.Writer) error {
	for _, name := range c.paths {
		if _, err := io.WriteString(w, "./"+name+"\x00"); err != nil {
			return fmt.Errorf("writing the list of what comes back: %w", err)
		}
	}
	return nil
}

// clip shortens a name that may be as long as a guest likes.
func clip(name string) string {
	if len(name) <= maxPath {
		return name
	}
	return strings.ToValidUTF8(name[:maxName], "") + "..."
}
