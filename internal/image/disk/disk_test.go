package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

func qemuImg(t testing.TB, arg ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatal("the program qemu-img is missing")
		}
		t.Skip("the program qemu-img is missing")
	}
	if _, err := process.Output(t.Context(), "qemu-img", arg...); err != nil {
		t.Fatal(err)
	}
}

// made returns an image of 16 MiB that qemu-img made.
func made(t testing.TB, format Format, options string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	arg := []string{"create", "-q", "-f", string(format)}
	if options != "" {
		arg = append(arg, "-o", options)
	}
	qemuImg(t, append(arg, path, "16M")...)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// patched changes bytes of a copy.
func patched(data []byte, at int, p ...byte) []byte {
	data = bytes.Clone(data)
	copy(data[at:], p)
	return data
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// mbr makes a raw disk of a size with one partition.
func mbr(size int, start, sectors uint32) []byte {
	d := make([]byte, size)
	d[510], d[511] = 0x55, 0xaa
	e := d[446:]
	e[0], e[4] = 0x80, 0x83
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], sectors)
	return d
}

func TestInspect(t *testing.T) {
	bootCode := bytes.Repeat([]byte{0xeb}, 64<<10)
	bootCode[510], bootCode[511] = 0x55, 0xaa
	protective := mbr(1<<20, 1, 0xffffffff)
	protective[450] = gptType
	ext2 := mbr(1<<20, 2048, 1<<30)
	ext2[ext2Magic], ext2[ext2Magic+1] = 0x53, 0xef
	for name, tc := range map[string]struct {
		data []byte
		want Info
	}{
		"qcow2":           {made(t, QCOW2, ""), Info{QCOW2, 16 * units.MiB}},
		"qcow2 version 2": {made(t, QCOW2, "compat=0.10"), Info{QCOW2, 16 * units.MiB}},
		"qcow2 zstd":      {made(t, QCOW2, "compression_type=zstd"), Info{QCOW2, 16 * units.MiB}},
		"qcow2 subs":      {made(t, QCOW2, "extended_l2=on"), Info{QCOW2, 16 * units.MiB}},
		"vmdk":            {made(t, VMDK, ""), Info{VMDK, 16 * units.MiB}},
		"vmdk stream":     {made(t, VMDK, "subformat=streamOptimized"), Info{VMDK, 16 * units.MiB}},
		"vdi":             {made(t, VDI, ""), Info{VDI, 16 * units.MiB}},
		"raw":             {mbr(1<<20, 1, 2047), Info{Raw, units.MiB}},
		"zeros":           {make([]byte, 1<<20), Info{Raw, units.MiB}},
		"boot code":       {bootCode, Info{Raw, 64 * units.KiB}},
		"GPT":             {protective, Info{Raw, units.MiB}},
		"bare ext2":       {ext2, Info{Raw, units.MiB}},
	} {
		got, err := Inspect(bytes.NewReader(tc.data), units.Bytes(len(tc.data)))
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
}

func TestRefused(t *testing.T) {
	qcow2, vmdk, vdi := made(t, QCOW2, ""), made(t, VMDK, ""), made(t, VDI, "")
	withBacking := patched(qcow2, 8, be64(1024)...)
	withBacking = patched(withBacking, 16, be32(11)...)
	withBacking = patched(withBacking, 1024, []byte("/etc/shadow")...)
	headerLength := int(binary.BigEndian.Uint32(qcow2[100:])) // after it the extensions begin
	withDataName := patched(qcow2, headerLength, append(append(be32(0x44415441), be32(11)...), "/etc/shadow\x00"...)...)
	parent := bytes.Replace(vmdk, []byte("# The Disk Data Base"), []byte("parentFileNameHint=x"), 1)
	for _, tc := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"empty", nil, ErrNotDisk, "the file is empty"},
		{"backing file", withBacking, ErrForeignFile, `its backing file is "/etc/shadow"; make it stand alone with qemu-img convert -O qcow2`},
		{"data file bit", patched(qcow2, 72, be64(1<<2)...), ErrForeignFile, "external data file"},
		{"data file name", withDataName, ErrForeignFile, `its external data file is "/etc/shadow"`},
		{"marked corrupt", patched(qcow2, 72, be64(1<<1)...), ErrCorrupt, "marked corrupt; repair it with qemu-img check -r all"},
		{"unknown features", patched(qcow2, 72, be64(1<<9)...), ErrUnsupported, "unknown qcow2 features 0x200"},
		{"encrypted", patched(qcow2, 32, be32(1)...), ErrUnsupported, "encrypted (method 1)"},
		{"qcow2 version 4", patched(qcow2, 4, be32(4)...), ErrUnsupported, "qcow2 version 4"},
		{"qcow 1", patched(qcow2, 4, be32(1)...), ErrUnsupported, "a qcow (version 1) image; convert it"},
		{"endless qcow2", patched(qcow2, 24, be64(1<<60)...), ErrCorrupt, "claims a disk of 1152921504606846976 bytes (at most 8 TiB is possible)"},
		{"empty qcow2", patched(qcow2, 24, be64(0)...), ErrCorrupt, "claims a disk of 0 bytes"},
		{"qcow2 cut", qcow2[:50], ErrTruncated, "within its qcow2 header (50 bytes)"},
		{"qcow2 v3 cut", qcow2[:80], ErrTruncated, "within its qcow2 header (80 bytes)"},
		{"vmdk parent", parent, ErrForeignFile, "the VMDK has a parent"},
		{"vmdk extents", patched(vmdk, 12, le64(0)...), ErrForeignFile, "extents are in other files"},
		{"vmdk huge", patched(vmdk, 12, le64(1<<60)...), ErrCorrupt, "claims 1152921504606846976 sectors"},
		{"vmdk descriptor", []byte("# Disk DescriptorFile\nversion=1\n"), ErrUnsupported, "whose data is in other files"},
		{"vmdk cut", vmdk[:100], ErrTruncated, "within its VMDK header"},
		{"vdi differencing", patched(vdi, 76, 4, 0, 0, 0), ErrForeignFile, "a VDI image of type 4 depends on another one"},
		{"vdi version", patched(vdi, 68, 9, 0, 0, 0), ErrUnsupported, "VDI version 0x9"},
		{"vdi cut", vdi[:100], ErrTruncated, "within its VDI header"},
		{"vhdx", []byte("vhdxfile"), ErrUnsupported, "a VHDX image; convert it with qemu-img convert -O qcow2"},
		{"web page", []byte("\n<!DOCTYPE html><title>x</title>"), ErrNotDisk, "it is a web page"},
		{"text", []byte("404: Not Found\n"), ErrNotDisk, "it is a text file"},
		{"program", []byte("\x7fELF\x02\x01"), ErrNotDisk, "a program (ELF)"},
		{"odd size", make([]byte, 1000), ErrTruncated, "1000 bytes is no multiple of the sector size 512"},
		{"cut disk", mbr(1<<20, 1, 2048), ErrTruncated, "partition 1 ends at byte 1049088, but the file has 1048576 bytes"},
	} {
		_, err := Inspect(bytes.NewReader(tc.data), units.Bytes(len(tc.data)))
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: error %q, want %q with %q", tc.name, err, tc.want, tc.says)
		}
	}
}

