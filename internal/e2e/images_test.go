package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestE2EExport carries a disk from one job to the next: what the script of
// the first wrote is there for the second, and the keys of the first are not.
func TestE2EExport(t *testing.T) {
	needGuest(t)
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_IMAGE-OUTPUT=out/next.qcow2", "INPUT_RUN=echo built > /root/result",
	}})
	p.keep = []string{"out"}
	if status := p.wait(); status != 0 {
		t.Fatalf("exit status = %d", status)
	}
	disk := filepath.Join(p.workspace, "out/next.qcow2")
	if info, err := os.Stat(disk); err != nil || info.Size() > 64<<20 {
		t.Errorf("the disk: %v, %v", info, err)
	}
	q := start(t, setup{args: []string{
		"run", "--image", disk, "--accel=tcg", "--memory=512", "--", "cat /root/result; grep -c hurd-qemu-action$ /root/.ssh/authorized_keys",
	}})
	if status := q.wait(); status != 0 || q.stdout.String() != "built\n1\n" {
		t.Errorf("status %d, stdout %q", status, q.stdout)
	}
}

// TestE2EFromServer takes the guest through the whole way of an image: packed
// as tar.xz on a server, fetched, verified by a hash, unpacked, grown, booted.
func TestE2EFromServer(t *testing.T) {
	needGuest(t)
	dir := t.TempDir()
	script := "zstd -dq ../selftest/assets/selftest.img.zst -o $0/guest.img && XZ_OPT=-0 tar -C $0 -S -cJf $0/guest.img.tar.xz guest.img"
	if out, err := exec.Command("sh", "-c", script, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	archive, err := os.ReadFile(filepath.Join(dir, "guest.img.tar.xz"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	cache := t.TempDir()
	args := []string{
		"run", "--image", server.URL + "/guest.img.tar.xz", "--image-sha256", hex.EncodeToString(sum[:]), "--cache-dir", cache,
		"--disk-size=1G", "--accel=tcg", "--memory=512", "--", "df -m / | awk 'NR == 2 && $2 > 800 {print \"grown\"}'",
	}
	p := start(t, setup{args: args})
	if status := p.wait(); status != 0 || p.stdout.String() != "grown\n" {
		t.Errorf("status %d, stdout %q", status, p.stdout)
	}
	server.Close() // the second run needs no server
	args[len(args)-1] = "true"
	q := start(t, setup{args: append(args[:len(args):len(args)], "extra")})
	if status := q.wait(); status != 0 {
		t.Errorf("second run: status %d", status)
	}
	has(t, "stderr", q.stderr.String(), "made by an earlier run")
}
