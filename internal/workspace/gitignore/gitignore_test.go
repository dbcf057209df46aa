package gitignore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// git is the oracle: a repository with some files, whose exclude file changes.
type git struct {
	dir   string
	paths []string // those of directories end with a slash
}

func newGit(t testing.TB, paths []string) *git {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatal("git is not installed, and E2E_REQUIRED=1")
		}
		t.Skip("git is not installed")
	}
	g := &git{dir: t.TempDir(), paths: paths}
	g.run(t, "", "init", "-q")
	for _, path := range paths {
		full := filepath.Join(g.dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(path, "/") {
			err = os.MkdirAll(full, 0o755)
		} else {
			err = os.WriteFile(full, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g *git) run(t testing.TB, stdin string, arg ...string) string {
	t.Helper()
	cmd := exec.Command("git", arg...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_DIR="+filepath.Join(g.dir, ".git"), "GIT_WORK_TREE="+g.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("git %q: %v\n%s", arg, err, complaint.String())
	}
	return out.String()
}

// ignored asks git which of the paths these patterns ignore.
func (g *git) ignored(t testing.TB, patterns string) []string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, ".git/info/exclude"), []byte(patterns), 0o644); err != nil {
		t.Fatal(err)
	}
	// git looks at the files itself; a slash at the end would become part of the name.
	stdin := strings.ReplaceAll(strings.Join(g.paths, "\x00")+"\x00", "/\x00", "\x00")
	out := g.run(t, stdin, "check-ignore", "--no-index", "-z", "--stdin")
	list := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
	if out == "" {
		list = nil
	}
	slices.Sort(list)
	return list
}

