package qemu

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestCheck(t *testing.T) {
	f := recorded(t, "7.2")
	hurdUnknown := Guest{platform.Hurd, platform.I386, ""}
	met := make([]bool, len(rules()))
	for _, tc := range []struct {
		name      string
		guest     Guest
		overrides Overrides
		accel     Accel // TCG when empty
		refused   string
		warned    string
		says      string // in the message
	}{
		{name: "virtio disk for a Hurd", guest: hurd64, overrides: Overrides{DiskBus: BusVirtio}, refused: "disk-bus", says: "use ahci"},
		{name: "virtio disk for Linux", guest: linux64, overrides: Overrides{DiskBus: BusVirtio}},
		{name: "scsi for a Hurd", guest: hurdKernel, overrides: Overrides{DiskBus: BusSCSI}, refused: "disk-bus", says: "its boot stops"},
		{name: "nvme for a Hurd", guest: hurd64, overrides: Overrides{DiskBus: BusNVMe}, refused: "disk-bus", says: "ahci"},
		{name: "virtio NIC for a Hurd", guest: hurd64, overrides: Overrides{NIC: "virtio-net-pci"}, refused: "nic", says: "use e1000"},
		{name: "virtio NIC by its short name", guest: hurdKernel, overrides: Overrides{NIC: "virtio"}, refused: "nic", says: "rtl8139"},
		{name: "virtio NIC for Linux", guest: linux64, overrides: Overrides{NIC: "virtio"}},
		{name: "e1000 without netdde", guest: hurdKernel, overrides: Overrides{NIC: "e1000"}, refused: "nic", says: "use rtl8139, ne2k_pci, pcnet or tulip"},
		{name: "e1000 with netdde", guest: hurd32, overrides: Overrides{NIC: "e1000"}},
		{name: "i82557b", guest: hurd64, overrides: Overrides{NIC: "i82557b"}, refused: "nic", says: "hangs the Hurd's boot"},
		{name: "i82559er", guest: hurdKernel, overrides: Overrides{NIC: "i82559er"}, refused: "nic", says: "hangs the Hurd's boot"},
		{name: "i82557b for Linux", guest: linux64, overrides: Overrides{NIC: "i82557b"}},
		{name: "rtl8139", guest: hurdKernel, overrides: Overrides{NIC: "rtl8139"}},
		{name: "tulip", guest: hurdKernel, overrides: Overrides{NIC: "tulip"}},
		{name: "i440fx, large memory", guest: hurd64, overrides: Overrides{Machine: "pc", Memory: 3584 * units.MiB}, refused: "memory", says: "use machine q35"},
		{name: "i440fx, memory below the limit", guest: hurd64, overrides: Overrides{Machine: "pc", Memory: 3583 * units.MiB}},
		{name: "q35, large memory", guest: hurd64, overrides: Overrides{Memory: 8 * units.GiB}},
		{name: "i386 above its limit", guest: hurd32, overrides: Overrides{Memory: 2049 * units.MiB}, refused: "memory", says: "at most 2G"},
		{name: "i386 of unknown drivers above it", guest: hurdUnknown, overrides: Overrides{Memory: 3 * units.GiB}, refused: "memory", says: "amd64 image"},
		{name: "i386 at its limit", guest: hurd32, overrides: Overrides{Memory: 2 * units.GiB}},
		{name: "i386 on q35", guest: hurd32, overrides: Overrides{Machine: "q35", Memory: 2 * units.GiB}, warned: "memory", says: "at most 2013M"},
		{name: "i386 on q35, less", guest: hurd32, overrides: Overrides{Machine: "q35", Memory: 2013 * units.MiB}},
		{name: "IDE under KVM", guest: hurd32, accel: AccelKVM, warned: "disk-bus", says: "prefer machine q35 with disk-bus ahci"},
		{name: "AHCI under KVM", guest: hurd64, accel: AccelKVM},
		{name: "two processors", guest: hurd64, overrides: Overrides{CPUs: 2}, warned: "cpus", says: "use one processor"},
		{name: "two processors, Linux", guest: linux64, overrides: Overrides{CPUs: 2}},
		{name: "IDE on q35", guest: hurd64, overrides: Overrides{DiskBus: BusIDE}, refused: "disk-bus", says: "no IDE controller"},
		{name: "another family of machines", guest: linux64, overrides: Overrides{Machine: "isapc"}, refused: "machine", says: "pc and q35"},
		{name: "no processor", guest: linux64, overrides: Overrides{CPUs: -1}, refused: "cpus", says: "at least one"},
		{name: "hardly any memory", guest: linux64, overrides: Overrides{Memory: 16 * units.MiB}, refused: "memory", says: "less than 32M"},
		{name: "odd memory", guest: linux64, overrides: Overrides{Memory: units.GiB + 1}, refused: "memory", says: "a multiple of 1M"},
		{name: "unknown machine version", guest: linux64, overrides: Overrides{Machine: "pc-q35-7.9"}, refused: "machine", says: "QEMU 7.2.22 knows no such machine: did you mean pc-q35-"},
		{name: "unknown CPU", guest: linux64, overrides: Overrides{CPUModel: "qemu46"}, refused: "cpu-model", says: "did you mean qemu64 or qemu32"},
		{name: "CPU with flags", guest: linux64, overrides: Overrides{CPUModel: "qemu64,+aes"}},
		{name: "host CPU under TCG", guest: linux64, overrides: Overrides{CPUModel: "host"}, refused: "cpu-model", says: "only there under KVM"},
		{name: "host CPU under KVM", guest: linux64, overrides: Overrides{CPUModel: "host"}, accel: AccelKVM},
		{name: "unknown NIC", guest: linux64, overrides: Overrides{NIC: "e100"}, refused: "nic", says: "did you mean e1000"},
		{name: "a device that is no NIC", guest: linux64, overrides: Overrides{NIC: "ide-hd"}, refused: "nic", says: "no such network card"},
		{name: "no NIC", guest: linux64, overrides: Overrides{NIC: NoNIC}},
		{name: "unknown bus", guest: linux64, overrides: Overrides{DiskBus: "sata"}, refused: "disk-bus", says: "use ahci, ide, virtio, scsi or nvme"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			accel := tc.accel
			if accel == "" {
				accel = AccelTCG
			}
			request := Request{Guest: tc.guest, Hardware: Plan(tc.guest, tc.overrides, f), Accel: accel, Features: f}
			for i, r := range rules() {
				met[i] = met[i] || r.applies(request)
			}
			warnings, err := Check(request)
			refusals := Refusals(err)
			if tc.refused == "" && err != nil || tc.warned == "" && warnings != nil {
				t.Fatalf("Check = %v, %v", warnings, err)
			}
			if tc.refused != "" && (len(refusals) != 1 || refusals[0].Input != tc.refused || !strings.Contains(refusals[0].Message, tc.says)) {
				t.Errorf("err = %v; want one refusal of %s that says %q", err, tc.refused, tc.says)
			}
			if tc.warned != "" && (len(warnings) != 1 || warnings[0].Input != tc.warned || !strings.Contains(warnings[0].Message, tc.says)) {
				t.Errorf("warnings = %v; want one of %s that says %q", warnings, tc.warned, tc.says)
			}
		})
	}
	for i, r := range rules() {
		if !met[i] && !r.noHPET { // which no override can ask for
			t.Errorf("no case above meets the rule %+v", r)
		}
	}
}

