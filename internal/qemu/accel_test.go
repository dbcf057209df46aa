package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestChooseWithoutKVM(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	withKVM := recorded(t, "7.2")
	for _, tc := range []struct {
		name     string
		device   string
		features *Features
		state    KVMState
		warning  bool
		reason   string
		advice   string
	}{
		{"no device", filepath.Join(dir, "kvm"), withKVM, KVMAbsent, false, "kvm is not exposed here", "run the container with --device /dev/kvm"},
		{"no KVM in QEMU", "/dev/null", &Features{TCG: true}, KVMNotBuilt, true, "this QEMU was built without KVM", "install a QEMU"},
		{"a file", file, withKVM, KVMBroken, true, "file is not a device", "use another host"},
		{"a directory", dir, withKVM, KVMBroken, true, "cannot be opened (is a directory)", "use another host"},
		{"another device", "/dev/null", withKVM, KVMBroken, true, "/dev/null does not answer as KVM (KVM_GET_API_VERSION: inappropriate ioctl for device)", "use another host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := AccelOptions{Device: tc.device, Features: tc.features, CacheDir: t.TempDir()}
			d, err := ChooseAccel(t.Context(), o)
			if err != nil || d.Accel != AccelTCG || d.Warning != tc.warning || d.KVM != tc.state {
				t.Errorf("auto: %+v, %v", d, err)
			}
			if !strings.HasPrefix(d.Reason, "TCG, because ") || !strings.Contains(d.Reason, tc.reason) {
				t.Errorf("reason %q; want %q in it", d.Reason, tc.reason)
			}
			o.Want = AccelKVM
			_, err = ChooseAccel(t.Context(), o)
			var refusal *AccelError
			if !errors.As(err, &refusal) || refusal.State != tc.state || !strings.HasPrefix(err.Error(), "accel kvm: ") ||
				!strings.Contains(err.Error(), tc.reason) || !strings.Contains(err.Error(), tc.advice) || !strings.HasSuffix(err.Error(), ", or use accel auto or tcg") {
				t.Errorf("kvm: %v; want %s: %q, %q", err, tc.state, tc.reason, tc.advice)
			}
		})
	}
}

// TestChooseTCG pins that asking for TCG looks at nothing.
func TestChooseTCG(t *testing.T) {
	d, err := ChooseAccel(t.Context(), AccelOptions{Want: AccelTCG})
	if err != nil || d.Accel != AccelTCG || d.Warning || d.Reason != "TCG, as asked for" || d.KVM != KVMUnasked {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestChooseAsksQEMU leaves it to ChooseAccel to ask the binary.
func TestChooseAsksQEMU(t *testing.T) {
	binary, starts := countingQEMU(t, t.TempDir())
	o := AccelOptions{Binary: binary, Device: filepath.Join(t.TempDir(), "kvm")}
	if d, err := ChooseAccel(t.Context(), o); err != nil || d.KVM != KVMAbsent || starts() != 1 {
		t.Errorf("%+v, %v after %d starts", d, err, starts())
	}
	o.Binary = "no-such-qemu"
	if _, err := ChooseAccel(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), "choosing the accelerator: finding QEMU") {
		t.Errorf("err = %v", err)
	}
}

func TestOpenVerdict(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/dev/kvm", Err: syscall.EACCES}
	v := openVerdict("/dev/kvm", denied)
	if v.State != KVMDenied || !strings.Contains(v.Reason, "/dev/kvm may not be opened by user") || !strings.HasSuffix(v.Reason, "(permission denied)") {
		t.Errorf("%+v", v)
	}
	v = openVerdict("/dev/kvm", &fs.PathError{Op: "open", Path: "/dev/kvm", Err: syscall.EPERM})
	if v.State != KVMDenied || !strings.HasSuffix(v.Reason, "(operation not permitted)") {
		t.Errorf("%+v", v)
	}
	v = openVerdict("/dev/kvm", &fs.PathError{Op: "open", Path: "/dev/kvm", Err: syscall.ENODEV})
	if v.State != KVMBroken || v.Reason != "/dev/kvm cannot be opened (no such device)" {
		t.Errorf("%+v", v)
	}
	if v := openVerdict("/dev/kvm", errors.New("odd")); v.Reason != "/dev/kvm cannot be opened (odd)" {
		t.Errorf("%+v", v)
	}
}

// TestProbeVerdicts has the fake QEMU end as the payload can make it end.
func TestProbeVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		timeout      time.Duration
		state        KVMState
		reason       string
	}{
		{"works", "exit 107", 0, KVMWorks, "KVM: a test guest ran in "},
		{"works, with a warning", "echo 'warning: host lacks a feature' >&2; exit 107", 0, KVMWorks, "KVM: "},
		{"hangs", "exec sleep 1000", 300 * time.Millisecond, KVMDead, "did not end within 300ms: this host's (nested) KVM does not run guests"},
		{"reset", "exit 0", 0, KVMDead, "QEMU's status 0 instead of 107"},
		{"a failed step", "exit 7", 0, KVMDead, "QEMU's status 7 instead of 107"},
		{"refused", "echo 'Could not access KVM kernel module: Permission denied' >&2; echo 'failed to initialize kvm' >&2; exit 1", 0, KVMRefused,
			"QEMU cannot use /dev/kvm (status 1): Could not access KVM kernel module: Permission denied; failed to initialize kvm"},
		{"crashed", "kill -SEGV $$", 0, KVMRefused, "QEMU cannot use /dev/kvm (status 139)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			binary := filepath.Join(publicDir(t), "qemu")
			if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			timeout := tc.timeout
			if timeout == 0 {
				timeout = 20 * time.Second
			}
			o := AccelOptions{Binary: binary, Features: recorded(t, "7.2"), Timeout: timeout}.withDefaults()
			v, err := probeKVM(t.Context(), o, Access{})
			if err != nil || v.State != tc.state || !strings.Contains(v.Reason, tc.reason) {
				t.Errorf("%+v, %v; want %s: %q", v, err, tc.state, tc.reason)
			}
		})
	}
}

