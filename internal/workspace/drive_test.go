package workspace

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// newDrive makes a drive of a directory.
func newDrive(t testing.TB, tree *Tree, o DriveOptions) string {
	t.Helper()
	tools(t, "mke2fs", "e2fsck", "debugfs")
	if o.Size == 0 {
		o.Size = 2 * units.GiB
	}
	o.UUID = guestUUID
	file := filepath.Join(t.TempDir(), "drive")
	must(t, MakeDrive(t.Context(), file, tree, o))
	return file
}

// fetch brings everything on a drive into a directory.
func fetch(t testing.TB, file, dir string) Result {
	t.Helper()
	d, err := OpenDrive(file)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	all, err := ParseCopyBack("all")
	must(t, err)
	c, err := Compare(t.Context(), scanned(t, dir, Filter{}), d, Options{Back: all})
	must(t, err)
	result, err := c.Apply(t.Context(), d)
	must(t, err)
	return result
}

// TestDriveRoundTrip: any tree comes through a drive as it was, made for
// either system.
func TestDriveRoundTrip(t *testing.T) {
	for name, linux := range map[string]bool{"Hurd": false, "Linux": true} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				host, again := t.TempDir(), t.TempDir()
				randomTree(t, host, rand.New(rand.NewPCG(seed, 2)), 600)
				sparseFile(t, filepath.Join(host, "sparse"), 1<<30, 30)
				tree := scanned(t, host, Filter{})
				file := newDrive(t, tree, DriveOptions{Linux: linux, Owner: Owner{1234, 70000}})
				own(t, again)
				fetch(t, file, again)
				want, got := picture(t, host), picture(t, again)
				if os.Geteuid() == 0 {
					want = owned(want, "77:88")
				}
				delete(want, ".")
				delete(got, ".")
				same(t, got, want)
				if a := allocated(t, filepath.Join(again, "sparse")); a > 1<<20 {
					t.Errorf("the sparse file takes %d bytes on the host", a)
				}
			}
		})
	}
}

// TestDriveIsFoundAndMadeForItsGuest holds what the Hurd's ext2fs insists on,
// and how attach.sh finds the drive. It fails for a Hurd that gets Linux's.
func TestDriveIsFoundAndMadeForItsGuest(t *testing.T) {
	for system, linux := range map[string]bool{"Hurd": false, "Linux": true} {
		host := t.TempDir()
		fill(t, host, "a")
		file := newDrive(t, scanned(t, host, Filter{}), DriveOptions{Linux: linux, Owner: Owner{7, 8}})
		out, err := exec.Command("dumpe2fs", "-h", file).Output()
		must(t, err)
		for field, want := range map[string]string{
			"Filesystem OS type": system, "Block size": "4096", "Filesystem UUID": "0011e500-0000-0000-0000-0000000000ff", "Filesystem state": "clean",
			"Inode size": map[bool]string{false: "128", true: "256"}[linux],
		} {
			if !hasField(string(out), field, want) {
				t.Errorf("%s: %s is not %q:\n%s", system, field, want, out)
			}
		}
		w := newFakeGuest(t, map[bool]string{false: "GNU", true: "Linux"}[linux], nil)
		must(t, os.Rename(file, filepath.Join(w.dev, map[bool]string{false: "hd1", true: "sdb"}[linux])))
		if text, status := w.run(Attach(guestUUID)); status != 0 {
			t.Errorf("%s: the guest does not find it: %s", system, text)
		}
	}
}

func hasField(text, field, want string) bool {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == field {
			return strings.TrimSpace(value) == want
		}
	}
	return false
}

// TestDriveChanges has a guest change the drive, by debugfs, and only what it
// changed comes back.
func TestDriveChanges(t *testing.T) {
	host := t.TempDir()
	fill(t, host, "same", "changed", "gone", "dir/deep")
	tree := scanned(t, host, Filter{})
	file := newDrive(t, tree, DriveOptions{})
	content := filepath.Join(t.TempDir(), "content")
	must(t, os.WriteFile(content, []byte("CHANGED"), 0o644)) // as long as it was
	info, err := os.Stat(filepath.Join(host, "changed"))
	must(t, err)
	commands := "rm gone\nrm changed\nwrite " + content + " changed\nwrite " + content + " new\n" +
		"sif changed mtime @" + strconv.FormatInt(info.ModTime().Unix(), 10) + "\nsif changed ctime @" + strconv.FormatInt(time.Now().Unix()+100, 10) + "\n"
	cmd := exec.Command("debugfs", "-w", "-f", "-", file)
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	must(t, err)
	d, err := OpenDrive(file)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	c, err := Compare(t.Context(), tree, d, Options{Delete: true})
	must(t, err)
	if c.New != 1 || c.Changed != 1 || len(c.Deleted) != 1 {
		t.Fatalf("%d new, %d changed, %q deleted; debugfs said\n%s", c.New, c.Changed, c.Deleted, out)
	}
	result, err := c.Apply(t.Context(), d)
	must(t, err)
	if result.Files != 2 || result.Deleted != 1 {
		t.Errorf("%+v", result)
	}
	for name, want := range map[string]string{"same": "same", "changed": "CHANGED", "new": "CHANGED", "dir/deep": "dir/deep"} {
		if text, err := os.ReadFile(filepath.Join(host, name)); err != nil || string(text) != want {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
}

// TestDriveOfALostGuest reads a drive that nobody has let go of.
func TestDriveOfALostGuest(t *testing.T) {
	host := t.TempDir()
	fill(t, host, "a", "b")
	tree := scanned(t, host, Filter{})
	file := newDrive(t, tree, DriveOptions{})
	must(t, exec.Command("debugfs", "-w", "-R", "ssv state 0", file).Run())
	must(t, exec.Command("debugfs", "-w", "-R", "clri b", file).Run())
	d, err := OpenDrive(file)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	if clean, err := d.Clean(); clean || err != nil {
		t.Errorf("clean: %v, %v", clean, err)
	}
	lines, err := d.Repair(t.Context())
	if err != nil || len(lines) == 0 {
		t.Errorf("repaired %q, %v", lines, err)
	}
	again := t.TempDir()
	c, err := Compare(t.Context(), scanned(t, again, Filter{}), d, Options{})
	must(t, err)
	_, err = c.Apply(t.Context(), d)
	must(t, err)
	if text, err := os.ReadFile(filepath.Join(again, "a")); err != nil || string(text) != "a" {
		t.Errorf("a holds %q, %v", text, err)
	}
}

func TestDriveThatIsTooSmall(t *testing.T) {
	tools(t, "mke2fs", "e2fsck")
	host := t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "large"), make([]byte, 1<<20), 0o644))
	data := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	must(t, os.WriteFile(filepath.Join(host, "large"), data, 0o644))
	file := filepath.Join(t.TempDir(), "drive")
	err := MakeDrive(t.Context(), file, scanned(t, host, Filter{}), DriveOptions{Size: 4 * units.MiB, UUID: guestUUID})
	var size *DriveSizeError
	if !errors.As(err, &size) || size.Size != 4*units.MiB || size.Need < 8*units.MiB || size.Need > 10*units.MiB {
		t.Errorf("err = %v (%+v)", err, size)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}
