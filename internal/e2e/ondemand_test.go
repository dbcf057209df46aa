package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/packed"
	"github.com/org/hurd-qemu-action/internal/results/servicetest"
)

// imageServer serves the selftest guest as an image with a hash, and counts who asks.
type imageServer struct {
	*httptest.Server
	sum   string
	asked atomic.Int64
}

func newImageServer(t *testing.T) *imageServer {
	t.Helper()
	data, err := os.ReadFile("../selftest/assets/selftest.img.zst")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	p := &imageServer{sum: hex.EncodeToString(sum[:])}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		http.ServeFile(w, r, "../selftest/assets/selftest.img.zst")
	}))
	t.Cleanup(p.Close)
	return p
}

// job is the environment of a job that uses the image, with a cache service.
func (p *imageServer) job(w *servicetest.World, more ...string) []string {
	return append(cached(w, "INPUT_IMAGE="+p.URL+"/guest.img.zst", "INPUT_IMAGE-SHA256="+p.sum), more...)
}

// disks are the entries of a cache that hold prepared disks, by their keys.
func disks(w *servicetest.World) map[string]*servicetest.Blob {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	found := map[string]*servicetest.Blob{}
	for id, b := range w.Entries {
		if _, key, _ := strings.Cut(id, "\n"); strings.HasPrefix(key, "hurd-qemu-action-disk-") {
			found[key] = b
		}
	}
	return found
}

// theDisk is the only one.
func theDisk(t *testing.T, w *servicetest.World) (string, *servicetest.Blob) {
	t.Helper()
	all := disks(w)
	if len(all) != 1 {
		t.Fatalf("%d disks in the cache", len(all))
	}
	for key, b := range all {
		return key, b
	}
	panic("not reached")
}

// sent is how much of an entry was sent since it was last asked for.
func sent(w *servicetest.World, b *servicetest.Blob) int {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	n := b.Sent
	b.Sent = 0
	return int(n)
}

// spoilPieces changes all pieces of a packed disk, and nothing of its index.
func spoilPieces(t *testing.T, w *servicetest.World, b *servicetest.Blob) {
	t.Helper()
	w.Mu.Lock()
	defer w.Mu.Unlock()
	head, err := packed.HeadSize(b.Data)
	if err != nil {
		t.Fatal(err)
	}
	b.Data = bytes.Clone(b.Data)
	for i := int(head); i < len(b.Data); i += 1000 {
		b.Data[i] ^= 0x55
	}
}

// contents unpacks a packed disk.
func contents(t *testing.T, data []byte) []byte {
	t.Helper()
	n, err := packed.HeadSize(data)
	if err != nil {
		t.Fatal(err)
	}
	x, err := packed.ParseIndex(data[:n])
	if err != nil {
		t.Fatal(err)
	}
	all := data[:n:n]
	for i := range x.Pieces() {
		if at, n := x.Packed(i, i+1); n > 0 {
			raw, err := x.Unpack(i, data[at:at+n], nil)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, raw...)
		}
	}
	return all
}

// noImages holds that no image, and nothing unfinished, is in a store.
func noImages(t *testing.T, cache string) {
	t.Helper()
	for _, dir := range []string{"images", "tmp", "downloads"} {
		if left, err := os.ReadDir(filepath.Join(cache, "hurd-qemu-action", "images", dir)); err == nil && len(left) > 0 {
			t.Errorf("%d in %s of the image store: %v", len(left), dir, left)
		}
	}
}

// tellKeys prints the keys that the guest has for this run.
const tellKeys = `for f in /root/.ssh/authorized_keys /etc/ssh/hurd_qemu_action_ed25519_key; do echo "key $(od -An -v -tx1 $f | tr -d ' \n')"; done`