func TestProbeFailsToStart(t *testing.T) {
	o := AccelOptions{Binary: "/no/qemu", Features: recorded(t, "7.2")}.withDefaults()
	v, err := probeKVM(t.Context(), o, Access{})
	if err != nil || v.State != KVMRefused || !strings.Contains(v.Reason, "/no/qemu: no such file or directory") {
		t.Errorf("%+v, %v", v, err)
	}
	v, err = probeKVM(t.Context(), o, Access{Open: "/no/kvm"})
	if err != nil || v.State != KVMRefused || !strings.Contains(v.Reason, "opening the KVM device: open /no/kvm") {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestProbeCancelled pins that a cancelled probe is no verdict on KVM.
func TestProbeCancelled(t *testing.T) {
	cause := errors.New("SIGTERM")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	o := AccelOptions{Binary: "/bin/true", Features: recorded(t, "7.2")}.withDefaults()
	if v, err := probeKVM(ctx, o, Access{}); !errors.Is(err, cause) {
		t.Errorf("%+v, %v; want the context's cause", v, err)
	}
}

func TestVerdictMemory(t *testing.T) {
	boot := filepath.Join(t.TempDir(), "boot_id")
	setBoot := func(id string) {
		t.Helper()
		if err := os.WriteFile(boot, []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	o := AccelOptions{Binary: "/bin/sh", BootID: boot, CacheDir: t.TempDir()}.withDefaults()
	setBoot("one\n")
	key := o.verdictKey(device)
	if key.Boot != "one" || key.Device == 0 || key.Binary.Path != "/bin/sh" || len(key.Payload) != 64 {
		t.Fatalf("key %+v", key)
	}
	path := cachePath(o.CacheDir, verdictFile)
	keep := func(v verdict) {
		t.Helper()
		if err := writeCache(path, keptVerdict{key, v}); err != nil {
			t.Fatal(err)
		}
	}
	recalled := func() bool {
		_, ok := recallVerdict(o.CacheDir, o.verdictKey(device))
		return ok
	}
	if recalled() {
		t.Error("something was remembered of nothing")
	}
	for _, s := range []KVMState{KVMWorks, KVMDead, KVMRefused} {
		keep(verdict{State: s, Reason: "r"})
		if v, ok := recallVerdict(o.CacheDir, key); !ok || v.State != s || v.Reason != "r" {
			t.Errorf("%s: recalled %+v, %v", s, v, ok)
		}
	}
	setBoot("two")
	if recalled() {
		t.Error("a verdict outlived the host's boot")
	}
	setBoot("")
	if recalled() || o.verdictKey(device) != (verdictKey{}) {
		t.Error("a host without a boot id was recognized")
	}
	setBoot("one")
	if !recalled() {
		t.Error("the boot was not recognized")
	}
	o.User = User{1000, 1000}
	if recalled() {
		t.Error("a verdict for another user was used")
	}
	o.User = User{}
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	if recalled() {
		t.Error("a file that others can write was trusted")
	}
	keep(verdict{State: "excellent"})
	if recalled() {
		t.Error("an unknown verdict was used")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if recalled() {
		t.Error("a corrupt file was used")
	}
	o.Binary = "no-such-qemu"
	if o.verdictKey(device) != (verdictKey{}) {
		t.Error("a missing binary has a key")
	}
}

// TestRememberedVerdict counts the probes: a failure that may have had a
// passing cause costs auto nothing, names the file that holds it, and is no
// obstacle for a user who insists on KVM.
func TestRememberedVerdict(t *testing.T) {
	dir := publicDir(t)
	binary, starts := filepath.Join(dir, "qemu"), filepath.Join(dir, "starts")
	boot, status := filepath.Join(dir, "boot_id"), filepath.Join(dir, "status")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(binary, "#!/bin/sh\necho >> "+starts+"\necho 'Cannot allocate memory' >&2\nexit $(cat "+status+")\n", 0o755)
	write(boot, "one\n", 0o600)
	write(starts, "", 0o600)
	if err := os.Chmod(starts, 0o666); err != nil { // QEMU has a user of its own
		t.Fatal(err)
	}
	o := AccelOptions{Binary: binary, Features: recorded(t, "7.2"), Timeout: 20 * time.Second, BootID: boot, CacheDir: t.TempDir()}.withDefaults()
	device, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.CacheDir, "kvm-verdict.json")
	const failed = "QEMU cannot use /dev/kvm (status 1): Cannot allocate memory"
	remembered := failed + " (found by an earlier run since this host booted; accel kvm tries again, and so does every run once " + path + " is removed)"
	for _, step := range []struct {
		name   string
		want   Accel
		status string // of the QEMU from now on
		forget bool
		state  KVMState
		reason string // the whole of it, or its beginning for KVM that works
		starts int    // so far
	}{
		{"auto probes", AccelAuto, "1", false, KVMRefused, failed, 1},
		{"auto remembers", AccelAuto, "107", false, KVMRefused, remembered, 1},
		{"auto remembers without adding to it", AccelAuto, "107", false, KVMRefused, remembered, 1},
		{"kvm probes again, in vain", AccelKVM, "1", false, KVMRefused, failed, 2},
		{"the file is removed", AccelAuto, "7", true, KVMDead, "a test guest went wrong under KVM (QEMU's status 7 instead of 107)", 3},
		{"kvm probes again", AccelKVM, "107", false, KVMWorks, "KVM: a test guest ran in ", 4},
		{"auto has the new verdict", AccelAuto, "1", false, KVMWorks, "KVM: a test guest ran in ", 4},
		{"kvm trusts what worked", AccelKVM, "1", false, KVMWorks, "KVM: a test guest ran in ", 4},
	} {
		write(status, step.status, 0o644)
		if step.forget {
			if err := os.Remove(path); err != nil {
				t.Fatalf("%s: the file that the reason names: %v", step.name, err)
			}
		}
		o.Want = step.want
		v, err := recallOrProbe(t.Context(), o, o.verdictKey(device), Access{})
		if err != nil || v.State != step.state || !strings.HasPrefix(v.Reason, step.reason) || v.State == KVMRefused && v.Reason != step.reason {
			t.Errorf("%s: %+v, %v; want %s: %q", step.name, v, err, step.state, step.reason)
		}
		if log, err := os.ReadFile(starts); err != nil || len(log) != step.starts {
			t.Errorf("%s: %d probes so far (%v), want %d", step.name, len(log), err, step.starts)
		}
	}
}

// TestE2EAccel asks about the real device, if there is one: whatever the
// outcome, it has a reason, comes soon, and is remembered.
func TestE2EAccel(t *testing.T) {
	o := tcgOptions(t)
	o.Timeout, o.CacheDir = 2*time.Second, t.TempDir()
	start := time.Now()
	first, err := ChooseAccel(deadline(t, 30*time.Second), o)
	took := time.Since(start)
	if err != nil || first.Reason == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	t.Logf("%v: %s", took, first.Reason)
	if took > 10*time.Second { // the probe has 2 s; the rest is for a busy host
		t.Errorf("it took %v", took)
	}
	start = time.Now()
	second, err := ChooseAccel(deadline(t, 30*time.Second), o)
	cause, _, _ := strings.Cut(first.Reason, "; ") // before the advice
	if err != nil || second.Accel != first.Accel || !strings.HasPrefix(second.Reason, cause) || second.KVM != first.KVM {
		t.Errorf("first %+v, then %+v, %v", first, second, err)
	}
	if again := time.Since(start); first.KVM == KVMDead && again > took/2 {
		t.Errorf("the second time took %v, the first %v: nothing was remembered", again, took)
	}
	o.Want = AccelKVM
	d, err := ChooseAccel(deadline(t, 30*time.Second), o)
	if (err == nil) != (first.Accel == AccelKVM) {
		t.Errorf("auto chose %s, kvm gives %+v, %v", first.Accel, d, err)
	}
}
