package provision

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

func debianGuest() Guest {
	return Guest{
		Family: platform.Hurd, Arch: platform.AMD64, Drivers: platform.UserDrivers, NetDDE: true,
		Root:     ext2.Partition{Number: 2, Start: 5 * units.MiB, Size: 59 * units.MiB, Type: "83"},
		RootUUID: "41bea907-da2e-4747-b848-8a2af4ce43bf", HurdFS: true,
		SSH:   SSH{OpenSSH: true, Config: "/etc/ssh/sshd_config", DropIns: true},
		Users: []User{{"root", 0, 0, "/root", "/bin/bash"}, {"demo", 1000, 1000, "/home/demo", "/bin/bash"}},
		Init:  SysVInit, Bootloader: GRUB, BootConfig: "/boot/grub/grub.cfg", HasBash: true,
	}
}

func TestInspectDebian(t *testing.T) {
	i386 := debianGuest()
	i386.Arch, i386.Drivers = platform.I386, platform.KernelDrivers
	i386.Root = ext2.Partition{Number: 5, Start: 6 * units.MiB, Size: 58 * units.MiB, Type: "83"}
	for name, tc := range map[string]struct {
		args []string
		want Guest
	}{
		"amd64 on p2": {nil, debianGuest()},
		"i386 on p5":  {[]string{"--arch", "i386", "--logical"}, i386},
	} {
		got, err := Inspect(t.Context(), standIn(t, tc.args...), Hints{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestInspectDescribes(t *testing.T) {
	upstream := files{
		"hurd/ext2fs.static": elf32, "hurd/exec": elf32, "libexec/runsystem": "#!/bin/sh\n", "etc/passwd": "root::0:0::/root:/bin/sh\n",
		"usr/sbin/dropbear": elf32, "bin/sh": elf32, "boot/grub/grub.cfg": "menuentry x {\nmultiboot /boot/gnumach.gz root=device:hd0s1\n}\n",
	}
	for name, tc := range map[string]struct {
		tree  files
		check func(Guest) bool
	}{
		"linux":                 {linuxTree(), func(g Guest) bool { return g.Family == platform.Linux && g.Arch == platform.AMD64 && !g.HurdFS }},
		"no hurd drivers":       {linuxTree(), func(g Guest) bool { return g.Drivers == "" && !g.NetDDE }},
		"openssh alone":         {linuxTree(), func(g Guest) bool { return g.SSH == SSH{OpenSSH: true, Config: sshdConfig} }},
		"bash":                  {linuxTree(), func(g Guest) bool { return g.HasBash }},
		"no cloud-init":         {linuxTree(), func(g Guest) bool { return !g.CloudInit }},
		"cloud-init":            {with(linuxTree(), files{"usr/bin/cloud-init": ""}), func(g Guest) bool { return g.CloudInit }},
		"no init":               {linuxTree(), func(g Guest) bool { return g.Init == UnknownInit }},
		"systemd":               {with(linuxTree(), files{"sbin/init": "->../lib/systemd/systemd", "lib/systemd/systemd": elf64}), func(g Guest) bool { return g.Init == Systemd }},
		"busybox":               {with(linuxTree(), files{"sbin/init": "->/bin/busybox", "bin/busybox": elf64, "etc/inittab": ""}), func(g Guest) bool { return g.Init == BusyBox }},
		"openrc":                {with(linuxTree(), files{"sbin/openrc": elf64}), func(g Guest) bool { return g.Init == OpenRC }},
		"runit":                 {with(linuxTree(), files{"etc/runit/1": ""}), func(g Guest) bool { return g.Init == Runit }},
		"shepherd":              {with(linuxTree(), files{"gnu/store/": ""}), func(g Guest) bool { return g.Init == Shepherd }},
		"upstream hurd":         {upstream, func(g Guest) bool { return g.Family == platform.Hurd && g.Arch == platform.I386 && g.Init == HurdRC }},
		"upstream drivers":      {upstream, func(g Guest) bool { return g.Drivers == platform.KernelDrivers && !g.NetDDE }},
		"dropbear alone":        {upstream, func(g Guest) bool { return g.SSH == SSH{Dropbear: true} && !g.HasBash }},
		"rumpdisk unused":       {with(upstream, files{"hurd/rumpdisk.static": elf32}), func(g Guest) bool { return g.Drivers == platform.KernelDrivers }},
		"rumpdisk, no boot":     {files{"hurd/rumpdisk": elf64}, func(g Guest) bool { return g.Drivers == platform.UserDrivers && g.Bootloader == NoBootloader }},
		"architecture by name":  {files{"hurd/exec": elf32, "boot/grub/grub.cfg": "multiboot /boot/gnumach-1.8-amd64-up.gz\n"}, func(g Guest) bool { return g.Arch == platform.AMD64 }},
		"architecture of linux": {with(linuxTree(), files{"boot/grub/grub.cfg": "linux /vmlinuz-6.1-686-pae\n"}), func(g Guest) bool { return g.Arch == platform.I386 }},
		"architecture unknown":  {files{"etc/passwd": ""}, func(g Guest) bool { return g.Arch == "" && len(g.Users) == 0 }},
		"syslinux":              {files{"etc/": "", "boot/syslinux/syslinux.cfg": ""}, func(g Guest) bool { return g.Bootloader == Syslinux && g.BootConfig == "/boot/syslinux/syslinux.cfg" }},
		"grub before others":    {with(linuxTree(), files{"extlinux.conf": ""}), func(g Guest) bool { return g.Bootloader == GRUB }},
		"odd files":             {files{"etc/passwd/": "", "usr/sbin/sshd": "->sshd", "bin/sh": "->/bin/sh", "boot/grub/grub.cfg/": ""}, func(g Guest) bool { return !g.SSH.Any() && g.Users == nil }},
	} {
		g, err := Inspect(t.Context(), makeDisk(t, tc.tree), Hints{})
		if err != nil || !tc.check(g) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

func TestLoginUsers(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/bash\n# comment:x:1:1::/:/bin/sh\nsync:x:4:4::/bin:/bin/sync\nwww:x:33:33::/var/www:/usr/sbin/nologin\n" +
		"noshell:x:7:8::/home/../home/n/:\r\nbroken\nbad:x:-1:0::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\nrel:x:5:5::home:/bin/sh\n:x:6:6::/:/bin/sh\ngit:x:9:9::/git:/bin/false\nesc\x1b:x:8:8::/:/bin/sh\ngecos:x:8:8:J\xfcrgen:/g:/bin/sh\n"
	want := []User{{"root", 0, 0, "/root", "/bin/bash"}, {"noshell", 7, 8, "/home/n", ""}, {"gecos", 8, 8, "/g", "/bin/sh"}}
	if diff := cmp.Diff(want, loginUsers([]byte(passwd))); diff != "" {
		t.Error(diff)
	}
}

// joined makes an image with an MBR of several images as partitions.
func joined(t *testing.T, images ...string) string {
	t.Helper()
	const first, step = 2048, 24576 // sectors: images of 12 MiB
	disk := make([]byte, (first+step*len(images))*512)
	disk[510], disk[511] = 0x55, 0xaa
	for i, image := range images {
		start := first + i*step
		e := disk[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], uint32(start))
		binary.LittleEndian.PutUint32(e[12:], step)
		if image == "" {
			continue
		}
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		copy(disk[start*512:], data)
	}
	out := filepath.Join(t.TempDir(), "joined.raw")
	if err := os.WriteFile(out, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInspectChoosesRoot(t *testing.T) {
	tools(t, "mke2fs")
	hurd := makeDisk(t, files{"hurd/exec": elf64, "etc/passwd": ""})
	linux, other := makeDisk(t, linuxTree()), makeDisk(t, files{"home/": ""})
	for name, tc := range map[string]struct {
		parts []string
		hints Hints
		want  int
		is    error
		says  []string
	}{
		"the only one":       {parts: []string{"", other, linux}, want: 3},
		"hurd before linux":  {parts: []string{linux, other, hurd, linux}, want: 3},
		"two linuxes":        {parts: []string{linux, other, linux}, is: ErrAmbiguousRoot, says: []string{"partition 1 (type 83, 12 MiB at 1M) and partition 3 (type 83, 12 MiB at 25M) each hold /etc"}},
		"two hurds":          {parts: []string{hurd, linux, hurd}, is: ErrAmbiguousRoot, says: []string{"partition 1", "partition 3", "each hold /hurd; give the number of the right one as root-partition"}},
		"two hurds, a hint":  {parts: []string{hurd, linux, hurd}, hints: Hints{Partition: 3}, want: 3},
		"two, one known":     {parts: []string{hurd, linux, hurd}, hints: Hints{Prefer: 3}, want: 3},
		"two, others known":  {parts: []string{hurd, linux, hurd}, hints: Hints{Prefer: 2}, is: ErrAmbiguousRoot},
		"one, another known": {parts: []string{linux, other, hurd}, hints: Hints{Prefer: 1}, want: 3},
		"asked and known":    {parts: []string{hurd, linux, hurd}, hints: Hints{Partition: 1, Prefer: 3}, want: 1},
		"hint at linux":      {parts: []string{hurd, linux}, hints: Hints{Partition: 2}, want: 2},
		"hint at nothing":    {parts: []string{hurd}, hints: Hints{Partition: 7}, is: ErrNoRoot, says: []string{"looked at partition 1", "none has the wanted number 7"}},
		"hint at swap":       {parts: []string{"", hurd}, hints: Hints{Partition: 1}, is: ErrNoRoot, says: []string{"looked at partition 1 (type 83, 12 MiB at 1M): no ext2 file system"}},
		"no root whatsoever": {parts: []string{"", other}, is: ErrNoRoot, says: []string{"partition 1 (type 83, 12 MiB at 1M): no ext2 file system; partition 2 (type 83, 12 MiB at 13M): it holds neither /hurd nor /etc"}},
	} {
		image := joined(t, tc.parts...)
		g, err := Inspect(t.Context(), image, tc.hints)
		if !errors.Is(err, tc.is) || tc.is == nil && (err != nil || g.Root.Number != tc.want) {
			t.Errorf("%s: %v, %v", name, g.Root, err)
		}
		for _, says := range append(tc.says, image) {
			if err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %q", name, err, says)
			}
		}
	}
}

func TestInspectBadImages(t *testing.T) {
	tools(t, "mke2fs")
	good := joined(t, makeDisk(t, linuxTree()))
	if err := os.Truncate(good, 8<<20); err != nil {
		t.Fatal(err)
	}
	html := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(html, []byte(strings.Repeat("<html>", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		image string
		is    error
		says  string
	}{
		"truncated": {good, ext2.ErrTruncated, "the image is truncated: the file system has 12 MiB, its partition only 7 MiB"},
		"html":      {html, ext2.ErrNoTable, "no partition table and no ext2 file system at offset 0"},
		"nothing":   {html + ".none", os.ErrNotExist, "no such file"},
	} {
		_, err := Inspect(t.Context(), tc.image, Hints{})
		if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) || !strings.HasPrefix(err.Error(), "inspecting ") || !strings.Contains(err.Error(), tc.image) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(exec.ErrWaitDelay)
	if _, err := Inspect(ctx, joined(t, makeDisk(t, linuxTree())), Hints{}); !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("canceled: %v", err)
	}
}

func TestGuestString(t *testing.T) {
	g := debianGuest()
	if got := g.String(); got != "hurd amd64, root on partition 2 (type 83, 59 MiB at 5M), OpenSSH" {
		t.Error(got)
	}
	g.SSH = SSH{Dropbear: true}
	if got := g.String(); !strings.HasSuffix(got, ", dropbear") {
		t.Error(got)
	}
	g.SSH = SSH{}
	if got := g.String(); !strings.HasSuffix(got, ", no SSH server") {
		t.Error(got)
	}
	_, err := g.User("nobody")
	if err == nil || err.Error() != `the image has no user "nobody" that could log in: use one of root, demo` {
		t.Error(err)
	}
	_, err = Guest{}.User("root")
	if err == nil || err.Error() != `the image has no user "root", and no other that could log in` {
		t.Error(err)
	}
}
