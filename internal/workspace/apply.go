package workspace

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Result is what Apply did.
type Result struct {
	Files, Dirs int // written; of directories also those of which only the permissions changed
	Deleted     int
	Bytes       units.Bytes // written, holes aside
	Refused     Notes       // by Compare or by Apply
	Failed      Notes       // could not be written, and why
	Missing     Notes       // should have come back, but the source ended or did without
	Notices     Notes       // what was done in a way that somebody may want to know
}

// Apply writes what the source delivers of the changes into the checkout. One
// file that can't be written does not keep the others from it: it is listed in
// Failed. The error is that of the source, or the context's; what did not come
// back then is in Missing.
//
// A file appears at once and whole, in place of what was there. As root, files
// get the owner of the workspace. Setuid and setgid are dropped. Symbolic links
// are made as they are, wherever they point to, and never followed. What had
// been changed on the host meanwhile is replaced all the same, but not deleted;
// Notices tell both. Directories are removed only when they are empty.
func (c *Changes) Apply(ctx context.Context, src Source) (Result, error) {
	a := &applying{
		Changes: c, result: Result{Refused: c.Refused}, left: c.limit,
		done: map[string]bool{}, written: map[string]bool{}, inodes: map[uint64]string{},
	}
	a.result.Refused.List = append([]Note(nil), c.Refused.List...)
	if c.Empty() {
		return a.result, nil
	}
	d, err := openDirs(c.tree.dir)
	if err != nil {
		return a.result, fmt.Errorf("copying into the workspace: %w", err)
	}
	defer d.close()
	a.dirs = d
	if err := a.findOwner(); err != nil {
		return a.result, fmt.Errorf("copying into the workspace %s: %w", c.tree.dir, err)
	}
	a.deleteAll(ctx)
	if len(c.paths) > 0 {
		err = src.Walk(ctx, func(n Node) error { return a.node(ctx, n) })
	}
	a.finishDirs()
	for _, name := range c.paths {
		if !a.done[name] {
			a.result.Missing.add(name, "it did not come")
		}
	}
	if err != nil {
		return a.result, fmt.Errorf("copying into the workspace: %w", err)
	}
	return a.result, nil
}

// applying is one Apply.
type applying struct {
	*Changes
	result  Result
	dirs    *dirs
	left    units.Bytes       // that may still be written
	done    map[string]bool   // delivered, with whatever success
	written map[string]bool   // files that are on the host now
	inodes  map[uint64]string // the path of such a file
	pending []Node            // directories that get their permissions at the end
}

// findOwner makes the workspace's owner that of the files, when we may.
func (a *applying) findOwner() error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(a.dirs.fds[0], &st); err != nil {
		return err
	}
	a.dirs.owner = &Owner{UID: st.Uid, GID: st.Gid}
	return nil
}

func (a *applying) node(ctx context.Context, n Node) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !a.want[n.Path] {
		return nil
	}
	err := checkNode(n) // it need not be the node that Compare saw
	if err == nil && a.done[n.Path] {
		err = errors.New("the guest delivers it twice")
	}
	a.done[n.Path] = true
	if err != nil {
		a.result.Refused.add(n.Path, err.Error())
		return nil
	}
	if n.Mode.IsDir() {
		err = a.dir(n)
	} else {
		n.Data = until(ctx, n.Data)
		err = a.file(n)
	}
	if errors.Is(err, ErrTooMuch) {
		a.done[n.Path] = false
		return err
	}
	if err != nil && ctx.Err() != nil {
		a.done[n.Path] = false
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errLink):
		a.result.Refused.add(n.Path, err.Error())
	case err != nil:
		a.result.Failed.add(n.Path, err.Error())
	}
	return nil
}

// until makes data end with the context, also in the middle of a file.
func until(ctx context.Context, data dataFunc) dataFunc {
	if data == nil {
		return nil
	}
	return func(visit func(units.Bytes, []byte) error) error {
		return data(func(offset units.Bytes, p []byte) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			return visit(offset, p)
		})
	}
}

type dataFunc = func(visit func(offset units.Bytes, data []byte) error) error

