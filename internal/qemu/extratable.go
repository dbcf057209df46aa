package qemu

import (
	"slices"
	"strings"
)

const printsAndEnds = "it makes QEMU print a text and end: run qemu-system-x86_64 with it by hand"

// ownedOptions are those of QEMU's options that this action gives itself, or
// that would take the machine out of its hands, and what to use instead.
func ownedOptions() map[string]string {
	table := map[string]string{
		"m":            "use the input memory",
		"smp":          "use the input cpus; but the Hurd's kernels use one processor, and some hang with more",
		"cpu":          "use the input cpu-model",
		"qmp":          "use the input qmp, or hurd-qemu-action qmp: every guest has a monitor",
		"chroot":       "QEMU is confined by this action, to a user without rights",
		"daemonize":    "QEMU must not outlive the run",
		"incoming":     "saved machines are the business of the inputs prepare and snapshot",
		"preconfig":    "the machine would wait for ever",
		"S":            "the machine would wait for ever: pause it with the input qmp, before-boot: stop",
		"snapshot":     "the disk is a throwaway overlay already",
		"no-hpet":      "GNU Mach panics without the HPET",
		"no-reboot":    "a reset ends the machine already: nothing here survives one",
		"no-shutdown":  "the run ends with the machine",
		"action":       "how the machine ends is how this action learns of it",
		"add-fd":       "the descriptors of QEMU are this action's",
		"readconfig":   "what is in the file could not be checked: write its options here",
		"d":            "use the input qemu-trace",
		"D":            "use the input qemu-trace, which writes to qemu-trace.log",
		"s":            "it listens on all addresses of this host: write -gdb tcp:127.0.0.1:1234",
		"net":          "use the inputs nic, network and forward. Of its kinds, tap needs a device and rights on the host that a runner does not give, and user is what the guest has",
		"no-acpi":      "the machine's profile decides: choose another machine",
		"serial":       "use the input serial-port; the first serial line is this action's console",
		"accel":        "use the input accel",
		"machine":      "use the input machine",
		"nodefaults":   "this action gives it already",
		"mem-path":     "the guest's memory is this action's; for huge pages use the input hugepages",
		"pidfile":      "QEMU can write nowhere; its process number is in the log",
		"xen-domid":    "there is no Xen here",
		"dump-vmstate": "it ends QEMU at once",
		"qtest":        "it replaces the guest",
		"singlestep":   "it changes how the guest is run: use the input qmp",
		"initrd":       "the guest boots its own disk: use the input image",
		"bios":         "the guest boots with this QEMU's own firmware, which the disk was prepared for",
		"hda":          "its place is that of the guest's disk: use the input image, or -drive with if=none and a -device",
		"sd":           "the machines pc and q35 have no such device",
		"cdrom":        "its place may be that of the guest's disk: use -drive with if=none,media=cdrom and a -device",
		"display":      "the guest's screen is taken as a picture when its boot fails, and by the input qmp (screendump); -vnc 127.0.0.1:0 shows it live",
		"help":         printsAndEnds,
	}
	for name, same := range map[string]string{
		"M": "machine", "enable-kvm": "accel", "qmp-pretty": "qmp", "mon": "qmp", "monitor": "qmp",
		"sandbox": "chroot", "runas": "chroot", "run-with": "chroot", "loadvm": "incoming", "only-migratable": "incoming",
		"nographic": "display", "curses": "display", "sdl": "display", "spice": "display", "full-screen": "display",
		"no-user-config": "nodefaults", "mem-prealloc": "mem-path", "hdb": "hda", "hdc": "hda", "hdd": "hda", "no-fd-bootchk": "initrd",
		"mtdblock": "sd", "kernel": "initrd", "append": "initrd", "dtb": "initrd", "pflash": "bios",
		"xen-attach": "xen-domid", "xen-domid-restrict": "xen-domid", "qtest-log": "qtest",
		"h": "help", "version": "help", "audio-help": "help",
	} {
		table[name] = table[same]
	}
	return table
}

// valueRule is something that an option's argument must not have.
type valueRule struct {
	options []string
	applies func(properties) bool
	why     string
}

