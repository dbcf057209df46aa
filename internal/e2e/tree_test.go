package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// oddNames are names that programs which read lists of names stumble over.
var oddNames = []string{
	"-rf", "--", "-", " ", " leading and trailing ", "new\nline", "tab\there", "\xff\xfe not UTF-8", "quote's \"and\" `more` $(id)",
	"back\\slash\\n", "*", "?", "[a]", "#hash", "~", "!", "ümläut", "é", "é", ".hidden", "...", "a;b&c|d", strings.Repeat("n", 255),
}

// oddTree fills a directory with what a checkout may hold: odd names at several
// depths, all permissions, links of all kinds, holes, and times from 1970 to now.
func oddTree(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	dirs := []string{"."}
	for range 12 {
		d := filepath.Join(dirs[random.IntN(len(dirs))], oddNames[random.IntN(len(oddNames)-1)])
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		dirs = append(dirs, d)
	}
	must(t, os.MkdirAll(filepath.Join(dir, "empty/in empty"), 0o755))
	var files []string
	for i := range 120 {
		name := filepath.Join(dir, dirs[random.IntN(len(dirs))], fmt.Sprintf("%s%d", oddNames[random.IntN(len(oddNames)-1)], i))
		switch kind := random.IntN(10); {
		case kind == 0 && len(files) > 0:
			must(t, os.Link(files[random.IntN(len(files))], name))
		case kind == 1:
			must(t, os.Symlink(oddNames[random.IntN(len(oddNames))], name))
		default:
			data := make([]byte, random.IntN(3)*random.IntN(9000))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			must(t, os.WriteFile(name, data, 0o600))
			mode := fs.FileMode(random.IntN(0o1000))
			if len(data) > 0 {
				mode |= 0o400 // for a user other than root
			}
			must(t, os.Chmod(name, mode))
			files = append(files, name)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, oddNames[len(oddNames)-1]), nil, 0o644))
	must(t, os.Symlink("loop b", filepath.Join(dir, "loop a")))
	must(t, os.Symlink("loop a", filepath.Join(dir, "loop b")))
	must(t, os.Symlink(".", filepath.Join(dir, "empty/itself")))
	must(t, os.Symlink("/nowhere/at all", filepath.Join(dir, "dangling")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o640))
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("an island"), 5<<20)
	must(t, err)
	must(t, sparse.Truncate(16<<20))
	must(t, sparse.Close())
	age(t, dir, random)
}

// age gives everything a time of its own in whole seconds, what is in a
// directory before it.
func age(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	}))
	for _, path := range slices.Backward(all) {
		ts := unix.Timespec{Sec: random.Int64N(time.Now().Unix() - 1000)}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// picture describes all that is below a directory except for the logs.
// Directories have no times: they change when something in them does.
func picture(t *testing.T, dir string) map[string]string {
	t.Helper()
	all, first := map[string]string{}, map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(full string, _ fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, full)
		if name == ".hurd" {
			return fs.SkipDir
		}
		if err != nil || name == "." {
			return err
		}
		info, err := os.Lstat(full)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch info.Mode().Type() {
		case fs.ModeDir:
		case fs.ModeSymlink:
			target, _ := os.Readlink(full)
			line += " -> " + target
		case 0:
			data, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %d %x", st.Mtim.Sec, len(data), sha256.Sum256(data))
			if len(data) > 1<<20 && st.Blocks*512 >= int64(len(data)) {
				line += " without its holes"
			}
		default:
			line += fmt.Sprint(" ", st.Mtim.Sec)
		}
		if st.Nlink > 1 && !info.IsDir() {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " = " + first[st.Ino]
		}
		all[name] = line
		return nil
	}))
	return all
}

// same compares two pictures.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	names := maps.Clone(want)
	maps.Copy(names, got)
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] == want[name] {
			continue
		}
		if bad++; bad <= 20 {
			t.Errorf("%q:\n got  %s\n want %s", name, got[name], want[name])
		}
	}
	if bad > 20 {
		t.Errorf("and %d more", bad-20)
	}
}

// manifestScript prints what is in the working directory, by programs that are
// alike everywhere. The names of files go from program to program with a NUL
// behind each.
const manifestScript = `manifest() (
	LC_ALL=C
	export LC_ALL
	all() { find . -mindepth 1 -name .hurd -prune -o -name manifest -prune -o "$@" -print0 | sort -z; }
	all -type d | xargs -0 stat -c 'd %a %Y %n'
	all -type l | xargs -0 stat -c 'l %s %n'
	all -type l | xargs -0 -n 1 readlink
	all -type p | xargs -0 stat -c 'p %a %Y %n'
	all -type f | xargs -0 stat -c 'f %a %h %s %Y %n'
	all -type f | xargs -0 cat | sha256sum
)
`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes files below a directory from pairs of a name and what it holds.
func write(t testing.TB, dir string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		name := filepath.Join(dir, pairs[i])
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(pairs[i+1]), 0o644))
	}
}

// give makes a user the owner of a whole tree, when root runs the tests, and
// returns that owner.
func give(t *testing.T, dir string, uid, gid int) (int, int) {
	t.Helper()
	if os.Geteuid() != 0 {
		return os.Getuid(), os.Getgid()
	}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		// chown drops what only the owner may have set.
		err = os.Lchown(path, uid, gid)
		if err == nil && info.Mode().Type() != fs.ModeSymlink {
			err = os.Chmod(path, info.Mode())
		}
		return err
	}))
	return uid, gid
}
