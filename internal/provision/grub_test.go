package provision

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/hurd-qemu-action/internal/platform"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden is a file of testdata/grub: a comment with options, what is edited,
// and what it must become.
type golden struct {
	archive *txtar.Archive
	file    string
}

func (g golden) part(name string) ([]byte, bool) {
	for _, f := range g.archive.Files {
		if f.Name == name {
			return f.Data, true
		}
	}
	return nil, false
}

func (g golden) option(name string) string {
	_, rest, _ := strings.Cut("\n"+string(g.archive.Comment), "\n"+name+": ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func (g golden) set(t *testing.T, name string, data []byte) {
	t.Helper()
	files := g.archive.Files[:0:0]
	for _, f := range g.archive.Files {
		if f.Name != name {
			files = append(files, f)
		}
	}
	g.archive.Files = append(files, txtar.File{Name: name, Data: data})
	if err := os.WriteFile(g.file, txtar.Format(g.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEditGrub(t *testing.T) {
	files, err := filepath.Glob("testdata/grub/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files, %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			g := golden{archive, file}
			before, _ := g.part("before")
			env, _ := g.part("grubenv")
			o := GrubOptions{Family: platform.Family(g.option("family")), Env: env, Menu: g.option("menu") == "true"}
			after, changes, err := EditGrub(before, o)
			if want := g.option("error"); want != "" {
				if !errors.Is(err, ErrNoKernel) || err.Error() != want || !bytes.Equal(after, before) || changes != nil {
					t.Errorf("error %v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				g.set(t, "after", after)
			}
			want, _ := g.part("after")
			if diff := cmp.Diff(string(want), string(after)); diff != "" {
				t.Errorf("the result differs from the golden file:\n%s", diff)
			}
			checkChanges(t, before, after, changes)
			again, changes, err := EditGrub(after, o)
			if err != nil || !bytes.Equal(again, after) || len(changes) != 0 {
				t.Errorf("editing the result again: %v, %v", changes, err)
			}
		})
	}
}

// checkChanges applies the changes to the lines of the original.
func checkChanges(t *testing.T, before, after []byte, changes []GrubChange) {
	t.Helper()
	lines := strings.SplitAfter(string(before), "\n")
	header := ""
	for _, c := range changes {
		if c.Line == 0 {
			header = c.After + "\n"
			continue
		}
		line := lines[c.Line-1]
		text := strings.TrimRight(line, "\r\n")
		if text != c.Before {
			t.Errorf("line %d was %q, not %q", c.Line, text, c.Before)
		}
		lines[c.Line-1] = c.After + line[len(text):]
	}
	if got := header + strings.Join(lines, ""); got != string(after) {
		t.Errorf("the changes do not make the result:\n%s", cmp.Diff(got, string(after)))
	}
}

// TestFamiliesDiffer fails if one family's edit is used for the other.
func TestFamiliesDiffer(t *testing.T) {
	cfg := []byte("menuentry x {\n\tmultiboot /gnumach.gz\n\tlinux /vmlinuz\n}\n")
	for family, want := range map[platform.Family]string{
		platform.Hurd:  "\tmultiboot /gnumach.gz console=com0\n\tlinux /vmlinuz\n",
		platform.Linux: "\tmultiboot /gnumach.gz\n\tlinux /vmlinuz console=ttyS0,115200\n",
	} {
		after, _, err := EditGrub(cfg, GrubOptions{Family: family})
		if err != nil || !strings.Contains(string(after), want) {
			t.Errorf("%s: %v\n%s", family, err, after)
		}
	}
}

// FuzzEditGrub: whatever the file holds, lines without a change are the same
// byte for byte, and editing the result again changes nothing.
func FuzzEditGrub(f *testing.F) {
	files, err := filepath.Glob("testdata/grub/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			f.Add(part.Data, strings.HasPrefix(string(archive.Comment), "family: hurd"))
		}
	}
	for _, odd := range []string{
		"multiboot /x \"abc", "multiboot /x a\\", "multiboot /x 'a\nb' }\n", "set timeout='5\n'\nmultiboot /x console='a\nb'",
		"}}{ {\nfi\nmultiboot /x;}", "terminal_output a\\\nb\nmultiboot /x a\\\r\n", "multiboot /x a#b #c", "timeout=1 timeout=2\nmultiboot /x\x00",
	} {
		f.Add([]byte(odd), true)
	}
	f.Fuzz(func(t *testing.T, cfg []byte, hurd bool) {
		o := GrubOptions{Family: platform.Linux}
		if hurd {
			o.Family = platform.Hurd
		}
		after, changes, err := EditGrub(cfg, o)
		if err != nil {
			if !bytes.Equal(after, cfg) || changes != nil {
				t.Errorf("changes and an error: %v", err)
			}
			return
		}
		checkChanges(t, cfg, after, changes)
		again, changes, err := EditGrub(after, o)
		if err != nil || !bytes.Equal(again, after) || len(changes) != 0 {
			t.Errorf("again: %v %+v\n%q\n%q\n%q", err, changes, cfg, after, again)
		}
	})
}