// TestCheckNoHPET cannot be asked for by an override.
func TestCheckNoHPET(t *testing.T) {
	h := Plan(hurd64, Overrides{}, recorded(t, "7.2"))
	h.HPET = false
	if _, err := Check(Request{Guest: hurd64, Hardware: h, Accel: AccelTCG}); err == nil || !strings.Contains(err.Error(), "GNU Mach panics without the HPET") {
		t.Errorf("err = %v", err)
	}
}

// TestCheckReportsAll pins that one problem does not hide another, and that
// each is an error of its own.
func TestCheckReportsAll(t *testing.T) {
	f := recorded(t, "7.2")
	o := Overrides{DiskBus: BusVirtio, NIC: "virtio", Memory: 3 * units.GiB, CPUs: 2}
	warnings, err := Check(Request{Guest: hurd32, Hardware: Plan(hurd32, o, f), Accel: AccelTCG, Features: f})
	var inputs []string
	for _, r := range Refusals(err) {
		inputs = append(inputs, r.Input+"="+r.Value)
	}
	if got := strings.Join(inputs, " "); got != "disk-bus=virtio nic=virtio memory=3G" {
		t.Errorf("refused: %s", got)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0].String(), "cpus: 2: the Hurd's kernels use one processor") {
		t.Errorf("warnings: %v", warnings)
	}
	var one *RefusedError
	if !errors.As(err, &one) || !strings.HasPrefix(one.Error(), "disk-bus: virtio: the Hurd has no virtio disk driver") {
		t.Errorf("the first refusal: %v", one)
	}
	if got := Refusals(nil); got != nil {
		t.Errorf("Refusals(nil) = %v", got)
	}
}