// dir makes a directory, or takes the one that is there. Until everything is
// in it, it is open to us only.
func (a *applying) dir(n Node) error {
	at, err := a.dirs.walk(path.Dir(n.Path), true)
	if err != nil {
		return err
	}
	name := path.Base(n.Path)
	var st unix.Stat_t
	err = unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	exists := err == nil && fileMode(st.Mode).IsDir()
	if err == nil && !exists {
		a.notice(n.Path, &st)
		if err := unix.Unlinkat(at, name, 0); err != nil {
			return err
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if !exists {
		if err := a.dirs.mkdir(at, name, 0o700); err != nil {
			return err
		}
	}
	n.Data = nil
	a.pending = append(a.pending, n)
	a.result.Dirs++
	return nil
}

// finishDirs gives directories their permissions and times, what is in a
// directory before it.
func (a *applying) finishDirs() {
	for i := len(a.pending) - 1; i >= 0; i-- {
		n := a.pending[i]
		if err := a.finishDir(n); err != nil {
			a.result.Failed.add(n.Path, err.Error())
		}
	}
}

func (a *applying) finishDir(n Node) error {
	fd, err := a.dirs.at(n.Path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// A setgid bit of the host's stays, the guest's is not taken.
	mode := rawMode(n.Mode)&^(unix.S_ISUID|unix.S_ISGID) | st.Mode&unix.S_ISGID
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	at, err := a.dirs.at(path.Dir(n.Path))
	if err != nil {
		return err
	}
	return setTime(at, path.Base(n.Path), n.ModTime)
}

// setTime sets a modification time without following a symbolic link.
func setTime(at int, name string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if t.Unix() < -1<<33 || t.Unix() > 1<<33 { // beyond what nanoseconds and file systems hold
		ts = unix.Timespec{}
	}
	return unix.UtimesNanoAt(at, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// file makes what isn't a directory under a name of its own, and then puts it
// in its place.
func (a *applying) file(n Node) error {
	at, err := a.dirs.walk(path.Dir(n.Path), true)
	if err != nil {
		return err
	}
	temp, name := ".hurd-"+rand.Text(), path.Base(n.Path)
	if err := a.make(at, temp, n); err != nil {
		_ = unix.Unlinkat(at, temp, 0) // often it is not there
		return err
	}
	// Making a link moved the chain of directories.
	if at, err = a.dirs.at(path.Dir(n.Path)); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		a.notice(n.Path, &st)
		if fileMode(st.Mode).IsDir() {
			err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
		}
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = errors.New("a directory that is not empty is in its place")
	}
	if err == nil {
		err = unix.Renameat(at, temp, at, name)
	}
	// rename leaves both names when they are of one file.
	if gone := unix.Unlinkat(at, temp, 0); err == nil && gone != nil && !errors.Is(gone, unix.ENOENT) {
		err = gone
	}
	if err != nil {
		return err
	}
	a.result.Files++
	a.written[n.Path] = true
	if n.Inode != 0 {
		a.inodes[n.Inode] = n.Path
	}
	return nil
}

// make makes a file under a name that nothing has.
func (a *applying) make(at int, temp string, n Node) error {
	if first := a.sameAs(n); first != "" {
		return a.link(at, temp, first)
	}
	var err error
	switch n.Mode.Type() {
	case fs.ModeSymlink:
		err = unix.Symlinkat(n.Target, at, temp)
	case fs.ModeNamedPipe:
		err = unix.Mknodat(at, temp, unix.S_IFIFO|0o600, 0)
		if err == nil {
			err = unix.Fchmodat(at, temp, uint32(n.Mode.Perm()), 0) // nobody else knows the name
		}
	default:
		err = a.regular(at, temp, n)
	}
	if err == nil {
		err = a.dirs.chown(at, temp)
	}
	if err == nil {
		err = setTime(at, temp, n.ModTime)
	}
	return err
}

// sameAs finds a name that the file already has on the host.
func (a *applying) sameAs(n Node) string {
	if n.Link != "" {
		return n.Link
	}
	return a.inodes[n.Inode]
}

// link gives a file another name. Only what this Apply wrote may get one.
func (a *applying) link(at int, temp, first string) error {
	if !a.written[first] {
		return fmt.Errorf("it is another name of %q, which did not come back", clip(first))
	}
	at, err := unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0) // the chain is going to move
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(at) }()
	from, name, err := a.dirs.parent(first)
	if err != nil {
		return err
	}
	return unix.Linkat(from, name, at, temp, 0)
}

// notice tells when what is going to be replaced isn't what was sent.
func (a *applying) notice(name string, st *unix.Stat_t) {
	if i, ok := a.tree.index[name]; !ok || !a.tree.Entries[i].sent {
		a.result.Notices.add(name, "it replaces something that the guest did not have")
	} else if changedHere(a.tree.Entries[i], st) {
		a.result.Notices.add(name, "it had been changed on the host meanwhile; the guest's version replaces that")
	}
}

func changedHere(e Entry, st *unix.Stat_t) bool {
	now := entry(e.Path, st)
	if e.Mode.IsDir() && now.Mode.IsDir() {
		return false
	}
	return now.inode != e.inode || now.Mode.Type() != e.Mode.Type() || now.Size != e.Size || !now.ModTime.Equal(e.ModTime)
}

// deleteAll deletes what was deleted in the guest.
func (a *applying) deleteAll(ctx context.Context) {
	for _, name := range a.Deleted {
		if ctx.Err() != nil {
			a.result.Missing.add(name, "it was not deleted")
			continue
		}
		if err := a.delete(name); err != nil {
			a.result.Failed.add(name, "deleting it: "+err.Error())
		}
	}
}

func (a *applying) delete(name string) error {
	at, base, err := a.dirs.parent(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if changedHere(a.tree.Entries[a.tree.index[name]], &st) {
		a.result.Notices.add(name, "the guest deleted it, but it had been changed on the host meanwhile and stays")
		return nil
	}
	flags := 0
	if fileMode(st.Mode).IsDir() {
		flags = unix.AT_REMOVEDIR
	}
	switch err := unix.Unlinkat(at, base, flags); {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		a.result.Notices.add(name, "the guest deleted it, but it holds files that the guest did not have and stays")
		return nil
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	}
	a.result.Deleted++
	return nil
}
