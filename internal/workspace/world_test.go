package workspace

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tools skips the test when a program is missing, unless nothing may be skipped.
func tools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("%s is not installed, and E2E_REQUIRED=1", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill makes files from a table: "dir/" is a directory, "a -> b" a symbolic
// link, "a = b" a hard link, "a | " a named pipe, else a file that holds its
// name.
func fill(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, file := range files {
		name, target, isLink := strings.Cut(file, " -> ")
		existing := ""
		if !isLink {
			name, existing, _ = strings.Cut(name, " = ")
		}
		name, isPipe := strings.CutSuffix(name, " |")
		full := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		switch {
		case isLink:
			must(t, os.Symlink(target, full))
		case existing != "":
			must(t, os.Link(filepath.Join(dir, existing), full))
		case isPipe:
			must(t, unix.Mkfifo(full, 0o644))
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(full, 0o755))
		default:
			must(t, os.WriteFile(full, []byte(name), 0o644))
		}
	}
}

// picture describes everything below a directory, so that two can be compared.
func picture(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(full string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, full)
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return err
		}
		mode := fileMode(st.Mode)
		line := fmt.Sprintf("%v %d:%d", mode, st.Uid, st.Gid)
		if mode.Type() != fs.ModeSymlink {
			line += fmt.Sprintf(" %d", st.Mtim.Sec)
		}
		switch mode.Type() {
		case fs.ModeSymlink:
			target, err := os.Readlink(full)
			if err != nil {
				return err
			}
			line += " -> " + target
		case 0:
			line += fmt.Sprintf(" %d %s", st.Size, contents(t, full, st.Size))
		}
		if !mode.IsDir() && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			line += " = " + first[st.Ino]
		}
		all[rel] = line
		return nil
	}))
	return all
}

// contents sums a file without its holes.
func contents(t testing.TB, full string, size int64) string {
	t.Helper()
	f, err := os.Open(full)
	must(t, err)
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	buf := make([]byte, min(size, 1<<20))
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if err != nil {
			break
		}
		start = start / int64(len(buf)) * int64(len(buf))
		n, _ := f.ReadAt(buf, start)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			fmt.Fprintf(sum, "%d:", start)
			sum.Write(bytes.TrimRight(buf[:n], "\x00"))
		}
		at = start + int64(len(buf))
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:8])
}

// same compares two pictures.
func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			if bad++; bad < 20 {
				t.Errorf("%q:\n got  %s\n want %s", name, got[name], want[name])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			if bad++; bad < 20 {
				t.Errorf("%q is there and should not: %s", name, got[name])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d differences", bad)
	}
}

// oddName invents a name that is hard on programs.
func oddName(r *rand.Rand) string {
	switch r.IntN(12) {
	case 0:
		return fmt.Sprintf("-%d", r.IntN(1000))
	case 1:
		return fmt.Sprintf("a space %d ", r.IntN(1000))
	case 2:
		return fmt.Sprintf("line\nline%d\n", r.IntN(1000))
	case 3:
		return fmt.Sprintf("\xff\xfe latin \xe4%d", r.IntN(1000))
	case 4:
		return fmt.Sprint(r.IntN(1000)) + strings.Repeat("long", 62)
	case 5:
		return fmt.Sprintf(`back\slash\n"quote'$(x)%d*?[`, r.IntN(1000))
	case 6:
		return fmt.Sprintf("ümläut-文件-%d", r.IntN(1000))
	case 7:
		return fmt.Sprintf("\x01\x1b[31m\x7f%d", r.IntN(1000))
	case 8:
		return fmt.Sprintf(".hidden%d", r.IntN(1000))
	}
	return fmt.Sprintf("file%d.c", r.IntN(100000))
}

// randomTree makes about n files of every kind.
func randomTree(t testing.TB, dir string, r *rand.Rand, n int) {
	t.Helper()
	places, files := []string{"."}, []string{}
	for range n {
		rel := path.Join(places[r.IntN(len(places))], oddName(r))
		full := filepath.Join(dir, rel)
		if len(rel) > 3500 || strings.Count(rel, "/") > 30 {
			continue
		}
		if _, err := os.Lstat(full); err == nil {
			continue
		}
		kind := r.IntN(20)
		switch {
		case kind < 3:
			must(t, os.Mkdir(full, 0o755))
			places = append(places, rel)
		case kind == 3:
			target := []string{".", "..", path.Base(rel), "/etc/passwd", "../../../outside", "missing\xff", strings.Repeat("t/", 300)}[r.IntN(7)]
			must(t, os.Symlink(target, full))
			continue
		case kind == 4:
			must(t, unix.Mkfifo(full, 0o600))
		case kind == 5 && len(files) > 0:
			must(t, os.Link(filepath.Join(dir, files[r.IntN(len(files))]), full))
			continue
		default:
			data := make([]byte, r.IntN(3000))
			if kind == 6 {
				data = make([]byte, 20000+r.IntN(100000))
			}
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			must(t, os.WriteFile(full, data, 0o644))
			files = append(files, rel)
		}
		mode := uint32(r.IntN(0o1000))
		if kind < 3 && r.IntN(4) == 0 {
			mode |= unix.S_ISVTX
		}
		must(t, unix.Chmod(full, mode))
		mtime := time.Unix(r.Int64N(maxTime), r.Int64N(1e9))
		must(t, os.Chtimes(full, mtime, mtime))
	}
	// Filling a directory changed its time.
	for _, rel := range slices.Backward(places) {
		mtime := time.Unix(r.Int64N(maxTime), 0)
		must(t, os.Chtimes(filepath.Join(dir, rel), mtime, mtime))
	}
}

// sparseFile makes a file of which only a few blocks are data.
func sparseFile(t testing.TB, name string, size int64, parts int) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer func() { _ = f.Close() }()
	must(t, f.Truncate(size))
	for i := range parts {
		_, err := f.WriteAt(fmt.Appendf(nil, "part %d", i), size/int64(parts)*int64(i)+4096)
		must(t, err)
	}
}

func allocated(t testing.TB, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(name, &st))
	return st.Blocks * 512
}

func scanned(t testing.TB, dir string, filter Filter) *Tree {
	t.Helper()
	tree, err := Scan(t.Context(), dir, filter)
	must(t, err)
	return tree
}
