//go:build bench

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ballast is what is put on the guest's disk that does not compress, so that the
// image is about as large as Debian's is packed.
const ballast = 320 * units.MiB

// largeImage makes an image of the selftest guest that is larger than it needs
// to be, and returns its path and SHA-256.
func largeImage(t *testing.T) (path, sum string) {
	t.Helper()
	dir := t.TempDir()
	script := `set -e; cd "$0"; zstd -dq "$1" -o guest.img; head -c "$2" /dev/urandom > noise
		debugfs -w -R 'write noise /noise' 'guest.img?offset=1048576' 2> debugfs.log; zstd -q -1 guest.img; rm guest.img noise`
	assets, err := filepath.Abs("../selftest/assets/selftest.img.zst")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", script, dir, assets, fmt.Sprint(int64(ballast))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path = filepath.Join(dir, "guest.img.zst")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(data)
	return path, hex.EncodeToString(hash[:])
}

// benchDemand restores on a host that has nothing: the prepared disk is read from
// the job's cache as the guest needs it, or the image is fetched, as without
// image-cache.
func benchDemand(t *testing.T, r *report) {
	c := newSlowCache(t)
	var sum string
	c.image, sum = largeImage(t)
	info, err := os.Stat(c.image)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--image=" + c.URL + "/image/guest.img.zst", "--image-sha256=" + sum, "--memory=" + benchMemorySize, "--sync=none", "--run", "echo " + firstLine}
	saving := runOursIn(t, t.TempDir(), c.env(), append(args, "--snapshot=save")...)
	if len(c.entries) != 2 {
		t.Fatalf("%d entries in the cache:\n%s", len(c.entries), saving.log)
	}
	var demand, whole []measured
	var sent [2]spread
	restore := func(which int, mode string) measured {
		c.sent = 0
		m := runOursIn(t, t.TempDir(), c.env(), append(args, "--snapshot=restore", "--image-cache="+mode)...)
		if m.phases["Restore"] == 0 || strings.Contains(m.log, "as the guest reads it") != (which == 0) {
			t.Fatalf("not as it should be:\n%s", m.log)
		}
		sent[which] = append(sent[which], float64(c.sent)/float64(units.MiB))
		return m
	}
	interleave(benchRounds(7),
		func(int) { demand = append(demand, restore(0, "auto")) },
		func(int) { whole = append(whole, restore(1, "off")) })
	r.print("## From an empty store, cache and publisher throttled to %.0f MB/s together\n\n", benchRate/1e6)
	r.print("The image is %s (zstd); in the cache are the prepared disk, %s packed, and the saved machine, %s. The run that put them there: peak memory of our process %s.\n\n",
		units.Bytes(info.Size()).Human(), units.Bytes(len(c.entries[1].data)).Human(), units.Bytes(len(c.entries[0].data)).Human(), saving.peak.Human())
	r.print("| the disk | first line | MiB received in all | image | fetch | restore | peak memory of our process |\n|---|---|---|---|---|---|---|\n")
	for i, row := range []struct {
		name string
		m    []measured
	}{{"from the cache, on demand", demand}, {"from the image (image-cache: off)", whole}} {
		phase := func(name string) spread {
			return seconds(row.m, func(m measured) time.Duration { return m.phases[name] })
		}
		r.print("| %s | %s | %s | %s | %s | %s | %s |\n", row.name, seconds(row.m, func(m measured) time.Duration { return m.first }),
			sent[i], phase("Image"), phase("Fetch saved machine"), phase("Restore"), mostMemory(row.m).Human())
	}
	r.plot(t, "on-demand", fmt.Sprintf("From an empty store at %.0f MB/s to the script's first line", benchRate/1e6), "s", []bar{
		{"the disk on demand", seconds(demand, func(m measured) time.Duration { return m.first })},
		{"the whole image", seconds(whole, func(m measured) time.Duration { return m.first })},
	})
}
