package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// The modes of the input network.
const (
	networkRestricted = "restricted"
	networkNone       = "none"
)

// traceName is the log of the input qemu-trace.
const traceName = "qemu-trace.log"

// resources are what a run takes of its host beside the machine itself.
type resources struct {
	forwards   []qemu.ForwardLine
	processors []int // none: all that we may use
	hugePage   units.Bytes
	trace      string // as QEMU takes it; empty: none
	traceLog   io.Writer
	extra      []string
}

// FixedPorts tells whether inputs ask for ports of the host that only one guest can have.
func FixedPorts(forward, serialPort string) bool {
	if port, _, _ := strings.Cut(strings.TrimSpace(serialPort), " "); port != "" && port != "0" {
		return true
	}
	lines, _ := qemu.ParseForwards(forward) // what is wrong with it is reported by the runs
	for _, l := range lines {
		if l.HostPort != 0 {
			return true
		}
	}
	return false
}

// readResources validates the inputs about ports and resources as far as
// neither this host nor QEMU has to be asked.
func (r *run) readResources() []error {
	c, res := r.config, &r.resources
	var problems []error
	var bad []error
	res.forwards, bad = qemu.ParseForwards(c.Forward)
	problems = append(problems, about("forward", bad...)...)
	if c.CPUAffinity != "" {
		list, err := qemu.ParseProcessors(c.CPUAffinity)
		problems = append(problems, about("cpu-affinity", err)...)
		res.processors = list
	}
	extra, err := qemu.SplitArgs(c.QEMUArgs)
	problems = append(problems, about("qemu-args", err)...)
	res.extra = extra
	if c.Network == networkNone && c.NIC != "" && c.NIC != qemu.NoNIC {
		problems = append(problems, fmt.Errorf("nic: %q: is given, but network: none leaves no network card: leave one of them out", c.NIC))
	}
	if why := r.neverSaved(); why != "" && (c.Snapshot == snapshotSave || c.Snapshot == snapshotRestore) {
		problems = append(problems, fmt.Errorf("snapshot: %q: not for this guest: %s", c.Snapshot, why))
	}
	return problems
}

// about names the input that problems are about.
func about(input string, problems ...error) []error {
	var named []error
	for _, p := range problems {
		if p != nil {
			named = append(named, fmt.Errorf("%s: %w", input, p))
		}
	}
	return named
}

// neverSaved says why the inputs do not go together with saved machines; empty: they do.
func (r *run) neverSaved() string {
	switch {
	case len(r.resources.extra) > 0:
		return "qemu-args may change the machine in ways that a saved one does not know"
	case r.config.HugePages:
		return "hugepages keeps the guest's memory where it cannot be saved"
	case r.config.Network == networkNone:
		return "a restored guest gets its keys over the network, and network is none"
	}
	return ""
}

// checkResources finds out whether this host and QEMU can do what was asked
// for, before an image is fetched.
func (r *run) checkResources(ctx context.Context) []error {
	c, res := r.config, &r.resources
	var problems []error
	for _, f := range res.forwards {
		if err := f.Try(); err != nil {
			problems = append(problems, fmt.Errorf("forward: line %d: %w", f.Line, err))
		}
	}
	if len(res.processors) > 0 {
		allowed, err := qemu.AllowedProcessors()
		if err == nil {
			err = qemu.CheckProcessors(res.processors, allowed)
		}
		problems = append(problems, about("cpu-affinity", err)...)
	}
	if c.HugePages {
		var err error
		res.hugePage, err = checkHugePages(c.Memory)
		problems = append(problems, about("hugepages", err)...)
	}
	problems = append(problems, r.checkDisk(ctx)...)
	if c.QEMUTrace != "" {
		items, bad := qemu.CheckTrace(ctx, r.binary(), c.QEMUTrace)
		problems = append(problems, about("qemu-trace", bad...)...)
		res.trace = items
	}
	if len(res.extra) > 0 {
		known, err := qemu.ListOptions(ctx, r.binary())
		bad := []error{err}
		if err == nil {
			bad = qemu.CheckExtra(res.extra, known)
		}
		problems = append(problems, about("qemu-args", bad...)...)
	}
	return problems
}

// binary is the QEMU that is run.
func (r *run) binary() string {
	if r.Host.QEMU != "" {
		return r.Host.QEMU
	}
	return qemu.DefaultBinary
}

// checkHugePages finds out whether a guest's memory can be had from huge pages
// of this host, and which size they have.
func checkHugePages(memory units.Bytes) (size units.Bytes, err error) {
	pages, err := qemu.HostHugePages(os.DirFS("/"))
	if err == nil {
		err = pages.Check(memory)
	}
	if err == nil {
		err = qemu.TryHugePages()
	}
	return pages.Size, err
}

// checkDisk tries the modes of the disk where its files are going to be: the
// overlay in the run directory, and what lies below it in the cache directory.
func (r *run) checkDisk(ctx context.Context) []error {
	cache, aio := qemu.Cache(r.config.DiskCache), qemu.AIO(r.config.DiskAIO)
	o := qemu.StartOptions{Binary: r.binary(), Features: r.features}
	err := qemu.TryDisk(ctx, o, r.dir, cache, aio)
	if err == nil && cache == qemu.CacheNone {
		if err = os.MkdirAll(r.Host.Cache, 0o700); err == nil {
			err = qemu.TryDisk(ctx, o, r.Host.Cache, cache, qemu.AIOThreads)
		}
	}
	if err == nil {
		return nil
	}
	if !errors.As(err, new(*qemu.DiskModeError)) {
		err = fmt.Errorf("disk-cache: %q, disk-aio: %q: %w", cache, aio, err)
	}
	return []error{err}
}

