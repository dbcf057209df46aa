package provision

import (
	"bytes"
	"path"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// drivers tells where a Hurd's disk drivers run: the name of the root device
// in the boot entry says it, else the presence of rumpdisk does. Debian's i386
// images carry rumpdisk without using it for the root.
func (l *look) drivers(kernel []string) platform.Drivers {
	for _, word := range kernel {
		device, ok := strings.CutPrefix(word, "root=")
		if !ok {
			continue
		}
		device = device[strings.LastIndex(device, ":")+1:]
		switch {
		case strings.HasPrefix(device, "wd"):
			return platform.UserDrivers
		case strings.HasPrefix(device, "hd"), strings.HasPrefix(device, "sd"):
			return platform.KernelDrivers
		}
	}
	if l.any("/hurd/rumpdisk", "/hurd/rumpdisk.static") {
		return platform.UserDrivers
	}
	return platform.KernelDrivers
}

// kernelArchs maps parts of kernel file names, as in gnumach-1.8-amd64-up.gz
// and vmlinuz-6.1.0-18-686-pae.
var kernelArchs = []struct {
	part string
	arch platform.Arch
}{
	{"amd64", platform.AMD64}, {"x86_64", platform.AMD64}, {"x86-64", platform.AMD64},
	{"-486", platform.I386}, {"-586", platform.I386}, {"-686", platform.I386}, {"i386", platform.I386}, {"i686", platform.I386},
}

// arch tells the architecture from the name of the kernel that the boot entry
// loads, else from programs that every system has.
func (l *look) arch(kernel []string) platform.Arch {
	if len(kernel) > 0 {
		for _, k := range kernelArchs {
			if strings.Contains(path.Base(kernel[0]), k.part) {
				return k.arch
			}
		}
	}
	programs := []string{
		"/hurd/ext2fs.static", "/hurd/ext2fs", "/hurd/exec", "/bin/sh", "/bin/busybox",
		"/lib64/ld-linux-x86-64.so.2", "/lib/ld-x86-64.so.1", "/lib/ld-linux.so.2", "/lib/ld.so.1",
	}
	for _, program := range programs {
		if !l.any(program) {
			continue
		}
		head, err := l.root.ReadHead(program, 64)
		if err != nil {
			continue // a device or a directory of that name: the next one
		}
		if arch := elfArch(head); arch != "" {
			return arch
		}
	}
	return ""
}

// elfArch reads the machine of an ELF header; empty for anything else.
func elfArch(head []byte) platform.Arch {
	if len(head) < 20 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return ""
	}
	switch head[18] { // e_machine, little-endian
	case 62:
		return platform.AMD64
	case 3, 6:
		return platform.I386
	}
	return ""
}
