package lifecycle

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
)

// bootable gives a request for a blank disk, on which no guest will ever answer.
func bootable(t *testing.T, qemu string) Request {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("E2E_REQUIRED") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "blank.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 8<<20); err != nil {
		t.Fatal(err)
	}
	in, _ := config.FromEnvironment([]string{"INPUT_RUN=true", "INPUT_ACCEL=tcg", "INPUT_MEMORY=64M", "INPUT_IMAGE=" + disk})
	return Request{Inputs: in, Host: Host{Workspace: dir, Temp: t.TempDir(), Cache: t.TempDir(), KVM: "/dev/kvm", QEMU: qemu}}
}

// brokenQEMU answers questions as QEMU does, and dies when it shall run a machine.
func brokenQEMU(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "broken-qemu-") // t.TempDir lets no other user in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "qemu-system-x86_64")
	script := "#!/bin/sh\ncase \"$*\" in *chardev*) echo 'the dog ate my homework' >&2; exit 3;; esac\nexec qemu-system-x86_64 \"$@\"\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestQEMUThatDoesNotStart(t *testing.T) {
	req := bootable(t, brokenQEMU(t))
	req.Inputs.CPUs = "64" // more than the host has, for doctor to say so
	r, out := newRun()
	req.Log = r.Log
	res := Run(t.Context(), req)
	if res.Kind != BootFailed || res.ExitCode != 125 || res.Attempts != 1 {
		t.Errorf("result = %+v", res)
	}
	const found = "About this host: Processors: works but slow"
	report, err := os.ReadFile(filepath.Join(req.Host.Workspace, ".hurd/run-1/report.html"))
	if runtime.NumCPU() < 64 && (err != nil || !strings.Contains(string(report), found) || !strings.Contains(out.String(), "What to try: "+found)) {
		t.Errorf("the log or the report lacks %q: %v\n%s", found, err, out)
	}
	own := strings.Index(out.String(), "What to try: Look at what QEMU wrote")
	if of := strings.Index(out.String(), "What to try: About this host"); own < 0 || of >= 0 && of < own {
		t.Errorf("the boot's own advice does not come first:\n%s", out)
	}
	for _, want := range []string{"QEMU did not start", "the dog ate my homework", "qemu.log", "What doctor finds about this host"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(req.Host.Temp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if text, err := os.ReadFile(filepath.Join(req.Host.Workspace, res.QEMULog)); err != nil || !strings.Contains(string(text), "dog") {
		t.Errorf("qemu.log = %q, %v", text, err)
	}
}

// TestE2EBlankDisk boots a disk that holds nothing: the console stays silent.
func TestE2EBlankDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	req := bootable(t, "")
	req.Inputs.BootTimeout = "4s"
	r, out := newRun()
	req.Log = r.Log
	began := time.Now()
	res := Run(t.Context(), req)
	if res.Kind != BootFailed || res.Accel != "tcg" || time.Since(began) > 30*time.Second {
		t.Errorf("result = %+v after %v", res, time.Since(began))
	}
	picture, err := os.ReadFile(filepath.Join(req.Host.Workspace, ".hurd/run-1/screenshot.png"))
	if err != nil || !strings.HasPrefix(string(picture), "\x89PNG") {
		t.Errorf("the screen of a boot that failed: %.8q, %v", picture, err)
	}
	if !strings.Contains(out.String(), "What doctor finds about this host") {
		t.Errorf("nobody has looked at the host:\n%s", out)
	}
	if !strings.Contains(strings.ToLower(out.String()), "console") {
		t.Errorf("the log says nothing of the console:\n%s", out)
	}
}

func TestCanceledBeforeItBegan(t *testing.T) {
	req := bootable(t, "")
	r, out := newRun()
	req.Log = r.Log
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupt{Signal: 2})
	if res := Run(ctx, req); res.Kind != Canceled || res.ExitCode != 130 {
		t.Errorf("result = %+v\n%s", res, out)
	}
	if left, err := os.ReadDir(req.Host.Temp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestImageThatIsNotThere(t *testing.T) {
	req := bootable(t, "")
	req.Inputs.Image = filepath.Join(t.TempDir(), "missing.qcow2")
	r, out := newRun()
	req.Log = r.Log
	if res := Run(t.Context(), req); res.Kind != ImageFailed || res.ExitCode != 125 || !strings.Contains(out.String(), "missing.qcow2") {
		t.Errorf("result = %+v\n%s", res, out)
	}
}
