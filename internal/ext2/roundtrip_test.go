package ext2

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

func sysStat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

var creators = map[string]OS{"hurd": OSHurd, "linux": OSLinux}

// plant fills a file system with everything that a workspace may hold.
func plant(t testing.TB, m *Maker, seed uint64) *planter {
	t.Helper()
	p := &planter{t: t, m: m, random: rand.New(rand.NewPCG(seed, 7)), want: map[string]sample{}}
	p.dir(".")
	dirs := []string{"."}
	var files []string
	in := func() string {
		for {
			path := p.name()
			if dir := dirs[p.random.IntN(len(dirs))]; dir != "." {
				path = dir + "/" + path
			}
			if _, ok := p.want[path]; !ok {
				return path
			}
		}
	}
	for range 150 {
		path := in()
		switch k := p.random.IntN(16); {
		case k < 3:
			dirs = append(dirs, p.dir(path))
			continue
		case k < 8:
			p.file(path, p.bytes(p.random.IntN(5*makeBlock)))
		case k < 9:
			p.file(path, nil)
		case k < 12:
			p.symlink(path, p.name())
		case k < 13:
			p.special(path, []fs.FileMode{fs.ModeNamedPipe, fs.ModeSocket}[p.random.IntN(2)])
		case len(files) > 0:
			p.link(path, files[p.random.IntN(len(files))])
		default:
			p.file(path, p.bytes(1))
		}
		files = append(files, path)
	}
	plantLimits(p)
	return p
}

// plantLimits makes what lies at the edges of the format.
func plantLimits(p *planter) {
	deep := "deep"
	for p.dir(deep); len(deep) < 3900; p.dir(deep) {
		deep += "/directory"
	}
	p.file(deep+"/file", []byte("deep"))
	p.dir("many")
	for i := range 3000 { // more than twelve blocks of names
		p.file(fmt.Sprintf("many/%0*d", 20+i%200, i), nil)
	}
	for _, n := range []int{1, 58, 59, 60, 61, 255, 4095} {
		p.symlink(fmt.Sprintf("target of %d", n), strings.Repeat("t", n))
	}
	p.symlink("loop", "loop")
	p.symlink("up", "../../..")
	for _, blocks := range []int{11, 12, 13, directBlocks + pointersPerBlock, directBlocks + pointersPerBlock + 1} {
		p.file(fmt.Sprintf("%d blocks", blocks), p.bytes(blocks*makeBlock))
		p.file(fmt.Sprintf("%d blocks less one", blocks), p.bytes(blocks*makeBlock-1))
	}
	const single, double = directBlocks, directBlocks + pointersPerBlock
	const triple = double + pointersPerBlock*pointersPerBlock
	at := []int64{0, 5, single, double - 1, double, double + 3*pointersPerBlock - 1, triple - 1, triple, triple + 2*pointersPerBlock*pointersPerBlock + 7}
	var all islands
	for _, block := range at {
		all.at, all.data = append(all.at, block*makeBlock), append(all.data, p.bytes(100))
	}
	p.sparse("three levels", 13*units.GiB, all)
	p.sparse("holes at both ends", units.GiB, islands{[]int64{700<<20 + 1}, [][]byte{p.bytes(3 * makeBlock)}})
	p.sparse("only a hole", units.GiB, islands{})
	p.sparse("as large as allowed", maxFileSize, islands{[]int64{int64(maxFileSize) - 9}, [][]byte{p.bytes(9)}})
	p.file("zeros", make([]byte, 3*makeBlock+1))
}

// TestRoundTrip makes random trees and finds them again: with Walk, with the
// kernel where it may mount, and with debugfs.
func TestRoundTrip(t *testing.T) {
	for name, creator := range creators {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				image := filepath.Join(t.TempDir(), "the drive.raw")
				m := newMakerFor(t, image, creator, 256*units.MiB, 4000)
				p := plant(t, m, seed)
				if err := m.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				f := openFS(t, image, Partition{Size: 256 * units.MiB})
				compareSamples(t, p.sorted(), collect(t, f))
				compareWithDebugfs(t, f, p.sorted())
			})
		}
	}
}

