package qemu

import "slices"

// nicFamily groups network cards that need the same driver.
type nicFamily string

// The families that a rule speaks of; the others have no name here.
const (
	nicE1000  nicFamily = "e1000"
	nicVirtio nicFamily = "virtio"
	nicI8255x nicFamily = "i8255x"
	nicOther  nicFamily = ""
)

// networkCards are the PCI network cards that QEMU's PCs take, and the names
// that people use for them.
func networkCards() map[string]nicFamily {
	return map[string]nicFamily{
		"e1000": nicE1000, "e1000-82540em": nicE1000, "e1000-82544gc": nicE1000, "e1000-82545em": nicE1000, "e1000e": nicE1000,
		"virtio": nicVirtio, "virtio-net": nicVirtio, "virtio-net-pci": nicVirtio,
		"virtio-net-pci-transitional": nicVirtio, "virtio-net-pci-non-transitional": nicVirtio,
		"i82550": nicI8255x, "i82551": nicI8255x, "i82557a": nicI8255x, "i82557b": nicI8255x, "i82557c": nicI8255x,
		"i82558a": nicI8255x, "i82558b": nicI8255x, "i82559a": nicI8255x, "i82559b": nicI8255x, "i82559c": nicI8255x,
		"i82559er": nicI8255x, "i82562": nicI8255x, "i82801": nicI8255x,
		"rtl8139": nicOther, "ne2k_pci": nicOther, "pcnet": nicOther, "tulip": nicOther, "vmxnet3": nicOther, "igb": nicOther,
	}
}

// nicsOf lists the cards of a family.
func nicsOf(family nicFamily) []string {
	var names []string
	for name, f := range networkCards() {
		if f == family {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// nicModel is QEMU's own name for a card: -device knows fewer aliases than
// people do.
func nicModel(name string) string {
	if name == "virtio" || name == "virtio-net" {
		return "virtio-net-pci"
	}
	return name
}

// knownNICs are the cards that a QEMU has, by all their names.
func (f *Features) knownNICs() []string {
	var names []string
	for name := range networkCards() {
		if f.HasDevice(nicModel(name)) || name == "e1000-82540em" && f.HasDevice("e1000") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