// TestE2EOnDemand saves a machine and its prepared disk into the job's cache,
// from which jobs with empty stores begin: neither is the image asked for, nor
// is the whole disk fetched, before the script runs.
func TestE2EOnDemand(t *testing.T) {
	needGuest(t)
	w, from := servicetest.New(t), newImageServer(t)
	run := func(t *testing.T, cache, script, want string, env ...string) *program {
		t.Helper()
		p := warmRun(t, cache, script, from.job(w, env...)...)
		p.ends(want)
		p.quiet(w)
		return p
	}
	p := run(t, t.TempDir(), tellKeys, "saved")
	has(t, "the log", p.stdout.String(), "Disk: ", "and put into the cache in")
	key, disk := theDisk(t, w)
	if !disk.Finalized || !strings.HasSuffix(key, "-0") || from.asked.Load() == 0 || sent(w, disk) != 0 {
		t.Errorf("the entry %s, after %d requests for the image", key, from.asked.Load())
	}
	noKeys(t, p.stdout.String(), contents(t, disk.Data))

	t.Run("restored", func(t *testing.T) {
		before, cache := from.asked.Load(), t.TempDir()
		p := warmRun(t, cache, "cat /root/prepared; pidof sleep | wc -w", from.job(w, "INPUT_SNAPSHOT=restore")...)
		p.stdout.await(t, "\nkept\n")
		n := sent(w, disk) // a host that is slow enough fetches the rest before the script has ended
		p.ends("restored")
		p.quiet(w)
		has(t, "the log", p.stdout.String(), "from the job's cache as the guest reads it", "\nkept\n1\n")
		sent(w, disk)
		t.Logf("%d of %d bytes of the disk", n, len(disk.Data))
		if n == 0 || n > len(disk.Data)/2 || from.asked.Load() != before {
			t.Errorf("%d of %d bytes were sent, and the image was asked for %d times", n, len(disk.Data), from.asked.Load()-before)
		}
		noImages(t, cache)
	})
	t.Run("booted", func(t *testing.T) { testBootOnDemand(t, w, from, run) })
	t.Run("damaged", func(t *testing.T) {
		spoilPieces(t, w, disk)
		before := from.asked.Load()
		p := run(t, t.TempDir(), "true", "failed")
		has(t, "the log", p.stdout.String(), "::warning title=The disk in the cache can't be used::", key, "the packed disk is damaged", "Disk: ")
		if from.asked.Load() == before || len(disks(w)) != 2 {
			t.Errorf("the image was asked for %d times, and there are %d disks", from.asked.Load()-before, len(disks(w)))
		}
		before = from.asked.Load()
		// From the one that has replaced it, and all of it: the disk is exported.
		p = exporting(warmRun(t, t.TempDir(), "echo built > /root/result", from.job(w, "INPUT_IMAGE-OUTPUT=out/next.qcow2")...))
		p.ends("restored")
		exported(t, p)
		if from.asked.Load() != before {
			t.Error("the image was asked for once more")
		}
	})
	t.Run("lost", func(t *testing.T) { testLostOnDemand(t, w, from) })
	t.Run("lost to an export", func(t *testing.T) { testExportLostOnDemand(t, w, from) })
}

// exporting is a run that exports its disk.
func exporting(p *program) *program {
	p.keep = append(p.keep, "out")
	return p
}

// exported holds that a disk was exported, and is complete.
func exported(t *testing.T, p *program) {
	t.Helper()
	image := filepath.Join(p.workspace, "out/next.qcow2")
	raw := filepath.Join(t.TempDir(), "raw")
	script := `qemu-img convert -f qcow2 -O raw "$0" "$1" && debugfs -R 'cat /root/result' "$1?offset=1048576" && e2fsck -fn "$1?offset=1048576"`
	out, err := exec.Command("sh", "-c", script, image, raw).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "built\n") {
		t.Errorf("the exported disk: %v\n%s", err, out)
	}
}

// noKeys holds that the keys that a guest has told are not on a disk.
func noKeys(t *testing.T, log string, disk []byte) {
	t.Helper()
	var told [][]byte
	for line := range strings.Lines(log) {
		if text, is := strings.CutPrefix(strings.TrimSpace(line), "key "); is {
			key, err := hex.DecodeString(text)
			if err != nil {
				t.Fatalf("the guest tells %q", text)
			}
			told = append(told, key)
		}
	}
	const alike = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" // in all keys
	if len(told) != 2 || !bytes.Contains(told[0], []byte(alike)) || !bytes.HasPrefix(told[1], []byte("-----BEGIN OPENSSH PRIVATE KEY-----")) {
		t.Fatalf("the guest told %q", told)
	}
	_, public, _ := bytes.Cut(told[0], []byte(alike))
	for _, part := range [][]byte{public[:40], told[1][270:310]} { // what differs between two keys
		if bytes.Contains(disk, part) {
			t.Errorf("%q, of a key of the run, is on the disk in the cache", part)
		}
	}
	if !bytes.Contains(disk, []byte("-----BEGIN OPENSSH PRIVATE KEY-----")) || !bytes.Contains(disk, []byte("root:")) {
		t.Error("this is not the disk of the guest") // the first is in its programs
	}
}