// TestCheckUnknownNames pins that any number of unknown names is reported in
// one go, each once, for every guest, and before the guest is known.
func TestCheckUnknownNames(t *testing.T) {
	f := recorded(t, "7.2")
	const (
		machine = "machine: foo: QEMU 7.2.22 knows no such machine: use q35 or pc"
		cpu     = "cpu-model: zz: QEMU 7.2.22 knows no such processor model"
		nic     = "nic: bar: QEMU 7.2.22 knows no such network card"
		diskBus = "disk-bus: sata: there is no such disk bus: use ahci, ide, virtio, scsi or nvme"
	)
	for _, tc := range []struct {
		name string
		o    Overrides
		want []string
	}{
		{"nothing chosen", Overrides{}, nil},
		{"all known", Overrides{Machine: "q35", CPUModel: "qemu64,+aes", DiskBus: BusAHCI, NIC: NoNIC}, nil},
		{"a known version", Overrides{Machine: "pc-i440fx-7.1", DiskBus: BusIDE, NIC: "rtl8139"}, nil},
		{"machine", Overrides{Machine: "foo"}, []string{machine}},
		{"cpu-model", Overrides{CPUModel: "zz"}, []string{cpu}},
		{"nic", Overrides{NIC: "bar"}, []string{nic}},
		{"disk-bus", Overrides{DiskBus: "sata"}, []string{diskBus}},
		{"machine and nic", Overrides{Machine: "foo", NIC: "bar"}, []string{machine, nic}},
		{"all unknown", Overrides{Machine: "foo", CPUModel: "zz", DiskBus: "sata", NIC: "bar"}, []string{machine, cpu, nic, diskBus}},
	} {
		want := strings.Join(tc.want, "\n")
		same := func(caller string, err error) {
			t.Helper()
			var got []string
			for _, r := range Refusals(err) {
				got = append(got, r.Error())
			}
			if strings.Join(got, "\n") != want || (err == nil) != (want == "") {
				t.Errorf("%s: %s: %v; want %q", tc.name, caller, err, want)
			}
		}
		same("CheckNames", CheckNames(tc.o, f))
		for _, g := range []Guest{hurd64, hurdKernel, linux64} {
			_, err := Check(Request{Guest: g, Hardware: Plan(g, tc.o, f), Accel: AccelTCG, Features: f})
			same("Check for "+string(g.Family), err)
		}
	}
}

// TestCheckNames has what only Check, which knows guest and accelerator, can
// refuse, and what a QEMU was built without.
func TestCheckNames(t *testing.T) {
	f := recorded(t, "7.2")
	for _, o := range []Overrides{
		{CPUModel: "host"}, {CPUModel: "host,-avx"},
		{DiskBus: BusVirtio, NIC: "virtio"}, {Machine: "q35", DiskBus: BusIDE},
		{CPUs: -1, Memory: 1},
	} {
		if err := CheckNames(o, f); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	small := &Features{Version: "11.0.0", CPUModels: []string{"qemu64"}, Devices: []string{"ide-hd"}, Machines: []MachineType{{Name: "pc-q35-11.0", Alias: "q35"}}}
	for want, o := range map[string]Overrides{
		"": {Machine: "q35", CPUModel: "host"},
		"machine: pc: QEMU 11.0.0 knows no such machine: use q35":                  {Machine: "pc"},
		"nic: e1000: QEMU 11.0.0 knows no such network card":                       {NIC: "e1000"},
		"disk-bus: ahci: QEMU 11.0.0 was built without the device ich9-ahci":       {DiskBus: BusAHCI},
		"cpu-model: quemu64: QEMU 11.0.0 knows no such processor model: did you m": {CPUModel: "quemu64"},
	} {
		err := CheckNames(o, small)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", o, err, want)
		}
	}
	if err := CheckNames(Overrides{Machine: "foo"}, nil); err != nil {
		t.Errorf("without features: %v", err)
	}
}

