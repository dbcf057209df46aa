package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// logsName is the directory in the workspace that keeps the logs of all runs.
const logsName = ".hurd"

// maxRuns bounds the search for a free directory.
const maxRuns = 10000

// logs is the directory of one run's logs.
type logs struct {
	dir      string // absolute
	relative string // as outputs name it: relative to the workspace
	uid, gid int    // owner for new files; -1: as they come
}

// newLogs makes .hurd/run-N in the workspace, N being the first number that is
// free: two steps of one job do not overwrite each other's logs. A .gitignore
// inside keeps it all out of the user's commits. As root, everything is given
// to the workspace's owner, who could not delete it otherwise.
func newLogs(workspace string) (*logs, error) {
	l := &logs{uid: -1, gid: -1}
	info, err := os.Stat(workspace)
	if err != nil {
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		l.uid, l.gid = int(st.Uid), int(st.Gid)
	}
	top := filepath.Join(workspace, logsName)
	if err := os.Mkdir(top, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // later steps of other users read the logs
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	// A link here could lead anywhere, and we may be root.
	if info, err = os.Lstat(top); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("making the log directory: %s is no directory", top)
	}
	for n := 1; n <= maxRuns; n++ {
		l.relative = filepath.Join(logsName, "run-"+strconv.Itoa(n))
		l.dir = filepath.Join(workspace, l.relative)
		err = os.Mkdir(l.dir, 0o755) //nolint:gosec // as above
		if err == nil || !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	if err := l.ignored(filepath.Join(top, ".gitignore")); err != nil {
		return nil, err
	}
	return l, errors.Join(l.own(top), l.own(l.dir))
}

func (l *logs) ignored(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644) //nolint:gosec // as above
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		_, err = f.WriteString("*\n")
		err = errors.Join(err, f.Close(), l.own(file))
	}
	if err != nil {
		return fmt.Errorf("keeping the logs out of git: %w", err)
	}
	return nil
}

func (l *logs) own(path string) error {
	if l.uid < 0 {
		return nil
	}
	return os.Lchown(path, l.uid, l.gid)
}

// ownAll gives a directory of ours and all in it to the workspace's owner.
func (l *logs) ownAll(dir string) error {
	if l.uid < 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return l.own(path)
	})
}

// create opens a new log of the run for writing.
func (l *logs) create(name string) (*os.File, error) {
	path := filepath.Join(l.dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644) //nolint:gosec // as above
	if err != nil {
		return nil, fmt.Errorf("creating the log: %w", err)
	}
	return f, l.own(path)
}

// path is what an output says of a log.
func (l *logs) path(name string) string { return filepath.Join(l.relative, name) }
