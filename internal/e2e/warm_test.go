package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// prepare is the prepare script of the tests' saved machine. What it leaves is
// a file, and a process that runs.
const prepare = `echo kept >/root/prepared
echo prepared >>/root/times
setsid sleep 4711 >/dev/null 2>&1 &`

// warmRun is a run of the action that may use saved machines.
func warmRun(t *testing.T, cache, script string, env ...string) *program {
	t.Helper()
	return start(t, setup{action: true, warm: true, cache: cache, env: append([]string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_PREPARE=" + prepare, "INPUT_RUN=" + script,
	}, env...)})
}

// ends waits for the end of a run, which must be a success, and for how its
// machine must have begun.
func (p *program) ends(snapshot string) map[string]string {
	p.t.Helper()
	status, out := p.wait(), p.outputs()
	if status != 0 || out["result"] != "success" || out["snapshot"] != snapshot {
		p.t.Fatalf("status %d, %s, snapshot %q, want %q\n%s", status, out["result"], out["snapshot"], snapshot, p.stdout)
	}
	return out
}

// savedOnce is a cache directory with one saved machine. Nobody writes to it.
var savedOnce = sync.OnceValues(func() (string, error) { return makeScratch("hurd-e2e-warm-") })

var saveOnce sync.Once

// saved gives a cache directory of its own with a saved machine in it.
func saved(t *testing.T) (cache, entry string) {
	t.Helper()
	from, err := savedOnce()
	if err != nil {
		t.Fatal(err)
	}
	saveOnce.Do(func() { warmRun(t, from, "true").ends("saved") })
	cache = filepath.Join(t.TempDir(), "cache")
	// Links, as nobody writes to what is in a store; but locks are for each store alone.
	if out, err := exec.Command("cp", "-al", from, cache).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	entry = theEntry(t, cache)
	unlink(t, filepath.Join(entry, "used"))
	return cache, entry
}

