package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The parts of the kernel's KVM interface (linux/kvm.h) that are used here.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12 // the only one since 2007
)

// openKVM asks the device the questions that need no guest. The verdict is
// KVMWorks when there was nothing wrong so far.
func openKVM(device string) (os.FileInfo, verdict) {
	file, err := os.OpenFile(device, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, openVerdict(device, err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	info, err := file.Stat()
	if err != nil {
		return nil, verdict{State: KVMBroken, Reason: err.Error()}
	}
	if _, ok := deviceNumber(info); !ok {
		return nil, verdict{State: KVMBroken, Reason: device + " is not a device"}
	}
	version, err := unix.IoctlRetInt(int(file.Fd()), kvmGetAPIVersion)
	if err != nil {
		return nil, verdict{State: KVMBroken, Reason: fmt.Sprintf("%s does not answer as KVM (KVM_GET_API_VERSION: %v)", device, err)}
	}
	if version != kvmAPIVersion {
		return nil, verdict{State: KVMBroken, Reason: fmt.Sprintf("%s speaks version %d of the KVM interface, not %d", device, version, kvmAPIVersion)}
	}
	vm, err := unix.IoctlRetInt(int(file.Fd()), kvmCreateVM)
	if err != nil {
		return nil, verdict{State: KVMBroken, Reason: fmt.Sprintf("%s creates no virtual machine (KVM_CREATE_VM: %v)", device, err)}
	}
	_ = unix.Close(vm) // it has no processor, no memory, nothing
	return info, verdict{State: KVMWorks}
}

func openVerdict(device string, err error) verdict {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return verdict{State: KVMAbsent, Reason: device + " is not exposed here"}
	case errors.Is(err, fs.ErrPermission):
		return verdict{State: KVMDenied, Reason: fmt.Sprintf("%s may not be opened by user %d (%v)", device, os.Geteuid(), cause(err))}
	default:
		return verdict{State: KVMBroken, Reason: fmt.Sprintf("%s cannot be opened (%v)", device, cause(err))}
	}
}

// cause is a path error's reason without operation and path.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// accessTo chooses how a QEMU of another user gets the device that we can
// open: by everyone's right, by its group, as an open descriptor where QEMU
// takes one, else by opening it before it changes its user.
func accessTo(info os.FileInfo, device string, euid int, f *Features) Access {
	stat, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case euid != 0 || !ok || mode&0o006 == 0o006:
		return Access{}
	case mode&0o060 == 0o060 && stat.Gid != 0:
		return Access{Groups: []uint32{stat.Gid}}
	case f.KVMDevice:
		return Access{Open: device}
	}
	return Access{Late: true}
}