// TestQEMUWouldFollow holds that the refusals are not for nothing: what is
// refused here, qemu-img does open.
func TestQEMUWouldFollow(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, mbr(1<<20, 1, 2047), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, arg := range map[string][]string{
		"backing": {"create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw"},
		"data":    {"create", "-q", "-f", "qcow2", "-o", "data_file=" + secret + ",data_file_raw=on"},
		"extent":  {"create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"},
	} {
		path := filepath.Join(dir, name)
		if name != "backing" {
			arg = append(arg, path, "1M")
		} else {
			arg = append(arg, path)
		}
		qemuImg(t, arg...)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(bytes.NewReader(data), units.Bytes(len(data))); !errors.Is(err, ErrForeignFile) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: Inspect = %v, want a refusal", name, err)
		}
	}
}

func TestLooksLike(t *testing.T) {
	for name, tc := range map[string]struct {
		head []byte
		want bool
	}{
		"qcow2":       {[]byte("QFI\xfb\x00\x00\x00\x03"), true},
		"vhdx":        {[]byte("vhdxfile"), true},
		"boot sector": {mbr(4096, 1, 1)[:SniffLen], true},
		"ext2":        {patched(make([]byte, SniffLen), ext2Magic, 0x53, 0xef), true},
		"zeros":       {make([]byte, SniffLen), false},
		"gzip":        {[]byte("\x1f\x8b\x08"), false},
		"text":        {[]byte("README"), false},
		"nothing":     {nil, false},
	} {
		if got := LooksLike(tc.head); got != tc.want {
			t.Errorf("LooksLike(%s) = %v", name, got)
		}
	}
}

