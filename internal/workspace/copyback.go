package workspace

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Globs are patterns that choose files of the workspace: "*" and "?" within a
// name, "**" over directories, "[...]" and "{a,b}". A pattern that matches a
// directory stands for all that is in it. Those that begin with "!" take away;
// their order does not matter. A pattern without slashes is looked for at the
// top only, as in a shell.
type Globs struct {
	take, drop []string
}

// ErrGlob is wrapped by every error of ParseGlobs.
var ErrGlob = errors.New("not a pattern for files of the workspace")

// ParseGlobs reads patterns, one per line. Empty lines and those that begin
// with "#" are skipped; there must be one that takes something.
func ParseGlobs(text string) (Globs, error) {
	var g Globs
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		glob, drop := strings.CutPrefix(line, "!")
		glob = strings.TrimSpace(glob)
		switch {
		case strings.HasPrefix(glob, "/"):
			return Globs{}, fmt.Errorf("%w: %q is absolute: write it from the workspace's top on", ErrGlob, line)
		case slices.Contains(strings.Split(glob, "/"), ".."):
			return Globs{}, fmt.Errorf("%w: %q leads out of the workspace", ErrGlob, line)
		case glob == "" || !doublestar.ValidatePattern(glob):
			return Globs{}, fmt.Errorf("%w: %q (look for an open bracket or brace; a backslash makes them plain)", ErrGlob, line)
		}
		if glob = path.Clean(glob); glob == "." {
			glob = "**"
		}
		if drop {
			g.drop = append(g.drop, glob)
		} else {
			g.take = append(g.take, glob)
		}
	}
	if len(g.take) == 0 {
		return Globs{}, fmt.Errorf("%w: there is none that takes anything; write ** for everything", ErrGlob)
	}
	return g, nil
}

// Match tells whether the patterns choose a path.
func (g Globs) Match(name string) bool {
	return matchesAny(g.take, name) && !matchesAny(g.drop, name)
}

// matchesAny holds a path and the directories above it against patterns.
func matchesAny(globs []string, name string) bool {
	for _, glob := range globs {
		for at := name; at != "."; at = path.Dir(at) {
			// Patterns were validated, which is the only error there is.
			if ok, _ := doublestar.Match(glob, at); ok {
				return true
			}
		}
	}
	return false
}

// CopyBack is what of the guest's workspace comes back. The zero value is
// what is new or changed.
type CopyBack struct {
	mode  copyBack
	globs Globs
}

type copyBack int

const (
	backChanged copyBack = iota
	backAll
	backPaths
	backNone
)

// ParseCopyBack reads "changed", "all", "none", or Globs. Globs choose among
// what is new or changed, and bring it back also where the filter kept
// something of the host's away from the guest.
func ParseCopyBack(text string) (CopyBack, error) {
	switch strings.TrimSpace(text) {
	case "", "changed":
		return CopyBack{}, nil
	case "all":
		return CopyBack{mode: backAll}, nil
	case "none":
		return CopyBack{mode: backNone}, nil
	}
	globs, err := ParseGlobs(text)
	if err != nil {
		return CopyBack{}, fmt.Errorf("reading what to copy back: %w", err)
	}
	return CopyBack{mode: backPaths, globs: globs}, nil
}

// None tells whether nothing comes back, so that the guest need not be asked.
func (c CopyBack) None() bool { return c.mode == backNone }

func (c CopyBack) wants(name string) bool {
	switch c.mode {
	case backNone:
		return false
	case backPaths:
		return c.globs.Match(name)
	case backChanged, backAll:
	}
	return true
}