// unlink makes a file of the copied store one of its own.
func unlink(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", `cp --sparse=always "$1" "$1.own" && mv -f "$1.own" "$1" && chmod u+w "$1"`, "sh", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// theEntry is the directory of the only saved machine of a cache directory.
func theEntry(t *testing.T, cache string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(lifecycle.SnapshotDir(filepath.Join(cache, "hurd-qemu-action")), "entries", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("saved machines: %v, %v", found, err)
	}
	return found[0]
}

func readManifest(t *testing.T, entry string) *snapshot.Manifest {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(entry, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := snapshot.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// checkScript shows what a run finds in its guest.
const checkScript = `date -u +now=%s
cat /github/workspace/content
echo "prepared=$(cat /root/prepared) times=$(wc -l </root/times) daemons=$(pidof sleep | wc -w)"
echo result >/github/workspace/result
echo "random=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
echo "reseeded=$(dmesg | grep -c 'crng reseeded due to virtual machine fork')"`

// TestE2EWarm saves a machine in a first run and begins with it in a second
// and third one.
func TestE2EWarm(t *testing.T) {
	needGuest(t)
	cache := t.TempDir()
	randoms := map[string]bool{}
	for i, want := range []string{"saved", "restored", "restored"} {
		p := start(t, setup{action: true, warm: true, cache: cache, files: map[string]string{"content": fmt.Sprintf("content=%d\n", i)}, env: []string{
			"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_PREPARE=" + prepare, "INPUT_RUN=" + checkScript,
		}})
		p.keep = append(p.keep, "content", "result")
		out := p.ends(want)
		text := p.stdout.String()
		has(t, "the log", text, fmt.Sprintf("content=%d\n", i), "prepared=kept times=1 daemons=1\n")
		if got, err := os.ReadFile(filepath.Join(p.workspace, "result")); err != nil || string(got) != "result\n" {
			t.Errorf("result: %q, %v", got, err)
		}
		if out["prepare-hit"] != strconv.FormatBool(i > 0) || out["boot-attempts"] != "1" {
			t.Errorf("outputs %v", out)
		}
		if s, err := strconv.ParseFloat(out["boot-seconds"], 64); i > 0 && (err != nil || s > 4) {
			t.Errorf("boot-seconds=%s", out["boot-seconds"])
		}
		checkSavedNumbers(t, p, out, i > 0)
		clock, _ := strconv.ParseInt(found(t, text, `now=(\d+)`), 10, 64)
		ended, err := os.Stat(p.output) // written at the end, not long after the script looked at the clock
		late := 3 * time.Second
		if i == 0 {
			late = 30 * time.Second // the end waits for what is saved; a guest that boots has the host's time in any case
		}
		if err != nil || time.Unix(clock, 0).Sub(ended.ModTime()).Abs() > late {
			t.Errorf("the guest's clock said %s, and the outputs were written at %v, %v", time.Unix(clock, 0), ended.ModTime(), err)
		}
		has(t, "the log", text, fmt.Sprintf("reseeded=%d\n", min(i, 1)))
		randoms[found(t, text, `random=(\w+)`)] = true
	}
	if len(randoms) != 3 {
		t.Errorf("the guests' random numbers: %v", randoms)
	}
}

// checkSavedNumbers: a machine that was saved had a boot, and one that was
// restored only a login; what was moved for it is known.
func checkSavedNumbers(t *testing.T, p *program, out map[string]string, restored bool) {
	t.Helper()
	doc := numbers[metrics.Run](t, p, out["metrics"])
	start, phases, saved, loaded := "cold", "firmware loader kernel userland ssh", doc.Snapshot.Saved, doc.Snapshot.Restored
	if restored {
		start, phases, saved, loaded = "restored", "ssh", loaded, saved
	}
	if doc.Boot.Start != start || phaseNames(doc.Boot) != phases || doc.Snapshot.State != out["snapshot"] || saved < 10*units.MiB || loaded != 0 {
		t.Errorf("%+v, %+v", doc.Boot, doc.Snapshot)
	}
	if want := map[bool]int{false: 2, true: 1}[restored]; doc.Network.Connections != want {
		t.Errorf("%d connections, want %d", doc.Network.Connections, want) // one is closed before the machine is saved
	}
}

// found is what the first group of a pattern matches in a text.
func found(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in\n%s", pattern, text)
	}
	return m[1]
}

// TestE2EWarmKeys holds that whoever has the saved machine cannot get into a
// guest that was restored from it: neither by its login, nor by posing as it.
func TestE2EWarmKeys(t *testing.T) {
	needGuest(t)
	cache, entry := saved(t)
	p := warmRun(t, cache, "echo up; while ! test -e /root/over; do sleep 0.2; done")
	p.stdout.await(t, "\nup\n")
	p.refuses(readManifest(t, entry).Login)
	p.interrupt()
	if status := p.wait(); status != 130 {
		t.Errorf("status %d", status)
	}
}

// refuses holds that the guest of a run does not let in who has the login of the
// machine that it was restored from, and has another host key.
func (p *program) refuses(login snapshot.Login) {
	t := p.t
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(login.Private))
	if err != nil {
		t.Fatal(err)
	}
	addr := forwarded(t, p.qemu())
	dial := func() (shown string, err error) {
		_, err = ssh.Dial("tcp", addr, &ssh.ClientConfig{
			User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, Timeout: 20 * time.Second,
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				shown = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
				return nil
			},
		})
		return shown, err
	}
	// The server begins anew a second after the script, and has another host key
	// from then on; while it does, nobody answers, or a connection is cut.
	shown, refused := "", false
	for end := time.Now().Add(30 * time.Second); !refused || shown == login.HostKeys[0]; time.Sleep(100 * time.Millisecond) {
		shown, err = dial()
		if err == nil {
			t.Fatal("the login of the saved machine lets in")
		}
		refused = strings.Contains(err.Error(), "unable to authenticate")
		if time.Now().After(end) {
			t.Fatalf("the guest does not refuse the login of the saved machine with another host key than its own: %q, %v", shown, err)
		}
	}
}

// forwarded is where a QEMU listens for the guest's SSH server.
func forwarded(t *testing.T, pid int) string {
	t.Helper()
	inodes := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			inodes[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && inodes[f[9]] { // proc(5): listening
			_, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("127.0.0.1:%d", n)
		}
	}
	t.Fatalf("process %d listens nowhere", pid)
	return ""
}

