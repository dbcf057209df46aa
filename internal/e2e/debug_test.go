package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/tunnel/tunneltest"
)

// find waits for a text of the log and returns the group of an expression.
func find(t *testing.T, w *watched, await, expression string) string {
	t.Helper()
	w.await(t, await)
	m := regexp.MustCompile(expression).FindStringSubmatch(w.String())
	if m == nil {
		t.Fatalf("no %q in\n%s", expression, w)
	}
	return m[1]
}

// TestE2EDebug keeps a guest whose script has failed, gets in by each of the
// ways that the log names, and has the results of the run all the same.
func TestE2EDebug(t *testing.T) {
	needGuest(t)
	b := tunneltest.New(t, "")
	mine, minePEM := tunneltest.Key(t)
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_RUN=echo made > made.txt; exit 7", "INPUT_DEBUG=on-failure", "INPUT_DEBUG-TIMEOUT=3m",
		"INPUT_DEBUG-KEY=" + string(ssh.MarshalAuthorizedKey(mine.PublicKey())),
		"INPUT_DEBUG-TUNNEL=" + b.User + "@" + b.Addr, "INPUT_DEBUG-TUNNEL-KEY=" + string(b.ClientPEM),
		"INPUT_DEBUG-TUNNEL-HOST-KEY=" + string(ssh.MarshalAuthorizedKey(b.Host)),
	}})
	p.keep = []string{"made.txt"}
	const last = "in the guest: touch /continue"
	config := find(t, p.stdout, last, `ssh -F (\S+) guest`)
	p.record()
	out, err := exec.Command("ssh", "-F", config, "guest", "cat /github/workspace/made.txt; uname -n").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "made\n") {
		t.Errorf("over SSH: %v: %s", err, out)
	}

	// As from the server at the other end of the tunnel, with a key of the user's.
	key := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(key, minePEM, 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := filepath.Join(filepath.Dir(config), "known_hosts")
	port := find(t, p.stdout, last, `Tunnel: .* ssh -p (\d+) root@127.0.0.1`)
	out, err = exec.Command("ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile="+hosts, "-o", "HostKeyAlias=guest", "-o", "StrictHostKeyChecking=yes",
		"-p", port, "root@127.0.0.1", "echo through; touch /tmp/seen").CombinedOutput()
	if err != nil || string(out) != "through\n" {
		t.Errorf("through the tunnel: %v: %s", err, out)
	}

	vnc := find(t, p.stdout, last, `VNC at (127\.0\.0\.1:\d+)`)
	conn, err := net.DialTimeout("tcp", vnc, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 12)
	if _, err := conn.Read(greeting); err != nil || !strings.HasPrefix(string(greeting), "RFB ") {
		t.Errorf("VNC says %q, %v", greeting, err)
	}
	_ = conn.Close()
	password, err := os.ReadFile(filepath.Join(filepath.Dir(config), "vnc-password"))
	if err != nil || len(password) < 8 {
		t.Errorf("the password: %v", err)
	}
	if out, err := exec.Command("ssh", "-F", config, "guest", "echo changed > /github/workspace/made.txt; touch /continue").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if status := p.wait(); status != 7 {
		t.Errorf("status %d", status)
	}
	log := p.stdout.String() + p.stderr.String()
	for _, want := range []string{"The script ended with status 7", "somebody has made the file /continue in the guest"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log", want)
		}
	}
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "::add-mask::") {
			continue // the runner swallows it
		}
		for _, secret := range []string{strings.TrimSpace(string(password)), "PRIVATE KEY"} {
			if strings.Contains(line, secret) {
				t.Errorf("a secret is in the log: %q", line)
			}
		}
	}
	if made, err := os.ReadFile(filepath.Join(p.workspace, "made.txt")); string(made) != "changed\n" {
		t.Errorf("what came back is %q, %v", made, err)
	}
	if outputs, err := os.ReadFile(p.output); err != nil || !strings.Contains(string(outputs), "script-failed") {
		t.Errorf("outputs: %v: %s", err, outputs)
	}
}

// TestE2EDebugBoot keeps a guest that nobody gets into over SSH; an interrupt
// ends that, and changes nothing about the result.
func TestE2EDebugBoot(t *testing.T) {
	needGuest(t)
	image := guestWith(t, map[string]string{"/etc/inittab": gettysTab}) // whose SSH server is never started
	p := start(t, setup{args: []string{
		"run", "--image=" + image, "--accel=tcg", "--boot-timeout=3s", "--boot-attempts=1", "--debug=on-failure", "--", "true",
	}})
	const last = "/debug/continue, or cancel the job"
	dir := find(t, p.stderr, last, `qmp --guest (\S+) query-status`)
	p.record()
	if strings.Contains(p.stderr.String(), "ssh -F") {
		t.Error("it says that SSH works")
	}
	// The monitor that the log names is there.
	conn, err := net.DialTimeout("unix", filepath.Join(dir, "qmp.sock"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var greeting map[string]any
	if err := json.NewDecoder(conn).Decode(&greeting); err != nil || greeting["QMP"] == nil {
		t.Errorf("the monitor says %v, %v", greeting, err)
	}
	_ = conn.Close()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 125 {
		t.Errorf("status %d", status)
	}
	if log := fmt.Sprint(p.stdout, p.stderr); !strings.Contains(log, "boot-timeout (3s)") {
		t.Error("the log does not say why the boot failed")
	}
}