func TestCheckHostMemory(t *testing.T) {
	h := Hardware{Machine: "pc", CPUs: 1, Memory: 4 * units.GiB, DiskBus: BusIDE, NIC: "e1000"}
	for _, tc := range []struct {
		name            string
		host            Memory
		refused, warned string
	}{
		{"unknown", Memory{}, "", ""},
		{"enough", Memory{Total: 16 * units.GiB, Available: 8 * units.GiB}, "", ""},
		{"too little", Memory{Total: 2 * units.GiB, Available: units.GiB}, "this host has only 2 GiB: ask for less", ""},
		{"a small container", Memory{Total: 2 * units.GiB, Available: units.GiB, Limited: true}, "this host has only 2 GiB (the container's limit)", ""},
		{"in use", Memory{Total: 16 * units.GiB, Available: units.GiB}, "", "only 1 GiB of the host's 16 GiB are free"},
	} {
		warnings, err := Check(Request{Guest: Guest{}, Hardware: h, Accel: AccelTCG, Host: tc.host})
		if tc.refused == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.refused) {
			t.Errorf("%s: err = %v, want %q", tc.name, err, tc.refused)
		}
		if tc.warned == "" != (warnings == nil) || warnings != nil && !strings.Contains(warnings[0].Message, tc.warned) {
			t.Errorf("%s: warnings = %v, want %q", tc.name, warnings, tc.warned)
		}
	}
}

// TestCheckSmallQEMU has a QEMU that lacks what is asked for.
func TestCheckSmallQEMU(t *testing.T) {
	f := &Features{Version: "11.0.0", TCG: true, CPUModels: []string{"qemu64"}, Machines: []MachineType{{Name: "pc-q35-11.0", Alias: "q35"}}}
	_, err := Check(Request{Guest: linux64, Hardware: Plan(linux64, Overrides{}, f), Accel: AccelKVM, Features: f})
	for _, text := range []string{
		"nic: e1000: QEMU 11.0.0 knows no such network card",
		"disk-bus: ahci: QEMU 11.0.0 was built without the device ide-hd",
		"accel: kvm: this QEMU (11.0.0) was built without it",
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("err = %v; want %q in it", err, text)
		}
	}
}

func TestHostMemory(t *testing.T) {
	meminfo := "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\nodd\n"
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for _, tc := range []struct {
		name string
		root fstest.MapFS
		want Memory
	}{
		{"a host", fstest.MapFS{"proc/meminfo": file(meminfo)}, Memory{Total: 16 * units.MiB, Available: 8 * units.MiB}},
		{"no limit", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory.max": file("max\n")},
			Memory{Total: 16 * units.MiB, Available: 8 * units.MiB}},
		{"version 2", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory.max": file("4194304\n"), "sys/fs/cgroup/memory.current": file("1048576\n")},
			Memory{Total: 4 * units.MiB, Available: 3 * units.MiB, Limited: true}},
		{"version 1", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("4194304\n"), "sys/fs/cgroup/memory/memory.usage_in_bytes": file("5242880\n")},
			Memory{Total: 4 * units.MiB, Available: 0, Limited: true}},
		{"a limit above all there is", fstest.MapFS{"proc/meminfo": file(meminfo), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")},
			Memory{Total: 16 * units.MiB, Available: 8 * units.MiB}},
	} {
		if got, err := HostMemory(tc.root); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.name, got, err, tc.want)
		}
	}
	for text, root := range map[string]fstest.MapFS{
		"reading the host's memory: open proc/meminfo":               {},
		"reading the host's memory: /proc/meminfo names no MemTotal": {"proc/meminfo": file("MemFree: 1 kB\n")},
	} {
		if _, err := HostMemory(root); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("err = %v, want %q", err, text)
		}
	}
}
