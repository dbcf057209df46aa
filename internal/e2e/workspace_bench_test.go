//go:build benchworkspace

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

const (
	benchPairs = 3
	benchFiles = 2000
	benchBytes = 50 << 20
)

// measured is what one way took for one direction and the other.
type measured struct{ in, read, out []time.Duration }

// TestBenchWorkspace moves 50 MB and 2,000 small files into a guest under TCG and
// back, by the workspace's drive and by one tar stream of OpenSSH, one after the
// other and several times, and prints a table for the README.
func TestBenchWorkspace(t *testing.T) {
	needGuest(t)
	tree := t.TempDir()
	benchTree(t, tree)
	var drive, stream measured
	for i := range benchPairs {
		benchDrive(t, tree, &drive)
		benchStream(t, tree, &stream)
		t.Logf("pair %d: drive %v in, %v out; stream %v in, %v out", i+1, drive.in[i], drive.out[i], stream.in[i], stream.out[i])
	}
	total := func(m measured) []time.Duration {
		sum := make([]time.Duration, len(m.in))
		for i := range sum {
			sum[i] = m.in[i] + m.out[i]
		}
		return sum
	}
	fmt.Printf("\n| 50 MB + 2,000 files, TCG | `sync: disk` | OpenSSH tar stream (chacha20-poly1305) | ratio |\n| --- | --- | --- | --- |\n")
	for _, row := range []struct {
		name         string
		disk, stream []time.Duration
	}{{"in", drive.in, stream.in}, {"all read once there", drive.read, stream.read}, {"out", drive.out, stream.out}, {"in and out", total(drive), total(stream)}} {
		a, b := median(row.disk), median(row.stream)
		fmt.Printf("| %s | %s | %s | %.1f× |\n", row.name, spread(row.disk), spread(row.stream), b.Seconds()/a.Seconds())
	}
	if a, b := median(total(drive)), median(total(stream)); b < 4*a {
		t.Errorf("the drive is only %.1f times as fast", b.Seconds()/a.Seconds())
	}
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

func spread(d []time.Duration) string {
	return fmt.Sprintf("%.2f s (%.2f–%.2f)", median(d).Seconds(), slices.Min(d).Seconds(), slices.Max(d).Seconds())
}

// benchTree makes a file of 50 MB that can't be compressed and 2,000 small ones
// in directories of 50.
func benchTree(t *testing.T, dir string) {
	t.Helper()
	random := mathrand.NewChaCha8([32]byte{4})
	data := make([]byte, benchBytes)
	_, _ = random.Read(data) // never fails
	must(t, os.WriteFile(filepath.Join(dir, "large"), data, 0o644))
	for i := range benchFiles {
		at := i * 4000
		write(t, dir, fmt.Sprintf("d%02d/file%d", i/50, i), string(data[at:at+500+i%1000]))
	}
}

// benchDrive has a script change every file, so that all of them come back. In
// is the making of the drive and its attaching; out is detaching it, reading and
// writing the files here.
func benchDrive(t *testing.T, tree string, m *measured) {
	t.Helper()
	dir := t.TempDir()
	copyTree(t, tree, dir)
	p := start(t, setup{workspace: dir, args: []string{
		"run", "--image=selftest", "--accel=tcg", "--memory=512", "--sync=disk", "--copy-back=all", "--run", "cat large */* | wc -c; find . -type f | wc -l",
	}})
	if status := p.wait(); status != 0 {
		t.Fatalf("exit status = %d", status)
	}
	if !strings.HasSuffix(p.stdout.String(), fmt.Sprintf("\n%d\n", benchFiles+1)) || !strings.Contains(p.stderr.String(), fmt.Sprintf("%d files in ", benchFiles+1)) {
		t.Fatalf("not all files went both ways:\n%s%s", p.stdout, p.stderr)
	}
	var phases []struct {
		Phase string
		Took  float64
	}
	text, err := os.ReadFile(filepath.Join(dir, ".hurd/run-1/timings.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &phases))
	took := map[string]time.Duration{}
	for _, phase := range phases {
		took[phase.Phase] += time.Duration(phase.Took * float64(time.Second))
	}
	m.in = append(m.in, took["Workspace"]+took["Copy in"])
	m.read = append(m.read, took["Script"])
	m.out = append(m.out, took["Copy back"])
	sameTrees(t, tree, dir)
}

// benchStream sends the tree by tar over ssh, and fetches it.
func benchStream(t *testing.T, tree string, m *measured) {
	t.Helper()
	key, temp := newKey(t), t.TempDir()
	keyFile := filepath.Join(temp, "key")
	must(t, os.WriteFile(keyFile, key, 0o600))
	p := start(t, setup{args: []string{
		"run", "--image=selftest", "--accel=tcg", "--memory=512", "--sync=none", "--ssh-private-key", keyFile, "--run", "echo in the guest >&2; sleep 1000",
	}})
	p.stderr.await(t, "\nin the guest\n")
	client := fmt.Sprintf("ssh -F none -i %s -p %d -c chacha20-poly1305@openssh.com -o Compression=no -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes root@127.0.0.1", keyFile, p.sshPort())
	m.in = append(m.in, timed(t, "tar -C "+tree+" -cf - . | "+client+" 'mkdir /w && tar -C /w -xpf -'"))
	m.read = append(m.read, timed(t, client+" 'cd /w && cat large */* | wc -c'"))
	back := t.TempDir()
	m.out = append(m.out, timed(t, client+" 'tar -C /w -cf - .' | tar -C "+back+" -xpf -"))
	sameTrees(t, tree, back)
	must(t, p.cmd.Process.Signal(os.Interrupt))
	if status := p.wait(); status != 130 {
		t.Errorf("exit status = %d", status)
	}
}

// sshPort asks the run's QEMU for the host's port of the guest's SSH server.
func (p *program) sshPort() int {
	p.t.Helper()
	socket := regexp.MustCompile(`its monitor is (\S+)`).FindStringSubmatch(p.stderr.String())
	c, err := qmp.Dial(p.t.Context(), socket[1])
	must(p.t, err)
	defer func() { _ = c.Close() }() // it has said what it was asked
	var text string
	must(p.t, c.Execute(p.t.Context(), "human-monitor-command", map[string]string{"command-line": "info usernet"}, &text))
	for line := range strings.Lines(text) {
		// TCP[HOST_FORWARD]  15  127.0.0.1  40123  10.0.2.15  22  0  0
		f := strings.Fields(line)
		if len(f) > 5 && f[0] == "TCP[HOST_FORWARD]" && f[5] == "22" {
			port, err := strconv.Atoi(f[3])
			must(p.t, err)
			return port
		}
	}
	p.t.Fatalf("no port is forwarded:\n%s", text)
	return 0
}

// newKey makes a private key as ssh reads it.
func newKey(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	return pem.EncodeToMemory(block)
}

func timed(t *testing.T, command string) time.Duration {
	t.Helper()
	began := time.Now()
	if out, err := exec.CommandContext(t.Context(), "bash", "-eo", "pipefail", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return time.Since(began)
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	must(t, exec.CommandContext(t.Context(), "cp", "-a", from+"/.", to).Run())
}

// sameTrees holds what came back against what was sent.
func sameTrees(t *testing.T, want, got string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "diff", "-r", "-x", ".hurd", want, got).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("the trees differ: %v\n%.2000s", err, out)
	}
}
