package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestResourceInputs holds that what is wrong with the inputs is said all at
// once, with the problems of the other inputs, and before anything is done.
func TestResourceInputs(t *testing.T) {
	in, _ := config.FromEnvironment([]string{"INPUT_RUN=true", "INPUT_MEMORY=lots", "INPUT_SNAPSHOT=save", "INPUT_NETWORK=none", "INPUT_TRANSPORT=serial", "INPUT_NIC=e1000",
		"INPUT_FORWARD=tcp 1:2\nsctp 1:2\ntcp 1:3", "INPUT_CPU-AFFINITY=3-1", "INPUT_QEMU-ARGS=-device 'x", "INPUT_HUGEPAGES=true", "INPUT_DISK-AIO=native"})
	r, _ := newRun()
	r.Inputs, r.Host.Workspace = in, t.TempDir()
	err := r.readInputs()
	var e *Error
	if !errors.As(err, &e) || e.Kind != InputInvalid {
		t.Fatalf("err = %v", err)
	}
	for _, want := range []string{
		`memory: "lots": is not a size`,
		`forward: line 2: "sctp 1:2": "sctp" is not a protocol`,
		`forward: line 3: "tcp 1:3": line 1 has the same port of the host`,
		`forward: "tcp 1:2"...: forwards to a guest without a network card`,
		`cpu-affinity: "3-1" is a range that ends before it begins`,
		`qemu-args: a shell could not split it`,
		`nic: "e1000": is given, but network: none leaves no network card`,
		`snapshot: "save": not for this guest: hugepages keeps the guest's memory where it cannot be saved`,
		`disk-aio: "native": bypasses the host's cache, which disk-cache: unsafe uses`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
	if left, err := os.ReadDir(r.Host.Workspace); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestResourceChecks has a host and a QEMU refuse everything, before an image
// is looked for.
func TestResourceChecks(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	req := bootable(t, "")
	req.Inputs.Image = "/no/such/image"
	req.Inputs.Forward = fmt.Sprintf("# a comment\ntcp 0:80\ntcp %d:81\nudp 192.0.2.1:0:53\n", port)
	req.Inputs.CPUAffinity, req.Inputs.HugePages, req.Inputs.Memory = "0,1023", "true", "1T"
	req.Inputs.QEMUTrace, req.Inputs.Machine = "guest_erors,unimp", "q36"
	req.Inputs.QEMUArgs = "-devise usb-ehci -smp 4 -net tap,ifname=tap0"
	r, out := newRun()
	req.Log = r.Log
	res := Run(t.Context(), req)
	if res.Kind != InputInvalid || res.ExitCode != 125 {
		t.Errorf("result = %+v", res)
	}
	for _, want := range []string{
		"machine: q36: QEMU ", // with what was checked before
		fmt.Sprintf("forward: line 3: tcp port %d of 127.0.0.1 is taken by another program: choose another one, or 0", port),
		"forward: line 4: 192.0.2.1 is not an address of this host",
		"cpu-affinity: this process may run on ",
		"hugepages: the guest's memory (1 TiB) takes ",
		"with: sudo sysctl -w vm.nr_hugepages=",
		`qemu-trace: "guest_erors": this QEMU logs no such thing: did you mean guest_errors?`,
		`qemu-args: "-devise": this QEMU has no such option: did you mean device`,
		`qemu-args: "-smp 4": use the input cpus; but the Hurd's kernels use one processor`,
		`qemu-args: "-net tap,ifname=tap0": use the inputs nic, network and forward`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "/no/such/image") {
		t.Errorf("an image was looked for:\n%s", out)
	}
	if left, err := os.ReadDir(req.Host.Temp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestArgsThatQEMUDiesOf pins that an end of QEMU's is put down to qemu-args.
func TestArgsThatQEMUDiesOf(t *testing.T) {
	req := bootable(t, "")
	req.Inputs.QEMUArgs = "-device usb-ehcy"
	r, out := newRun()
	req.Log = r.Log
	res := Run(t.Context(), req)
	if res.Kind != InputInvalid || res.Attempts != 1 || res.Snapshot != stateCold {
		t.Errorf("result = %+v", res)
	}
	for _, want := range []string{
		"qemu-args: QEMU did not start with them: ", "'usb-ehcy' is not a valid device model name", "run once without qemu-args",
		"This guest is neither saved nor restored: qemu-args may change the machine",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

// TestDiskThatCannotBeRead has a QEMU, as of version 10, fall back to threads.
func TestDiskThatCannotBeRead(t *testing.T) {
	req := bootable(t, brokenQEMU(t))
	script := "#!/bin/sh\ncase \"$*\" in *io_uring*) echo 'qemu: Unable to use linux io_uring, falling back to thread pool: Operation not permitted' >&2;; esac\nexec qemu-system-x86_64 \"$@\"\n"
	if err := os.WriteFile(req.Host.QEMU, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	req.Inputs.DiskAIO = "io_uring"
	r, out := newRun()
	req.Log = r.Log
	if res := Run(t.Context(), req); res.Kind != InputInvalid || !strings.Contains(out.String(), `disk-aio: "io_uring": `) || !strings.Contains(out.String(), "use threads, or native with disk-cache: none (QEMU says: qemu: Unable to use") {
		t.Errorf("result = %+v\n%s", res, out)
	}
}

// TestResourceFailure holds what an end of QEMU's is put down to.
func TestResourceFailure(t *testing.T) {
	free := qemu.ForwardLine{Forward: qemu.Loopback(80), Line: 3}
	for _, tc := range []struct {
		name, stderr string
		change       func(*run)
		want         string // empty: no input is to blame
	}{
		{"a port", "Could not set up host forwarding rule 'tcp:127.0.0.1:0-:80'", func(r *run) { r.resources.forwards = []qemu.ForwardLine{free} },
			"forward: line 3: QEMU could not take the port, which is free now"},
		{"SSH's own port", "Could not set up host forwarding rule 'tcp:127.0.0.1:0-:22'", func(r *run) { r.resources.forwards = []qemu.ForwardLine{free} }, ""},
		{"huge pages", "unable to map backing store for guest RAM: Cannot allocate memory", func(r *run) { r.config.HugePages, r.config.Memory = true, units.TiB },
			"hugepages: the guest's memory (1 TiB) takes"},
		{"memory", "cannot set up guest memory 'ram': Cannot allocate memory", func(*run) {}, ""},
		{"arguments", "-foo: bad", func(r *run) { r.resources.extra = []string{"-foo"} }, "qemu-args: QEMU did not start with them"},
		{"nothing of the user's", "bad machine", func(*run) {}, ""},
	} {
		r, _ := newRun()
		tc.change(r)
		e := r.resourceFailure(fmt.Errorf("starting QEMU: %w", &qemu.ExitError{Reason: qemu.ExitFailed, Status: 1, Stderr: tc.stderr}))
		switch {
		case (e == nil) != (tc.want == ""):
			t.Errorf("%s: %v", tc.name, e)
		case e != nil && (e.Kind != InputInvalid || !strings.HasPrefix(e.Error(), tc.want) || len(e.Quote) != 1):
			t.Errorf("%s: %s, %v, %q; want %s", tc.name, e.Kind, e, e.Quote, tc.want)
		}
	}
	r, _ := newRun()
	r.resources.extra = []string{"-foo"}
	if e := r.resourceFailure(errors.New("no such file")); e != nil {
		t.Errorf("no QEMU has ended, and %v", e)
	}
}

// TestNotes holds that what a choice costs is said, and nothing of what was not chosen.
func TestNotes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*run)
		want   []string // nil: nothing at all
	}{
		{"nothing", func(*run) {}, nil},
		{"loopback", func(r *run) { r.resources.forwards, _ = qemu.ParseForwards("tcp 8080:80") }, nil},
		{"beyond", func(r *run) { r.resources.forwards, _ = qemu.ParseForwards("\ntcp 0.0.0.0:8080:80") },
			[]string{"forward: line 2: tcp 0.0.0.0:8080:80 listens beyond 127.0.0.1: whoever reaches any address of this host reaches the guest's port 80"}},
		{"UDP", func(r *run) { r.resources.forwards, _ = qemu.ParseForwards("udp 8080:80") }, nil},
		{"restricted UDP", func(r *run) {
			r.config.Network = networkRestricted
			r.resources.forwards, _ = qemu.ParseForwards("tcp 1:1\nudp 8080:80")
		}, []string{"forward: line 2: with network: restricted QEMU drops all that the guest sends over UDP"}},
		{"writeback", func(r *run) { r.config.DiskCache = "writeback" }, []string{"Disk: cache writeback (what the guest flushes is safe on the host's disk", "by threads"}},
		{"io_uring", func(r *run) { r.config.DiskAIO = "io_uring" }, []string{"Disk: cache unsafe (flushes are ignored: if this host dies, whatever the guest wrote may be lost), read and written by io_uring"}},
		{"processors", func(r *run) { r.resources.processors = []int{0, 1, 2, 5} }, []string{"QEMU runs on 0-2,5 only"}},
		{"trace", func(r *run) { r.resources.trace = "guest_errors" }, []string{"QEMU logs guest_errors to .hurd/run-1/qemu-trace.log"}},
		{"trace under KVM", func(r *run) { r.resources.trace, r.accel.Accel = "guest_errors,in_asm", qemu.AccelKVM }, []string{"qemu-trace: in_asm: only emulation (accel: tcg) has that"}},
		{"arguments", func(r *run) { r.resources.extra = []string{"-usb"} }, []string{"qemu-args: 1 more", "neither saved nor restored: qemu-args"}},
		{"huge pages", func(r *run) { r.config.HugePages = true }, []string{"neither saved nor restored: hugepages"}},
		{"no network", func(r *run) { r.config.Network = networkNone }, []string{"neither saved nor restored: a restored guest gets its keys over the network"}},
	} {
		r, out := newRun()
		r.config = config.Config{DiskCache: "unsafe", DiskAIO: "threads", Network: "user", Snapshot: snapshotAuto}
		r.logs = &logs{relative: filepath.Join(logsName, "run-1")}
		r.accel.Accel = qemu.AccelTCG
		tc.change(r)
		r.noteResources()
		if tc.want == nil && out.Len() > 0 {
			t.Errorf("%s: %s", tc.name, out)
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing in %s", tc.name, want, out)
			}
		}
	}
}

// TestSpecOfResources holds what of the inputs gets to the machine.
func TestSpecOfResources(t *testing.T) {
	r := savable(t)
	r.config.Network, r.config.DiskCache, r.config.DiskAIO = networkRestricted, "none", "native"
	r.seed = "/seed.iso"
	r.resources = resources{trace: "unimp", extra: []string{"-usb"}, hugePage: 2 * units.MiB}
	r.resources.forwards, _ = qemu.ParseForwards("udp 5:6")
	s := r.spec(qemu.Image{Format: "raw"})
	if len(s.Forwards) != 2 || s.Forwards[0] != qemu.Loopback(22) || s.Forwards[1].Protocol != qemu.UDP || !s.Isolated ||
		s.Trace != "unimp" || len(s.Extra) != 1 || s.HugePage != 2*units.MiB {
		t.Errorf("%+v", s)
	}
	if len(s.Disks) != 3 || s.Disks[0].Cache != qemu.CacheNone || s.Disks[1].AIO != qemu.AIONative || s.Disks[2].Cache != "" || s.Disks[2].AIO != "" {
		t.Errorf("the disks are %+v", s.Disks)
	}
	r.config.Network = networkNone
	if s = r.spec(qemu.Image{Format: "raw"}); len(s.Forwards) > 0 || s.Isolated {
		t.Errorf("without a network: %+v", s)
	}
}

func TestFixedPorts(t *testing.T) {
	for text, want := range map[string]bool{"": false, "tcp 0:80\nudp 0:81": false, "tcp 0:80\ntcp 8080:80": true, "nonsense": false} {
		if FixedPorts(text, "") != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	for text, want := range map[string]bool{"0": false, " 0 telnet": false, "5555": true, "5555 telnet": true} {
		if FixedPorts("", text) != want {
			t.Errorf("serial port %q: %v", text, !want)
		}
	}
}
