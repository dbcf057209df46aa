package lifecycle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/doctor"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Examination is the run that a host is examined for.
type Examination struct {
	Image  *image.Source // nil: any of the presets
	Want   image.Want    // of which architecture, mirror and token count
	Accel  string        // as the input
	Memory units.Bytes
	CPUs   int
	Guest  string // that runs, as FindRunning has it; empty: all of them
}

// Examined gives package doctor this host as a run would find it. It looks at
// nothing yet, so that nothing that hangs holds it up.
func Examined(h Host, x Examination) doctor.Host {
	x.Memory, x.CPUs = cmp.Or(x.Memory, 2*units.GiB), cmp.Or(x.CPUs, 1)
	d := doctor.System(h.getenv)
	d.Paths.Store, d.Paths.Snapshots, d.Paths.Temp, d.Paths.Workspace = StoreDir(h.Cache), SnapshotDir(h.Cache), h.Temp, h.Workspace
	d.Accel = doctor.Accel(x.Accel)
	d.Need = doctor.Need{Memory: x.Memory, CPUs: x.CPUs}
	store := NewStore(d.Paths.Store, nil)
	d.Client = store.Client
	s := &examined{host: h, exam: x, store: store}
	d.QEMU = s.askQEMU
	d.KVM = s.askKVM
	d.Start = s.start
	d.Memory = hostMemory
	d.HugePages = func() error {
		_, err := checkHugePages(x.Memory)
		return err
	}
	d.DiskMode = s.tryDisk
	d.Images = func() ([]doctor.Entry, error) { return imageEntries(store) }
	d.Snapshots = func() ([]doctor.Entry, error) { return snapshotEntries(d.Paths.Snapshots) }
	d.Guests = s.guests
	d.Machine = lookAtMachine
	d.Explain = explainConsole
	s.describeImage(&d)
	return d
}

// examined answers the questions of package doctor.
type examined struct {
	host  Host
	exam  Examination
	store *image.Store
}

func (s *examined) binary() string { return cmp.Or(s.host.QEMU, qemu.DefaultBinary) }

func (s *examined) stateDir() string { return filepath.Join(s.host.Cache, "host") }

func (s *examined) features(ctx context.Context) (*qemu.Features, error) {
	return qemu.Probe(ctx, s.binary(), s.stateDir())
}

func (s *examined) askQEMU(ctx context.Context) (doctor.QEMU, error) {
	f, err := s.features(ctx)
	if err != nil {
		return doctor.QEMU{}, err
	}
	q := describeQEMU(f)
	q.Path, err = exec.LookPath(s.binary())
	return q, err
}

func describeQEMU(f *qemu.Features) doctor.QEMU {
	return doctor.QEMU{
		Version: f.Version, Package: f.Package, TCG: f.TCG, Sandbox: f.Sandbox, VNC: f.VNC,
		PrivateRAM: f.PrivateRAM, Shared: f.HasMachine("pc-q35-7.2"), Missing: missingHardware(f),
	}
}

