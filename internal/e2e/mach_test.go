package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/metrics"
)

// machDisk is a raw copy of the disk with the real GNU Mach, whose boot
// configuration edit changes. A kernel takes the place of the disk's own.
func machDisk(t *testing.T, edit func(cfg string) string, kernel []byte) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "mach.img")
	if out, err := exec.Command("qemu-img", "convert", "-O", "raw", "../../testdata/mach/gnumach-machprobe.qcow2", raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	editDisk(t, raw, func(root *ext2.FS, batch *ext2.Batch) error {
		cfg, err := root.ReadFile("/boot/grub/grub.cfg")
		if err != nil {
			return err
		}
		// A Hurd is recognized by this directory; the disk holds its kernel only.
		err = errors.Join(batch.MkdirAll("/hurd", ext2.Attr{Mode: 0o755}),
			batch.WriteFile("/boot/grub/grub.cfg", []byte(edit(string(cfg))), ext2.Attr{Mode: 0o644}))
		if kernel != nil {
			err = errors.Join(err, batch.WriteFile("/boot/gnumach.gz", kernel, ext2.Attr{Mode: 0o644}))
		}
		return err
	})
	return raw
}

// debianKernel is the kernel of Debian's package gnumach-image-1.8-486.
func debianKernel(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("../../testdata/mach/fetch-gnumach", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kernel, err := os.ReadFile(filepath.Join(dir, "gnumach"))
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// TestE2EMachPanic boots the real GNU Mach without a boot module: it panics,
// and the run ends at once, quotes the line and says what it means. Nothing of
// a Hurd is in the way: a profile or a pattern for Linux would not get here.
func TestE2EMachPanic(t *testing.T) {
	needGuest(t)
	for name, kernel := range map[string]func(*testing.T) []byte{
		"the kernel of the disk":    func(*testing.T) []byte { return nil },
		"the kernel of this Debian": debianKernel,
	} {
		t.Run(name, func(t *testing.T) { machPanic(t, kernel(t)) })
	}
}

func machPanic(t *testing.T, kernel []byte) {
	disk := machDisk(t, func(cfg string) string {
		var kept []string
		for line := range strings.Lines(cfg) {
			if !strings.HasPrefix(strings.TrimSpace(line), "module") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}, kernel)
	p := start(t, setup{action: true, env: []string{"INPUT_IMAGE=" + disk, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=true"}})
	p.stdout.await(t, "No bootstrap code loaded with the kernel!")
	began := time.Now()
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v to end after the panic", took)
	}
	if got := p.outputs(); got["result"] != "boot-failed" || got["boot-attempts"] != "1" {
		t.Errorf("outputs = %v", got)
	}
	has(t, "the log", p.stdout.String(), "pc-i440fx-", "rtl8139", "hurd",
		"    panic ../kern/bootstrap.c:", "bootstrap_create: No bootstrap code loaded with the kernel!", "::error title=GNU Mach", "boot modules")
}

// TestE2EMachWithoutSSH boots the real GNU Mach with its probe task, which runs
// for ever and knows no SSH: doctor says so while it runs, boot-timeout ends it,
// and the log tells how far it got and how the host is.
func TestE2EMachWithoutSSH(t *testing.T) {
	needGuest(t)
	disk := machDisk(t, func(cfg string) string { return cfg }, nil)
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=" + disk, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=true", "INPUT_BOOT-TIMEOUT=20s",
	}})
	p.stdout.await(t, "PROBE READY")
	found := p.doctor()
	finds(t, found, [][3]string{{"guest-monitor", "fine", "is running"}, {"guest-console", "fine", "TICK n="}})
	if ssh := found["guest-ssh"]; ssh.Verdict != "broken" && ssh.Verdict != "slow" {
		t.Errorf("no SSH, and doctor says: %+v", ssh)
	}
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	got := p.outputs()
	if got["result"] != "boot-failed" || got["accel"] != "tcg" {
		t.Errorf("outputs = %v", got)
	}
	checkMachNumbers(t, p, got["metrics"])
	has(t, "the log", p.stdout.String(), "TICK n=", "What to try:", "::error title=",
		"::group::What doctor finds about this host", " Memory: ", " Load: ", " KVM: not checked: not wanted: accel is tcg")
}

// checkMachNumbers: a boot that failed has numbers as well, of a machine that is
// gone. Its phases are told by the marks of GNU Mach: with those of Linux the
// boot would not get beyond its loader.
func checkMachNumbers(t *testing.T, p *program, path string) {
	t.Helper()
	doc := numbers[metrics.Run](t, p, path)
	if got := phaseNames(doc.Boot); got != "firmware loader kernel userland?" || doc.Boot.Phases[2].Began != "GNU Mach's banner" || doc.Boot.Phases[3].Began != "GNU Mach's first boot module" {
		t.Errorf("phases %+v", doc.Boot.Phases)
	}
	if end := time.Duration(doc.Boot.Phases[3].Start + doc.Boot.Phases[3].Took); end < 15*time.Second || end > 30*time.Second {
		t.Errorf("the last phase ends after %v; the boot was given up after 20s", end)
	}
	if u := doc.Usage; doc.Result != "boot-failed" || doc.ExitCode != 125 || u == nil || u.GuestCPU <= 0 || u.At < metrics.Seconds(10*time.Second) || doc.Boot.Total != nil || doc.Network != nil {
		t.Errorf("%+v, %+v", doc, u)
	}
	if samples := openMetrics(t, p, filepath.Join(filepath.Dir(path), "metrics.prom")); samples[`hurd_qemu_exit_code`] != 125 {
		t.Errorf("samples %v", samples)
	}
}