// valueRules are looked at in their order.
func valueRules() []valueRule {
	net := []string{"netdev", "nic"}
	disk := []string{"drive", "blockdev"}
	return []valueRule{
		{[]string{"netdev", "nic", "device"}, func(p properties) bool {
			return p.values["queues"] != "" || p.values["mq"] != "" && p.values["mq"] != "off"
		}, "network cards with several queues are virtio's, on a tap device, and the Hurd has drivers for neither: use the input nic, such as e1000"},
		{net, func(p properties) bool {
			return slices.Contains([]string{"tap", "bridge", "vhost-user", "vhost-vdpa"}, p.first)
		},
			"it needs a device and rights on the host that a runner does not give, and QEMU may start no helper: the guest has a user network; use the inputs network and forward"},
		{net, func(p properties) bool { return p.values["hostfwd"] != "" }, "use the input forward, which listens on 127.0.0.1 unless it is told otherwise"},
		{[]string{"nic"}, func(p properties) bool { return p.first == "none" }, "use the input network: none"},
		{disk, func(p properties) bool { return p.aio() == string(AIONative) && !p.direct() },
			"aio=native bypasses the host's cache, which this cache mode uses: write cache=none (cache.direct=on), or leave aio at threads"},
		{[]string{"drive"}, func(p properties) bool { return p.values["if"] == "virtio" },
			"the Hurd has no virtio disk driver: use if=none and a -device ide-hd"},
		{[]string{"drive"}, func(p properties) bool { return p.values["if"] == "" || p.values["if"] == "ide" },
			"it may take the place of the guest's disk: write if=none, and a -device with a place of its own"},
		{[]string{"vga"}, func(p properties) bool { return p.first == "none" }, "the Hurd's console wants a VGA, and so does a picture of the screen"},
		{[]string{"vnc"}, func(p properties) bool {
			return !slices.ContainsFunc([]string{"127.0.0.1:", "localhost:", "unix:", "none"}, func(ok string) bool { return strings.HasPrefix(p.first, ok) })
		}, "it would listen on all addresses of this host, without a password: write 127.0.0.1:0 for port 5900 of this host alone"},
		{[]string{"gdb"}, func(p properties) bool {
			return strings.HasPrefix(p.first, "tcp:") && !strings.HasPrefix(p.first, "tcp:127.0.0.1:")
		},
			"it would listen on all addresses of this host: write tcp:127.0.0.1:1234"},
		{[]string{"vnc"}, func(p properties) bool {
			host, _, _ := strings.Cut(p.values["websocket"], ":")
			return p.values["websocket"] != "" && !loopbackName(host)
		}, "its websocket would listen on all addresses of this host: write websocket=127.0.0.1:5700"},
		{[]string{"chardev"}, func(p properties) bool {
			return p.first == "socket" && p.values["port"] != "" && p.on("server") && !loopbackName(p.values["host"])
		}, "it would listen on all addresses of this host: write host=127.0.0.1"},
		{net, func(p properties) bool {
			host, _, tcp := strings.Cut(p.values["listen"], ":")
			return p.values["listen"] != "" && (!tcp || !loopbackName(host))
		}, "it would listen on all addresses of this host: write listen=127.0.0.1:PORT"},
		{net, func(p properties) bool {
			return p.first == "stream" && p.on("server") && p.values["addr.type"] == "inet" && !loopbackName(p.values["addr.host"])
		}, "it would listen on all addresses of this host: write addr.host=127.0.0.1"},
		{[]string{"parallel", "debugcon", "virtiocon"}, func(p properties) bool {
			kind, _, named := strings.Cut(p.first, ":")
			return named && slices.Contains([]string{"tcp", "telnet", "websocket", "udp"}, kind)
		}, "it would speak to the network: use a -chardev with host=127.0.0.1"},
		{[]string{"trace"}, func(p properties) bool { return p.values["file"] != "" },
			"QEMU can write nowhere: use the input qemu-trace with trace:PATTERN"},
	}
}

// loopbackName tells a host that only this one reaches.
func loopbackName(host string) bool {
	return host == "127.0.0.1" || host == "localhost" || host == "::1"
}

// on reads a switch as QEMU does (qapi_bool_parse).
func (p properties) on(name string) bool {
	return slices.Contains([]string{"on", "yes", "true", "y"}, p.values[name])
}

// aio is how a -drive or -blockdev is read.
func (p properties) aio() string { return firstOf(p.values, "aio", "file.aio") }

// direct tells whether it is so past the host's cache. (JSON nests the answer,
// which fmt prints as a map.)
func (p properties) direct() bool {
	cache := p.values["cache"]
	return cache == "none" || cache == "directsync" || strings.Contains(cache, "direct:true") ||
		p.values["cache.direct"] == "on" || p.values["file.cache.direct"] == "on"
}
