package lifecycle

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// savable is a run whose machine may be saved, before it has a key.
func savable(t *testing.T) *run {
	t.Helper()
	r, _ := newRun()
	r.Host.Cache = t.TempDir()
	r.config = config.Config{Snapshot: snapshotAuto, SSHUser: "root", SSHPort: 22, WorkspaceSize: 4 * units.GiB, Prepare: "true"}
	r.features = &qemu.Features{Version: "7.2.22", Sandbox: true}
	r.accel = qemu.Decision{Accel: qemu.AccelTCG}
	r.hardware = qemu.Hardware{Machine: "pc-q35-7.2", CPUModel: "qemu64", CPUs: 1, Memory: 512 * units.MiB, DiskBus: "ahci", NIC: "e1000"}
	r.disk.base = image.Base{VirtualSize: units.GiB}
	r.disk.manifest = manifest{Method: provision.MethodExt2, Prepared: &provision.Prepared{}}
	r.disk.manifest.Content = "00"
	r.checkout.drive = "/nowhere/workspace.img"
	return r
}

// TestSnapshotKeyChanges changes, one after the other, all that a saved machine
// depends on, and what it does not.
func TestSnapshotKeyChanges(t *testing.T) {
	base := savable(t).snapshotKey().String()
	if again := savable(t).snapshotKey().String(); again != base {
		t.Fatalf("keys of equal runs: %s and %s", base, again)
	}
	seen := map[string]string{base: "nothing"}
	for name, change := range map[string]func(*run){
		"QEMU":             func(r *run) { r.features.Version = "10.0.2" },
		"machine":          func(r *run) { r.hardware.Machine = "pc-i440fx-7.2" },
		"CPU model":        func(r *run) { r.hardware.CPUModel = "max" },
		"CPUs":             func(r *run) { r.hardware.CPUs = 2 },
		"memory":           func(r *run) { r.hardware.Memory *= 2 },
		"disk bus":         func(r *run) { r.hardware.DiskBus = "ide" },
		"network card":     func(r *run) { r.hardware.NIC = "rtl8139" },
		"HPET":             func(r *run) { r.hardware.HPET = !r.hardware.HPET },
		"accelerator":      func(r *run) { r.accel.Accel = qemu.AccelKVM },
		"disk":             func(r *run) { r.disk.manifest.Content = "01" },
		"disk size":        func(r *run) { r.config.DiskSize = 8 * units.GiB },
		"virtual size":     func(r *run) { r.disk.base.VirtualSize *= 2 },
		"workspace size":   func(r *run) { r.config.WorkspaceSize *= 2 },
		"no workspace":     func(r *run) { r.checkout.drive = "" },
		"SSH port":         func(r *run) { r.config.SSHPort = 2222 },
		"user":             func(r *run) { r.config.SSHUser = "admin" },
		"apt snapshot":     func(r *run) { r.config.AptSnapshot = "20260314T000000Z" },
		"root partition":   func(r *run) { r.config.RootPartition = 2 },
		"provision":        func(r *run) { r.config.Provision = "ext2" },
		"prepare":          func(r *run) { r.config.Prepare = "false" },
		"no prepare":       func(r *run) { r.config.Prepare = "" },
		"user-data":        func(r *run) { r.config.UserData = "#cloud-config\n" },
		"meta-data":        func(r *run) { r.config.MetaData = "a: b" },
		"before boot":      func(r *run) { r.config.QMP = "before-boot: query-status"; r.readMonitor() },
		"on console":       func(r *run) { r.config.QMP = "on-console \"a\": query-status"; r.readMonitor() },
		"keys in a menu":   func(r *run) { r.config.QMP = "on-console \"a\": sendkey down"; r.readMonitor() },
		"another line":     func(r *run) { r.config.QMP = "on-console \"b\": query-status"; r.readMonitor() },
		"shell of prepare": func(r *run) { r.config.Shell = "bash {0}" },
		"QEMU's arguments": func(r *run) { r.features.Sandbox = false },
		"isolation":        func(r *run) { r.config.Network = networkRestricted },
		"second serial":    func(r *run) { r.config.SerialPort.Set = true },
		"ready-pattern":    func(r *run) { r.config.ReadyPattern = regexp.MustCompile("login:") },
		"console-script":   func(r *run) { script(t, r, `send "a"`) },
		"another dialogue": func(r *run) { script(t, r, `send "b"`) },
	} {
		r := savable(t)
		change(r)
		key := r.snapshotKey().String()
		if other, taken := seen[key]; taken {
			t.Errorf("%s and %s have the same key", name, other)
		}
		seen[key] = name
	}
	for name, keep := range map[string]func(*run){
		"script":      func(r *run) { r.config.Script = "make" },
		"workspace":   func(r *run) { r.checkout.drive = "/elsewhere/workspace.img" },
		"after boot":  func(r *run) { r.config.QMP = "after-boot: query-status\nafter-run: stop\n# x"; r.readMonitor() },
		"environment": func(r *run) { r.Host.Environ = []string{"TOKEN=x"} },
		"mode":        func(r *run) { r.config.Snapshot = snapshotSave },
		"run":         func(r *run) { r.dir = "/tmp/other" },
		"forwards":    func(r *run) { r.resources.forwards, _ = qemu.ParseForwards("tcp 8080:80\nudp 0:53") },
		"disk modes":  func(r *run) { r.config.DiskCache, r.config.DiskAIO = "none", "native" },
		"trace":       func(r *run) { r.resources.trace = "guest_errors" },
		"processors":  func(r *run) { r.resources.processors = []int{0} },
		"shell":       func(r *run) { r.config.Prepare, r.config.Shell = "", "bash {0}" },
	} {
		r, same := savable(t), base
		keep(r)
		if name == "shell" { // counts only for what it runs before the save
			same = func() string { r := savable(t); r.config.Prepare = ""; return r.snapshotKey().String() }()
		}
		if key := r.snapshotKey().String(); key != same {
			t.Errorf("%s: the key has changed", name)
		}
	}
}

