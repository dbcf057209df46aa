package qemu

import (
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestProfiles(t *testing.T) {
	for _, tc := range []struct {
		name              string
		guest             Guest
		machine, bus, nic string
		cpu               string
		max               units.Bytes
	}{
		{"amd64 Hurd", hurd64, "q35", BusAHCI, "e1000", "qemu64", 0},
		{"Debian's i386 Hurd", hurd32, "pc", BusIDE, "e1000", "qemu32", 2 * units.GiB},
		{"i386 Hurd, GNU Mach's drivers", hurdKernel, "pc", BusIDE, "rtl8139", "qemu32", 2 * units.GiB},
		{"i386 Hurd, drivers not known", Guest{platform.Hurd, platform.I386, ""}, "pc", BusIDE, "rtl8139", "qemu32", 2 * units.GiB},
		{"amd64 Hurd, GNU Mach's drivers", Guest{platform.Hurd, platform.AMD64, platform.KernelDrivers}, "pc", BusIDE, "rtl8139", "qemu64", 0},
		{"Linux", linux64, "q35", BusAHCI, "e1000", "qemu64", 0},
		{"i386 Linux", Guest{platform.Linux, platform.I386, ""}, "q35", BusAHCI, "e1000", "qemu32", 0},
		{"unknown", Guest{platform.Unknown, platform.AMD64, ""}, "pc", BusIDE, "e1000", "qemu64", 0},
		{"unknown i386", Guest{platform.Unknown, platform.I386, platform.UserDrivers}, "pc", BusIDE, "e1000", "qemu32", 0},
		{"nothing known at all", Guest{}, "pc", BusIDE, "e1000", "qemu64", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := ProfileFor(tc.guest)
			h := p.Hardware
			if h.Machine != tc.machine || h.DiskBus != tc.bus || h.NIC != tc.nic || h.CPUModel != tc.cpu || p.MaxMemory != tc.max {
				t.Errorf("got %+v, at most %v", h, p.MaxMemory)
			}
			if h.CPUs != 1 || !h.HPET || h.Memory != 2*units.GiB {
				t.Errorf("got %+v; want one processor, an HPET and 2 GiB", h)
			}
		})
	}
}

// TestProfilesPassTheCheck holds the two tables together: no profile may be
// refused, nor warned of under TCG, by any QEMU that we know.
func TestProfilesPassTheCheck(t *testing.T) {
	for _, version := range []string{"7.2", "10.0"} {
		f := recorded(t, version)
		for _, p := range profiles() {
			g := p.Guest
			if g.Arch == "" {
				g.Arch = platform.AMD64
			}
			warnings, err := Check(Request{Guest: g, Hardware: Plan(g, Overrides{}, f), Accel: AccelTCG, Features: f})
			if err != nil || warnings != nil {
				t.Errorf("QEMU %s, %+v: %v, %v", version, g, warnings, err)
			}
			if p.Why == "" {
				t.Errorf("%+v has no reason", g)
			}
		}
	}
}

func TestPlan(t *testing.T) {
	f := recorded(t, "10.0")
	h := Plan(hurd64, Overrides{}, f)
	if h.Machine != "pc-q35-7.2" {
		t.Errorf("machine %q; want the version that other QEMUs share", h.Machine)
	}
	h = Plan(hurd64, Overrides{Machine: "pc"}, f)
	if h.Machine != "pc-i440fx-7.2" || h.DiskBus != BusIDE {
		t.Errorf("got %+v; want the bus of the machine that was asked for", h)
	}
	all := Overrides{Machine: "q35", CPUModel: "max", DiskBus: BusVirtio, NIC: "tulip", CPUs: 4, Memory: units.GiB}
	h = Plan(hurdKernel, all, f)
	want := Hardware{Machine: "pc-q35-7.2", CPUModel: "max", DiskBus: BusVirtio, NIC: "tulip", CPUs: 4, Memory: units.GiB, HPET: true}
	if h != want {
		t.Errorf("got %+v\nwant %+v", h, want)
	}
	linux := Plan(linux64, Overrides{}, f)
	if !linux.GenerationID || Plan(linux64, Overrides{}, &Features{}).GenerationID {
		t.Errorf("got %+v; want a guest that learns of its restore where QEMU can tell it", linux)
	}
}

func TestVersioned(t *testing.T) {
	machines := func(names ...string) *Features {
		f := &Features{}
		for _, n := range names {
			f.Machines = append(f.Machines, MachineType{Name: n})
		}
		return f
	}
	for _, tc := range []struct {
		name     string
		features *Features
		machine  string
		want     string
	}{
		{"QEMU 7.2", recorded(t, "7.2"), "q35", "pc-q35-7.2"},
		{"QEMU 10.0 too", recorded(t, "10.0"), "pc", "pc-i440fx-7.2"},
		{"a later one without 7.2", machines("pc-q35-9.2", "pc-q35-13.0", "pc-q35-10.1", "pc-q35-x"), "q35", "pc-q35-13.0"},
		{"three numbers", machines("pc-q35-4.0", "pc-q35-4.0.1"), "q35", "pc-q35-4.0.1"},
		{"no versions", machines("none"), "pc", "pc"},
		{"a version asked for", recorded(t, "10.0"), "pc-q35-9.0", "pc-q35-9.0"},
		{"another machine", recorded(t, "10.0"), "microvm", "microvm"},
	} {
		if got := tc.features.Versioned(tc.machine); got != tc.want {
			t.Errorf("%s: Versioned(%q) = %q, want %q", tc.name, tc.machine, got, tc.want)
		}
	}
}

func TestSuggestion(t *testing.T) {
	names := recorded(t, "7.2").machineNames()
	for _, tc := range []struct{ name, want string }{
		{"q36", ": did you mean q35?"},
		{"Q35", ": did you mean q35"},
		{"pc-q35-7.3", "pc-q35-7.2"},
		{"raspberry", ""},
	} {
		got := suggestion(tc.name, names)
		if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("suggestion(%q) = %q, want %q", tc.name, got, tc.want)
		}
	}
}
