//go:build bench

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
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

	"github.com/org/hurd-qemu-action/internal/provision"
)

// bare is a QEMU that nobody but this benchmark looks after: the floor that our
// program is held against, with the very command line that it uses.
type bare struct {
	cmd     *exec.Cmd
	port    string // of the guest's SSH server
	conn    net.Conn
	replies *bufio.Reader
	began   time.Time
	banner  time.Duration // from then to the first line of the SSH server that tightLoop talked to
}

// words splits a command line of qemu.log.
func shellWords(line string) []string {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		var word strings.Builder
		for line != "" && line[0] != ' ' {
			if line[0] == '\'' {
				inside, rest, _ := strings.Cut(line[1:], "'")
				word.WriteString(inside)
				line = rest
				continue
			}
			word.WriteByte(line[0])
			line = line[1:]
		}
		out = append(out, word.String())
	}
	return out
}

var (
	fdset       = regexp.MustCompile(`/dev/fdset/\d+`)
	memPath     = regexp.MustCompile(`mem-path=[^,]*`)
	hostForward = regexp.MustCompile(`127\.0\.0\.1\s+(\d+)\s`)
)

// bareArgs makes files and a socket below dir of what were descriptors in our
// command line: disks from the bottom up, and the memory. Nobody reads the console.
func bareArgs(line, dir, ram string, disks ...string) []string {
	var out []string
	for args := shellWords(line); len(args) > 0; args = args[1:] {
		switch a := args[0]; {
		case a == "-add-fd", a == "-object" && strings.HasPrefix(args[1], "filter-dump,"), a == "-mon" && strings.HasPrefix(args[1], "chardev=tools,"), a == "-chardev" && strings.Contains(args[1], "id=tools,"):
			args = args[1:]
		case strings.HasPrefix(a, "socket,id=serial,"):
			out = append(out, "null,id=serial") // a file costs a write for each character: on overlayfs a third of a boot
		case strings.HasPrefix(a, "socket,id=monitor,"):
			out = append(out, "socket,id=monitor,server=on,wait=off,path="+filepath.Join(dir, "qmp"))
		case fdset.MatchString(a):
			name := fdset.FindString(a)
			out = append(out, strings.Replace(a, name, disks[0], 1))
			disks = disks[1:]
		default:
			out = append(out, memPath.ReplaceAllLiteralString(a, "mem-path="+ram))
		}
	}
	return out
}

// startBare starts QEMU; the state, if any, is descriptor 3 in it.
func startBare(t *testing.T, dir string, args []string, state *os.File) *bare {
	t.Helper()
	b := &bare{cmd: exec.Command(args[0], args[1:]...)}
	var diag bytes.Buffer
	b.cmd.Stderr = &diag
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if state != nil {
		b.cmd.ExtraFiles = []*os.File{state}
	}
	b.began = time.Now()
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var err error
		if b.conn, err = net.Dial("unix", filepath.Join(dir, "qmp")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			_ = b.cmd.Process.Kill()
			t.Fatalf("QEMU's monitor: %v, %v\n%s", err, b.cmd.Wait(), &diag)
		}
	}
	b.replies = bufio.NewReader(b.conn)
	b.execute(t, "qmp_capabilities", nil, nil)
	var info string
	b.execute(t, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &info)
	found := hostForward.FindStringSubmatch(info)
	if found == nil {
		t.Fatalf("no hostForward port in %q", info)
	}
	b.port = found[1]
	return b
}

// execute asks the monitor.
func (b *bare) execute(t *testing.T, command string, arguments map[string]any, out any) {
	t.Helper()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	text, err := json.Marshal(request)
	if err == nil {
		_, err = b.conn.Write(text)
	}
	for err == nil {
		var line []byte
		if line, err = b.replies.ReadBytes('\n'); err != nil {
			break
		}
		var reply struct{ Return, Error json.RawMessage }
		if err = json.Unmarshal(line, &reply); err == nil && reply.Error != nil {
			err = errors.New(string(reply.Error))
		}
		if err == nil && reply.Return != nil {
			if out != nil {
				err = json.Unmarshal(reply.Return, out)
			}
			break
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

// load reads the state and lets the guest go on.
func (b *bare) load(t *testing.T) {
	t.Helper()
	b.execute(t, "migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": true}}}, nil)
	b.execute(t, "migrate-incoming", map[string]any{"uri": "fd:3"}, nil)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		var now struct{ Status string }
		if b.execute(t, "query-migrate", nil, &now); now.Status == "completed" {
			break
		}
		if now.Status == "failed" || time.Now().After(deadline) {
			t.Fatalf("the migration is %s", now.Status)
		}
	}
	b.execute(t, "cont", nil, nil)
}

