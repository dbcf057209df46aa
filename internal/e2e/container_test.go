package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/provision"
)

var provisionDir = flag.String("provision-dir", "", "where the images are that TestE2EWithoutCapabilities gives to the container that it starts")

// How long the provisioning of an image as large as Debian's may take: once per
// image, and for every run.
const (
	onceLimit = 2 * time.Second
	runLimit  = 300 * time.Millisecond
)

// nobody is who runs things in a container that a test of root starts.
const nobody = 65534

// TestE2EWithoutCapabilities provisions a stand-in as large as Debian's image,
// 4 GB with 60,000 files, in a container of the action's packages that has no
// capability, no network and no way to get more.
func TestE2EWithoutCapabilities(t *testing.T) {
	if *provisionDir != "" {
		provisionHere(t, *provisionDir)
		return
	}
	runtime := runtimeImage(t)
	dir := t.TempDir()
	disks := []string{filepath.Join(dir, "disk-1.raw"), filepath.Join(dir, "disk-2.raw")}
	for _, command := range [][]string{
		{"../../testdata/hurdimage/build", "--size", "4096", "--inodes", "60000", disks[0]},
		{"cp", "--sparse=always", disks[0], disks[1]},
		{"sync", "--file-system", dir}, // what was written is not to be waited for below
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = nobody, nobody
		for _, name := range append(disks, dir) {
			if err := os.Chown(name, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "run", "--rm", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none",
		"--user", fmt.Sprintf("%d:%d", uid, gid), "--volume", dir+":/work", "--volume", self+":/test:ro", "--entrypoint", "/test", runtime,
		"-test.v", "-test.run=^TestE2EWithoutCapabilities$", "-provision-dir=/work").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestE2EWithoutCapabilities") {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, took, ok := strings.Cut(line, "took: "); ok {
			t.Log(strings.TrimSpace(took))
		}
	}
}

// runtimeImage is the Dockerfile's stage with the action's packages, which the
// tests with act build as well. It is skipped where there is no Docker.
func runtimeImage(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a container")
	}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("docker is not installed")
	}
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatalf("docker is installed, but no engine answers: %v: %s", err, out)
		}
		t.Skip("no Docker engine answers")
	}
	if out, err := exec.Command("../../testdata/docker/base-images", "debian:trixie-slim").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dockerfile, err := os.Open("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dockerfile.Close() }()
	var stderr bytes.Buffer
	build := exec.Command("docker", "build", "--quiet", "--target", "runtime", "-")
	build.Stdin, build.Stderr = dockerfile, &stderr
	id, err := build.Output()
	if err != nil {
		t.Fatalf("docker build: %v: %s", err, stderr.Bytes())
	}
	return strings.TrimSpace(string(id))
}

// doctorHere looks at this container, which has all that a run needs but KVM.
func doctorHere(t *testing.T) {
	p := &program{t: t, workspace: t.TempDir(), cmd: &exec.Cmd{Env: []string{asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}}}
	found := p.doctor("--accel=auto", "--image=debian")
	finds(t, found, [][3]string{
		{"qemu", "fine", "10."}, {"kvm", "slow", "/dev/kvm is not exposed here"}, {"start", "fine", "monitor answers"}, {"sandbox", "fine", "seccomp filter"},
		{"tools", "fine", "all there"}, {"unpackers", "fine", "xz and zstd"}, {"loopback", "fine", ""}, {"sockets", "fine", ""},
		{"docker", "fine", "needs none"}, {"images", "fine", "nothing in"}, {"image", "fine", "debian-hurd"}, {"downloads", "skipped", ""},
	})
	if fix := strings.Join(found["kvm"].Fix, " "); !strings.Contains(fix, "--device /dev/kvm") {
		t.Errorf("what to do for KVM: %q", fix)
	}
}

// provisionHere prepares and fills the images in a directory, in this process,
// which must have no privileges. Of each time the best counts: the machine does
// other things as well.
func provisionHere(t *testing.T, dir string) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("this process is not without privileges (%q):\n%s", want, status)
		}
	}
	if os.Getuid() == 0 {
		t.Error("root runs this")
	}
	doctorHere(t)
	once, run := time.Hour, time.Hour
	for n := range 2 {
		disk, overlay := filepath.Join(dir, fmt.Sprintf("disk-%d.raw", n+1)), filepath.Join(dir, fmt.Sprintf("overlay-%d.qcow2", n+1))
		begin := time.Now()
		prepared, err := provision.Prepare(t.Context(), disk, provision.Options{Console: true})
		if err != nil {
			t.Fatal(err)
		}
		once = min(once, time.Since(begin))
		begin = time.Now()
		if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		err = provision.Fill(t.Context(), overlay, prepared, provision.Keys{
			Authorized: []string{"ssh-ed25519 AAAA run"}, Host: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		})
		if err != nil {
			t.Fatal(err)
		}
		run = min(run, time.Since(begin))
	}
	t.Logf("took: %v once, %v for each run", once.Round(time.Millisecond), run.Round(time.Millisecond))
	if once > onceLimit || run > runLimit {
		t.Errorf("limits: %v once, %v for each run", onceLimit, runLimit)
	}
}
