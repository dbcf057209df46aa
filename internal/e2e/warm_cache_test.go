package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/results/servicetest"
	"github.com/org/hurd-qemu-action/internal/units"
)

// cached is the environment of a job with a cache service.
func cached(w *servicetest.World, more ...string) []string {
	return append([]string{"ACTIONS_RESULTS_URL=" + w.Server.URL + "/", "ACTIONS_RUNTIME_TOKEN=" + w.Token}, more...)
}

// quiet holds that the log has nothing secret of the service, and no private key.
func (p *program) quiet(w *servicetest.World) {
	p.t.Helper()
	for _, text := range []string{p.stdout.String(), p.stderr.String()} {
		// The runner is told what to mask by its very text.
		var lines []string
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "::add-mask::") {
				lines = append(lines, line)
			}
		}
		shown := strings.Join(lines, "")
		w.Clean(shown)
		if strings.Contains(shown, "PRIVATE KEY") {
			p.t.Error("a private key is in the log")
		}
	}
}

// TestE2EWarmCache saves a machine into the job's cache, from which jobs
// without a store begin, unless the cache fails in one way or another.
func TestE2EWarmCache(t *testing.T) {
	needGuest(t)
	w := servicetest.New(t)
	// What passes costs a second or two.
	w.Fail("GetCacheEntryDownloadURL", servicetest.Status(http.StatusTooManyRequests, "", "Retry-After", "1"))
	w.Fail("CreateCacheEntry", servicetest.Status(http.StatusInternalServerError, ""))
	w.Fail("block", servicetest.CutBody)
	p := warmRun(t, t.TempDir(), "true", cached(w)...)
	out := p.ends("saved")
	p.quiet(w)
	has(t, "the log", p.stdout.String(), "429 Too Many Requests", "500 Internal Server Error", "uploading a block: ", "put into the cache in ")
	uploaded := numbers[metrics.Run](t, p, out["metrics"]).Snapshot.Uploaded
	if len(w.Entries) != 1 {
		t.Fatalf("%d cache entries", len(w.Entries))
	}
	for _, b := range w.Entries {
		t.Logf("packed: %d bytes", len(b.Data))
		if len(b.Data) > 40<<20 || !b.Finalized || units.Bytes(len(b.Data)) != uploaded {
			t.Errorf("%d bytes, complete: %t; the metrics say %d bytes", len(b.Data), b.Finalized, uploaded)
		}
	}
	const script = "cat /root/prepared; pidof sleep | wc -w"
	fetch := func(want string, says ...string) {
		t.Helper()
		p := warmRun(t, t.TempDir(), script, cached(w, "INPUT_SNAPSHOT=restore")...)
		out := p.ends(want)
		p.quiet(w)
		if s := numbers[metrics.Run](t, p, out["metrics"]).Snapshot; want == "restored" && (s.Downloaded != uploaded || s.Restored < uploaded) {
			t.Errorf("%+v, of %d bytes in the cache", s, uploaded)
		}
		has(t, "the log", p.stdout.String(), append(says, "\nkept\n1\n")...)
	}
	fetch("restored", "Fetch saved machine: ")
	denied := servicetest.Status(http.StatusForbidden, "", "x-ms-error-code", "AuthenticationFailed")
	w.Fail("get", denied)
	fetch("restored", "asking for a new one")
	w.Fail("GetCacheEntryDownloadURL", servicetest.Status(http.StatusBadRequest, `{"code":"invalid_argument","msg":"not today"}`))
	fetch("cold", "could not be asked for a saved machine", "not today")
	for _, b := range w.Entries {
		b.Data[len(b.Data)/2] ^= 0x80
	}
	fetch("failed", "::warning title=The saved machine can't be used::", "unpacking what the cache has", "is not used any more")
	again := warmRun(t, t.TempDir(), "true", cached(w)...)
	uploaded = numbers[metrics.Run](t, again, again.ends("saved")["metrics"]).Snapshot.Uploaded
	has(t, "the log", again.stdout.String(), "did not come back is not used", "put into the cache in ")
	fetch("restored", "Fetch saved machine: ")
}

// TestE2EWarmCacheRefuses has a cache that is down, and one that does not take
// what was saved: the run is right all the same, and its own store has the machine.
func TestE2EWarmCacheRefuses(t *testing.T) {
	needGuest(t)
	w := servicetest.New(t)
	cache, down := t.TempDir(), servicetest.New(t)
	down.Server.Close()
	p := warmRun(t, cache, "cat /root/prepared", cached(down)...)
	p.ends("saved")
	p.quiet(down)
	has(t, "the log", p.stdout.String(), "::warning title=The cache could not be asked for a saved machine::", "\nkept\n", "::warning title=The saved machine is not in the cache::")
	theEntry(t, cache)

	w.Fail("block", servicetest.CutBody, servicetest.Status(http.StatusForbidden, "", "x-ms-error-code", "AuthenticationFailed"))
	p = warmRun(t, cache, "true", cached(w, "INPUT_SNAPSHOT=save")...)
	p.ends("saved")
	p.quiet(w)
	has(t, "the log", p.stdout.String(), "::warning title=The saved machine is not in the cache::")
	theEntry(t, cache)
	w.Forget("block") // how many were met depends on the schedule
}

// TestE2EWarmInterrupted interrupts a run that restores, and one whose upload hangs.
func TestE2EWarmInterrupted(t *testing.T) {
	needGuest(t)
	w := servicetest.New(t)
	for name, tc := range map[string]struct {
		env   []string
		await string
	}{
		"restore": {nil, "::group::Restore"},
		"save":    {[]string{"INPUT_SNAPSHOT=save"}, "::group::Save"},
		"upload":  {cached(w, "INPUT_SNAPSHOT=save"), "Copy back: "},
	} {
		t.Run(name, func(t *testing.T) {
			cache, _ := saved(t)
			if name == "upload" {
				w.Fail("block", servicetest.Hang, servicetest.Hang, servicetest.Hang, servicetest.Hang)
				defer w.Forget("block")
			}
			p := warmRun(t, cache, "true", tc.env...)
			p.stdout.await(t, tc.await)
			began := time.Now()
			p.interrupt()
			status := p.wait()
			if took := time.Since(began); took > 7*time.Second {
				t.Errorf("it took %s", took)
			}
			if status != 130 && (name != "upload" || status != 0) { // the script had succeeded
				t.Errorf("status %d", status)
			}
			for _, left := range inStore(t, cache) {
				if strings.Contains(left, "/drafts/") {
					t.Errorf("left: %s", left)
				}
			}
		})
	}
}
