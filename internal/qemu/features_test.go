package qemu

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRecordedAnswers(t *testing.T) {
	for _, tc := range []struct {
		file, version, pkg string
		kvmDevice, runWith bool
		newest             string
		deprecated, absent string
	}{
		{"7.2", "7.2.22", "Debian 1:7.2", false, false, "pc-q35-7.2", "pc-i440fx-1.7", "pc-q35-8.0"},
		{"10.0", "10.0.13", "Debian 1:10.0.13", true, true, "pc-q35-10.0", "pc-q35-7.0", "pc-q35-2.3"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			f := recorded(t, tc.file)
			if f.Version != tc.version || !strings.HasPrefix(f.Package, tc.pkg) {
				t.Errorf("version %q, package %q", f.Version, f.Package)
			}
			if !f.TCG || !f.KVM || !f.Sandbox || !f.VNC || f.KVMDevice != tc.kvmDevice || f.RunWith != tc.runWith || f.PrivateRAM != tc.runWith {
				t.Errorf("tcg %v, kvm %v, sandbox %v, vnc %v, kvm device %v, run-with %v, private memory %v", f.TCG, f.KVM, f.Sandbox, f.VNC, f.KVMDevice, f.RunWith, f.PrivateRAM)
			}
			for _, name := range []string{"pc", "q35", "pc-q35-7.2", "pc-i440fx-7.2", tc.newest, tc.deprecated} {
				if !f.HasMachine(name) {
					t.Errorf("no machine %q", name)
				}
			}
			if f.HasMachine(tc.absent) || f.HasMachine("") {
				t.Errorf("machine %q should not be there", tc.absent)
			}
			i := slices.IndexFunc(f.Machines, func(m MachineType) bool { return m.Name == tc.deprecated })
			if !f.Machines[i].Deprecated {
				t.Errorf("%s is deprecated", tc.deprecated)
			}
			for _, name := range []string{"ide-hd", "ide-cd", "ich9-ahci", "e1000", "rtl8139", "isa-debug-exit", "virtio-blk-pci", "nvme"} {
				if !f.HasDevice(name) {
					t.Errorf("no device %q", name)
				}
			}
			if f.HasDevice("ide") || f.HasDevice("device") {
				t.Error("there are devices that are none")
			}
			if !f.HasCPU("qemu64") || !f.HasCPU("host") || !f.HasCPU("max,-sse3") || f.HasCPU("qemu") {
				t.Errorf("processors: %v", f.CPUModels)
			}
		})
	}
}

func TestBadAnswers(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "it did not name its version, machines and devices"},
		{"not JSON", "qemu: help\n", "reading its answers: invalid character"},
		{"all refused", `{"QMP": {}}{"error": {"class": "GenericError", "desc": "no"}, "id": "machines"}`, "it did not name"},
		{"another form", `{"return": "7.2", "id": "machines"}`, "reading its answer about machines: "},
	} {
		if f, err := parseAnswers(strings.NewReader(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v; want %q", tc.name, f, err, tc.want)
		}
	}
}

// countingQEMU is a QEMU that gives recorded answers and counts its starts.
func countingQEMU(t *testing.T, dir string) (binary string, starts func() int) {
	t.Helper()
	answers, err := filepath.Abs("testdata/answers/qemu-7.2.json")
	if err != nil {
		t.Fatal(err)
	}
	binary, count := filepath.Join(dir, "qemu"), filepath.Join(dir, "starts")
	script := "#!/bin/sh\necho start >>" + count + "\ncat " + answers + "\nwhile read -r line; do case $line in *quit*) exit;; esac; done\n"
	if err := os.WriteFile(binary, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return binary, func() int {
		data, err := os.ReadFile(count)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(data), "start")
	}
}

func TestProbeCache(t *testing.T) {
	binary, starts := countingQEMU(t, t.TempDir())
	dir := filepath.Join(t.TempDir(), "cache") // made when needed
	file := filepath.Join(dir, "qemu-features.json")
	probe := func(want int, why string) {
		t.Helper()
		f, err := Probe(deadline(t, 20*time.Second), binary, dir)
		if err != nil || f.Version != "7.2.22" || !f.HasDevice("e1000") {
			t.Fatalf("%s: %+v, %v", why, f, err)
		}
		if got := starts(); got != want {
			t.Errorf("%s: %d starts so far, want %d", why, got, want)
		}
	}
	probe(1, "the first time")
	probe(1, "the second time")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cache: %v, %v", info, err)
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write("{", 0o600)
	probe(2, "after the cache was corrupted")
	probe(2, "after it was repaired")
	write(string(good), 0o666)
	probe(3, "with a cache that everyone can write")
	write(`{"binary":`+string(mustField(t, good, "binary"))+`,"features":{}}`, 0o600)
	probe(4, "with a cache that knows nothing")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(binary, later, later); err != nil {
		t.Fatal(err)
	}
	probe(5, "with another QEMU")
	target := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(file, target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
	probe(6, "with a link in the cache's place")
	if os.Geteuid() == 0 {
		if err := os.Chown(file, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		probe(7, "with a cache of another user")
	}
	dir = ""
	probe(starts()+1, "without a cache")
}

func mustField(t *testing.T, data []byte, name string) json.RawMessage {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	return fields[name]
}

func TestProbeFailures(t *testing.T) {
	_, err := Probe(deadline(t, time.Second), "no-such-qemu", "")
	if err == nil || !strings.Contains(err.Error(), `finding QEMU (Debian: apt-get install qemu-system-x86): exec: "no-such-qemu"`) {
		t.Errorf("err = %v", err)
	}
	binary := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho 'qemu: symbol lookup error' >&2\nexit 127\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Probe(deadline(t, 20*time.Second), binary, "")
	if err == nil || !strings.Contains(err.Error(), "asking QEMU what it can do: "+binary+": exit status 127: qemu: symbol lookup error") {
		t.Errorf("err = %v", err)
	}
}

// TestE2EProbe asks the QEMU of this host, whatever its version.
func TestE2EProbe(t *testing.T) {
	needQEMU(t)
	f, err := Probe(deadline(t, 30*time.Second), *qemuFlag, "")
	if err != nil {
		t.Fatal(err)
	}
	if !f.TCG || !f.HasDevice("isa-debug-exit") || machineKind(f.Versioned("q35")) != kindQ35 || f.Versioned("pc") == "pc" {
		t.Errorf("got %+v", f)
	}
	if warnings, err := Check(Request{Guest: hurd64, Hardware: Plan(hurd64, Overrides{}, f), Accel: AccelTCG, Features: f}); err != nil || warnings != nil {
		t.Errorf("the amd64 Hurd's machine: %v, %v", warnings, err)
	}
}

// needQEMU skips a test where there is no QEMU, unless that is required.
func needQEMU(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	needProgram(t, *qemuFlag, "qemu-system-x86")
}

func needProgram(t testing.TB, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatalf("%s is missing (apt-get install %s), and E2E_REQUIRED=1", name, debianPackage)
	}
	t.Skipf("%s is missing: apt-get install %s", name, debianPackage)
}

// TestUnusableCache pins that a cache that cannot be kept is no error.
func TestUnusableCache(t *testing.T) {
	binary, starts := countingQEMU(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		if _, err := Probe(deadline(t, 20*time.Second), binary, filepath.Join(file, "cache")); err != nil {
			t.Errorf("err = %v", err)
		}
		if starts() != want {
			t.Errorf("%d starts, want %d", starts(), want)
		}
	}
}
