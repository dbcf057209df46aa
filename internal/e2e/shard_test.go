package e2e

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// shardRun begins a fan-out of a list over the selftest guest.
func shardRun(t *testing.T, cache, list string, args ...string) *program {
	t.Helper()
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, setup{
		args: append([]string{"run", "--image=selftest", "--accel=tcg", "--memory=512", "--jobs=2", "--shard", file}, args...), cache: cache, warm: true,
	})
}

// warmCache is the cache of one test with the prepared guest in it, but without
// a saved machine.
func warmCache(t *testing.T) string {
	t.Helper()
	dir, err := sharedCache()
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	if err := os.Mkdir(filepath.Join(cache, "hurd-qemu-action"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"host", "images"} { // no run of another test changes them while this one is on
		if err := os.MkdirAll(filepath.Join(dir, "hurd-qemu-action", name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "hurd-qemu-action", name), filepath.Join(cache, "hurd-qemu-action", name)); err != nil {
			t.Fatal(err)
		}
	}
	return cache
}

// TestE2EShard goes through a fan-out, one that is interrupted, and one whose
// saved machine does not come back, which all use what the first has saved.
func TestE2EShard(t *testing.T) {
	needGuest(t)
	cache := warmCache(t)
	t.Run("results", func(t *testing.T) { shardResults(t, cache) })
	t.Run("interrupted", func(t *testing.T) { shardInterrupted(t, cache) })
	t.Run("falls back", func(t *testing.T) { shardFallsBack(t, cache) })
}

// shardResults holds that there is one boot, that the other guests are restored
// from it, and that each script has a result of its own and its output in whole lines.
func shardResults(t *testing.T, cache string) {
	p := shardRun(t, cache, "# four\necho hello; echo no >&2; echo mine > mine.txt\n\nexit 3\nseq 1 30000\nprintf half; kill -9 $$\n", "--json")
	if status := p.wait(); status != 3 {
		t.Errorf("status %d, want that of the first in the list that failed", status)
	}
	type result struct {
		Shard    int
		Result   string
		Status   int `json:"exit-code"`
		Snapshot string
		Log      string
	}
	results := make([]result, 5)
	for line := range strings.Lines(p.stdout.String()) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Shard < 1 || r.Shard > 4 {
			t.Fatalf("%q: %v", line, err)
		}
		results[r.Shard] = r
	}
	for i, want := range []result{{1, "success", 0, "saved", ""}, {2, "script-failed", 3, "restored", ""}, {3, "success", 0, "restored", ""}, {4, "script-signaled", 137, "restored", ""}} {
		got := results[i+1]
		log := filepath.Join(p.workspace, got.Log, "output.log")
		got.Log = ""
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if text, err := os.ReadFile(log); err != nil || want.Shard == 3 && !strings.Contains(string(text), "\n29999\n30000\n") {
			t.Errorf("%s: %v, %d bytes", log, err, len(text))
		}
	}
	has(t, "standard error", p.stderr.String(), "[1] hello\n", "[1] no\n", "[3] 1\n", "[3] 30000\n", "[4] half\n", "2 of 4 scripts succeeded.")
	if n := strings.Count(p.stderr.String(), "\n[3] "); n != 30001 { // and how it ended
		t.Errorf("script 3 has %d lines", n)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// guestMemory is the file that a guest's memory is mapped from, privately, as
// device and inode.
func guestMemory(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/maps", pid))) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "rw-p" && (strings.HasPrefix(f[5], "/memfd:guest-memory") || strings.HasSuffix(f[5], "/"+snapshot.RAM)) {
			return f[3] + " " + f[4]
		}
	}
	t.Errorf("process %d has no private mapping of a guest's memory", pid)
	return ""
}

// shardInterrupted holds that guests at once start from one memory, and that an
// interrupt ends all guests, and the scripts that wait.
func shardInterrupted(t *testing.T, cache string) {
	p := shardRun(t, cache, strings.Repeat("echo in the guest; sleep 1000\n", 3))
	p.stdout.await(t, "[1] in the guest\n")
	p.stdout.await(t, "[2] in the guest\n")
	p.record()
	guests, memories := 0, map[string]bool{}
	for pid, name := range p.started {
		if strings.HasPrefix(name, "qemu-") {
			guests++
			memories[guestMemory(t, pid)] = true
		}
	}
	if len(memories) != 1 {
		t.Errorf("the guests' memories: %v", memories)
	}
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	status := p.wait()
	if took := time.Since(began); status != 143 || took > 7*time.Second || guests != 2 {
		t.Errorf("status %d after %v, with %d guests", status, took, guests)
	}
	lines := strings.Split(p.stderr.String(), "\n")
	if n := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "3      not-run") }); n < 0 {
		t.Errorf("the third is not said to have been left:\n%s", p.stderr)
	}
}

// shardFallsBack holds that a guest that can't be reached after its restore is
// booted, with the keys of its own run, and that the next one waits for that and
// is restored.
func shardFallsBack(t *testing.T, cache string) {
	found, err := filepath.Glob(filepath.Join(cache, "hurd-qemu-action/snapshots/entries/*/manifest.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("saved machines: %v, %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	m["login"].(map[string]any)["hostKeys"] = []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other)))}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := shardRun(t, cache, "echo one\necho two\n")
	if status := p.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	has(t, "standard output", p.stdout.String(), "[1] one\n", "[2] two\n")
	has(t, "standard error", p.stderr.String(), "The saved machine did not come back", " saved ", " restored ")
}
