package qemu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSplitArgs(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                   nil,
		" \n\t ":                             nil,
		"-device usb-ehci":                   {"-device", "usb-ehci"},
		"-a 'b c' \"d e\"f g\\ h":            {"-a", "b c", "d ef", "g h"},
		"-a \\\n  -b\n-c # comment\n-d":      {"-a", "-b", "-c", "-d"},
		`-blockdev '{"driver":"null-co"}'`:   {"-blockdev", `{"driver":"null-co"}`},
		"-a {b,c} ~ *.img x=[1]":             {"-a", "{b,c}", "~", "*.img", "x=[1]"},
		"'' \"\"":                            {"", ""},
		`-x '$HOME'`:                         {"-x", "$HOME"},
		`-x "a\"b"`:                          {"-x", `a"b`},
		"-fw_cfg name=opt/x,string=a=b,,c=d": {"-fw_cfg", "name=opt/x,string=a=b,,c=d"},
	} {
		got, err := SplitArgs(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"-a 'b":        "a shell could not split it: ",
		"-a; rm -rf x": "put quotes around what is not for the shell",
		"-a | b":       "a shell could not split it: ",
		"-a $HOME":     "a shell would replace the $ or ` in it, and none is run here: put it between single quotes",
		"-a \"${X}\"":  "a shell would replace the $",
		"-a `id`":      "a shell would replace the $",
		"-a $(id)":     "a shell would replace the $",
		"-a $((1+1))":  "a shell would replace the $",
	} {
		if got, err := SplitArgs(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %s", text, got, err, want)
		}
	}
}

// FuzzSplitArgs holds that what is split can be quoted and split again into
// the same, and that nothing of this process's environment gets into it.
func FuzzSplitArgs(f *testing.F) {
	f.Add("-device usb-ehci,id='a b' \"c\\\"d\"")
	f.Add("-a \\\n-b # c")
	f.Add("~ ~root {a,b} *")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := SplitArgs(text)
		if err != nil {
			return
		}
		if again, err := SplitArgs(quote(list)); err != nil || !slices.Equal(list, again) {
			t.Fatalf("%q: %q, and then %q, %v", text, list, again, err)
		}
	})
}

func TestParseOptions(t *testing.T) {
	all := parseOptions(recordedText(t, "help-7.2.txt"))
	for name, takes := range map[string]bool{
		"S": false, "m": true, "machine": true, "M": true, "h": false, "help": false, "fda": true, "fdb": true, "preconfig": false,
		"nodefaults": false, "no-user-config": false, "enable-kvm": false, "device": true, "seed": true, "async-teardown": false,
		"object": true, "readconfig": true, "sandbox": true, "no-fd-bootchk": false, "xen-domid-restrict": false, "audio-help": false, "d": true,
	} {
		if got, ok := all[name]; !ok || got != takes {
			t.Errorf("-%s: known %v, takes an argument %v; want %v", name, ok, got, takes)
		}
	}
	if len(all) < 100 || all["x"] {
		t.Errorf("%d options", len(all))
	}
	for name := range ownedOptions() {
		if _, ok := all[name]; !ok && !slices.Contains([]string{"run-with", "curses", "sdl", "no-acpi"}, name) { // of other versions
			t.Errorf("the table refuses -%s, which QEMU 7.2 does not have", name)
		}
	}
}