// compareWithDebugfs asks debugfs for the files whose names it can be given.
func compareWithDebugfs(t *testing.T, f *FS, want []sample) {
	t.Helper()
	dir := t.TempDir()
	var script strings.Builder
	dumps := map[string]sample{}
	for _, s := range want {
		if s.Mode.IsRegular() && s.Size < units.GiB && plain(s.Path) && len(dumps) < 100 {
			to := filepath.Join(dir, fmt.Sprint(len(dumps)))
			dumps[to] = s
			fmt.Fprintf(&script, "dump -p %q %q\n", "/"+s.Path, to)
		}
	}
	if len(dumps) < 12 {
		t.Fatalf("only %d files can be compared", len(dumps))
	}
	script.WriteString("stat <2>\n")
	damage(t, f, script.String()) // changes nothing
	for to, s := range dumps {
		got, err := hostSample(to, map[uint64]string{})
		if err != nil || got.Size != s.Size || got.Digest != s.Digest {
			t.Errorf("%q: debugfs read %+v, %v, want %+v", s.Path, got, err, s)
		}
	}
}

// plain tells whether Go and debugfs quote a path alike.
func plain(path string) bool {
	return len(path) < 200 && !strings.ContainsFunc(path, func(r rune) bool {
		return r < ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// mount mounts an image, or skips the test where that is not allowed.
func mount(t *testing.T, image string) string {
	t.Helper()
	tools(t, "mount", "umount")
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "ext2", "-o", "loop", image, dir).CombinedOutput()
	if err != nil {
		// Also with E2E_REQUIRED: containers and users other than root may not
		// mount, and debugfs has been asked already.
		t.Skipf("the kernel can't mount it here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	return dir
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	// Who made a mount namespace meanwhile holds the mount, and with it what was
	// not written yet, beyond umount: it is made read-only first.
	for _, args := range [][]string{{"mount", "-o", "remount,ro"}, {"umount"}} {
		if out, err := exec.Command(args[0], append(args[1:], dir)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
}

// TestKernel lets Linux read what was made, then write, and reads that.
func TestKernel(t *testing.T) {
	for name, creator := range creators {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "drive.raw")
			m := newMakerFor(t, image, creator, 256*units.MiB, 4000)
			p := plant(t, m, 42)
			if err := m.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			dir := mount(t, image)
			compareSamples(t, p.sorted(), hostTree(t, dir))
			for _, cmd := range []string{
				"rm -rf deep many", "mkdir new; seq 100000 >new/numbers", "echo more >>'13 blocks'",
				"cp --sparse=always 'holes at both ends' copy", "ln zeros new/name", "ln -s " + strings.Repeat("y", 300) + " new/link",
				"mkfifo new/pipe", "touch -d @1234567890 new/numbers", "truncate -s 5000 '12 blocks'",
			} {
				shell := exec.Command("sh", "-ec", cmd)
				shell.Dir = dir
				if out, err := shell.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", cmd, err, out)
				}
			}
			want := hostTree(t, dir)
			unmount(t, dir)
			f := openFS(t, image, Partition{Size: 256 * units.MiB})
			if sb, err := f.Superblock(); err != nil || !sb.Clean {
				t.Errorf("after unmounting: %+v, %v", sb, err)
			}
			if err := f.Check(t.Context()); err != nil {
				t.Error(err)
			}
			compareSamples(t, want, collect(t, f))
		})
	}
}

// TestWalkFindsWhatMke2fsMade compares Walk with the directory that another
// program made the file system of.
func TestWalkFindsWhatMke2fsMade(t *testing.T) {
	root := sampleTree(t)
	if err := os.Link(filepath.Join(root, "one"), filepath.Join(root, "dir/same")); err != nil {
		t.Fatal(err)
	}
	for _, fl := range flavours {
		t.Run(fl.name, func(t *testing.T) {
			image, part := makeFS(t, fl.args, root, 24*units.MiB)
			got := collect(t, openFS(t, image, part))
			want := hostTree(t, root)
			want[0], got[0] = sample{}, sample{} // mke2fs has its own ideas of the root
			compareSamples(t, want, got)
		})
	}
}