// TestPrepareDigestFrames: no two lists of texts look alike.
func TestPrepareDigestFrames(t *testing.T) {
	a, b := savable(t), savable(t)
	a.config.Prepare, a.config.UserData = "ab", "c"
	b.config.Prepare, b.config.UserData = "a", "bc"
	if a.prepareDigest() == b.prepareDigest() {
		t.Error("equal digests")
	}
}

func TestPlanSnapshot(t *testing.T) {
	for _, tc := range []struct {
		name          string
		change        func(*run)
		restore, save bool
		why           string // not
	}{
		{"auto", func(*run) {}, true, true, ""},
		{"save", func(r *run) { r.config.Snapshot = snapshotSave }, false, true, ""},
		{"restore", func(r *run) { r.config.Snapshot = snapshotRestore }, true, false, ""},
		{"off", func(r *run) { r.config.Snapshot = snapshotOff }, false, false, "snapshot is off"},
		{"NoCloud", func(r *run) { r.disk.manifest.Method = provision.MethodNoCloud }, false, false, "provision: ext2"},
		{"nothing prepared", func(r *run) { r.disk.manifest.Prepared = nil }, false, false, "provision: ext2"},
		{"another user", func(r *run) { r.config.SSHUser = "admin" }, false, false, "only root"},
		{"more arguments", func(r *run) { r.resources.extra = []string{"-usb"} }, false, false, "qemu-args may change the machine"},
		{"huge pages", func(r *run) { r.config.HugePages = true }, false, false, "hugepages keeps the guest's memory"},
		{"no network", func(r *run) { r.config.Network = networkNone }, false, false, "gets its keys over the network"},
		{"a seed", func(r *run) { r.seed = "/seed.iso" }, false, false, "seed disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := savable(t)
			tc.change(r)
			if err := r.planSnapshot(); err != nil {
				t.Fatal(err)
			}
			if r.mayRestore() != tc.restore || r.maySave() != tc.save || (r.keys.saver != nil) != tc.save {
				t.Errorf("may restore %t, save %t, key %t", r.mayRestore(), r.maySave(), r.keys.saver != nil)
			}
			if !strings.Contains(r.warm.why, tc.why) || (tc.why == "") != (r.warm.why == "") || r.result.Snapshot != stateCold {
				t.Errorf("why %q, output %q", r.warm.why, r.result.Snapshot)
			}
			for _, mode := range []string{snapshotSave, snapshotRestore} { // what was asked for must be possible
				r := savable(t)
				tc.change(r)
				if r.config.Snapshot == snapshotOff || tc.why == "" {
					continue
				}
				r.config.Snapshot = mode
				var e *Error
				if err := r.planSnapshot(); !errors.As(err, &e) || e.Kind != InputInvalid || !strings.Contains(err.Error(), tc.why) {
					t.Errorf("%s: %v", mode, err)
				}
			}
		})
	}
}