func (b *bare) kill() {
	_ = b.conn.Close() // it is to end
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// openSSH runs the script by OpenSSH's client, and returns when its first line
// was there since QEMU was started.
func (b *bare) openSSH(t *testing.T, key string) time.Duration {
	t.Helper()
	cmd := exec.Command("ssh", "-F", "none", "-i", key, "-p", b.port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", "root@127.0.0.1", "echo "+firstLine)
	timed(t, cmd)
	return time.Since(b.began)
}

// Limits of one attempt to reach a guest that boots: the time for the server's
// first line, which a guest without one never sends, and the pause after it.
const (
	bannerTime  = 500 * time.Millisecond
	bannerPause = 50 * time.Millisecond
)

// tightLoop asks for the server's first line again and again, and runs the
// script over the very connection on which it came.
func (b *bare) tightLoop(t *testing.T, signer ssh.Signer) time.Duration {
	t.Helper()
	config := &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // a guest of our own, behind a port of the loopback
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(bannerPause) {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", b.port))
		if err != nil {
			continue
		}
		early := &peeked{Conn: conn, r: bufio.NewReader(conn)}
		_ = conn.SetReadDeadline(time.Now().Add(bannerTime)) // a socket can
		if _, err := early.r.Peek(4); err != nil {
			_ = conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Time{}) // as above
		b.banner = time.Since(b.began)
		c, channels, requests, err := ssh.NewClientConn(early, "guest", config)
		if err != nil {
			t.Fatal(err)
		}
		client := ssh.NewClient(c, channels, requests)
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := session.Output("echo " + firstLine); err != nil || string(out) != firstLine+"\n" {
			t.Fatalf("%q, %v", out, err)
		}
		took := time.Since(b.began)
		_ = client.Close() // the guest goes
		return took
	}
	t.Fatal("no SSH server")
	return 0
}

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// benchKey is a key to log in with, as a file for OpenSSH and as what it stands for.
type benchKey struct {
	path   string
	signer ssh.Signer
	line   string // for authorized_keys
}

func newBenchKey(t *testing.T) benchKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "bench")
	if err != nil {
		t.Fatal(err)
	}
	return keyFromPEM(t, pem.EncodeToMemory(block))
}

func keyFromPEM(t *testing.T, text []byte) benchKey {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	k := benchKey{path: filepath.Join(t.TempDir(), "key"), signer: signer}
	k.line = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if err := os.WriteFile(k.path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// preparedDisk is the disk that our runs boot, and what is known about it.
type preparedDisk struct {
	path     string
	prepared provision.Prepared
}

func findPrepared(t *testing.T, cache string) preparedDisk {
	t.Helper()
	dir := filepath.Dir(onlyMatch(t, filepath.Join(cache, "hurd-qemu-action/images/prepared/*/disk.raw")))
	var outer struct{ Extra []byte }
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(dir, "manifest.json"))), &outer); err != nil {
		t.Fatal(err)
	}
	var inner struct{ Prepared provision.Prepared }
	if err := json.Unmarshal(outer.Extra, &inner); err != nil {
		t.Fatal(err)
	}
	return preparedDisk{filepath.Join(dir, "disk.raw"), inner.Prepared}
}

// overlayOn makes a throwaway disk.
func overlayOn(t *testing.T, base, format string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overlay.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", base, path).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return path
}

// overlay is a throwaway disk with a key in it, as our program makes one.
func (d preparedDisk) overlay(t *testing.T, k benchKey) string {
	t.Helper()
	path := overlayOn(t, d.path, "raw")
	_, host, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		err = provision.Fill(context.Background(), path, d.prepared, provision.Keys{Authorized: []string{k.line}, Host: host})
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort is a port for the recipe, which can't let QEMU choose one.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}