// TestE2EWarmModes goes through the modes of the input snapshot, and through
// what makes a saved machine another one.
func TestE2EWarmModes(t *testing.T) {
	needGuest(t)
	cache, entry := saved(t)
	created := readManifest(t, entry).Created
	const script = "cat /root/times 2>/dev/null | wc -l"
	out := warmRun(t, cache, script, "INPUT_SNAPSHOT=off").ends("cold")
	if out["prepare-hit"] != "false" {
		t.Errorf("off: prepare-hit=%s", out["prepare-hit"])
	}
	if warmRun(t, cache, script, "INPUT_SNAPSHOT=restore").ends("restored"); !readManifest(t, theEntry(t, cache)).Created.Equal(created) {
		t.Error("restore has saved a machine")
	}
	// Another prepare script is another key; restore saves none.
	warmRun(t, cache, script, "INPUT_SNAPSHOT=restore", "INPUT_PREPARE=true").ends("cold")
	theEntry(t, cache)
	warmRun(t, cache, script, "INPUT_SNAPSHOT=save").ends("saved")
	if !readManifest(t, theEntry(t, cache)).Created.After(created) {
		t.Error("save has not replaced the saved machine")
	}
	warmRun(t, cache, script, "INPUT_CPUS=1").ends("restored") // as by default
}

// TestE2EWarmPrepareFails saves nothing after a prepare script that failed.
func TestE2EWarmPrepareFails(t *testing.T) {
	needGuest(t)
	cache := t.TempDir()
	p := warmRun(t, cache, "echo not reached", "INPUT_PREPARE=echo preparing; exit 3")
	if status := p.wait(); status != 125 {
		t.Errorf("status %d", status)
	}
	if out := p.outputs(); out["result"] != "input-invalid" || out["snapshot"] != "cold" {
		t.Errorf("outputs %v", out)
	}
	has(t, "the log", p.stdout.String(), "preparing\n", "::error title=The prepare script failed::prepare: it ended with status 3")
	if left := inStore(t, cache); len(left) > 0 {
		t.Errorf("in the store: %v", left)
	}
}

// inStore lists the entries and drafts of a cache directory.
func inStore(t *testing.T, cache string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(lifecycle.SnapshotDir(filepath.Join(cache, "hurd-qemu-action")), "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestE2EWarmSecrets holds that nothing that only the run may know gets into
// the machine that is saved.
func TestE2EWarmSecrets(t *testing.T) {
	needGuest(t)
	cache := t.TempDir()
	secrets := []string{"SECRET-of-env-4711", "SECRET-of-token-4712", "SECRET-of-runtime-4713", "SECRET-of-script-4714", "SECRET-of-step-4715", "SECRET-of-workspace-4716"}
	p := start(t, setup{action: true, warm: true, cache: cache, files: map[string]string{"content": secrets[5]}, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_PREPARE=" + prepare,
		"INPUT_ENV=MINE=" + secrets[0] + "\nSTEP_VALUE", "INPUT_TOKEN=" + secrets[1],
		"ACTIONS_RUNTIME_TOKEN=" + secrets[2], "STEP_VALUE=" + secrets[4],
		"INPUT_RUN=echo " + secrets[3] + ` | wc -c; echo "$MINE" | wc -c; echo "$STEP_VALUE" | wc -c; cat /github/workspace/content | wc -c`,
	}})
	p.keep = append(p.keep, "content")
	p.ends("saved")
	has(t, "the log", p.stdout.String(), fmt.Sprintf("%d\n%d\n%d\n%d\n", len(secrets[3])+1, len(secrets[0])+1, len(secrets[4])+1, len(secrets[5])))
	entry := theEntry(t, cache)
	for _, name := range []string{"manifest.json", snapshot.State, snapshot.RAM, snapshot.Disk} {
		data, err := os.ReadFile(filepath.Join(entry, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(secrets, "SECRET-of-") {
			if strings.Contains(string(data), s) {
				t.Errorf("%s holds %q", name, s)
			}
		}
		if name == snapshot.RAM && !strings.Contains(string(data), "sleep\x004711") {
			t.Error("the memory lacks what is in it for certain: the test sees nothing")
		}
	}
}
