package qemu

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Args is QEMU's command line without the program's name. It depends on
// nothing but the Spec.
func (s Spec) Args() []string {
	name := s.Name
	if name == "" {
		name = "guest"
	}
	a := &args{}
	a.add("-nodefaults")
	a.add("-no-user-config")
	a.add("-name", fmt.Sprintf("guest=%s,process=qemu-%s,debug-threads=on", escape(name), escape(name)))
	s.machineArgs(a)
	s.confinementArgs(a)
	s.bootArgs(a)
	s.channelArgs(a)
	for _, d := range layout(s.Machine, s.DiskBus, s.Disks) {
		d.args(a)
	}
	s.networkArgs(a)
	if s.GenerationID {
		a.add("-device", generationID+",guid=auto")
	}
	if s.DebugExit {
		a.add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04")
	}
	if s.Trace != "" && s.TraceFD != 0 {
		a.add("-d", s.Trace, "-D", descriptorPath(s.TraceFD))
	}
	return append(a.list, s.Extra...)
}

type args struct{ list []string }

func (a *args) add(words ...string) { a.list = append(a.list, words...) }

// escape makes a value safe inside QEMU's comma-separated options.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (s Spec) machineArgs(a *args) {
	machine := escape(s.Machine)
	if kind := machineKind(s.Machine); kind == kindPC || kind == kindQ35 {
		machine += ",hpet=" + onOff(s.HPET)
	}
	switch {
	case s.RAM != nil:
		machine += ",memory-backend=" + ramID
		s.RAM.args(a, s.Memory)
	case s.HugePage != 0:
		machine += ",memory-backend=" + ramID
		a.add("-object", fmt.Sprintf("memory-backend-memfd,id=%s,size=%dM,hugetlb=on,hugetlbsize=%d", ramID, s.Memory.MiB(), int64(s.HugePage)))
	}
	a.add("-machine", machine+",dump-guest-core=off")
	switch {
	case s.Accel == AccelKVM && s.KVMFD != 0:
		a.addFD(s.KVMFD)
		a.add("-accel", "kvm,device="+fdset(s.KVMFD))
	default:
		a.add("-accel", string(s.Accel))
	}
	a.add("-cpu", s.CPUModel)
	a.add("-smp", strconv.Itoa(s.CPUs))
	a.add("-m", strconv.FormatInt(s.Memory.MiB(), 10)+"M")
}

// ramID names the guest's memory, in the stream of a saved machine as well.
const ramID = "ram"

func (r RAM) args(a *args, size units.Bytes) {
	backend := fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=%s,share=%s", ramID, size.MiB(), descriptorPath(r.FD), onOff(r.Shared))
	if r.ReadOnly {
		backend += ",readonly=on,rom=off" // rom: the guest may write, to pages of its own
	}
	a.add("-object", backend)
}

// confinementArgs take away what QEMU does not need. A QEMU that is to change
// its own user must be allowed the calls for it: the filter is in force before.
func (s Spec) confinementArgs(a *args) {
	privileges := "deny"
	if s.DropUser != nil {
		privileges = "allow"
	}
	if !s.NoSandbox {
		a.add("-sandbox", "on,obsolete=deny,elevateprivileges="+privileges+",spawn=deny,resourcecontrol=deny")
	}
	if d := s.DropUser; d != nil {
		who := fmt.Sprintf("%d:%d", d.User.UID, d.User.GID)
		if d.RunWith {
			a.add("-run-with", "user="+who)
		} else {
			a.add("-runas", who)
		}
	}
}

func (s Spec) bootArgs(a *args) {
	a.add("-display", "none", "-vga", "std") // the Hurd's console wants a VGA, and so does a screendump
	if s.VNC {
		a.add("-vnc", "none,password=on") // it listens when ShowVNC says where
	}
	a.add("-action", "reboot=shutdown") // a reset is an end: nothing here survives one
	a.add("-rtc", "base=utc")
	a.add("-boot", "strict=on")
	if s.Firmware.isSet() {
		a.add("-bios", descriptorPath(s.Firmware.FD))
	}
	if s.Kernel.isSet() {
		a.add("-kernel", descriptorPath(s.Kernel.FD))
		if s.Initrd.isSet() {
			a.add("-initrd", descriptorPath(s.Initrd.FD))
		}
		if s.Append != "" {
			a.add("-append", s.Append)
		}
	}
	if s.Incoming != "" {
		a.add("-incoming", s.Incoming)
	}
	if s.Paused {
		a.add("-S")
	}
}

// descriptorPath is for the options that only take a path.
func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// fdset is for the options that go through QEMU's own sets of descriptors.
// Set and descriptor have the same number.
func fdset(fd int) string { return fmt.Sprintf("/dev/fdset/%d", fd) }

func (a *args) addFD(fd int) { a.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd)) }

func (s Spec) channelArgs(a *args) {
	if s.SerialFD != 0 {
		a.add("-chardev", fmt.Sprintf("socket,id=serial,fd=%d", s.SerialFD), "-serial", "chardev:serial")
	}
	if s.SecondSerial {
		a.add("-chardev", fmt.Sprintf("socket,id=serial2,fd=%d", s.Serial2FD), "-serial", "chardev:serial2")
	}
	if s.MonitorFD != 0 {
		a.add("-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", s.MonitorFD), "-mon", "chardev=monitor,mode=control")
	}
	if s.ToolsFD != 0 {
		a.add("-chardev", fmt.Sprintf("socket,id=tools,fd=%d,server=on,wait=off", s.ToolsFD), "-mon", "chardev=tools,mode=control")
	}
}

// cardAddress is the MAC address of the guest's network card: one of QEMU's own.
func cardAddress() net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0x00, 0x12, 0x34, 0x56} }

// NoNIC is Hardware.NIC for a guest without a network.
const NoNIC = "none"

func (s Spec) networkArgs(a *args) {
	if s.NIC == "" || s.NIC == NoNIC {
		return
	}
	netdev := "user,id=net,restrict=" + onOff(s.Isolated)
	for _, f := range s.Forwards {
		// Port 0 lets the kernel choose a free one; ForwardedPorts asks which.
		netdev += ",hostfwd=" + f.rule()
	}
	// Without an option ROM the firmware has no network to boot from: faster,
	// and one thing less that must be equal where a saved machine is loaded.
	a.add("-netdev", netdev, "-device", nicModel(s.NIC)+",netdev=net,romfile=,mac="+cardAddress().String())
	if s.PacketsFD != 0 {
		a.add("-object", fmt.Sprintf("filter-dump,id=packets,netdev=net,file=%s,maxlen=%d", descriptorPath(s.PacketsFD), frameStart))
	}
}
