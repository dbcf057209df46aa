package workspace

import (
	"strings"

	"github.com/org/hurd-qemu-action/internal/workspace/gitignore"
)

// Filter decides which files of the checkout travel. The zero value lets
// everything through but the action's own logs.
//
// Without include patterns everything travels. With them only what they match
// does: a pattern that matches a directory stands for all that is in it, "!"
// takes a part away again, and of several verdicts about a path and the
// directories above it that of the longest path counts. The directories that
// lead to a file travel with it.
//
// Exclude patterns then take away, exactly as a .gitignore would: what lies in
// an excluded directory is gone, and "!" in the exclude patterns makes an
// exception. An include pattern does not bring back what is excluded.
//
// .gitignore files are not looked at, and .git is a directory like any other.
type Filter struct {
	include, exclude gitignore.Patterns
}

// NewFilter reads patterns in gitignore syntax, one per line.
func NewFilter(include, exclude string) Filter {
	return Filter{include: gitignore.Parse(include), exclude: gitignore.Parse(exclude)}
}

// verdict is about one path, given that of its directory.
type verdict struct {
	in       bool // it travels, whatever becomes of what is in it
	descend  bool // something in it may travel
	excluded bool // it was taken away, and not merely not included
}

// root is the verdict about the workspace itself.
func (f Filter) root() verdict {
	return verdict{in: f.include.Empty(), descend: true}
}

// enter decides about something in a directory that may be descended into.
func (f Filter) enter(above verdict, path string, dir bool) verdict {
	if path == logDir || f.exclude.Verdict(path, dir) == gitignore.Match {
		return verdict{excluded: true}
	}
	v := verdict{in: above.in}
	if !f.include.Empty() {
		switch f.include.Verdict(path, dir) {
		case gitignore.Match:
			v.in = true
		case gitignore.Negate:
			v.in = false
		case gitignore.None:
		}
	}
	v.descend = dir && (v.in || f.include.MayMatchBelow(path))
	return v
}

// Match tells whether the file at a path travels. About a directory that only
// leads to other files it says no.
func (f Filter) Match(path string, dir bool) bool {
	v := f.root()
	for i := strings.IndexByte(path, '/'); i >= 0; {
		if v = f.enter(v, path[:i], true); !v.descend {
			return false
		}
		next := strings.IndexByte(path[i+1:], '/')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return f.enter(v, path, dir).in
}
