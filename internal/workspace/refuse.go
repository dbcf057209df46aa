package workspace

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const (
	maxPath = 4095 // Linux' PATH_MAX, less the NUL
	maxName = 255
)

var (
	errEscape   = errors.New("it isn't a plain path below the workspace")
	errLong     = errors.New("its path is too long for this system")
	errLogs     = errors.New("that directory at the top is for this action's logs")
	errSpecial  = errors.New("files of this type are not copied back")
	errTarget   = errors.New("its target is empty or too long for this system")
	errGit      = errors.New("git would run what it says, on the host")
	errGitPlace = errors.New("git would take its configuration from another place, on the host")
)

// checkPath refuses what isn't a path below the workspace, written plainly.
func checkPath(name string) error {
	switch {
	case name == "", path.IsAbs(name), path.Clean(name) != name, strings.ContainsRune(name, 0), name == "..", strings.HasPrefix(name, "../"):
		return errEscape
	case len(name) > maxPath:
		return errLong
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return errLong
		}
	}
	if strings.Count(name, "/") >= maxDepth {
		return errDepth
	}
	return nil
}

// checkNode refuses what must not come into the checkout, however it was made.
func checkNode(n Node) error {
	if err := checkPath(n.Path); err != nil {
		return err
	}
	if n.Path == logDir || strings.HasPrefix(n.Path, logDir+"/") {
		return errLogs
	}
	switch n.Mode.Type() {
	case fs.ModeSymlink:
		if n.Target == "" || len(n.Target) >= maxTarget || strings.ContainsRune(n.Target, 0) {
			return errTarget
		}
	case 0, fs.ModeDir, fs.ModeNamedPipe:
	default:
		return errSpecial
	}
	return checkGit(n.Path, n.Mode.IsDir())
}

// gitData are the directories of a repository in which every name is allowed.
var gitData = []string{"objects", "refs", "logs"}

// gitOrders are files of a repository that can make git run programs, or send
// it to another place where it finds such files.
var gitOrders = []string{"config", "config.worktree", "commondir", "gitdir"}

// checkGit refuses what would make a git command on the host run the guest's
// programs. A later step runs one for sure: actions/checkout cleans up with
// "git config" after the job. The checkout's other files can be run by later
// steps too, but only by those who mean to.
func checkGit(name string, dir bool) error {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if !strings.EqualFold(part, ".git") {
			continue
		}
		inside := parts[i+1:]
		switch {
		case len(inside) == 0 && !dir:
			return errGitPlace
		case len(inside) == 0 || slices.Contains(gitData, inside[0]):
			continue
		case slices.ContainsFunc(inside, func(s string) bool { return strings.EqualFold(s, "hooks") }):
			return errGit
		case slices.ContainsFunc(gitOrders, func(s string) bool { return strings.EqualFold(s, inside[len(inside)-1]) }):
			return errGit
		}
	}
	return nil
}
