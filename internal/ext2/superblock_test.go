package ext2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestReadSuperblock(t *testing.T) {
	tools(t, "mke2fs", "dumpe2fs")
	args := append([]string{"-L", "a label", "-U", "41bea907-da2e-4747-b848-8a2af4ce43bf", "-N", "256"}, flavour(t, "hurd")...)
	image, part := makeFS(t, args, "", 8*units.MiB)
	f := openFS(t, image, part)
	sb, err := f.Superblock()
	if err != nil {
		t.Fatal(err)
	}
	if sb.UUID != "41bea907-da2e-4747-b848-8a2af4ce43bf" || sb.Label != "a label" || sb.Creator != OSHurd ||
		sb.BlockSize != 4*units.KiB || sb.Blocks != 2048 || sb.Inodes != 256 || !sb.Clean || sb.NeedsRecovery {
		t.Errorf("%+v", sb)
	}
	// The other opinion.
	out := tool(t, "dumpe2fs", "-h", f.target())
	for label, value := range map[string]uint64{"Free blocks:": sb.FreeBlocks, "Free inodes:": uint64(sb.FreeInodes), "Inode size:": uint64(sb.inodeSize)} {
		_, rest, _ := strings.Cut(out, label)
		line, _, _ := strings.Cut(rest, "\n")
		if strings.TrimSpace(line) != itoa(value) {
			t.Errorf("dumpe2fs says %s %s, we %d", label, line, value)
		}
	}
}

func itoa(n uint64) string {
	return strings.TrimLeft(string([]byte{byte('0' + n/10000%10), byte('0' + n/1000%10), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)}), "0")
}

func TestSuperblockNonsense(t *testing.T) {
	tools(t, "mke2fs")
	image, _ := makeFS(t, flavour(t, "ext4"), "", 8*units.MiB)
	good, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	good = good[fsStart:][:4096]
	put := func(at int, value uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[superOffset+at:], value) }
	}
	for name, spoil := range map[string]func([]byte){
		"magic":            put(56, 0),
		"block size":       put(24, 40),
		"blocks per group": put(32, 0),
		"inodes per group": put(40, 0),
		"many inodes":      put(40, 1<<31),
		"inode size":       put(88, 100),
		"no blocks":        func(b []byte) { put(4, 0)(b); put(336, 0)(b) },
		"no inodes":        put(0, 0),
		"endless":          put(336, 1<<31),
		"descriptor size":  put(252, 1<<16),
		"first block":      put(20, 77),
	} {
		b := bytes.Clone(good)
		spoil(b)
		if sb, err := ReadSuperblock(bytes.NewReader(b), 0); !errors.Is(err, ErrNotExt2) {
			t.Errorf("%s: %+v, %v", name, sb, err)
		}
	}
	if sb, err := ReadSuperblock(bytes.NewReader(good), 0); err != nil {
		t.Errorf("the good one: %+v, %v", sb, err)
	}
	if _, err := ReadSuperblock(bytes.NewReader(good[:1500]), 0); !errors.Is(err, ErrNotExt2) {
		t.Errorf("a short one: %v", err)
	}
}

// TestUnknownFeatures makes sure that data is not looked for in wrong places.
func TestUnknownFeatures(t *testing.T) {
	tools(t, "mke2fs", "debugfs")
	image, part := makeFS(t, flavour(t, "hurd"), "", 8*units.MiB)
	f := openFS(t, image, part)
	damage(t, f, "feature meta_bg")
	if _, err := Open(image, part); err == nil || !strings.Contains(err.Error(), "features that are not supported (incompat bits 0x10)") {
		t.Errorf("%v", err)
	}
	if _, err := f.Stat("/"); err == nil {
		t.Error("an open file system is read on")
	}
}