// TestCheckExtra has a refusal for each row of the tables, and what is allowed.
func TestCheckExtra(t *testing.T) {
	known := parseOptions(recordedText(t, "help-7.2.txt"))
	known["run-with"] = true
	for _, allowed := range []string{
		"-device usb-ehci,id=usb -device usb-kbd", "-vga cirrus", "-boot menu=on", "-global PIIX4_PM.disable_s3=1", "--global driver=x,property=y,value=z",
		"-netdev user,id=lan -device rtl8139,netdev=lan", "-netdev socket,id=lan,mcast=230.0.0.1:1234", "-object rng-random,id=rng", "-vnc 127.0.0.1:0", "-gdb tcp:127.0.0.1:1234",
		"-drive if=none,file=/x,id=x,cache=none,aio=native", "-drive if=none,file=/x,id=x,cache=writeback,aio=threads", "-append-not", "-usb",
		`-blockdev '{"driver":"null-co","node-name":"x"}'`, "-device virtio-net-pci,mq=off,netdev=lan", "-chardev socket,id=x,host=127.0.0.1,port=1,server=on", "-trace ide_*",
	} {
		list, err := SplitArgs(allowed)
		if err != nil {
			t.Fatal(err)
		}
		problems := CheckExtra(list, known)
		if allowed == "-append-not" {
			if len(problems) != 1 || problems[0].Error() != `"-append-not": this QEMU has no such option` {
				t.Errorf("%v", problems)
			}
			continue
		}
		if len(problems) > 0 {
			t.Errorf("%s: %v", allowed, problems)
		}
	}
	for text, want := range map[string]string{
		"-smp 4":                            `"-smp 4": use the input cpus; but the Hurd's kernels use one processor`,
		"--smp 4":                           `"-smp 4": use the input cpus`,
		"-m 4G":                             "use the input memory",
		"-M q35":                            "use the input machine",
		"-machine q35":                      "use the input machine",
		"-cpu host":                         "use the input cpu-model",
		"-enable-kvm":                       "use the input accel",
		"-accel kvm":                        "use the input accel",
		"-nographic":                        "picture when its boot fails",
		"-display none":                     "picture when its boot fails",
		"-qmp tcp:localhost:4444,server=on": "use the input qmp",
		"-mon chardev=monitor":              "use the input qmp",
		"-monitor stdio":                    "use the input qmp",
		"-serial telnet:localhost:4444":     "use the input serial-port",
		"-sandbox off":                      "QEMU is confined by this action",
		"-runas root":                       "QEMU is confined by this action",
		"-run-with user=root":               "QEMU is confined by this action",
		"-daemonize":                        "must not outlive the run",
		"-incoming defer":                   "prepare and snapshot",
		"-loadvm x":                         "prepare and snapshot",
		"-net tap,ifname=tap0":              "use the inputs nic, network and forward. Of its kinds, tap needs a device and rights on the host that a runner does not give",
		"-net user,restrict=off":            "use the inputs nic, network and forward",
		"-netdev tap,id=t,ifname=tap0":      "QEMU may start no helper: the guest has a user network",
		"-netdev bridge,id=b":               "QEMU may start no helper",
		"-nic tap":                          "QEMU may start no helper",
		"-nic none":                         "use the input network: none",
		"-netdev tap,id=t,queues=4":         "network cards with several queues are virtio's",
		"-device virtio-net-pci,mq=on":      "the Hurd has drivers for neither: use the input nic",
		"-netdev user,id=u,hostfwd=tcp::2222-:22":                 "use the input forward, which listens on 127.0.0.1",
		"-drive file=x,cache=writeback,aio=native":                "aio=native bypasses the host's cache, which this cache mode uses",
		"-blockdev driver=file,filename=x,aio=native,node-name=y": "write cache=none (cache.direct=on)",
		"-drive file=x":            "write if=none",
		"-drive file=x,if=virtio":  "no virtio disk driver",
		"-hda x":                   "its place is that of the guest's disk",
		"-hdb x":                   "its place is that of the guest's disk",
		"-cdrom x":                 "if=none,media=cdrom",
		"-kernel vmlinuz":          "the guest boots its own disk",
		"-bios x":                  "this QEMU's own firmware",
		"-snapshot":                "throwaway overlay already",
		"-S":                       "the machine would wait for ever",
		"-s":                       "write -gdb tcp:127.0.0.1:1234",
		"-gdb tcp::1234":           "write tcp:127.0.0.1:1234",
		"-vnc :0":                  "without a password: write 127.0.0.1:0",
		"-vnc 0.0.0.0:0":           "without a password",
		"-vga none":                "wants a VGA",
		"-d guest_errors":          "use the input qemu-trace",
		"-D /tmp/qemu-debug.log":   "use the input qemu-trace",
		"-trace ide_*,file=/tmp/x": "use the input qemu-trace",
		"-no-hpet":                 "GNU Mach panics without the HPET",
		"-device help":             "makes QEMU print a text and end",
		"-device e1000,help":       "makes QEMU print a text and end",
		"-version":                 "makes QEMU print a text and end",
		"-h":                       "makes QEMU print a text and end",
		"-netdev user,id=net":      `the id net belongs to this action: choose another one`,
		"-object memory-backend-ram,id=ram,size=1G":                                  "the id ram belongs",
		"-chardev null,id=serial":                                                    "the id serial belongs",
		"-device ide-hd,drive=x,id=disk0-dev":                                        "the id disk0-dev belongs",
		`-blockdev '{"driver":"null-co","node-name":"disk0-file"}'`:                  "the id disk0-file belongs",
		"-chardev socket,id=x,port=1,server=on":                                      "write host=127.0.0.1",
		"-chardev socket,id=x,host=0.0.0.0,port=1,server=yes":                        "write host=127.0.0.1",
		"-chardev socket,id=x,port=1,server":                                         "write host=127.0.0.1",
		"-vnc 127.0.0.1:0,websocket=0.0.0.0:5700":                                    "write websocket=127.0.0.1",
		"-vnc 127.0.0.1:0,websocket=5700":                                            "write websocket=127.0.0.1",
		"-netdev socket,id=x,listen=:1234":                                           "write listen=127.0.0.1",
		"-netdev stream,id=x,server=on,addr.type=inet,addr.host=0.0.0.0,addr.port=1": "write addr.host=127.0.0.1",
		"-parallel tcp::1234,server":                                                 "speak to the network",
		"-debugcon telnet::1234,server":                                              "speak to the network",
		"-chardev null,id=serial2":                                                   "the id serial2 belongs",
		"-object filter-dump,id=packets,netdev=net,file=x":                           "the id packets belongs",
		"-chardev socket,id=x,host=,port=1,server":                                   "write host=127.0.0.1",
		"disk.img":                 `"disk.img": it is no option, and QEMU would take it for a disk`,
		"-":                        "it is no option",
		"-device":                  `"-device": it needs an argument`,
		"-devise usb-ehci":         `"-devise": this QEMU has no such option: did you mean device`,
		"-mem-path /dev/hugepages": "for huge pages use the input hugepages",
		"-no-reboot":               "nothing here survives one",
		"-readconfig x":            "write its options here",
		"-add-fd fd=3,set=1":       "the descriptors of QEMU",
		"-pidfile x":               "QEMU can write nowhere",
		"-nodefaults":              "gives it already",
	} {
		list, err := SplitArgs(text)
		if err != nil {
			t.Fatal(err)
		}
		problems := CheckExtra(list, known)
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("%s: %v; want %s", text, problems, want)
		}
	}
	if problems := CheckExtra([]string{"-smp", "4", "-devise", "x", "-usb", "x.img", "-m"}, known); len(problems) != 4 {
		t.Errorf("not all problems are there: %v", problems)
	}
}

