package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The kinds of machine that differ in where a disk goes.
const (
	kindPC    = "pc"  // i440FX: an IDE controller with two channels of two drives
	kindQ35   = "q35" // Q35: an AHCI controller with six ports of one drive
	kindOther = ""
)

// machineKind tells what a machine type, versioned or not, is built on.
func machineKind(machine string) string {
	switch {
	case machine == "pc" || strings.HasPrefix(machine, "pc-i440fx-"):
		return kindPC
	case machine == "q35" || strings.HasPrefix(machine, "pc-q35-"):
		return kindQ35
	}
	return kindOther
}

// The buses that a disk can be on.
const (
	BusIDE    = "ide"
	BusAHCI   = "ahci"
	BusVirtio = "virtio"
	BusSCSI   = "scsi"
	BusNVMe   = "nvme"
)

// busDevices names the QEMU devices of a bus.
type busDevices struct {
	drive      string // the model of a drive
	controller string // the model to add, where the machine has none of its own
	place      string // where the n-th drive goes on that controller, a format for n; "" leaves it to QEMU
}

// bus is what QEMU calls the devices of a disk bus.
func bus(name string) (busDevices, bool) {
	b, ok := map[string]busDevices{
		BusIDE:    {drive: "ide-hd"},
		BusAHCI:   {"ide-hd", "ich9-ahci", ",bus=ahci.%d"},
		BusVirtio: {drive: "virtio-blk-pci"},
		BusSCSI:   {"scsi-hd", "lsi53c895a", ",bus=scsi.0,scsi-id=%d"},
		BusNVMe:   {drive: "nvme"},
	}[name]
	return b, ok
}

// placedDisk is a disk with the place that it has in the machine.
type placedDisk struct {
	Disk
	id         string // "disk0"; the prefix of its block nodes' names
	device     string // with its place on the bus
	controller string // a controller to be added before, if any
	bootIndex  int
	stops      bool // the machine, when it can't be read or written
}

// layout gives every disk its place, in order. The machine's own controller
// is shared between its disks and the optical drives.
func layout(machine, diskBus string, disks []Disk) []placedDisk {
	kind := machineKind(machine)
	devices, _ := bus(diskBus)
	var placed []placedDisk
	var builtin, added int // drives on the machine's own controller, and on one that is added
	for i, d := range disks {
		p := placedDisk{Disk: d, id: fmt.Sprintf("disk%d", i), device: devices.drive, bootIndex: i, stops: d.Image.served() && diskBus != BusNVMe}
		switch {
		case d.CDROM:
			p.id, p.device, p.ReadOnly = fmt.Sprintf("cdrom%d", i), "ide-cd"+builtinPlace(kind, builtin), true
			builtin++
		case diskBus == busOn(kind, ""):
			p.device += builtinPlace(kind, builtin)
			builtin++
		case devices.place != "":
			if added == 0 {
				p.controller = devices.controller + ",id=" + diskBus
			}
			p.device += fmt.Sprintf(devices.place, added)
			added++
		case diskBus == BusNVMe:
			p.device += ",serial=" + p.id // it insists on one
		}
		placed = append(placed, p)
	}
	return placed
}

// builtinPlace is the n-th place on a machine's own controller.
func builtinPlace(kind string, n int) string {
	if kind == kindQ35 {
		return fmt.Sprintf(",bus=ide.%d", n)
	}
	return fmt.Sprintf(",bus=ide.%d,unit=%d", n/2, n%2)
}

func (p placedDisk) args(a *args) {
	p.Image.args(a, p.id, p.use())
	if p.controller != "" {
		a.add("-device", p.controller)
	}
	device := fmt.Sprintf("%s,drive=%s,id=%s-dev,bootindex=%d", p.device, p.id, p.id, p.bootIndex)
	if p.stops {
		// Else the guest is told, and does what nobody wishes. A write fails as
		// well, for what lies beside it and is copied with it.
		device += ",rerror=stop,werror=stop"
	}
	a.add("-device", device)
}

// imageUse is how the nodes of an image are used.
type imageUse struct {
	readOnly, direct, unsafe bool
	aio                      AIO
}

func (d Disk) use() imageUse {
	return imageUse{readOnly: d.ReadOnly, direct: d.Cache.direct(), unsafe: d.Cache.unsafe() && !d.ReadOnly, aio: d.AIO}
}

// below is the use of what lies below an image: it is only read, in the same way.
func (u imageUse) below() imageUse {
	u.readOnly, u.unsafe = true, false
	return u
}

// args adds the nodes of what lies below an image, and its own two: the open
// file, and its format. The format layer is told its backing file, or that it
// has none: a path in an image's header is never followed.
func (i Image) args(a *args, node string, use imageUse) {
	below := node + "-base"
	if i.Base != nil {
		i.Base.args(a, below, use.below())
	}
	cache := map[string]any{"direct": use.direct, "no-flush": use.unsafe}
	a.add("-blockdev", encode(i.protocol(a, node+"-file", use, cache)))
	format := map[string]any{
		"driver": i.Format, "node-name": node, "file": node + "-file",
		"read-only": use.readOnly, "cache": cache, "discard": "unmap",
	}
	switch {
	case i.Base != nil:
		format["backing"] = below
	case i.Format == "qcow2" || i.Format == "qed":
		format["backing"] = nil
	}
	a.add("-blockdev", encode(format))
}

// served tells whether something of an image comes from a server. The model nvme
// can't stop a machine for what that does not give: who serves it must (Fault).
func (i Image) served() bool { return i.Connect != nil || i.Base != nil && i.Base.served() }

// protocol is the lowest node of an image: where its bytes come from.
func (i Image) protocol(a *args, node string, use imageUse, cache map[string]any) map[string]any {
	if i.Connect != nil {
		return map[string]any{
			"driver": "nbd", "node-name": node, "server": map[string]any{"type": "fd", "str": strconv.Itoa(i.FD)},
			"read-only": use.readOnly, "cache": map[string]any{"direct": false, "no-flush": false}, // nothing of it is QEMU's
		}
	}
	a.addFD(i.FD)
	file := map[string]any{
		"driver": "file", "node-name": node, "filename": fdset(i.FD),
		"read-only": use.readOnly, "locking": "auto", "cache": cache, "discard": "unmap",
	}
	if use.aio != "" && use.aio != AIOThreads {
		file["aio"] = string(use.aio)
	}
	return file
}

// encode writes an option as JSON, keys sorted.
func encode(option map[string]any) string {
	data, _ := json.Marshal(option) // strings, booleans and nil always encode
	return string(data)
}