// testBootOnDemand boots from the disk in the cache: the whole of it is fetched
// meanwhile, and there for the next run, which needs no cache for it.
func testBootOnDemand(t *testing.T, w *servicetest.World, from *imageServer, run func(t *testing.T, cache, script, want string, env ...string) *program) {
	before, cache := from.asked.Load(), t.TempDir()
	p := run(t, cache, "sync", "cold", "INPUT_SNAPSHOT=off")
	has(t, "the log", p.stdout.String(), "from the job's cache as the guest reads it", "The disk has been fetched, and is kept for later runs")
	_, disk := theDisk(t, w)
	n := sent(w, disk)
	if n < len(disk.Data) || n > len(disk.Data)+512<<10 {
		t.Errorf("%d bytes were sent of %d", n, len(disk.Data))
	}
	p = run(t, cache, "true", "restored", "INPUT_SNAPSHOT=restore")
	has(t, "the log", p.stdout.String(), "The prepared disk was made by an earlier run.")
	if n := sent(w, disk); n > 0 || from.asked.Load() != before {
		t.Errorf("%d bytes of the disk were sent, and the image was asked for %d times", n, from.asked.Load()-before)
	}
}

// onceLost runs a script in whose midst, after it has said begin, something is done
// to its disk. A %s in it waits for that.
func onceLost(t *testing.T, script string, lose func(), env ...string) *program {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it is of this one run
	wait := fmt.Sprintf("echo begin; nc 10.0.2.2 %d </dev/null", l.Addr().(*net.TCPAddr).Port)
	p := exporting(warmRun(t, t.TempDir(), fmt.Sprintf(script, wait), env...))
	p.stdout.await(t, "\nbegin\n")
	lose()
	if err := l.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if waits, err := l.Accept(); err != nil || waits.Close() != nil {
		t.Fatalf("the script does not wait: %v\n%s", err, p.stdout)
	}
	return p
}

// newestDisk is the entry of a cache that a run would begin from.
func newestDisk(w *servicetest.World) (key string, disk *servicetest.Blob) {
	for k, b := range disks(w) {
		if k > key && !strings.HasSuffix(k, "-retired") {
			key, disk = k, b
		}
	}
	return key, disk
}

// readLast has the guest read its disk when it goes down, and not before.
const readLast = `%s; echo '::shutdown:cat /dev/[sh]d? >/dev/null' >/etc/inittab; kill -HUP 1`

// testExportLostOnDemand has an export meet a damaged piece of the disk, which the
// script had no need of: the entry is at fault, it is said at once, and is not met
// again. (What meets it when the guest is down: TestExportMeetsDamage.)
func testExportLostOnDemand(t *testing.T, w *servicetest.World, from *imageServer) {
	key, disk := newestDisk(w)
	p := onceLost(t, readLast, func() { spoilPieces(t, w, disk) }, from.job(w, "INPUT_IMAGE-OUTPUT=out/next.qcow2")...)
	began := time.Now()
	if status, out := p.wait(), p.outputs(); status != 125 || out["result"] != "guest-lost" || time.Since(began) > time.Minute {
		t.Errorf("status %d after %s, %v\n%s", status, time.Since(began), out, p.stdout)
	}
	p.quiet(w)
	has(t, "the log", p.stdout.String(), "::error title=The guest's disk cannot be read from the cache::", "The entry "+key+" of the cache is damaged")
	before := from.asked.Load()
	p = warmRun(t, t.TempDir(), "true", from.job(w)...)
	p.ends("restored")
	if has(t, "the log", p.stdout.String(), "was found to be damaged, and is replaced"); from.asked.Load() == before {
		t.Error("the image was not asked for")
	}
}

// testLostOnDemand has the disk fail under a script: once because the entry is
// gone, and once because it is damaged, which a later run does not meet again.
func testLostOnDemand(t *testing.T, w *servicetest.World, from *imageServer) {
	key, disk := newestDisk(w)
	lose := func(says string, spoil func()) {
		t.Helper()
		p := onceLost(t, "%s; cat /dev/[sh]d? >/dev/null; echo end", spoil, from.job(w)...)
		status, out := p.wait(), p.outputs()
		if status == 0 || out["result"] != "guest-lost" || out["snapshot"] != "restored" {
			t.Errorf("status %d, %v\n%s", status, out, p.stdout)
		}
		p.quiet(w)
		has(t, "the log", p.stdout.String(), "::error title=The guest's disk cannot be read from the cache::", key, says)
		if strings.Contains(p.stdout.String(), "\nend\n") {
			t.Error("the script went on")
		}
	}
	gone := servicetest.Status(http.StatusNotFound, "", "x-ms-error-code", "BlobNotFound")
	lose("404", func() { w.Fail("get", gone, gone, gone, gone, gone, gone, gone, gone) })
	w.Forget("get")
	lose("damaged", func() { spoilPieces(t, w, disk) })
	before := from.asked.Load()
	p := warmRun(t, t.TempDir(), "true", from.job(w)...)
	p.ends("restored")
	has(t, "the log", p.stdout.String(), "was found to be damaged, and is replaced", "Disk: ")
	if from.asked.Load() == before {
		t.Error("the image was not asked for")
	}
}
