package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// world is a host that a test can make ill.
type world struct {
	Host
	files fstest.MapFS
	env   map[string]string
	nodes map[string]Node  // what is at a path
	deny  map[string]error // what is said of a path
	spare map[string]Space
	limit map[int]uint64
	heads map[string]any // status or error, by address; nothing: 200
	dials map[string]any // what is said at an address, or the error
	runs  map[string]error
	now   time.Time
}

const (
	gib    = units.GiB
	server = "https://images.example/"
	socks  = "/tmp/hurd-qemu-action-1/qmp.sock"
)

// healthy is a host on which everything is fine.
func healthy(t *testing.T) *world {
	t.Helper()
	w := &world{
		files: fstest.MapFS{}, env: map[string]string{}, deny: map[string]error{}, limit: map[int]uint64{}, heads: map[string]any{}, runs: map[string]error{},
		nodes: map[string]Node{
			"/cache/images": {Mode: fs.ModeDir | 0o700}, "/tmp": {Mode: fs.ModeDir | 0o777}, "/work": {Mode: fs.ModeDir | 0o755},
			"/dev/kvm": {Mode: fs.ModeDevice | 0o660, GID: 105}, "/var/run/docker.sock": {Mode: fs.ModeSocket | 0o660, GID: 999},
		},
		spare: map[string]Space{}, dials: map[string]any{socks: "", "127.0.0.1:34615": "SSH-2.0-OpenSSH_10.0 Debian\r\n"},
		now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
	}
	for name, text := range map[string]string{
		"etc/passwd":       "root:x:0:0:\nrunner:x:1001:1001:\n",
		"etc/group":        "root:x:0:\nkvm:x:105:\ndocker:x:999:\n",
		"proc/cpuinfo":     "processor\t: 0\nflags\t\t: fpu vmx sse\n",
		"proc/loadavg":     "0.50 0.40 0.30 1/200 1234\n",
		"proc/meminfo":     "MemTotal: 8000000 kB\n",
		"proc/self/status": "Name:\tx\nSeccomp:\t2\n",
		"proc/net/unix": "Num RefCount Protocol Flags Type St Inode Path\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 4711 " + socks + "\n",
		"proc/99/stat": "99 (qemu (hurd)) S 1 99 99\n",
	} {
		w.put(name, text)
	}
	w.files["proc/99/fd/7"] = &fstest.MapFile{Data: []byte("socket:[4711]"), Mode: fs.ModeSymlink}
	serial := filepath.Join(t.TempDir(), "serial.log")
	if err := os.WriteFile(serial, []byte("booting\nlogin: "), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(serial, w.now, w.now.Add(-5*time.Second)); err != nil {
		t.Fatal(err)
	}
	w.system()
	w.others(serial)
	return w
}

func (w *world) put(name, text string) { w.files[name] = &fstest.MapFile{Data: []byte(text)} }

// system is what package os would tell.
func (w *world) system() {
	began := time.Now()
	w.Host = Host{
		Root: w.files, Getenv: func(name string) string { return w.env[name] }, UID: 1001, Arch: "amd64", Now: func() time.Time { return w.now.Add(time.Since(began)) },
		Paths: Paths{Store: "/cache/images", Snapshots: "/cache/snapshots", Temp: "/tmp", Workspace: "/work", Docker: "/var/run/docker.sock"},
		Need:  Need{Memory: 2 * gib, CPUs: 1, Image: "debian"},
		Node: func(path string) (Node, error) {
			if err := w.deny[path]; err != nil {
				return Node{}, err
			}
			if n, ok := w.nodes[path]; ok {
				return n, nil
			}
			return Node{}, &fs.PathError{Op: "stat", Path: path, Err: unix.ENOENT}
		},
		Space: func(dir string) (Space, error) {
			if s, ok := w.spare[dir]; ok {
				return s, nil
			}
			return Space{Free: 50 * gib, Total: 100 * gib, Nodes: 1e6, Inodes: 2e6, Type: "ext4"}, nil
		},
		Writable: func(dir string) error { return w.deny["write "+dir] },
		Socket:   func(_ context.Context, dir string) error { return w.deny["socket "+dir] },
		Dial:     w.dial,
		Listen: func(_ context.Context, _, address string) (net.Listener, error) {
			return fakeListener{}, w.deny["listen "+address]
		},
		Program: func(_ context.Context, name string, _ ...string) (string, error) {
			return name + " version 1\nmore", w.runs[name]
		},
		Limit: func(resource int) (uint64, error) {
			if n, ok := w.limit[resource]; ok {
				return n, nil
			}
			return unix.RLIM_INFINITY, nil
		},
		CPUs:   func() int { return 4 },
		Client: &http.Client{Transport: w},
	}
}

// others is what the other packages would tell.
func (w *world) others(serial string) {
	w.KVM = func(context.Context) (KVM, error) {
		return KVM{State: KVMWorks, Reason: "KVM: a test guest ran in 80 ms", Device: "/dev/kvm"}, nil
	}
	w.QEMU = func(context.Context) (QEMU, error) {
		return QEMU{Version: "10.0.3", Package: "Debian", TCG: true, Sandbox: true, VNC: true, PrivateRAM: true, Shared: true}, nil
	}
	w.Start = func(context.Context) error { return nil }
	w.Memory = func() (Memory, error) { return Memory{Total: 8 * gib, Available: 7 * gib}, nil }
	w.HugePages = func() error { return nil }
	w.DiskMode = func(context.Context, string, string) error { return nil }
	w.Images = func() ([]Entry, error) { return []Entry{{Name: "abc", Size: gib}}, nil }
	w.Snapshots = func() ([]Entry, error) { return nil, nil }
	w.Image = func(context.Context) (string, error) { return "disk.qcow2, qcow2", nil }
	w.Downloads = func() []Download {
		return []Download{{Name: "debian", Addresses: []string{server + "latest/a.xz", server + "13.0/a.xz"}, Wanted: true}}
	}
	w.StoreNeed = func() units.Bytes { return 5 * gib }
	w.Guests = func(context.Context) ([]Guest, error) {
		return []Guest{{Dir: "/tmp/hurd-qemu-action-1", Socket: socks, Alive: true, Serial: serial}}, nil
	}
	w.Machine = func(context.Context, string) (Machine, error) {
		return Machine{Version: "10.0.3", Status: "running", Ports: []Port{{"127.0.0.1:8080", 80}, {"127.0.0.1:34615", 22}}}, nil
	}
	w.Explain = func(text string) []string {
		if strings.Contains(text, "panic") {
			return []string{"GNU Mach panicked"}
		}
		return nil
	}
}

// job makes it the runner of a job.
func (w *world) job() {
	for name, value := range map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/work", "RUNNER_TEMP": "/tmp", "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64",
		"GITHUB_OUTPUT": "/files/o", "GITHUB_STEP_SUMMARY": "/files/s", "GITHUB_ENV": "/files/e",
		"ACTIONS_RESULTS_URL": "https://results.example/some/path", "ACTIONS_RUNTIME_TOKEN": "e30.e30.sig",
	} {
		w.env[name] = value
	}
	for _, name := range []string{"/files/o", "/files/s", "/files/e"} {
		w.nodes[name] = Node{Mode: 0o600}
	}
}

