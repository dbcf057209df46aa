package diagnostic

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// place is where the recordings' compilers ran.
var place = Options{Root: "/github/workspace", Dir: "/github/workspace/src"}

// collect has one stream in it that comes in chunks of a size; 0: at once.
func collect(o Options, text []byte, chunk int) *Collector {
	c := New(o)
	w := c.Writer()
	for chunk > 0 && len(text) > chunk {
		_, _ = w.Write(text[:chunk])
		text = text[chunk:]
	}
	_, _ = w.Write(text)
	_ = w.Close()
	return c
}

func describe(c *Collector) string {
	var b strings.Builder
	for _, d := range c.Diagnostics() {
		file := d.File
		if file == "" {
			file = "(outside: " + d.Path + ")"
		}
		fmt.Fprintf(&b, "%s %s %d:%d %s\n", d.Severity, file, d.Line, d.Column, d.Message)
	}
	counts := c.Counts()
	fmt.Fprintf(&b, "%d errors, %d warnings\n", counts.Errors, counts.Warnings)
	for _, h := range c.Hints() {
		fmt.Fprintf(&b, "> %s\n", h.Text)
	}
	return b.String()
}

// TestRecordings reads what real compilers said of small broken sources. The
// comment of each file is how it was made.
func TestRecordings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 15 {
		t.Fatalf("only %d recordings, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			output := archive.Files[0].Data
			got := describe(collect(place, output, 0))
			for _, chunk := range []int{1, 2, 3, 7, 64} {
				if diff := cmp.Diff(got, describe(collect(place, output, chunk))); diff != "" {
					t.Errorf("in chunks of %d (-whole +chunks):\n%s", chunk, diff)
				}
			}
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "diagnostics", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 {
				t.Fatal("no diagnostics (make them with -update)")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestColoursDoNotMatter compares recordings that differ in their colours.
func TestColoursDoNotMatter(t *testing.T) {
	const plain = "a.c:1:2: error: no 'x'\n"
	for _, coloured := range []string{
		"\x1b[01m\x1b[Ka.c:1:2:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kno 'x'\n",
		"\x1b]8;;file://host/a.c\x1b\\a.c\x1b]8;;\x1b\\:1:2: error: no 'x'\n",
		"\x1b]8;;file://host/a.c\x07a.c\x1b]8;;\x07:1:2: error: no 'x'\r\n",
		"\x1b]8;;cut off\na.c:1:2: error: no 'x'", "\x1b[cut off\ra.c:1:2: error: no 'x'\x00\r",
		"\x1b=\x1b(Ba.c:1:2: error: no 'x'\n",
	} {
		got := collect(place, []byte(coloured), 0).Diagnostics()
		want := collect(place, []byte(plain), 0).Diagnostics()
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 1 {
			t.Errorf("%q (-plain +coloured):\n%s", coloured, diff)
		}
	}
}

// TestNoDiagnostic has lines that look like one.
func TestNoDiagnostic(t *testing.T) {
	for _, line := range []string{
		"", "main.go:23: listening", "    x_test.go:12:3: indented", "12:34:56: error: a time", "http://host:80: error: no file",
		"error: aborting due to 2 previous errors", "warning: 3 warnings emitted", "a.c:1:2: note: declared here", "a.c:1:2: Error: capital",
		"a.c:0000000001: error: eight digits", ": error: x", "a.c:1:2: error: ", "make: [Makefile:7: x] Error 3 (ignored)", "PASS: a.c:1",
		`  File "x.py", line 3, in f`, "SyntaxError: alone", "  --> src/main.rs:1:2", "Compiling a.c: 3: ok",
	} {
		if got := collect(place, []byte(line+"\n"), 0).Diagnostics(); len(got) > 0 {
			t.Errorf("%q is taken for %+v", line, got)
		}
	}
}

func TestOne(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       Diagnostic
	}{
		{"no column", "a.c:3: warning: w\n", Diagnostic{Warning, "src/a.c", "a.c", 3, 0, "w"}},
		{"a name with a space", "my file.c:3:1: error: e\n", Diagnostic{Error, "src/my file.c", "my file.c", 3, 1, "e"}},
		{"outside", "/usr/include/x.h:3:1: fatal error: e", Diagnostic{Error, "", "/usr/include/x.h", 3, 1, "e"}},
		{"escape", "../../etc/x.c:3:1: error: e", Diagnostic{Error, "", "../../etc/x.c", 3, 1, "e"}},
		{"one up", "../lib/x.c:3:1: error: e", Diagnostic{Error, "lib/x.c", "../lib/x.c", 3, 1, "e"}},
		{"no line end", "vet: ./x.go:1:2: undefined: y", Diagnostic{Error, "src/x.go", "./x.go", 1, 2, "undefined: y"}},
		{"rustc's message of two lines", "error: one\ntwo\n --> a.rs:1:2\n", Diagnostic{Error, "src/a.rs", "a.rs", 1, 2, "one"}},
		{"a traceback without an end", "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\n    x()\n", Diagnostic{Error, "src/a.py", "a.py", 3, 0, "an exception"}},
		{"the deepest frame is not ours", "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\n  File \"/usr/lib/b.py\", line 9, in g\nValueError\n", Diagnostic{Error, "src/a.py", "a.py", 3, 0, "ValueError"}},
		{"marks of direction", "a.c:3:1: error: a\u202eb\n", Diagnostic{Error, "src/a.c", "a.c", 3, 1, "ab"}},
		{"make in a directory", "make[1]: Entering directory '/github/workspace/lib'\na.c:3:1: error: e\n", Diagnostic{Error, "lib/a.c", "a.c", 3, 1, "e"}},
		{"make has left it", "make[1]: Entering directory '/github/workspace/lib'\nmake[1]: Leaving directory '/github/workspace/lib'\na.c:3:1: error: e\n", Diagnostic{Error, "src/a.c", "a.c", 3, 1, "e"}},
		{"only make knows", "gmake[2]: *** [Makefile:9: check] Error 3\n", Diagnostic{Error, "src/Makefile", "Makefile", 9, 0, "make: check: Error 3"}},
	} {
		c := collect(place, []byte(tc.text), 0)
		if diff := cmp.Diff([]Diagnostic{tc.want}, c.Diagnostics()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestKeptAndCounted(t *testing.T) {
	var text strings.Builder
	for i := range 25 {
		for range 2 { // each comes twice
			fmt.Fprintf(&text, "a.c:%d:1: error: e\na.c:%d:1: warning: w\n", i+1, i+1)
		}
	}
	text.WriteString("make: *** [Makefile:1: all] Error 1\n")
	c := collect(place, []byte(text.String()), 0)
	got := c.Diagnostics()
	if len(got) != 2*Kept || got[0].Severity != Error || got[Kept-1].Line != Kept || got[Kept].Severity != Warning || got[Kept].Line != 1 {
		t.Errorf("kept: %+v", got)
	}
	if counts := c.Counts(); counts != (Counts{25, 25}) {
		t.Errorf("counted: %+v", counts)
	}
}

// TestBounded pours in far more than is remembered.
func TestBounded(t *testing.T) {
	c := New(place)
	w := c.Writer().(*writer)
	long := strings.Repeat("é", 3000)
	for i := range maxSeen + 500 {
		fmt.Fprintf(w, "a.c:1:1: error: %d\nmake: Entering directory '/%d'\n", i, i)
	}
	fmt.Fprintf(w, "\n%s/a.c:1:1: error: e\nTraceback (most recent call last):\n", long)
	fmt.Fprintf(w, "a.c:1:1: warning: %s", strings.Repeat(long, 100))
	if len(w.line) > maxLine || len(c.seen) > maxSeen || len(w.scanner.dirs) > makeDepth {
		t.Errorf("kept a line of %d, %d diagnostics, %d directories", len(w.line), len(c.seen), len(w.scanner.dirs))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := c.Counts(); got != (Counts{maxSeen + 500, 1}) {
		t.Errorf("counted: %+v", got)
	}
	last := c.Diagnostics()[Kept].Message
	if len(last) > maxMessage || !strings.HasSuffix(last, "é…") || !utf8.ValidString(last) {
		t.Errorf("the message is %q", last)
	}
}

// TestTwoStreams has lines of both cut in the middle, from two goroutines.
func TestTwoStreams(t *testing.T) {
	c := New(place)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			w := c.Writer()
			for range 100 {
				for _, part := range []string{"a.", fmt.Sprintf("c:%d:1: er", i+1), "ror: e\n"} {
					_, _ = io.WriteString(w, part)
				}
			}
			_ = w.Close()
		})
	}
	wg.Wait()
	if got := c.Counts(); got != (Counts{2, 0}) {
		t.Errorf("counted %+v: %+v", got, c.Diagnostics())
	}
}

func TestResolve(t *testing.T) {
	for _, tc := range []struct{ root, dir, name, want string }{
		{"/w", "/w", "a.c", "a.c"}, {"/w", "/w/s", "a.c", "s/a.c"}, {"/w", "/w/s", "../a.c", "a.c"}, {"/w/", "/w", "./a//b.c", "a/b.c"},
		{"/w", "/home", "/w/x/../a.c", "a.c"}, {"/", "/", "a.c", "a.c"},
		{"/w", "/w", "../a.c", ""}, {"/w", "/w", "/wx/a.c", ""}, {"/w", "/w", "/w", ""}, {"/w", "/w", ".", ""}, {"/w", "/w", "", ""},
		{"/w", "/w", "a/../../w2/b", ""}, {"/w", "", "a.c", ""}, {"", "/w", "a.c", ""}, {"w", "w", "a.c", ""},
		{"/w", "/w", "a\nb", ""}, {"/w", "/w", "a\x00", ""}, {"/w", "/w", strings.Repeat("a", maxPath+1), ""},
	} {
		if got, ok := Resolve(tc.root, tc.dir, tc.name); got != tc.want || ok != (tc.want != "") {
			t.Errorf("Resolve(%q, %q, %q) = %q, %v; want %q", tc.root, tc.dir, tc.name, got, ok, tc.want)
		}
	}
}

func TestHints(t *testing.T) {
	for message, want := range map[string]string{
		"‘PATH_MAX’ undeclared (first use in this function)":    "path",
		"use of undeclared identifier 'MAXPATHLEN'":             "path",
		"cannot find value `PATH_MAX` in crate `libc`":          "path",
		"'MAXHOSTNAMELEN' was not declared in this scope":       "host name",
		"use of undeclared identifier 'IOV_MAX'":                "vectors",
		"‘NOFILE’ undeclared":                                   "POSIX lets",
		"linux/if_packet.h: No such file or directory":          "kernel's",
		"'asm/unistd.h' file not found":                         "kernel's",
		"sys/epoll.h: No such file or directory":                "Linux's own",
		"implicit declaration of function ‘epoll_create1’":      "Linux's own",
		"undefined reference to `prctl'":                        "Linux's own",
		"PATH_MAX redefined":                                    "",
		"‘MY_PATH_MAX2’ undeclared":                             "",
		"‘depoll’ undeclared":                                   "",
		"format ‘%s’ expects argument of type ‘char *’":         "",
		"sys/param2.h: No such file or directory; see PATHMAX.": "",
	} {
		c := collect(place, []byte("a.c:1:1: error: "+message+"\n"), 0)
		hints := c.Hints()
		if (want == "") != (len(hints) == 0) || len(hints) > 1 || want != "" && !strings.Contains(hints[0].Text, want) {
			t.Errorf("%q: %+v, want %q", message, hints, want)
		}
	}
	for i, h := range porting {
		if !strings.HasPrefix(h.URL, "https://") || !strings.HasSuffix(h.Text, ".") {
			t.Errorf("row %d: %+v", i, h.Hint)
		}
	}
}

// FuzzChunks holds that any chunking gives the same diagnostics, which are
// bounded, of one line each, and in the workspace or nowhere.
func FuzzChunks(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data, uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, chunk uint8) {
		c := collect(place, text, 0)
		got := c.Diagnostics()
		if diff := cmp.Diff(got, collect(place, text, int(chunk)).Diagnostics()); diff != "" {
			t.Errorf("in chunks of %d (-whole +chunks):\n%s", chunk, diff)
		}
		if len(got) > 2*Kept {
			t.Errorf("%d diagnostics", len(got))
		}
		for _, d := range got {
			if len(d.Message) > maxMessage || len(d.Path) > maxPath || d.Line < 0 || d.Column < 0 ||
				strings.ContainsAny(d.Message+d.File+d.Path, "\n\r\x1b\x00") || !utf8.ValidString(d.Message+d.Path) ||
				filepath.IsAbs(d.File) || d.File != "" && !filepath.IsLocal(d.File) || d.Severity != Error && d.Severity != Warning {
				t.Errorf("%+v", d)
			}
		}
	})
}
