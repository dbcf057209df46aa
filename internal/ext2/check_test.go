package ext2

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestCheckAndRepair(t *testing.T) {
	tools(t, "mke2fs", "debugfs", "e2fsck")
	for name, tc := range map[string]struct {
		flavour string
		damage  []string
		dirty   bool   // the superblock tells
		says    string // what e2fsck says it did
	}{
		"clean":               {flavour: "hurd"},
		"not unmounted":       {flavour: "hurd", damage: []string{"ssv state 0"}, dirty: true},
		"errors seen":         {flavour: "hurd", damage: []string{"ssv state 3"}, dirty: true},
		"journal":             {flavour: "ext4", damage: []string{"feature needs_recovery"}, dirty: true},
		"wrong counts":        {flavour: "hurd", damage: []string{"set_bg 0 free_blocks_count 7"}, says: "Free blocks count wrong for group #0 ("},
		"zero dtime":          {flavour: "ext2-1k", damage: []string{"sif /one links_count 0", "sif /one dtime 0", "unlink /one"}, says: "Deleted inode 13 has zero dtime"},
		"a lost file":         {flavour: "hurd", damage: []string{"unlink /one"}, says: "Unattached inode"},
		"wrong and unmounted": {flavour: "hurd", damage: []string{"ssv state 0", "unlink /one"}, dirty: true, says: "Unattached inode"},
	} {
		t.Run(name, func(t *testing.T) {
			image, part := makeFS(t, flavour(t, tc.flavour), smallTree(t), 24*units.MiB)
			f := openFS(t, image, part)
			if len(tc.damage) > 0 {
				damage(t, f, tc.damage...)
			}
			sb, err := f.Superblock()
			if err != nil || sb.Clean == tc.dirty {
				t.Errorf("clean is %v, %v", sb.Clean, err)
			}
			err = f.Check(t.Context())
			var check *CheckError
			if errors.As(err, &check) != (tc.says != "") {
				t.Errorf("check: %v", err)
			}
			did, err := f.Repair(t.Context())
			if err != nil {
				t.Error(err)
			}
			said := strings.Join(did, "\n")
			if name == "zero dtime" {
				said = strings.Join(strings.FieldsFunc(said, func(r rune) bool { return r >= '0' && r <= '9' }), "13")
			}
			if tc.says != "" && !strings.Contains(said, tc.says) || !tc.dirty && tc.says == "" && did != nil {
				t.Errorf("repair did %q, want %q", did, tc.says)
			}
			if sb, err := f.Superblock(); err != nil || !sb.Clean {
				t.Errorf("after the repair: %+v, %v", sb, err)
			}
			if err := f.Check(t.Context()); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			if did, err := f.Repair(t.Context()); err != nil || did != nil {
				t.Errorf("the second repair did %q, %v", did, err)
			}
		})
	}
}

func TestFsckFailures(t *testing.T) {
	tools(t, "mke2fs")
	image, part := makeFS(t, flavour(t, "hurd"), "", 4*units.MiB)
	f := openFS(t, image, part)
	for name, tc := range map[string]struct{ script, check, repair string }{
		"errors left": {
			"echo 'e2fsck 1.47.0 (5-Feb-2023)' >&2; echo 'Pass 1: Checking'; for i in 1 2 3 4 5 6 7; do echo \"wrong $i\"; done; exit 4",
			"checking partition 1 (type 83, 4 MiB at 1M): e2fsck found the file system damaged: wrong 1; wrong 2; wrong 3; wrong 4; wrong 5; and 2 more lines",
			"repairing partition 1 (type 83, 4 MiB at 1M): e2fsck found the file system damaged: wrong 1; wrong 2",
		},
		"does not work": {"echo 'out of memory' >&2; exit 8", "e2fsck: exit status 8: out of memory", "e2fsck: exit status 8: out of memory"},
		"killed":        {"kill -9 $$", "e2fsck: signal: killed", "e2fsck: signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			stubTool(t, "e2fsck", tc.script)
			if err := f.Check(t.Context()); err == nil || !strings.Contains(err.Error(), tc.check) {
				t.Errorf("check: %v, want %q", err, tc.check)
			}
			if _, err := f.Repair(t.Context()); err == nil || !strings.Contains(err.Error(), tc.repair) {
				t.Errorf("repair: %v, want %q", err, tc.repair)
			}
		})
	}
	t.Run("endless output", func(t *testing.T) {
		stubTool(t, "e2fsck", "yes wrong | head -c 20000000; exit 4")
		var check *CheckError
		if err := f.Check(t.Context()); !errors.As(err, &check) || len(check.Problems) > toolOutputLimit/6+1 {
			t.Errorf("%.200v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		stubTool(t, "e2fsck", "exec sleep 1000")
		cause := errors.New("stopped by the user")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		var failed *process.Error
		if err := f.Check(ctx); !errors.Is(err, cause) || !errors.As(err, &failed) {
			t.Errorf("%v", err)
		}
	})
}

func TestRemarks(t *testing.T) {
	got := remarks("e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\nInode 12 is odd.  Fix? yes\n\n" +
		"disk.raw: ***** FILE SYSTEM WAS MODIFIED *****\ndisk.raw: 12/16128 files (0.0% non-contiguous), 680/16128 blocks\n")
	if want := []string{"Inode 12 is odd.  Fix? yes"}; !slices.Equal(got, want) {
		t.Errorf("remarks %q, want %q", got, want)
	}
}
