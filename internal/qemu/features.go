package qemu

import (
	"slices"
	"strings"
)

// DefaultBinary runs guests of both architectures: a machine saved by
// qemu-system-i386 cannot be loaded by it, so only one of them is used.
const DefaultBinary = "qemu-system-x86_64"

// Features is what an installed QEMU can do.
type Features struct {
	Version   string        `json:"version"`  // "7.2.22"
	Package   string        `json:"package"`  // the distributor's version, may be empty
	Machines  []MachineType `json:"machines"` // sorted by name
	Devices   []string      `json:"devices"`  // what -device takes, sorted
	CPUModels []string      `json:"cpus"`     // what -cpu takes, sorted
	TCG       bool          `json:"tcg"`
	KVM       bool          `json:"kvm"`
	KVMDevice bool          `json:"kvmDevice"` // -accel kvm,device= (QEMU 9 and later)
	RunWith   bool          `json:"runWith"`   // -run-with user= instead of -runas
	Sandbox   bool          `json:"sandbox"`   // built with seccomp
	VNC       bool          `json:"vnc"`       // built with a VNC server

	// PrivateRAM: a file that may only be read can be the memory of a guest whose
	// writes stay private (memory-backend-file,rom=off; QEMU 8.2 and later).
	PrivateRAM bool `json:"privateRAM"`
}

// MachineType is one machine that a QEMU can build.
type MachineType struct {
	Name       string `json:"name"`            // "pc-q35-7.2"
	Alias      string `json:"alias,omitempty"` // "q35" for the newest of them
	Deprecated bool   `json:"deprecated,omitempty"`
}

// HasMachine tells whether -machine takes a name.
func (f *Features) HasMachine(name string) bool {
	return slices.ContainsFunc(f.Machines, func(m MachineType) bool { return m.Name == name || m.Alias != "" && m.Alias == name })
}

// HasDevice tells whether -device takes a model's name.
func (f *Features) HasDevice(name string) bool {
	_, found := slices.BinarySearch(f.Devices, name)
	return found
}

// HasCPU tells whether -cpu takes a model; flags after a comma are not looked at.
func (f *Features) HasCPU(model string) bool {
	name, _, _ := strings.Cut(model, ",")
	_, found := slices.BinarySearch(f.CPUModels, name)
	return found
}