func ours(paths []string, patterns string) []string {
	p := Parse(patterns)
	var list []string
	for _, path := range paths {
		name, dir := strings.CutSuffix(path, "/")
		if p.Ignores(name, dir) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

var somePaths = []string{
	"a", "b", "ab", "a b", "a ", "a\\", "#a", "!a", "foo/", "foo/a", "foo/bar/", "foo/bar/a", "foo/bar/ab", "foob/bar", "foox/", "foox/y/", "foox/y/bar",
	"d/", "d/a/", "d/a/b", "d/b/", "d/b/a/", "d/b/a/b", "d/ab", "x/foo/bar", "x/y/foo/", "x/y/foo/bar/", "x/y/foo/bar/c",
	"x/a\xff", "\xe4\xf6", "ä", "x/[a]", "x/-", "x/^", "x/]", "x/*", "x/?", "x/A1", "x/a\n", "x/\t", ".hidden", "x/.hidden/", "x/.hidden/z", "x/a.o", "x/a.c", "z.o",
}

// TestAgainstGit holds single patterns, the documented ones and the odd ones,
// against git's own verdict.
func TestAgainstGit(t *testing.T) {
	g := newGit(t, somePaths)
	for _, patterns := range []string{
		"", "\n\n", "a", "/a", "a/", "/a/", "foo", "foo/", "/foo/", "foo/bar", "/foo/bar/", "foo/*", "foo/**", "foo/**/a", "**/foo", "**/foo/bar",
		"**", "*", "***", "/*", "/**", "**/", "/**/", "*/", "*/*", "*/**", "d/**/b", "d/**/**/b", "**/d/**", "x/**/bar/", "foo**/bar", "foo/b**/a", "fo**", "f**o/a",
		"*.o", "!*.o", "*.o\n!z.o", "x/\n!x/a.o", "x/*\n!x/a.o", "/x/**/*\n!*.c", "*\n!*/\n!*.c", "#a", "\\#a", "!a", "\\!a", "!!a", "a\\ ", "a ", "a\\  ", "a b", "a\\ b", "a\\", "a\\\\", "\\a",
		"a\t", "a\r\nb", "\r\n", "\ufeffa", "?", "??", "x/?", "x?a", "[a-c]", "x/[]-]", "x/[!a]", "x/[^a]", "x/[a-]", "x/[-a]", "x/[]]", "x/[^]]", "x/[[]a[]]", "x/[\\]]", "x/[a",
		"x/[", "x/[[:alpha:]]*", "x/[[:digit:]]", "x/[[:nope:]]", "x/[[:alpha]", "x/[[:upper:][:digit:]]?", "x/[z-a]", "x/[a-\\c]", "x/[+--]", "x/\\*", "x/\\?", "x\\/a.o", "x/a\xff",
		"*\xff", "x/*[\x80-\xff]", "[\xe4]?", "ä", "\xc3?", "??", ".*", "/.hidden", "**/.hidden/", "//a", "a//", "foo//bar", "./a", "foo/./a", "foo/", "foo/ ", " a", "!", "/", "!/", "\\",
		"x/[[:space:]]", "x/a[[:cntrl:]]", "x/[[:punct:]]", "x/[[:print:]]", "x/[[:graph:]]*", "x/[[:blank:]]", "x/[[:xdigit:]]*", "x/[[:lower:]]*", "x/[[:alnum:]]*",
		"foo/**\\/a", "foo/**/**", "foo/***/a", "**foo", "**/*", "**/**", "*/foo", "x/*/foo", "x/**foo/bar",
	} {
		if want, got := g.ignored(t, patterns), ours(g.paths, patterns); !slices.Equal(want, got) {
			t.Errorf("patterns %q:\n git ignores %q\n we ignore   %q", patterns, want, got)
		}
	}
}

// TestRandomAgainstGit does the same with patterns put together at random.
func TestRandomAgainstGit(t *testing.T) {
	g := newGit(t, somePaths)
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	r := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "b", "foo", "bar", "d", "x", "y", "/", "/", "/", "*", "**", "**/", "/**", "?", "[ab]", "[!a]", "[a-z]", "!", "\\", " ", ".o", ".", "\xff", "[", "]", "-", "[[:alpha:]]", "\r", "#"}
	for range rounds {
		var lines []string
		for range 1 + r.IntN(4) {
			line := ""
			for range 1 + r.IntN(6) {
				line += pieces[r.IntN(len(pieces))]
			}
			lines = append(lines, line)
		}
		patterns := strings.Join(lines, "\n")
		if want, got := g.ignored(t, patterns), ours(g.paths, patterns); !slices.Equal(want, got) {
			t.Errorf("patterns %q:\n git ignores %q\n we ignore   %q", patterns, want, got)
		}
	}
}

// TestVerdict: a path has a verdict of its own, that of its directory aside.
func TestVerdict(t *testing.T) {
	p := Parse("src/\n!src/gen\n*.o")
	for path, want := range map[string]Verdict{"src": Match, "src/a": None, "src/gen": Negate, "b.o": Match, "src/c/b.o": Match, "other": None} {
		if got := p.Verdict(path, path == "src"); got != want {
			t.Errorf("Verdict(%q) = %v, want %v", path, got, want)
		}
	}
	if p.Verdict("src", false) != None {
		t.Error("a pattern that ends with a slash matches a file")
	}
}

func TestMayMatchBelow(t *testing.T) {
	for _, test := range []struct {
		patterns, dir string
		want          bool
	}{
		{"/src/lib/*.c", "src", true},
		{"/src/lib/*.c", "src/lib", true},
		{"/src/lib/*.c", "src/lib/deep", false},
		{"/src/lib/*.c", "doc", false},
		{"src/*/x", "src/any", true},
		{"src/*/x", "srd/any", false},
		{"src/**/x", "src/a/b/c", true},
		{"src/**/x", "doc", false},
		{"*.c", "any/where", true},
		{"!*.c\n/src/x", "doc", false},
		{"/[sd]rc/x", "nothing", true}, // not read closely
		{"", "a", false},
	} {
		if got := Parse(test.patterns).MayMatchBelow(test.dir); got != test.want {
			t.Errorf("%q: MayMatchBelow(%q) = %v, want %v", test.patterns, test.dir, got, test.want)
		}
	}
}

// TestHostileName: a name made against a pattern costs no more than others.
func TestHostileName(t *testing.T) {
	p := Parse(strings.Repeat("*a", 60) + "*b")
	if p.Ignores(strings.Repeat("a", 4000), false) {
		t.Error("a name without a b matches")
	}
}

// FuzzIgnores holds that no pattern and no path makes it panic, and that
// MayMatchBelow never denies what Verdict then finds.
func FuzzIgnores(f *testing.F) {
	f.Add("foo/**\n!a*[b-", "foo/bar/a")
	f.Add("/a/b**/c", "a/bx/c")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		if len(patterns) > 1000 || len(path) > 1000 {
			return
		}
		p := Parse(patterns)
		p.Ignores(path, true)
		for i, c := range []byte(path) {
			if c != '/' || p.MayMatchBelow(path[:i]) {
				continue
			}
			if p.Verdict(path, false) == Match || p.Verdict(path, true) == Match {
				t.Fatalf("%q matches %q, but nothing was to match below %q", patterns, path, path[:i])
			}
		}
	})
}