// TestE2EExtra holds that the options of the QEMU that is here are understood,
// that it takes what is allowed, and how it dies of what it does not take.
func TestE2EExtra(t *testing.T) {
	spec, options := realSpec(t, firmware("extra\n", idle))
	known, err := ListOptions(deadline(t, 30*time.Second), *qemuFlag)
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range spec.Args() { // all of our own options are in its help
		if name, ok := strings.CutPrefix(own, "-"); ok {
			if _, ok := known[name]; !ok {
				t.Errorf("-%s is not among the options", name)
			}
		}
	}
	for text, dies := range map[string]string{
		"-device usb-ehci,id=usb -device usb-kbd": "",
		"-device usb-ehcy":                        "-device usb-ehcy: 'usb-ehcy' is not a valid device model name",
	} {
		list, err := SplitArgs(text)
		if problems := CheckExtra(list, known); err != nil || len(problems) > 0 {
			t.Fatalf("%s: %v, %v", text, err, problems)
		}
		spec.Extra, options.RunDir = list, t.TempDir()
		if dies == "" {
			m := startReal(t, spec, options)
			waitFor(t, m, "extra", 30*time.Second)
			continue
		}
		_, err = Start(deadline(t, 30*time.Second), spec, options)
		var exit *ExitError
		if !errors.As(err, &exit) || !strings.Contains(exit.Stderr, dies) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestOwnIDs holds that every id and node name of our own command line is
// refused to the user.
func TestOwnIDs(t *testing.T) {
	spec := Spec{Hardware: Plan(hurd64, Overrides{DiskBus: BusAHCI}, recorded(t, "7.2")), Accel: AccelTCG, Disks: []Disk{overlaid(3), {Image: Image{Format: "raw", FD: 9}, CDROM: true}},
		RAM: &RAM{FD: 7}, SerialFD: 4, MonitorFD: 5, ToolsFD: 6, Forwards: []Forward{Loopback(22)}}
	for _, bus := range []string{BusAHCI, BusSCSI, BusNVMe, BusVirtio} {
		spec.DiskBus, spec.Machine = bus, "pc"
		args := spec.Args()
		for i, arg := range args[:len(args)-1] {
			e := extra{name: strings.TrimPrefix(arg, "-"), value: args[i+1], hasValue: true}
			if id := e.properties().id(); strings.HasPrefix(arg, "-") && id != "" && !ownID(id) {
				t.Errorf("%s: the id %s is not known as ours", fmt.Sprint(e), id)
			}
		}
	}
}
