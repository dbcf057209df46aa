package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// udpEcho builds the UDP service of the guest.
func udpEcho(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "udpecho")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./testdata/udpecho")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// hostService is a service on the host's loopback, which a guest reaches at
// 10.0.2.2 unless its network is restricted.
func hostService(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "the host's answer\n")
			_ = conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// forwardedScript asks the host's service, then serves, and ends when it was
// asked on TCP port 8082.
const forwardedScript = `echo "the host says: $(nc -w 5 10.0.2.2 %d </dev/null || echo nothing)"
printf '\001' | dd of=/dev/port bs=1 seek=100 2>/dev/null # the keyboard controller has no such command
cp udpecho /tmp/udpecho && chmod +x /tmp/udpecho && /tmp/udpecho &
mkdir /tmp/www && echo "the guest's page" >/tmp/www/page && httpd -p 8080 -h /tmp/www
echo the services are up
nc -l -p 8082 -e /bin/echo "the guest's farewell"`

var forwardedLine = regexp.MustCompile(`Forwarded: (tcp|udp) ([0-9.]+):([0-9]+) leads to the guest's port ([0-9]+)`)

// forwarded reads the forwards in the log: "tcp 8080" leads to the addresses.
func (p *program) forwarded() map[string][]string {
	p.t.Helper()
	all := map[string][]string{}
	for _, m := range forwardedLine.FindAllStringSubmatch(p.stdout.String(), -1) {
		all[m[1]+" "+m[4]] = append(all[m[1]+" "+m[4]], net.JoinHostPort(m[2], m[3]))
	}
	return all
}

// ask sends a line to a forwarded port until there is an answer: QEMU accepts
// connections that the guest then refuses.
func ask(t *testing.T, network, address, text string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		patience := 5 * time.Second
		if network == "udp" { // nobody says that a datagram was lost
			patience = 300 * time.Millisecond
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, text)
		buffer := make([]byte, 512)
		n, err := io.ReadAtLeast(conn, buffer, 1)
		_ = conn.Close()
		if n > 0 {
			return string(buffer[:n])
		}
		if errors.Is(err, syscall.ECONNREFUSED) { // by this host, not by the guest
			t.Fatal(err)
		}
	}
	t.Fatalf("no answer from %s", address)
	return ""
}

// monitored asks QEMU's monitor for tools.
func (p *program) monitored(command string, answer any) {
	p.t.Helper()
	sockets, err := filepath.Glob(filepath.Join(p.temp, "*", qemu.SocketName))
	if err != nil || len(sockets) != 1 {
		p.t.Fatalf("monitors: %v, %v", sockets, err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := qmp.Dial(ctx, sockets[0])
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.Execute(ctx, command, nil, answer); err != nil {
		p.t.Error(err)
	}
}

// blockCache is how QEMU caches a disk.
type blockCache struct {
	Direct  bool
	NoFlush bool `json:"no-flush"`
}

// caches are those of the guest's disks.
func (p *program) caches() []blockCache {
	var blocks []struct {
		Inserted *struct{ Cache blockCache }
	}
	p.monitored("query-block", &blocks)
	var all []blockCache
	for _, b := range blocks {
		if b.Inserted != nil {
			all = append(all, b.Inserted.Cache)
		}
	}
	return all
}

// servedRun is a run whose script serves.
func servedRun(t *testing.T, cache, echo, script string, env ...string) *program {
	t.Helper()
	p := start(t, setup{action: true, warm: true, cache: cache, files: map[string]string{"udpecho": echo}, env: append([]string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_PREPARE=true", "INPUT_RUN=" + script,
	}, env...)})
	p.keep = append(p.keep, "udpecho")
	return p
}

// TestE2EPortsAndResources runs a guest with all that a host can be asked for,
// saves it, restores it with other ports and another way to its disk, and boots
// one that reaches nothing.
func TestE2EPortsAndResources(t *testing.T) {
	needGuest(t)
	cache, echo := t.TempDir(), udpEcho(t)
	script := fmt.Sprintf(forwardedScript, hostService(t))
	allowed, err := qemu.AllowedProcessors()
	if err != nil {
		t.Fatal(err)
	}
	last := strconv.Itoa(allowed[len(allowed)-1])
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	want, mode := blockCache{Direct: true}, []string{"INPUT_DISK-CACHE=none", "INPUT_DISK-AIO=native"}
	if err := qemu.TryDisk(ctx, qemu.StartOptions{}, t.TempDir(), qemu.CacheNone, qemu.AIONative); err != nil {
		t.Logf("%v", err) // the unit tests hold that it is refused then
		want, mode = blockCache{}, []string{"INPUT_DISK-CACHE=writeback"}
	}

	p := servedRun(t, cache, echo, script, append(mode, "INPUT_FORWARD=tcp 0:8080\nudp 0:8081\ntcp 0.0.0.0:0:8082\n",
		"INPUT_CPU-AFFINITY="+last, "INPUT_QEMU-TRACE=guest_errors,unimp")...)
	p.stdout.await(t, "the services are up\n")
	ports := p.forwarded()
	if got := ask(t, "tcp", ports["tcp 8080"][0], "GET /page HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
		t.Errorf("over TCP: %q", got)
	}
	if got := ask(t, "udp", ports["udp 8081"][0], "the guest hears"); got != "THE GUEST HEARS" {
		t.Errorf("over UDP: %q", got)
	}
	for _, got := range p.caches() {
		if got != want {
			t.Errorf("a disk is cached as %+v; want %+v", got, want)
		}
	}
	if got := processors(t, p.qemu()); !slices.Equal(got, []string{last}) {
		t.Errorf("QEMU's threads run on %q; want %s", got, last)
	}
	if !strings.HasPrefix(ports["tcp 8082"][0], "0.0.0.0:") {
		t.Errorf("the ports are %v", ports)
	}
	if got := ask(t, "tcp", strings.Replace(ports["tcp 8082"][0], "0.0.0.0", "127.0.0.1", 1), "stop\n"); got != "the guest's farewell\n" {
		t.Errorf("in the end: %q", got)
	}
	p.ends("saved")
	has(t, "the log", p.stdout.String(), "the host says: the host's answer", "::warning title=A port of the guest is open to others::forward: line 3:",
		"Processors of this host: QEMU runs on "+last+" only", "QEMU logs guest_errors,unimp to .hurd/run-1/qemu-trace.log", "Disk: cache ")
	trace, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/qemu-trace.log"))
	if err != nil {
		t.Error(err)
	}
	has(t, "qemu-trace.log", string(trace), "unsupported keyboard cmd=0x01")

	restoredPorts(t, cache, echo, script, ports)
	lostPort(t, cache, echo)
	restrictedNetwork(t, cache, echo, script)
}

// processors are the lists of processors on which the threads of a process may run.
func processors(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads: %v, %v", files, err)
	}
	var lists []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
		list, _, _ := strings.Cut(rest, "\n")
		lists = append(lists, list)
	}
	slices.Sort(lists)
	return slices.Compact(lists)
}

