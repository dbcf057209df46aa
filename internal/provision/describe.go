package provision

import (
	"fmt"
	"path"
	"slices"

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
