package ext2

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// diskWith puts a Hurd's file system into one partition of a table.
func diskWith(t *testing.T, table blankDisk, p Partition) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(image, table, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.Size > 0 {
		mkfsAt(t, image, flavour(t, "hurd"), smallTree(t), p.Start, p.Size)
	}
	return image
}

func find(t *testing.T, image string, number int) Partition {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Partitions(file, units.Bytes(stat.Size()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if p.Number == number {
			return p
		}
	}
	t.Fatalf("no partition %d in %v", number, parts)
	return Partition{}
}

func TestGrow(t *testing.T) {
	tools(t, "mke2fs", "debugfs", "e2fsck", "resize2fs")
	const size = 24 * units.MiB
	sectors := uint32(size / sectorSize)
	far := uint32(160*units.MiB) / sectorSize // where resize2fs would cut off bitmaps
	for name, tc := range map[string]struct {
		table  blankDisk
		number int
	}{
		"far from the beginning": {newDisk(184*units.MiB).slot(0, 1, 0x83, far, 24*mib), 2},
		"no table":               {newDisk(size), 0},
		"primary":                {newDisk(size).slot(0, 0, 0x82, mib, mib).slot(0, 1, 0x83, 2*mib, sectors-2*mib), 2},
		"logical": {newDisk(size).slot(0, 0, 0x82, mib, mib).slot(0, 1, 0x05, 2*mib, sectors-2*mib).
			slot(2*mib, 0, 0x83, 8, sectors-2*mib-8), 5},
		"second logical": {newDisk(size).slot(0, 1, 0x05, mib, sectors-mib).slot(mib, 0, 0x82, 8, mib-8).
			slot(mib, 1, 0x05, mib, sectors-2*mib).slot(2*mib, 0, 0x83, 8, sectors-2*mib-8), 6},
	} {
		t.Run(name, func(t *testing.T) {
			before := Partition{Size: size}
			if tc.number != 0 {
				image := diskWith(t, tc.table, Partition{})
				before = find(t, image, tc.number)
			}
			image := diskWith(t, tc.table, before)
			want, err := openFS(t, image, before).ReadFile("/large")
			if err != nil {
				t.Fatal(err)
			}
			after, err := Grow(t.Context(), image, before, 500*units.MiB+5)
			if err != nil {
				t.Fatal(err)
			}
			if tc.number != 0 && after != find(t, image, tc.number) || after.Start != before.Start || after.Start+after.Size != 500*units.MiB {
				t.Errorf("from %#v to %#v, found %#v", before, after, find(t, image, tc.number))
			}
			f := openFS(t, image, after)
			sb, err := f.Superblock()
			if err != nil || sb.Size() != after.Size || sb.Creator != OSHurd || !sb.Clean {
				t.Errorf("the file system has %s, %v", sb.Size(), err)
			}
			if err := f.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if got, err := f.ReadFile("/large"); err != nil || !bytes.Equal(got, want) {
				t.Errorf("a file has changed (%v)", err)
			}
			same, err := Grow(t.Context(), image, after, 200*units.MiB)
			if err != nil || same != after {
				t.Errorf("growing to less: %v, %v", same, err)
			}
		})
	}
}

func TestGrowRefuses(t *testing.T) {
	tools(t, "mke2fs", "e2fsck", "resize2fs")
	const size = 32 * units.MiB
	sectors := uint32(size / sectorSize)
	for name, tc := range map[string]struct {
		table blankDisk
		part  Partition
		want  string
	}{
		"another behind it": {
			newDisk(size).slot(0, 0, 0x83, mib, sectors-2*mib).slot(0, 1, 0x82, sectors-mib, mib),
			part(1, mib, units.Bytes(sectors-2*mib), "83"), "cannot grow: partition 2 (type 82, 1 MiB at 31M) lies behind it",
		},
		"an extended one behind it": {
			newDisk(size).slot(0, 0, 0x83, mib, sectors-2*mib).slot(0, 1, 0x05, sectors-mib, mib),
			part(1, mib, units.Bytes(sectors-2*mib), "83"), "an extended partition lies behind it",
		},
		"not in the table": {
			newDisk(size).slot(0, 0, 0x82, mib, 1), part(2, mib, units.Bytes(sectors-mib), "83"), "the image has no such partition",
		},
		"by too little": {
			newDisk(size).slot(0, 0, 0x83, 2*mib, sectors-2*mib), part(1, 2*mib, units.Bytes(sectors-2*mib), "83"),
			"by less than 2M, which is where it begins: ask for at least 34M",
		},
		"gpt": {nil, Partition{}, "growing a GPT is not supported"},
		"too large for an mbr": {
			newDisk(size).slot(0, 0, 0x83, mib, sectors-mib), part(1, mib, units.Bytes(sectors-mib), "83"), "an MBR can't describe 3 TiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := 64 * units.MiB
			if name == "by too little" {
				target = 33 * units.MiB
			}
			if name == "too large for an mbr" {
				target = 3 * units.TiB
			}
			if tc.table == nil {
				tc.table = gptDisk(t)
				parts, err := tc.table.partitions()
				if err != nil {
					t.Fatal(err)
				}
				tc.part = parts[1]
				image := filepath.Join(t.TempDir(), "disk.raw")
				if err := os.WriteFile(image, tc.table, 0o600); err != nil {
					t.Fatal(err)
				}
				mkfsAt(t, image, flavour(t, "hurd"), "", tc.part.Start, tc.part.Size)
				checkGrowRefused(t, image, tc.part, target, tc.want)
				return
			}
			checkGrowRefused(t, diskWith(t, tc.table, tc.part), tc.part, target, tc.want)
		})
	}
}

func checkGrowRefused(t *testing.T, image string, p Partition, size units.Bytes, want string) {
	t.Helper()
	_, err := Grow(t.Context(), image, p, size)
	if !errors.Is(err, ErrCannotGrow) || !strings.Contains(err.Error(), want) ||
		!strings.HasPrefix(err.Error(), "growing "+p.String()+" of "+image+" to "+size.String()) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestGrowProves replaces resize2fs by a program that claims success.
func TestGrowProves(t *testing.T) {
	tools(t, "mke2fs", "e2fsck")
	image := diskWith(t, newDisk(24*units.MiB), Partition{Size: 24 * units.MiB})
	stubTool(t, "resize2fs", "exit 0")
	_, err := Grow(t.Context(), image, Partition{Size: 24 * units.MiB}, 300*units.MiB)
	if err == nil || !strings.Contains(err.Error(), "resize2fs left the file system at 24 MiB") {
		t.Errorf("%v", err)
	}
}
