package ext2

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestEditsTakeNoTime edits, repairs and grows a file system that was last used
// long ago: what has been written says so, whenever it is done. Whoever makes
// the same edits gets the same bytes.
func TestEditsTakeNoTime(t *testing.T) {
	tools(t, "mke2fs", "debugfs", "e2fsck", "resize2fs", "dumpe2fs")
	root := sampleTree(t)
	const then = "1000000000" // 2001-09-09
	for _, fl := range flavours {
		t.Run(fl.name, func(t *testing.T) {
			t.Setenv("E2FSPROGS_FAKE_TIME", then) // for the programs of the test: ours get none of our environment
			image, part := makeFS(t, fl.args, root, 24*units.MiB)
			before, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			f := openFS(t, image, part)
			commit(t, f, write("/newfile", "data", rootFile))
			if _, err := f.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			stat := debugfs(t, f, "stat /newfile")
			for _, line := range strings.Split(stat, "\n") {
				if strings.Contains(line, "time:") && !strings.Contains(line, "2001") && !strings.Contains(line, "crtime") {
					t.Errorf("the file that was written says %q", line)
				}
			}
			out := tool(t, "dumpe2fs", "-h", f.target())
			for _, field := range []string{"Last write time", "Last checked"} {
				for _, line := range strings.Split(out, "\n") {
					if strings.HasPrefix(line, field) && !strings.Contains(line, "2001") {
						t.Errorf("the file system says %q", line)
					}
				}
			}
			got, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(image, before, 0o600); err != nil {
				t.Fatal(err)
			}
			f = openFS(t, image, part)
			commit(t, f, write("/newfile", "data", rootFile))
			if _, err := f.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			again, err := os.ReadFile(image)
			if err != nil || !bytes.Equal(got, again) {
				t.Errorf("the same edits gave other bytes (%v)", err)
			}
		})
	}
}
