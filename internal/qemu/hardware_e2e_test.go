package qemu

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// diskFiles makes an overlay on a base, a seed and a drive, for this user only.
func diskFiles(t *testing.T) []Disk {
	t.Helper()
	needProgram(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"base.raw", "seed.iso", "drive.raw"} {
		if err := os.WriteFile(file(name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The overlay names a base that does not exist: only the node that the
	// command line names may count.
	out, err := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/no/such/base", "-F", "raw", file("overlay.qcow2"), "1M").CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return []Disk{
		{Image: Image{Path: file("overlay.qcow2"), Format: "qcow2", Base: &Image{Path: file("base.raw"), Format: "raw"}}},
		{Image: Image{Path: file("seed.iso"), Format: "raw"}, CDROM: true},
		{Image: Image{Path: file("drive.raw"), Format: "raw"}, Cache: CacheWriteback},
	}
}

// TestE2EHardware has this host's QEMU build every machine that a profile or
// a disk bus asks for.
func TestE2EHardware(t *testing.T) {
	type machine struct {
		guest     Guest
		overrides Overrides
	}
	machines := map[string]machine{}
	for i, p := range profiles() {
		machines[fmt.Sprintf("profile %d", i)] = machine{guest: p.Guest}
	}
	for _, bus := range []string{BusAHCI, BusIDE, BusSCSI, BusVirtio, BusNVMe} {
		machines["pc with "+bus] = machine{linux64, Overrides{Machine: "pc", DiskBus: bus}}
		if bus != BusIDE {
			machines["q35 with "+bus] = machine{linux64, Overrides{DiskBus: bus}}
		}
	}
	for _, name := range []string{"e1000e", "e1000-82545em", "ne2k_pci", "pcnet", "tulip", "vmxnet3", "virtio", "i82557b"} { // the profiles have others
		machines["nic "+name] = machine{linux64, Overrides{NIC: name}}
	}
	for name, tc := range machines {
		t.Run(name, func(t *testing.T) {
			spec, options := realSpec(t, firmware("", idle))
			tc.overrides.Memory = 64 << 20
			spec.Hardware = Plan(tc.guest, tc.overrides, options.Features)
			if _, err := Check(Request{Hardware: spec.Hardware, Accel: AccelTCG, Features: options.Features}); err != nil {
				t.Fatalf("refused: %v", err)
			}
			spec.Disks, spec.Paused = diskFiles(t), true
			checkBlocks(t, startReal(t, spec, options))
		})
	}
}

// checkBlocks asks QEMU what it made of the three disks.
func checkBlocks(t *testing.T, m *Machine) {
	t.Helper()
	var nodes []struct {
		Name     string `json:"node-name"`
		ReadOnly bool   `json:"ro"`
		Driver   string `json:"drv"`
		Cache    struct {
			NoFlush bool `json:"no-flush"`
		} `json:"cache"`
		Image struct {
			Backing json.RawMessage `json:"backing-image"`
		} `json:"image"`
	}
	if err := m.Monitor().Execute(deadline(t, 20*time.Second), "query-named-block-nodes", nil, &nodes); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range nodes {
		got[n.Name] = fmt.Sprintf("%s, read-only %v, unsafe %v", n.Driver, n.ReadOnly, n.Cache.NoFlush)
	}
	for name, want := range map[string]string{
		"disk0":      "qcow2, read-only false, unsafe true",
		"disk0-base": "raw, read-only true, unsafe false",
		"cdrom1":     "raw, read-only true, unsafe false",
		"disk2":      "raw, read-only false, unsafe false",
	} {
		if got[name] != want {
			t.Errorf("node %s is %q, want %q", name, got[name], want)
		}
	}
	if len(nodes) != 8 {
		t.Errorf("there are %d nodes: %v", len(nodes), got)
	}
}

// multibootKernel is a kernel that writes its command line to the serial
// line: a multiboot header with the addresses in it, then code that is given
// the boot information in EBX (the Multiboot specification, version 0.6.96).
func multibootKernel() []byte {
	const magic, flags, base = 0x1badb002, 0x10000, 0x100000
	const headerSize = 32
	code := []byte{
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0x8b, 0x73, 0x10, // mov esi, [ebx+16]
		0xac,       // lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz to what follows the loop
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp to the lodsb
		0xb0, '\n', 0xee, // mov al, newline; out dx, al
		0xf4, // hlt
	}
	end := uint32(base + headerSize + len(code))
	var image []byte
	for _, word := range []uint32{magic, flags, 1<<32 - magic - flags, base, base, end, end, base + headerSize} {
		image = binary.LittleEndian.AppendUint32(image, word)
	}
	return append(image, code...)
}

// TestE2EMultiboot boots a kernel directly, from a file that QEMU's user may
// not read.
func TestE2EMultiboot(t *testing.T) {
	spec, options := realSpec(t, Blob{})
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, multibootKernel(), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Kernel, spec.Append = Blob{Path: path}, "console=com0 root=part:2:device:wd0"
	m := startReal(t, spec, options)
	waitFor(t, m, "console=com0 root=part:2:device:wd0", 30*time.Second)
}

// TestE2EIncoming starts a machine that waits for a saved one.
func TestE2EIncoming(t *testing.T) {
	spec, options := realSpec(t, firmware("", idle))
	spec.Incoming = "defer"
	if m := startReal(t, spec, options); m.Phase() != PhaseIncoming {
		t.Errorf("phase %s", m.Phase())
	}
}

// TestE2EHurdProfileSeesItsHardware pins what the table promises the Hurd.
func TestE2EHurdProfileSeesItsHardware(t *testing.T) {
	for _, tc := range []struct {
		guest Guest
		want  []string
	}{
		{hurd64, []string{"SATA controller", "Ethernet controller", "VGA controller"}},
		{Guest{platform.Hurd, platform.I386, platform.KernelDrivers}, []string{"IDE controller", "Ethernet controller", "VGA controller"}},
	} {
		spec, options := realSpec(t, firmware("", idle))
		spec.Hardware = Plan(tc.guest, Overrides{Memory: 64 << 20}, options.Features)
		m := startReal(t, spec, options)
		var text string
		command := map[string]string{"command-line": "info pci"}
		if err := m.Monitor().Execute(deadline(t, 20*time.Second), "human-monitor-command", command, &text); err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%+v has no %s:\n%s", tc.guest, want, text)
			}
		}
		var hpet bool
		property := map[string]string{"path": "/machine", "property": "hpet"}
		if err := m.Monitor().Execute(deadline(t, 20*time.Second), "qom-get", property, &hpet); err != nil || !hpet {
			t.Errorf("%+v: HPET %v, %v", tc.guest, hpet, err)
		}
	}
}
