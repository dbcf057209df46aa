package workspace

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFilter holds the rules that Filter documents.
func TestFilter(t *testing.T) {
	files := []string{"src/a.c", "src/a.o", "src/gen/b.c", "doc/x", "empty/", ".git/config", "build/keep/c.c", ".hurd/log", "src/.hurd"}
	for _, test := range []struct {
		name, include, exclude string
		want                   []string // besides ".", and directories that something else is in
	}{
		{"everything but our logs", "", "", []string{".git/config", "build/keep/c.c", "doc/x", "empty", "src/.hurd", "src/a.c", "src/a.o", "src/gen/b.c"}},
		{"exclude", "", "*.o\n/build/\n.git", []string{"doc/x", "empty", "src/.hurd", "src/a.c", "src/gen/b.c"}},
		{"an exception", "", "src/*\n!src/a.c", []string{".git/config", "build/keep/c.c", "doc/x", "empty", "src/a.c"}},
		{"no exception below an excluded directory", "", "build/\n!build/keep/c.c", []string{".git/config", "doc/x", "empty", "src/.hurd", "src/a.c", "src/a.o", "src/gen/b.c"}},
		{"include a directory", "/src/", "", []string{"src/.hurd", "src/a.c", "src/a.o", "src/gen/b.c"}},
		{"a part of it", "/src/\n!gen/", "", []string{"src/.hurd", "src/a.c", "src/a.o"}},
		{"include by suffix, nothing empty", "*.c", "", []string{"build/keep/c.c", "src/a.c", "src/gen/b.c"}},
		{"include, then exclude", "*.c", "gen/", []string{"build/keep/c.c", "src/a.c"}},
		{"include does not bring back", "src/\nsrc/a.o", "*.o", []string{"src/.hurd", "src/a.c", "src/gen/b.c"}},
		{"include an empty directory", "empty", "", []string{"empty"}},
		{"our logs can't be included", ".hurd", "", []string{"src/.hurd"}},
		{"only comments", "# nothing\n", "", []string{".git/config", "build/keep/c.c", "doc/x", "empty", "src/.hurd", "src/a.c", "src/a.o", "src/gen/b.c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, files...)
			var got []string
			list := names(scanned(t, dir, NewFilter(test.include, test.exclude)))[1:]
			for i, name := range list {
				if i+1 == len(list) || !strings.HasPrefix(list[i+1], name+"/") {
					got = append(got, name)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPrunedIsNotWalked: an excluded directory may be unreadable or huge.
func TestPrunedIsNotWalked(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "node_modules/a/b", "other/c", "src/x")
	for kind, f := range map[left]Filter{leftExcluded: NewFilter("", "node_modules/\n/other"), leftOut: NewFilter("/src/*.c\nsrc/x", "")} {
		if diff := cmp.Diff(map[string]left{"node_modules": kind, "other": kind}, scanned(t, dir, f).left); diff != "" {
			t.Error(diff)
		}
	}
}
