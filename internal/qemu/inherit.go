package qemu

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstFD is the number of the first descriptor after the standard ones.
const firstFD = 3

// inheritance is the files that QEMU gets; their numbers in it follow from
// their order.
type inheritance struct{ files []*os.File }

// add gives a file to QEMU and returns its number there. The inheritance owns
// the file from now on.
func (i *inheritance) add(file *os.File) int {
	i.files = append(i.files, file)
	return firstFD + len(i.files) - 1
}

// close drops our copies; QEMU's stay. What QEMU locks stays locked only as
// long as it lives.
func (i *inheritance) close() {
	for _, f := range i.files {
		_ = f.Close() // nothing was written through them
	}
	i.files = nil
}

// socketpair makes two connected sockets: the first is ours, the other is for
// QEMU.
func socketpair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making the %s socket: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name+" in QEMU"), nil
}

// inherit opens every file that a spec names by its path, and returns the
// spec with their numbers.
func (s Spec) inherit(i *inheritance) (Spec, error) {
	disks := make([]Disk, len(s.Disks))
	for n, d := range s.Disks {
		opened, err := d.inherit(i)
		if err != nil {
			return s, fmt.Errorf("opening disk %d: %w", n, err)
		}
		disks[n] = opened
	}
	s.Disks = disks
	if s.RAM != nil {
		ram := *s.RAM
		if err := ram.inherit(i); err != nil {
			return s, fmt.Errorf("opening the guest's memory: %w", err)
		}
		s.RAM = &ram
	}
	for _, b := range []struct {
		what string
		blob *Blob
	}{{"kernel", &s.Kernel}, {"initrd", &s.Initrd}, {"firmware", &s.Firmware}} {
		if err := b.blob.inherit(i, b.what); err != nil {
			return s, fmt.Errorf("opening %s: %w", b.what, err)
		}
	}
	return s, nil
}

func (r *RAM) inherit(i *inheritance) error {
	if r.FD != 0 {
		return nil
	}
	flags := os.O_RDWR
	if r.ReadOnly {
		flags = os.O_RDONLY
	}
	file, err := os.OpenFile(r.Path, flags, 0)
	if err != nil {
		return err
	}
	r.FD = i.add(file)
	return nil
}

func (d Disk) inherit(i *inheritance) (Disk, error) {
	flags := os.O_RDWR
	if d.ReadOnly || d.CDROM {
		flags = os.O_RDONLY
	}
	if d.Cache.direct() {
		flags |= unix.O_DIRECT // QEMU would set it on a copy that has it in common with ours
	}
	return d, d.Image.inherit(i, flags)
}

func (m *Image) inherit(i *inheritance, flags int) error {
	if m.Base != nil {
		base := *m.Base
		if err := base.inherit(i, os.O_RDONLY|flags&unix.O_DIRECT); err != nil {
			return err
		}
		m.Base = &base
	}
	if m.FD != 0 {
		return nil
	}
	if m.Connect != nil {
		conn, err := m.Connect()
		if err != nil {
			return err
		}
		m.FD = i.add(conn)
		return nil
	}
	// Without O_NONBLOCK the opening of a fifo would wait for ever.
	file, err := os.OpenFile(m.Path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	m.FD = i.add(file)
	return nil
}

// inherit copies the file into anonymous memory, which QEMU can open through
// /proc whatever its user is.
func (b *Blob) inherit(i *inheritance, name string) error {
	if b.FD != 0 || !b.isSet() {
		return nil
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), name)
	number := i.add(memory)
	if b.Path == "" {
		_, err = memory.Write(b.Data)
	} else {
		err = copyFrom(memory, b.Path)
	}
	if err != nil {
		return err
	}
	b.FD = number
	return nil
}

func copyFrom(w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	_, err = io.Copy(w, file)
	return err
}

// deviceNumber is a device file's number, which tells whether a path still
// means the same device.
func deviceNumber(info os.FileInfo) (uint64, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeDevice == 0 {
		return 0, false
	}
	return stat.Rdev, true
}

// open passes a device on as a descriptor, where the access is such.
func (a Access) open(i *inheritance) (int, error) {
	if a.Open == "" {
		return 0, nil
	}
	file, err := os.OpenFile(a.Open, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("opening the KVM device: %w", err)
	}
	return i.add(file), nil
}