// missingHardware is what the guests' profiles name and a QEMU does not have.
func missingHardware(f *qemu.Features) []string {
	var missing []string
	for _, g := range []qemu.Guest{
		{Family: platform.Hurd, Arch: platform.AMD64, Drivers: platform.UserDrivers},
		{Family: platform.Hurd, Arch: platform.I386, Drivers: platform.UserDrivers},
		{Family: platform.Hurd, Arch: platform.I386, Drivers: platform.KernelDrivers},
	} {
		_, err := qemu.Check(qemu.Request{Guest: g, Hardware: qemu.Plan(g, qemu.Overrides{}, f), Features: f})
		for _, refused := range qemu.Refusals(err) {
			if name := refused.Input + " " + refused.Value; !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	return missing
}

// askKVM remembers what it finds, and what a run has found, as runs do.
func (s *examined) askKVM(ctx context.Context) (doctor.KVM, error) {
	device := cmp.Or(s.host.KVM, "/dev/kvm")
	f, err := s.features(ctx)
	if err != nil {
		return doctor.KVM{}, err
	}
	want := qemu.AccelAuto
	if s.exam.Accel == string(qemu.AccelKVM) {
		want = qemu.AccelKVM // for which a failure that is remembered is looked at again
	}
	d, err := qemu.ChooseAccel(ctx, qemu.AccelOptions{Want: want, Binary: s.host.QEMU, Device: device, Features: f, CacheDir: s.stateDir()})
	var failure *qemu.AccelError
	if errors.As(err, &failure) {
		return doctor.KVM{State: string(failure.State), Reason: failure.Reason, Device: device}, nil
	}
	if err != nil {
		return doctor.KVM{}, err
	}
	return describeKVM(d, device), nil
}

func describeKVM(d qemu.Decision, device string) doctor.KVM {
	return doctor.KVM{State: string(d.KVM), Reason: d.Found, Device: device}
}

// start starts the machine that a Debian GNU/Hurd gets, with its firmware, its
// network, its confinement and both monitors, and ends it before it runs.
func (s *examined) start(ctx context.Context) (err error) {
	f, err := s.features(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.host.Temp, "hurd-doctor-") // no run directory: no guest is in it
	if err != nil {
		return fmt.Errorf("making a directory for the monitor: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g := qemu.Guest{Family: platform.Hurd, Arch: platform.AMD64, Drivers: platform.UserDrivers}
	spec := qemu.Spec{
		Name: "doctor", Hardware: qemu.Plan(g, qemu.Overrides{Memory: s.exam.Memory}, f), Accel: qemu.AccelTCG,
		Forwards: []qemu.Forward{qemu.Loopback(22)}, NoSandbox: !f.Sandbox, Paused: true,
	}
	if !f.TCG {
		spec.Accel = qemu.AccelKVM
	}
	m, err := qemu.Start(ctx, spec, qemu.StartOptions{Binary: s.host.QEMU, Features: f, RunDir: dir})
	if err != nil {
		return err
	}
	_, err = m.ForwardedPort(ctx, 22)
	return errors.Join(err, m.Stop(context.WithoutCancel(ctx)))
}

// tryDisk tries a mode of the disk where its files would be.
func (s *examined) tryDisk(ctx context.Context, cache, aio string) error {
	f, err := s.features(ctx)
	if err != nil {
		return err
	}
	return qemu.TryDisk(ctx, qemu.StartOptions{Binary: s.host.QEMU, Features: f}, s.host.Temp, qemu.Cache(cache), qemu.AIO(aio))
}

func hostMemory() (doctor.Memory, error) {
	m, err := qemu.HostMemory(os.DirFS("/"))
	return doctor.Memory{Total: m.Total, Available: m.Available, Limited: m.Limited}, err
}

func imageEntries(store *image.Store) ([]doctor.Entry, error) {
	list, err := store.List()
	var entries []doctor.Entry
	for _, e := range list {
		if e.Type != image.EntryPin {
			entries = append(entries, doctor.Entry{Name: e.Name, Size: e.Size, InUse: e.InUse, Partial: e.Type == image.EntryDownload, Problem: e.Problem})
		}
	}
	return entries, err
}

func snapshotEntries(dir string) ([]doctor.Entry, error) {
	list, err := (&snapshot.Store{Dir: dir}).List()
	var entries []doctor.Entry
	for _, e := range list {
		entries = append(entries, doctor.Entry{Name: e.Name, Size: e.Size, InUse: e.InUse, Problem: e.Problem})
	}
	return entries, err
}

// guests are the run directories in the directory for temporary files.
func (s *examined) guests(ctx context.Context) ([]doctor.Guest, error) {
	if s.exam.Guest != "" {
		dir, err := FindRunning(ctx, s.host.Temp, s.exam.Guest)
		if err != nil {
			return nil, err
		}
		return []doctor.Guest{describeGuest(dir, true)}, nil
	}
	alive, err := Running(ctx, s.host.Temp)
	if err != nil {
		return nil, err
	}
	sockets, err := filepath.Glob(filepath.Join(s.host.Temp, runPrefix+"*", qemu.SocketName))
	if err != nil {
		return nil, err
	}
	var guests []doctor.Guest
	for _, socket := range sockets {
		dir := filepath.Dir(socket)
		if lives := slices.Contains(alive, dir); lives || ours(dir) { // what others have left is theirs to remove
			guests = append(guests, describeGuest(dir, lives))
		}
	}
	return guests, nil
}

// serialLink is the name in a run directory that leads to the serial log in the
// workspace, for whoever looks at the guest from elsewhere.
const serialLink = "serial.log"

// describeGuest follows the link to the serial log only in a directory of our
// own: in one that somebody else has made, it may lead to a file of ours.
func describeGuest(dir string, alive bool) doctor.Guest {
	g := doctor.Guest{Dir: dir, Socket: filepath.Join(dir, qemu.SocketName), Alive: alive}
	if to, err := os.Readlink(filepath.Join(dir, serialLink)); err == nil && ours(dir) {
		g.Serial = to
	}
	return g
}

// ours tells whether this user has made a directory.
func ours(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func lookAtMachine(ctx context.Context, socket string) (doctor.Machine, error) {
	g, err := qemu.GlanceAt(ctx, socket)
	m := doctor.Machine{Version: g.Version, Status: g.Status}
	for _, f := range g.Forwards {
		if f.Protocol == qemu.TCP {
			m.Ports = append(m.Ports, doctor.Port{Address: reachable(f), Guest: f.GuestPort})
		}
	}
	return m, err
}

// reachable is where a port of this host is reached from here.
func reachable(f qemu.Forward) string {
	address := f.Address
	if address.IsUnspecified() {
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1}) // it listens there as well
	}
	return netip.AddrPortFrom(address, uint16(f.HostPort)).String()
}

// explainConsole names what in a console's text means that its guest is lost.
func explainConsole(text string) []string {
	stream := struct {
		io.Reader
		io.Writer
	}{bytes.NewBufferString(text), io.Discard}
	c := console.New(stream, console.Options{})
	_ = c.Run(context.Background()) // the end of the text is its end
	var lost []string
	for _, f := range c.Findings() {
		if f.Terminal() && !slices.Contains(lost, f.Title) {
			lost = append(lost, f.Title)
		}
	}
	return lost
}