// restoredPorts restores what was saved with other ports.
func restoredPorts(t *testing.T, cache, echo, script string, before map[string][]string) {
	p := servedRun(t, cache, echo, script, "INPUT_FORWARD=udp 0:8081\ntcp 0:8082", "INPUT_DISK-CACHE=writeback")
	p.stdout.await(t, "the services are up\n")
	ports := p.forwarded()
	if len(ports) != 2 {
		t.Errorf("forwards: %v", ports)
	}
	if got := ask(t, "udp", ports["udp 8081"][0], "again"); got != "AGAIN" {
		t.Errorf("over UDP: %q", got)
	}
	if conn, err := net.Dial("tcp", before["tcp 8080"][0]); err == nil {
		_ = conn.Close()
		t.Errorf("%v of the run before still leads somewhere", before["tcp 8080"])
	}
	for _, got := range p.caches() {
		if got != (blockCache{}) {
			t.Errorf("a disk is cached as %+v", got)
		}
	}
	ask(t, "tcp", ports["tcp 8082"][0], "stop\n")
	p.ends("restored")
}

// lostPort has QEMU fail to take a port that was free when it was looked at.
func lostPort(t *testing.T, cache, echo string) {
	real, err := exec.LookPath(qemu.DefaultBinary)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // QEMU's user has to get at it
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wrapper := "#!/bin/sh\ncase \"$*\" in *hostfwd*) echo \"qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:0-:8080'\" >&2; exit 1;; esac\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, qemu.DefaultBinary), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	entry := theEntry(t, cache)
	p := servedRun(t, cache, echo, "true", "INPUT_FORWARD=# one\ntcp 0:8080", "PATH="+dir+":"+os.Getenv("PATH"))
	if status := p.wait(); status != 125 || p.outputs()["result"] != "input-invalid" {
		t.Errorf("status %d, %v", status, p.outputs())
	}
	has(t, "the log", p.stdout.String(), "::error title=Invalid input::forward: line 2: QEMU could not take the port, which is free now")
	if again := theEntry(t, cache); again != entry {
		t.Errorf("%s is gone, there is %s", entry, again)
	}
}

// restrictedNetwork boots a guest that reaches nothing, and can be reached.
func restrictedNetwork(t *testing.T, cache, echo, script string) {
	p := servedRun(t, cache, echo, script, "INPUT_NETWORK=restricted", "INPUT_SNAPSHOT=restore", "INPUT_FORWARD=tcp 0:8080\ntcp 0:8082\nudp 0:8081")
	p.stdout.await(t, "the services are up\n")
	ports := p.forwarded()
	if got := ask(t, "tcp", ports["tcp 8080"][0], "GET /page HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
		t.Errorf("over TCP: %q", got)
	}
	ask(t, "tcp", ports["tcp 8082"][0], "stop\n")
	p.ends("cold") // what was saved could reach the host
	has(t, "the log", p.stdout.String(), "the host says: nothing", "::warning title=A port that only listens::forward: line 3: ")
}