// openTrace makes the log of QEMU's own trace.
func (r *run) openTrace() error {
	if r.resources.trace == "" {
		return nil
	}
	w, err := r.log(traceName)
	r.resources.traceLog = w
	return err
}

// noteResources says what the choices of this run cost.
func (r *run) noteResources() {
	c, res := r.config, r.resources
	for _, f := range res.forwards {
		if f.Beyond() {
			r.warn("A port of the guest is open to others", fmt.Sprintf("forward: line %d: %s listens beyond 127.0.0.1: whoever reaches %s reaches the guest's port %d",
				f.Line, f.Forward, everyAddress(f.Address.String()), f.GuestPort))
		}
	}
	for _, f := range res.forwards {
		if f.Protocol == qemu.UDP && c.Network == networkRestricted {
			r.warn("A port that only listens", fmt.Sprintf("forward: line %d: with network: restricted QEMU drops all that the guest sends over UDP, answers too: use tcp, or network: user", f.Line))
		}
	}
	if c.DiskCache+c.DiskAIO != string(qemu.CacheUnsafe)+string(qemu.AIOThreads) {
		r.Log.Printf("Disk: cache %s (%s), read and written by %s", c.DiskCache, qemu.Cache(c.DiskCache).Cost(), c.DiskAIO)
	}
	if len(res.processors) > 0 {
		r.Log.Printf("Processors of this host: QEMU runs on %s only, also when others are free", qemu.FormatProcessors(res.processors))
	}
	if res.hugePage > 0 {
		r.Log.Printf("The guest's memory is in huge pages of %s, which nothing else of this host can use meanwhile", res.hugePage.Human())
	}
	if res.trace != "" {
		r.Log.Printf("QEMU logs %s to %s, which slows the guest down", res.trace, r.logs.path(traceName))
		if silent := qemu.SilentUnderKVM(res.trace); r.accel.Accel == qemu.AccelKVM && len(silent) > 0 {
			r.warn("Nothing to trace", "qemu-trace: "+strings.Join(silent, ", ")+": only emulation (accel: tcg) has that, and this guest runs under KVM")
		}
	}
	if len(res.extra) > 0 {
		r.Log.Printf("qemu-args: %d more arguments for QEMU; they are not this action's to vouch for", len(res.extra))
	}
	if why := r.neverSaved(); why != "" && c.Snapshot == snapshotAuto {
		r.Log.Printf("This guest is neither saved nor restored: %s.", why)
	}
}

// everyAddress says 0.0.0.0 in words.
func everyAddress(address string) string {
	if address == "0.0.0.0" {
		return "any address of this host"
	}
	return address
}

// forwardsOf are the ports that lead to the guest: SSH's and the user's.
func (r *run) forwardsOf() []qemu.Forward {
	if r.config.Network == networkNone || r.config.NIC == qemu.NoNIC {
		return nil
	}
	forwards := []qemu.Forward{qemu.Loopback(r.config.SSHPort)}
	for _, f := range r.resources.forwards {
		forwards = append(forwards, f.Forward)
	}
	return forwards
}

// showForwards says which ports of the host lead to the guest.
func (r *run) showForwards(ctx context.Context, m *qemu.Machine) error {
	if len(r.resources.forwards) == 0 {
		return nil
	}
	found, err := m.ForwardedPorts(ctx, r.forwardsOf())
	if err != nil {
		return err
	}
	for _, f := range found[1:] { // the first one is SSH's
		r.Log.Printf("Forwarded: %s %s:%d leads to the guest's port %d", f.Protocol, f.Address, f.HostPort, f.GuestPort)
	}
	return nil
}

// resourceFailure blames an input for a QEMU that did not start, if one is to blame.
func (r *run) resourceFailure(err error) *Error {
	var exit *qemu.ExitError
	if !errors.As(err, &exit) {
		return nil
	}
	blame := func(format string, args ...any) *Error {
		e := fail(InputInvalid, "Invalid input", fmt.Errorf(format, args...))
		e.Quote = lines(exit.Stderr)
		return e
	}
	if f, why := qemu.RefusedForward(exit.Stderr, r.resources.forwards); why != nil {
		return blame("forward: line %d: %w", f.Line, why)
	}
	if r.config.HugePages && strings.Contains(exit.Stderr, "Cannot allocate memory") {
		_, why := checkHugePages(r.config.Memory)
		if why == nil {
			why = errors.New("QEMU could not have the huge pages, which are free now: something else on this host takes them as well; set more aside")
		}
		return blame("hugepages: %w", why)
	}
	if len(r.resources.extra) > 0 {
		e := blame("qemu-args: QEMU did not start with them: %w", exit)
		e.Advice = []string{"Look at what QEMU wrote, below and in " + r.result.QEMULog + ", and run once without qemu-args to see whether they are to blame."}
		return e
	}
	return nil
}