func TestTools(t *testing.T) {
	dir := t.TempDir()
	raw, qcow2 := filepath.Join(dir, "a.raw"), filepath.Join(dir, "a.qcow2")
	want := mbr(8<<20, 1, 2047)
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	var tools Tools
	if err := tools.Check(t.Context(), qcow2, QCOW2); err != nil {
		t.Error(err)
	}
	back := filepath.Join(dir, "b.raw")
	if err := tools.Convert(t.Context(), qcow2, QCOW2, back); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("converted back it differs: %v", err)
	}
}

func TestToolsFail(t *testing.T) {
	dir := t.TempDir()
	cut, broken := filepath.Join(dir, "cut.qcow2"), filepath.Join(dir, "broken.qcow2")
	full := filepath.Join(dir, "full.raw")
	if err := os.WriteFile(full, bytes.Repeat([]byte("x"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", full, cut)
	data, err := os.ReadFile(cut)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(cut, data[:len(data)/2], 0o600), os.WriteFile(broken, data[:512], 0o600)); err != nil {
		t.Fatal(err)
	}
	var tools Tools
	for _, path := range []string{cut, broken} {
		if err := tools.Check(t.Context(), path, QCOW2); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Check(%s) = %v, want ErrCorrupt", filepath.Base(path), err)
		}
	}
	none := Tools{QEMUImg: "no-such-qemu-img"}
	if err := none.Check(t.Context(), cut, QCOW2); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without qemu-img: %v", err)
	}
	if err := none.Check(t.Context(), full, Raw); err != nil {
		t.Errorf("a raw image needs no check: %v", err)
	}
}

// FuzzInspect holds that no header makes Inspect accept a size that is not
// possible, or an image with another file's name where qcow2 has it.
func FuzzInspect(f *testing.F) {
	for _, seed := range [][]byte{made(f, QCOW2, "")[:4096], made(f, VMDK, "")[:4096], made(f, VDI, "")[:1024], mbr(4096, 1, 7), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := Inspect(bytes.NewReader(data), units.Bytes(len(data)))
		if err != nil {
			return
		}
		if info.VirtualSize <= 0 || info.VirtualSize > maxVirtual {
			t.Fatalf("accepted with a size of %d", info.VirtualSize)
		}
		if info.Format == QCOW2 && !bytes.Equal(data[8:16], make([]byte, 8)) {
			t.Fatal("accepted a qcow2 image with a backing file")
		}
	})
}

// TestStatuses holds what is made of qemu-img's exit statuses and texts.
func TestStatuses(t *testing.T) {
	for _, tc := range []struct {
		script string
		check  error // of Check
		full   bool  // whether Convert says that the disk is full
	}{
		{"exit 0", nil, false},
		{"exit 3", nil, false},  // leaks
		{"exit 63", nil, false}, // the format has no check
		{"exit 2", ErrCorrupt, false},
		{"echo 'qemu-img: error while writing at byte 0: No space left on device' >&2; exit 1", ErrCorrupt, true},
	} {
		program := filepath.Join(t.TempDir(), "qemu-img")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		tools := Tools{QEMUImg: program}
		if err := tools.Check(t.Context(), "x", QCOW2); !errors.Is(err, tc.check) {
			t.Errorf("%s: Check = %v, want %v", tc.script, err, tc.check)
		}
		if err := tools.Convert(t.Context(), "x", QCOW2, "y"); errors.Is(err, unix.ENOSPC) != tc.full || (err == nil) != (tc.script == "exit 0") {
			t.Errorf("%s: Convert = %v", tc.script, err)
		}
	}
	killed := filepath.Join(t.TempDir(), "qemu-img")
	if err := os.WriteFile(killed, []byte("#!/bin/sh\nkill -9 $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Tools{QEMUImg: killed}).Check(t.Context(), "x", QCOW2); err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "checking the disk image: ") {
		t.Errorf("a killed qemu-img says nothing about the image: %v", err)
	}
}
