package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// mirror is a server with the layout of the publisher's, over TLS.
type mirror struct {
	*httptest.Server
	ca    string // file with its certificate
	mu    sync.Mutex
	files map[string][]byte
	asked []string
}

func newMirror(t *testing.T, files map[string][]byte) *mirror {
	t.Helper()
	m := &mirror{files: files, ca: filepath.Join(t.TempDir(), "ca.pem")}
	m.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.URL.Path)
		data, ok := m.files[r.URL.Path]
		m.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data) // a client that goes away is the test's concern
	}))
	t.Cleanup(m.Close)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw})
	if err := os.WriteFile(m.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mirror) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// packagedKernel is the kernel that Debian packages for an architecture.
func packagedKernel(t *testing.T, arch string) []byte {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("../../testdata/mach/fetch-gnumach", dir, arch).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kernel, err := os.ReadFile(filepath.Join(dir, "gnumach"))
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// bootable are the options of a stand-in that GRUB boots, with the GNU Mach that
// Debian packages.
func bootable(t *testing.T, arch string) []string {
	t.Helper()
	var kernel bytes.Buffer
	z := gzip.NewWriter(&kernel)
	if _, err := z.Write(packagedKernel(t, arch)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gnumach.gz")
	if err := os.WriteFile(file, kernel.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	options := []string{"--arch", arch, "--grub", "--kernel", file}
	if arch == "i386" {
		options = append(options, "--logical")
	}
	return options
}

// debianImage builds a stand-in for Debian's image, packed as that is.
func debianImage(t *testing.T, options ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("../../testdata/hurdimage/build", append(options, filepath.Join(dir, "image.tar.xz"))...)
	cmd.Env = append(os.Environ(), "XZ_OPT=-0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	archive, err := os.ReadFile(filepath.Join(dir, "image.tar.xz"))
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// TestE2EDebian takes a stand-in for Debian's image through the whole way of a
// preset, from the publisher's directories to the boot of the real GNU Mach by
// GRUB. What follows is missing from the stand-in: Mach finds no program in the
// boot modules, and the run says so in Mach's own words.
func TestE2EDebian(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		preset, arch, file string
		machine            []string // in QEMU's arguments
	}{
		{"debian-hurd-20250807", "amd64", "debian-hurd-amd64-20250807.img.tar.xz", []string{"q35", "e1000", "ide-hd"}},
		{"debian", "i386", "debian-hurd-i386-20250807.img.tar.xz", []string{"pc-i440fx-", "ide-hd"}},
	} {
		t.Run(tc.arch, func(t *testing.T) {
			archive := debianImage(t, bootable(t, tc.arch)...)
			sum := sha512.Sum512(archive)
			latest, release := "/cdimage/ports/latest/hurd-"+tc.arch+"/", "/cdimage/ports/13.0/hurd-"+tc.arch+"/"
			m := newMirror(t, map[string][]byte{
				latest + "SHA512SUMS":  []byte(strings.Repeat("0", 128) + "  debian-hurd-" + tc.arch + ".img.tar.xz\n"),
				release + "SHA512SUMS": []byte(hex.EncodeToString(sum[:]) + "  " + tc.file + "\n"),
				release + tc.file:      archive,
			})
			p := start(t, setup{cache: t.TempDir(), env: []string{"SSL_CERT_FILE=" + m.ca}, args: []string{
				"run", "--image", tc.preset, "--arch", tc.arch, "--image-mirror", m.URL + "/cdimage", "--accel=tcg", "--memory=1G", "--boot-timeout=2m", "--", "uname", "-a",
			}})
			if status := p.wait(); status != 125 {
				t.Errorf("exit status = %d, want 125", status)
			}
			want := []string{latest + "SHA512SUMS", latest + "SHA256SUMS", release + "SHA512SUMS", latest + tc.file, release + tc.file}
			if got := m.requests(); !slices.Equal(got, want) {
				t.Errorf("requests %q, want %q", got, want)
			}
			if _, shown, _ := strings.Cut(p.stderr.String(), "What shows it:"); !strings.Contains(shown, "user_bootstrap: Cannot load user executable module") || !strings.Contains(shown, "What to try:") {
				t.Errorf("the log does not end with Mach's own words:\n%s", p.stderr)
			}
			has(t, "stderr", p.stderr.String(), "published ("+m.URL+release+"SHA512SUMS, pinned ", "Login: ext2", "console=com0", "What shows it:")
			serial, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/serial.log"))
			if err != nil {
				t.Fatal(err)
			}
			has(t, "the serial log", string(serial), "Loading GNU Mach", "5 multiboot modules")
			argv, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/qemu.log"))
			if err != nil {
				t.Fatal(err)
			}
			has(t, "QEMU's arguments", string(argv), tc.machine...)
		})
	}
}

// proxy is an HTTP proxy that leads every host's TLS connections to a server.
// It returns its address, and which hosts were asked for.
func proxy(t *testing.T, to string) (address string, hosts func() []string) {
	t.Helper()
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host)
		mu.Unlock()
		out, err := net.Dial("tcp", to)
		if err != nil || r.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer func() { _ = out.Close() }()
		w.WriteHeader(http.StatusOK)
		in, rest, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = in.Close() }()
		go func() { _, _ = io.Copy(out, rest) }() // until either side closes
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(asked)
	}
}

// TestE2EDebianPinned asks for the default image of a mirror that has something
// else under its name, directly and through a proxy: the file is asked for in
// the right place, refused by the hash that is known to us, and not kept.
func TestE2EDebianPinned(t *testing.T) {
	needGuest(t)
	const path = "/ports/latest/hurd-amd64/debian-hurd-amd64-20260314.img.tar.xz"
	image := debianImage(t)
	for _, through := range []string{"nothing", "a proxy"} {
		t.Run(through, func(t *testing.T) {
			m := newMirror(t, map[string][]byte{path: image})
			url, env := m.URL, []string{"SSL_CERT_FILE=" + m.ca}
			if through == "a proxy" {
				address, hosts := proxy(t, m.Listener.Addr().String())
				url, env = "https://example.com", append(env, "HTTPS_PROXY="+address)
				defer func() {
					if got := hosts(); !slices.Equal(got, []string{"CONNECT example.com:443"}) {
						t.Errorf("the proxy was asked for %q", got)
					}
				}()
			}
			cache := t.TempDir()
			p := start(t, setup{cache: cache, env: env, args: []string{"run", "--image=debian", "--image-mirror", url, "--accel=tcg", "--", "uname", "-a"}})
			if status := p.wait(); status != 125 {
				t.Errorf("exit status = %d, want 125", status)
			}
			if got := m.requests(); !slices.Equal(got, []string{path}) {
				t.Errorf("requests %q", got)
			}
			has(t, "stderr", p.stderr.String(), "the file is not the one that was expected: its SHA-512 is ", "known to us is 0c6151e7a402c065", "image-mirror")
			nothingKept(t, cache)
		})
	}
}

// nothingKept holds that a cache directory has no image and no part of one.
func nothingKept(t *testing.T, cache string) {
	t.Helper()
	err := filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.Contains(path, "/host/") && !strings.Contains(path, "/locks/") {
			t.Errorf("left: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