// RoundTrip is the network.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	status := http.StatusOK
	switch v := w.heads[req.URL.String()].(type) {
	case error:
		return nil, v
	case int:
		status = v
	case time.Duration:
		time.Sleep(v) // in a bubble of package synctest
	}
	return &http.Response{StatusCode: status, ContentLength: int64(354 * units.MiB), Body: http.NoBody, Request: req}, nil
}

// dial gives what is said at an address; Docker is always asked something.
func (w *world) dial(_ context.Context, network, address string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	if said, ok := w.dials[address]; ok {
		switch v := said.(type) {
		case error:
			return nil, v
		case string:
			go func() {
				if strings.HasPrefix(v, "HTTP/") { // an answer, to a question
					_, _ = theirs.Read(make([]byte, 1024))
				}
				_, _ = theirs.Write([]byte(v))
				_ = theirs.Close()
			}()
		case nil: // it says nothing
		}
		return ours, nil
	}
	if network == "unix" {
		go answerDocker(theirs, `{"Version":"28.0.4","ApiVersion":"1.48"}`)
	} else {
		_ = theirs.Close()
	}
	return ours, nil
}

func answerDocker(conn net.Conn, body string) {
	buf := make([]byte, 1024)
	_, _ = conn.Read(buf)
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = conn.Close()
}

type fakeListener struct{}

func (fakeListener) Accept() (net.Conn, error) { return nil, errors.New("not here") }
func (fakeListener) Close() error              { return nil }
func (fakeListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4} }

// findings are those of one check.
func findings(t *testing.T, w *world, o Options, check string) []Finding {
	t.Helper()
	var found []Finding
	for _, f := range Run(t.Context(), w.Host, o).Findings {
		if f.Check == check {
			found = append(found, f)
		}
	}
	return found
}
