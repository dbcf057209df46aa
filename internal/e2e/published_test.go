package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// publisher is a registry, which another project has written, and a web server
// for the files of a directory.
type publisher struct {
	*httptest.Server
	dir     string
	damaged atomic.Bool // layers are not what was pushed
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{dir: t.TempDir()}
	machines, files := registry.New(registry.Logger(log.New(io.Discard, "", 0))), http.StripPrefix("/files/", http.FileServer(http.Dir(p.dir)))
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/files/"):
			files.ServeHTTP(w, r)
			return
		case !p.damaged.Load() || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/"):
			machines.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		machines.ServeHTTP(rec, r)
		data := rec.Body.Bytes()
		data[len(data)-100] ^= 0x80 // the end: what comes first can be looked at
		_, _ = w.Write(data)        // the client notices
	}))
	t.Cleanup(p.Close)
	return p
}

// snapshotCommand runs a subcommand of snapshot.
func snapshotCommand(t *testing.T, cache string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := start(t, setup{args: append([]string{"snapshot"}, args...), cache: cache, warm: true})
	status = p.wait()
	return status, p.stdout.String(), p.stderr.String()
}

// TestE2EWarmPublished publishes a saved machine, and has runs with an empty
// store begin from it: one with what was published, one with something else.
func TestE2EWarmPublished(t *testing.T) {
	needGuest(t)
	pub := newPublisher(t)
	cache, entry := saved(t)
	ref := publish(t, pub, cache, filepath.Base(entry))
	login := readManifest(t, entry).Login

	p := warmRun(t, t.TempDir(), "cat /root/prepared; echo up; while ! test -e /root/over; do sleep 0.2; done", "INPUT_SNAPSHOT=restore", "INPUT_SNAPSHOT-FROM="+ref)
	p.stdout.await(t, "\nup\n")
	p.refuses(login)
	p.interrupt()
	if status, out := p.wait(), p.outputs(); status != 130 || out["snapshot"] != "restored" {
		t.Errorf("status %d, snapshot %s", status, out["snapshot"])
	}
	has(t, "the log", p.stdout.String(), "Pull saved machine: ", "\nkept\nup\n")

	pub.damaged.Store(true)
	cache = t.TempDir()
	p = warmRun(t, cache, "cat /root/prepared", "INPUT_SNAPSHOT=restore", "INPUT_SNAPSHOT-FROM="+ref)
	p.ends("failed")
	has(t, "the log", p.stdout.String(), "::warning title=The saved machine can't be used::", "does not have the digest", "the machine is booted", "\nkept\n")
	if left := inStore(t, cache); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
	if strings.Contains(p.stdout.String(), "PRIVATE KEY") {
		t.Error("a private key is in the log")
	}
}

// publish pushes the machine of a cache directory and brings it into others by
// hand. It returns what push has printed.
func publish(t *testing.T, pub *publisher, cache, name string) string {
	t.Helper()
	target := strings.TrimPrefix(pub.URL, "http://") + "/owner/hurd:latest"
	status, stdout, stderr := snapshotCommand(t, cache, "push", name, target)
	if status != 125 || stdout != "" {
		t.Errorf("a prepared machine was pushed: %d, %s", status, stdout)
	}
	has(t, "the refusal", stderr, "was carried out in it", "--allow-prepared")
	status, stdout, stderr = snapshotCommand(t, cache, "push", "--allow-prepared", name, target)
	ref := strings.TrimSpace(stdout)
	if status != 0 || !strings.Contains(ref, "/owner/hurd@sha256:") || strings.Contains(stdout+stderr, "PRIVATE KEY") {
		t.Fatalf("push: %d, %q\n%s", status, stdout, stderr)
	}
	status, stdout, _ = snapshotCommand(t, cache, "show", ref)
	if status != 0 {
		t.Errorf("show: %d", status)
	}
	has(t, "what it is", stdout, ref, "machine type: pc", "memory: 512M")

	other := ref[:len(ref)-64] + strings.Repeat("0", 64)
	if status, _, stderr = snapshotCommand(t, t.TempDir(), "pull", other); status != 125 || !strings.Contains(stderr, "404 Not Found") {
		t.Errorf("another digest: %d, %s", status, stderr)
	}
	file := filepath.Join(pub.dir, "machine.hurdsnap")
	if status, _, stderr = snapshotCommand(t, cache, "export", name, file); status != 0 {
		t.Errorf("export: %d, %s", status, stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	into := t.TempDir()
	status, stdout, stderr = snapshotCommand(t, into, "pull", pub.URL+"/files/machine.hurdsnap@sha256:"+hex.EncodeToString(sum[:]))
	if status != 0 || !strings.HasPrefix(stdout, name) || filepath.Base(theEntry(t, into)) != name {
		t.Errorf("pull of a file: %d, %s\n%s", status, stdout, stderr)
	}
	managed(t, file, name)
	return ref
}

// managed takes what was exported into an empty store, damages it there, and
// removes it.
func managed(t *testing.T, file, name string) {
	t.Helper()
	cache := t.TempDir()
	for _, tc := range []struct {
		args   []string
		damage string // a file of the entry, before that
		status int
		says   []string
	}{
		{args: []string{"list"}, says: []string{"No machine is saved in "}},
		{args: []string{"import", "--max-size=1M", file}, status: 125, says: []string{file, "1 MiB"}},
		{args: []string{"list"}, says: []string{"No machine is saved in "}},
		{args: []string{"import", file}, says: []string{name + ", ", "memory: 512M"}},
		{args: []string{"list"}, says: []string{"\n" + name + "  ", "  512 MiB  "}},
		{args: []string{"verify"}, says: []string{name + ": as it was written\n"}},
		{args: []string{"verify"}, damage: snapshot.RAM, status: 125, says: []string{name + ": ", "damaged"}},
		{args: []string{"prune", "--unused=0", "--size=10G"}, says: []string{"0 B freed"}},
		{args: []string{"prune", "--size=1M"}, says: []string{"removed " + name, "0 B kept"}},
		{args: []string{"list"}, says: []string{"No machine is saved in "}},
	} {
		if tc.damage != "" {
			path := filepath.Join(theEntry(t, cache), tc.damage)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		status, stdout, stderr := snapshotCommand(t, cache, tc.args...)
		if status != tc.status || strings.Contains(stdout+stderr, "PRIVATE KEY") {
			t.Errorf("%q: status %d\n%s%s", tc.args, status, stdout, stderr)
		}
		has(t, strings.Join(tc.args, " "), stdout+stderr, tc.says...)
	}
}
