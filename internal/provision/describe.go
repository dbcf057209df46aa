package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
)

// describe finds out about the system in a root file system.
func describe(root *ext2.FS, family platform.Family) (Guest, error) {
	sb, err := root.Superblock()
	if err != nil {
		return Guest{}, err
	}
	l := &look{root: root}
	g := Guest{
		Family:    family,
		Root:      root.Partition(),
		RootUUID:  sb.UUID,
		HurdFS:    sb.Creator == ext2.OSHurd,
		SSH:       l.ssh(),
		CloudInit: l.any("/usr/bin/cloud-init", "/usr/local/bin/cloud-init", "/etc/cloud/cloud.cfg"),
		Users:     loginUsers(l.read("/etc/passwd")),
		Init:      l.init(family),
		HasBash:   l.any("/bin/bash", "/usr/bin/bash", "/run/current-system/profile/bin/bash"),
	}
	g.Bootloader, g.BootConfig = l.bootConfig()
	var kernel []string
	if g.Bootloader == GRUB {
		kernel = kernelWords(l.read(g.BootConfig), l.read(grubEnvOf(g.BootConfig)), family)
	}
	g.Arch = l.arch(kernel)
	if family == platform.Hurd {
		g.NetDDE = l.any("/hurd/netdde", "/hurd/netdde.static")
		g.Drivers = l.drivers(kernel)
	}
	return g, l.err
}

// look answers questions about files; the first failure other than a missing
// file is kept and ends up as describe's error.
type look struct {
	root *ext2.FS
	err  error
}

func (l *look) any(paths ...string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		ok, err := l.root.Exists(p)
		l.keep(err)
		return ok
	})
}

func (l *look) first(paths ...string) string {
	if i := slices.IndexFunc(paths, func(p string) bool { return l.any(p) }); i >= 0 {
		return paths[i]
	}
	return ""
}

// read returns nothing for what is no file.
func (l *look) read(name string) []byte {
	info, err := l.root.Stat(name)
	if name == "" || err != nil || !info.Mode.IsRegular() {
		return nil
	}
	data, err := l.root.ReadFile(name)
	l.keep(err)
	return data
}

func (l *look) names(dir string) []string {
	entries, err := l.root.ReadDir(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		l.keep(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

func (l *look) keep(err error) {
	if l.err == nil {
		l.err = err
	}
}

// Where servers are installed.
var serverDirs = []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/run/current-system/profile/sbin"}

func inDirs(name string) []string {
	var paths []string
	for _, dir := range serverDirs {
		paths = append(paths, path.Join(dir, name))
	}
	return paths
}

const sshdConfig = "/etc/ssh/sshd_config"

func (l *look) ssh() SSH {
	s := SSH{
		OpenSSH:  l.any(inDirs("sshd")...),
		Dropbear: l.any(inDirs("dropbear")...) || l.any(inDirs("dropbearmulti")...) || l.any("/etc/dropbear"),
		Config:   l.first(sshdConfig),
	}
	s.DropIns = s.Config != "" && includesDropIns(l.read(s.Config))
	return s
}

func (l *look) init(family platform.Family) Init {
	target := func(p string) string {
		t, err := l.root.ReadLink(p)
		if err != nil {
			return ""
		}
		return path.Base(t)
	}
	switch {
	case target("/sbin/init") == "systemd" || target("/usr/sbin/init") == "systemd",
		l.any("/lib/systemd/systemd", "/usr/lib/systemd/systemd") && !l.any("/etc/inittab"):
		return Systemd
	case l.any("/gnu/store"):
		return Shepherd
	case l.any("/sbin/openrc"):
		return OpenRC
	case l.any("/etc/runit/1"):
		return Runit
	case target("/sbin/init") == "busybox" || target("/bin/init") == "busybox":
		return BusyBox
	case l.any("/etc/inittab") && l.any("/etc/init.d/rc", "/etc/init.d/rcS", "/etc/rc.d/rc"):
		return SysVInit
	case family == platform.Hurd && l.any("/libexec/runsystem", "/libexec/rc", "/etc/hurd/runsystem"):
		return HurdRC
	}
	return UnknownInit
}

// Where boot loaders keep their configurations, the usual place first.
var bootConfigs = []struct {
	loader Bootloader
	path   string
}{
	{GRUB, "/boot/grub/grub.cfg"},
	{GRUB, "/boot/grub2/grub.cfg"},
	{GRUB, "/grub/grub.cfg"},
	{GRUBLegacy, "/boot/grub/menu.lst"},
	{GRUBLegacy, "/boot/grub/grub.conf"},
	{Syslinux, "/boot/extlinux/extlinux.conf"},
	{Syslinux, "/boot/extlinux.conf"},
	{Syslinux, "/extlinux.conf"},
	{Syslinux, "/boot/syslinux/syslinux.cfg"},
	{Syslinux, "/syslinux.cfg"},
}

func (l *look) bootConfig() (Bootloader, string) {
	for _, c := range bootConfigs {
		if l.any(c.path) {
			return c.loader, c.path
		}
	}
	return NoBootloader, ""
}

func grubEnvOf(cfg string) string { return path.Join(path.Dir(cfg), "grubenv") }

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

// loginUsers lists the accounts of a passwd file that have a shell.
func loginUsers(passwd []byte) []User {
	var users []User
	for line := range strings.Lines(string(passwd)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(fields) != 7 || fields[0] == "" || fields[0][0] == '#' {
			continue
		}
		uid, err1 := strconv.ParseUint(fields[2], 10, 32)
		gid, err2 := strconv.ParseUint(fields[3], 10, 32)
		if err1 != nil || err2 != nil || !path.IsAbs(fields[5]) || !hasShell(fields[6]) {
			continue
		}
		users = append(users, User{
			Name: fields[0], UID: uint32(uid), GID: uint32(gid), Home: path.Clean(fields[5]), Shell: fields[6],
		})
	}
	return users
}

// hasShell leaves out the shells that let nobody in. None means /bin/sh.
func hasShell(shell string) bool {
	switch path.Base(shell) {
	case "nologin", "false", "sync", "halt", "shutdown":
		return false
	}
	return true
}

// String describes the guest in one line for the log.
func (g Guest) String() string {
	what := fmt.Sprintf("%s %s, root on %s", g.Family, g.Arch, g.Root)
	switch {
	case g.SSH.OpenSSH:
		what += ", OpenSSH"
	case g.SSH.Dropbear:
		what += ", dropbear"
	default:
		what += ", no SSH server"
	}
	return what
}