// TestSaveableMemory: only a machine that may be saved has its memory in a file.
func TestSaveableMemory(t *testing.T) {
	r := savable(t)
	if err := r.planSnapshot(); err != nil {
		t.Fatal(err)
	}
	ram, err := r.saveableMemory()
	if err != nil || !ram.Shared || ram.ReadOnly {
		t.Fatalf("%+v, %v", ram, err)
	}
	if info, err := r.warm.memory.Stat(); err != nil || units.Bytes(info.Size()) != r.hardware.Memory {
		t.Errorf("%v, %v", info, err)
	}
	r.dropMemory()
	r.dropMemory() // does no harm
	r.config.Snapshot = snapshotRestore
	if ram, err := r.saveableMemory(); ram != nil || err != nil || r.warm.memory != nil {
		t.Errorf("%+v, %v", ram, err)
	}
}

// TestBeganAs: a failure is not forgotten.
func TestBeganAs(t *testing.T) {
	r := savable(t)
	r.beganAs(stateSaved)
	if r.result.Snapshot != stateSaved {
		t.Error(r.result.Snapshot)
	}
	r.result.Snapshot = stateFailed
	if r.beganAs(stateSaved); r.result.Snapshot != stateFailed {
		t.Error(r.result.Snapshot)
	}
}

// TestManifestLogin: what a run writes about the login of its guest, another one can read.
func TestManifestLogin(t *testing.T) {
	r := savable(t)
	if err := r.planSnapshot(); err != nil {
		t.Fatal(err)
	}
	saver := r.keys.saver
	if err := r.makeKeys(); err != nil {
		t.Fatal(err)
	}
	r.keys.saver = saver
	m, err := r.snapshotManifest()
	if err != nil {
		t.Fatal(err)
	}
	l, err := readLogin(m.Login)
	if err != nil || len(l.pinned) != 1 || string(l.pinned[0].Marshal()) != string(r.keys.pinned[0].Marshal()) {
		t.Fatalf("%+v, %v", l, err)
	}
	if string(l.signer.PublicKey().Marshal()) != string(saver.Signer().PublicKey().Marshal()) {
		t.Error("another key")
	}
	if strings.Contains(m.Login.Private, r.keys.login) || string(l.signer.PublicKey().Marshal()) == string(r.keys.signer.PublicKey().Marshal()) {
		t.Error("the run's own key is in the manifest")
	}
	for name, bad := range map[string]snapshot.Login{
		"no key": {Private: "x", HostKeys: m.Login.HostKeys}, "no host key": {Private: m.Login.Private, HostKeys: []string{"x"}},
	} {
		if _, err := readLogin(bad); err == nil || !strings.Contains(err.Error(), "reading the login of the saved machine") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
