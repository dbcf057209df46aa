package qemu

import (
	"encoding/json"
	"fmt"
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

// busDevices names the QEMU devices of a bus: the drive, and the controller
// where the machine has none.
type busDevices struct{ drive, controller string }

// bus is what QEMU calls the devices of a disk bus.
func bus(name string) (busDevices, bool) {
	b, ok := map[string]busDevices{
		BusIDE:    {drive: "ide-hd"},
		BusAHCI:   {drive: "ide-hd", controller: "ich9-ahci"},
		BusVirtio: {drive: "virtio-blk-pci"},
		BusSCSI:   {drive: "scsi-hd", controller: "lsi53c895a"},
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
	bootIndex  int    // -1 for none
}

// layout gives every disk its place, in order. The machine's own controller
// is shared between its disks and the CD drives.
func layout(machine, diskBus string, disks []Disk) []placedDisk {
	kind := machineKind(machine)
	var placed []placedDisk
	var builtin, added int // drives on the machine's own controller, and on one that we add
	boot := 0
	for i, d := range disks {
		p := placedDisk{Disk: d, id: fmt.Sprintf("disk%d", i), bootIndex: boot}
		boot++
		devices, _ := bus(diskBus)
		switch {
		case d.CDROM:
			p.id = fmt.Sprintf("cdrom%d", i)
			p.ReadOnly = true
			p.device = "ide-cd," + builtinPort(kind, builtin)
			builtin++
		case diskBus == BusIDE, diskBus == BusAHCI && kind == kindQ35:
			p.device = devices.drive + "," + builtinPort(kind, builtin)
			builtin++
		case diskBus == BusAHCI:
			p.device = fmt.Sprintf("%s,bus=ahci.%d", devices.drive, added)
		case diskBus == BusSCSI:
			p.device = fmt.Sprintf("%s,bus=scsi.0,scsi-id=%d", devices.drive, added)
		case diskBus == BusNVMe:
			p.device = fmt.Sprintf("%s,serial=%s", devices.drive, p.id)
		default:
			p.device = devices.drive
		}
		if !d.CDROM && devices.controller != "" && !(diskBus == BusAHCI && kind == kindQ35) {
			if added == 0 {
				p.controller = devices.controller + ",id=" + diskBus
			}
			added++
		}
		placed = append(placed, p)
	}
	return placed
}

// builtinPort is the n-th place on a machine's own controller.
func builtinPort(kind string, n int) string {
	if kind == kindQ35 {
		return fmt.Sprintf("bus=ide.%d", n)
	}
	return fmt.Sprintf("bus=ide.%d,unit=%d", n/2, n%2)
}

func (p placedDisk) args(a *args) {
	if p.Base != nil {
		p.Base.args(a, p.id+"-base", imageUse{readOnly: true})
	}
	use := imageUse{readOnly: p.ReadOnly, unsafe: !p.Durable && !p.ReadOnly}
	if p.Base != nil {
		use.backing = p.id + "-base"
	}
	p.Image.args(a, p.id, use)
	if p.controller != "" {
		a.add("-device", p.controller)
	}
	a.add("-device", fmt.Sprintf("%s,drive=%s,id=%s-dev,bootindex=%d", p.device, p.id, p.id, p.bootIndex))
}

type imageUse struct {
	readOnly, unsafe bool
	backing          string // the node below, "" for none
}

// args adds the two nodes of an image: the open file, and its format. The
// format layer is told its backing file, or that it has none: a path in an
// image's header is never followed.
func (i Image) args(a *args, node string, use imageUse) {
	cache := map[string]any{"direct": false, "no-flush": use.unsafe}
	a.addFD(i.FD)
	a.add("-blockdev", encode(map[string]any{
		"driver": "file", "node-name": node + "-file", "filename": fdset(i.FD),
		"read-only": use.readOnly, "locking": "auto", "cache": cache, "discard": "unmap",
	}))
	format := map[string]any{
		"driver": i.Format, "node-name": node, "file": node + "-file",
		"read-only": use.readOnly, "cache": cache, "discard": "unmap",
	}
	switch {
	case use.backing != "":
		format["backing"] = use.backing
	case i.Format == "qcow2" || i.Format == "qed":
		format["backing"] = nil
	}
	a.add("-blockdev", encode(format))
}

// encode writes an option as JSON, keys sorted.
func encode(option map[string]any) string {
	data, _ := json.Marshal(option) // strings, booleans and nil always encode
	return string(data)
}
