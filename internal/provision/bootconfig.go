package provision

import "path"

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
