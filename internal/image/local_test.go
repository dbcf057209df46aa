package image

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("the program %s is missing", program)
		}
		t.Skipf("the program %s is missing", program)
	}
}

func file(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// converted makes an image of a format from a raw disk.
func converted(t testing.TB, format Format, raw []byte) string {
	t.Helper()
	needs(t, "qemu-img")
	src, dst := file(t, "disk.raw", raw), filepath.Join(t.TempDir(), "disk."+string(format))
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", string(format), src, dst).CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	return dst
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s := &Store{Dir: filepath.Join(t.TempDir(), "store")}
	t.Cleanup(func() { tidy(t, s) })
	return s
}

func TestLocalInPlace(t *testing.T) {
	raw := rawDisk(1 << 20)
	for _, format := range []Format{Raw, QCOW2, VMDK, VDI} {
		path := converted(t, format, raw)
		renamed := strings.TrimSuffix(path, string(format)) + "img" // the name decides nothing
		if err := os.Rename(path, renamed); err != nil {
			t.Fatal(err)
		}
		s := newStore(t)
		b := mustObtain(t, s, renamed, Want{})
		if b.Path != renamed || b.Format != format || b.VirtualSize != units.MiB || b.Verified.How != Local || !strings.HasPrefix(b.Digest, "stat:") {
			t.Errorf("%s: %+v", format, b)
		}
		if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the store was made for nothing: %v", format, err)
		}
		later := time.Now().Add(time.Hour)
		if err := os.Chtimes(renamed, later, later); err != nil {
			t.Fatal(err)
		}
		if again := mustObtain(t, s, renamed, Want{}); again.Digest == b.Digest {
			t.Errorf("%s: a changed file has the same digest", format)
		}
	}
}

func TestLocalHash(t *testing.T) {
	raw := rawDisk(1 << 20)
	path := file(t, "disk.img", raw)
	s := newStore(t)
	reports := 0
	s.Progress = func(Report) { reports++ }
	for range 2 {
		b := mustObtain(t, s, path, Want{SHA512: sha2(raw)})
		if b.Digest != "sha256:"+sha(raw) || b.Verified.How != Given {
			t.Errorf("base = %+v", b)
		}
	}
	if reports != 1 {
		t.Errorf("the file was hashed with %d reports, want 1: the second time the hash is remembered", reports)
	}
	_, err := s.Obtain(t.Context(), mustParse(t, path), Want{SHA512: sha2(nil)})
	if !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), "its SHA-512 is "+sha2(raw)+", wanted is "+sha2(nil)) {
		t.Errorf("error %v", err)
	}
}

func TestLocalPacked(t *testing.T) {
	raw := rawDisk(1 << 20)
	packed := tarGz(t, "disk.img", raw)
	path := file(t, "image.tar.gz", packed)
	s := newStore(t)
	b := mustObtain(t, s, path, Want{})
	if b.Reused || b.Digest != "sha256:"+sha(packed) || b.Verified.How != Local || b.Origin != path || b.Path == path {
		t.Errorf("base = %+v", b)
	}
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the disk differs: %v", err)
	}
	if b := mustObtain(t, s, path, Want{}); !b.Reused {
		t.Error("unpacked again")
	}
	if b := mustObtain(t, s, path, Want{SHA256: sha(packed)}); !b.Reused || b.Verified.How != Given {
		t.Errorf("with a hash: %+v", b)
	}
	if _, err := s.Obtain(t.Context(), mustParse(t, path), Want{SHA256: sha(raw)}); !errors.Is(err, ErrHash) {
		t.Errorf("with a wrong hash: %v", err)
	}
	qcow2, err := os.ReadFile(converted(t, QCOW2, raw))
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := zip.NewWriter(&z)
	f, err := w.Create("a/b.qcow2")
	if err == nil {
		_, err = f.Write(qcow2)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if b := mustObtain(t, s, file(t, "image.zip", z.Bytes()), Want{}); b.Format != QCOW2 || b.VirtualSize != units.MiB {
		t.Errorf("from a zip: %+v", b)
	}
}

func TestLocalErrors(t *testing.T) {
	raw := rawDisk(1 << 20)
	backed := filepath.Join(t.TempDir(), "backed.qcow2")
	secret := file(t, "secret", raw)
	needs(t, "qemu-img")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", backed).CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	backedData, err := os.ReadFile(backed)
	if err != nil {
		t.Fatal(err)
	}
	full := converted(t, QCOW2, bytes.Repeat([]byte("full"), 1<<20))
	if err := os.Truncate(full, 2<<20); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		err  error
		says string
	}{
		{"./no-such.img", os.ErrNotExist, "no such file or directory; check the path; in a workflow the file must be in the workspace"},
		{t.TempDir(), disk.ErrNotDisk, "is a directory"},
		{"/dev/null", disk.ErrNotDisk, "/dev/null is no regular file"},
		{file(t, "empty.img", nil), disk.ErrNotDisk, "the file is empty"},
		{file(t, "disk.img", []byte("<html>")), disk.ErrNotDisk, "it is a web page; check that the address or path"},
		{backed, disk.ErrForeignFile, fmt.Sprintf("its backing file is %q; make it stand alone with qemu-img convert -O qcow2; such an image could read any file", secret)},
		{file(t, "b.tar.gz", tarGz(t, "disk.img", backedData)), disk.ErrForeignFile, "its backing file is"},
		{full, disk.ErrCorrupt, "qemu-img"},
		{file(t, "cut.tar.gz", tarGz(t, "disk.img", raw)[:1000]), unpack.ErrTruncated, "fetch or copy it again"},
	} {
		s := newStore(t)
		_, err := s.Obtain(t.Context(), mustParse(t, tc.path), Want{})
		var e *Error
		if !errors.Is(err, tc.err) || !errors.As(err, &e) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: error %v\nwant %q", tc.path, err, tc.says)
		}
	}
	s := newStore(t)
	s.Tools.QEMUImg = "no-such-qemu-img"
	if _, err := s.Obtain(t.Context(), mustParse(t, backed), Want{}); !errors.Is(err, disk.ErrForeignFile) {
		t.Errorf("the header must be looked at before qemu-img runs: %v", err)
	}
	good := converted(t, QCOW2, raw)
	if _, err := s.Obtain(t.Context(), mustParse(t, good), Want{}); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "qemu-utils") {
		t.Errorf("without qemu-img: %v", err)
	}
	if _, err := s.Obtain(t.Context(), mustParse(t, "selftest"), Want{}); err == nil || !strings.Contains(err.Error(), "this program was built without it") {
		t.Errorf("without a selftest image: %v", err)
	}
}
