package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestCreateOverlay has QEMU's own tools read what we made: its size, what lies
// below it, its tables, and the disk through it before and after a write.
func TestCreateOverlay(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "the base, of 'somebody'.raw")
	want := mbr(8<<20, 1, 2047)
	if err := os.WriteFile(base, want, 0o600); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", maxBacking-1)
	for _, tc := range []struct {
		base   string
		format Format
		size   units.Bytes
	}{
		{base, Raw, 8 * units.MiB},
		{base, Raw, 512 * units.MiB}, {base, Raw, 512*units.MiB + 512},
		{base, Raw, 4 * units.TiB}, {base, Raw, 4*units.TiB + 512}, {base, Raw, maxOverlay},
		{long, QCOW2, 16 * units.MiB},
	} {
		path := filepath.Join(t.TempDir(), "o.qcow2")
		if err := CreateOverlay(path, tc.base, tc.format, tc.size); err != nil {
			t.Fatal(err)
		}
		out, err := process.Output(t.Context(), "qemu-img", "info", "--output=json", "-f", "qcow2", path)
		if err != nil {
			t.Fatal(err)
		}
		checkOverlay(t, out, tc.base, tc.format, tc.size)
		if tc.base == base { // which can be opened
			qemuImg(t, "check", "-q", "-f", "qcow2", path)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	path := filepath.Join(dir, "o.qcow2")
	if err := CreateOverlay(path, base, Raw, 600*units.MiB); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Output(t.Context(), "qemu-io", "-c", "write -P 7 599M 64k", "-c", "write -P 9 1M 3M", path); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "check", "-q", "-f", "qcow2", path)
	back := filepath.Join(dir, "b.raw")
	if err := (Tools{}).Convert(t.Context(), path, QCOW2, back); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(back)
	if err != nil || len(got) != 600<<20 || !bytes.Equal(got[:1<<20], want[:1<<20]) || got[1<<20] != 9 || got[599<<20] != 7 || got[599<<20-1] != 0 {
		t.Errorf("through the overlay the disk has %d bytes and is not what it should be; %v", len(got), err)
	}
	same, err := os.ReadFile(base)
	if err != nil || !bytes.Equal(same, want) {
		t.Errorf("the base was changed; %v", err)
	}
}

func checkOverlay(t *testing.T, out []byte, base string, format Format, size units.Bytes) {
	t.Helper()
	var info struct {
		Virtual       units.Bytes `json:"virtual-size"`
		Cluster       int64       `json:"cluster-size"`
		Backing       string      `json:"full-backing-filename"`
		BackingFormat string      `json:"backing-filename-format"`
		Dirty         bool        `json:"dirty-flag"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	if info.Virtual != size || info.Cluster != clusterSize || info.Backing != base || info.BackingFormat != string(format) || info.Dirty {
		t.Errorf("%+v, want %d bytes on %s", info, size, base)
	}
}

func TestCreateOverlayFails(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		base string
		size units.Bytes
		want string
	}{
		"a long name":   {"/" + strings.Repeat("x", maxBacking), units.MiB, "has 1024 bytes, and 1023 are possible"},
		"no size":       {"/base", 0, "a disk can't have 0 bytes"},
		"half a sector": {"/base", 256, "a disk can't have 256 bytes"},
		"too large":     {"/base", maxOverlay + 512, "a disk can't have"},
	} {
		path := filepath.Join(dir, name)
		if err := CreateOverlay(path, tc.base, Raw, tc.size); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left behind: %v", name, err)
		}
	}
	path := filepath.Join(dir, "exists")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateOverlay(path, "/base", Raw, units.MiB); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "x" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}
