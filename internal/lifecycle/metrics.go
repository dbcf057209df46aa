package lifecycle

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/report"
	"github.com/org/hurd-qemu-action/internal/units"
)

// The files of a run's numbers.
const (
	metricsName     = "metrics.json"
	openMetricsName = "metrics.prom"
	benchmarkName   = "benchmark.json"
)

// meter is what a run has measured of itself.
type meter struct {
	boot    *metrics.Boot   // of the last machine; nil: none was started
	saved   bool            // that one began as a saved machine
	clients []*guest.Client // SSH connections in which a command has run
	usage   *qemu.Usage     // of the last machine; nil: it never told
	ask     func(context.Context) (qemu.Usage, error)
	peak    units.Bytes // of all machines
	files   []metrics.File
	cost    time.Duration // of the measuring itself
	kept    []string      // files of numbers beside the logs

	restored, downloaded units.Bytes // of a saved machine
}

// began begins with a machine.
func (m *meter) began(started time.Time, saved bool) {
	marks := metrics.Marks()
	if saved {
		marks = nil
	}
	m.boot, m.saved, m.usage = metrics.NewBoot(started, marks), saved, nil
}

// used takes a sample of the machine; the last one counts.
func (m *meter) used(u qemu.Usage) {
	m.usage, m.peak = &u, max(m.peak, u.Peak)
}

// collecting adds the time since a moment to what the measuring has cost. It is
// for defer, whose arguments are evaluated at once.
func (m *meter) collecting(since time.Time) { m.cost += time.Since(since) }

// measureFiles notes what the guest's disks take of the host's, as long as they
// are there. What was noted of a file that is gone stays.
func (r *run) measureFiles() {
	r.meter.file("image", r.disk.base.Path, r.disk.base.VirtualSize)
	r.meter.file("overlay", r.overlayPath, r.disk.base.VirtualSize) // an overlay is as large as what it lies on
	r.meter.file("workspace", r.checkout.drive, r.config.WorkspaceSize)
}

func (m *meter) file(name, path string, virtual units.Bytes) {
	var st syscall.Stat_t
	if path == "" || syscall.Stat(path, &st) != nil {
		return
	}
	f := metrics.File{Name: name, Virtual: virtual, Allocated: units.Bytes(st.Blocks) * 512} // whatever the block size is: stat(2)
	for i := range m.files {
		if m.files[i].Name == name {
			m.files[i] = f
			return
		}
	}
	m.files = append(m.files, f)
}

// keepMetrics writes the run's numbers beside the logs.
func (r *run) keepMetrics() error {
	began := time.Now()
	r.measureFiles()
	benchErr := r.keepBenchmark()
	doc := r.metrics()
	r.meter.collecting(began)
	doc.Collecting = metrics.Seconds(r.meter.cost)
	data, err := doc.JSON()
	if err == nil {
		err = r.keepNumbers(metricsName, data)
	}
	if err == nil {
		r.result.Metrics = r.logs.path(metricsName)
	}
	return errors.Join(benchErr, err, r.keepNumbers(openMetricsName, []byte(doc.OpenMetrics())))
}

func (r *run) keepNumbers(name string, data []byte) error {
	if err := r.keep(name, data); err != nil {
		return err
	}
	r.meter.kept = append(r.meter.kept, name)
	return nil
}

// metrics puts together all numbers that are known.
func (r *run) metrics() metrics.Run {
	res, m := r.result, &r.meter
	doc := metrics.Run{
		Version: r.Host.Version, Began: r.began.UTC(), Result: string(res.Kind), ExitCode: res.ExitCode, Took: metrics.Seconds(time.Since(r.began)),
		Script: metrics.Known(res.Script), Machine: r.machineFacts(), Image: r.imageFacts(), Boot: r.bootTimes(), Files: m.files, Network: m.network(),
		Traffic: r.guestTraffic(), Workspace: r.workspaceBytes(), Snapshot: r.snapshotBytes(),
	}
	for _, p := range res.Phases {
		doc.Steps = append(doc.Steps, metrics.Step{
			Name: p.Title, Start: metrics.Seconds(p.Start.Sub(r.began)), Took: metrics.Seconds(p.End.Sub(p.Start)), Failed: p.Failed,
		})
	}
	if u := m.usage; u != nil {
		doc.Usage = &metrics.Usage{
			At: metrics.Seconds(u.At), GuestCPU: metrics.Seconds(u.GuestCPU), QEMUCPU: metrics.Seconds(u.CPU), Peak: m.peak, Read: u.Read, Written: u.Written,
		}
	}
	if _, peak, err := qemu.ProcessMemory(os.Getpid()); err == nil {
		doc.Action = &metrics.Process{Peak: peak}
	}
	if r.bench != nil {
		doc.Benchmark = r.bench.document.InRun()
	}
	return doc
}

// machineFacts are what times depend on; nil when it is not even known how the
// guest was to be run.
func (r *run) machineFacts() *metrics.Machine {
	if r.result.Accel == "" {
		return nil
	}
	h := r.hardware
	m := &metrics.Machine{
		Accel: r.result.Accel, HostCPU: hostCPU(), HostCPUs: runtime.NumCPU(), Type: h.Machine, CPUModel: h.CPUModel, CPUs: h.CPUs,
		Memory: h.Memory, DiskBus: h.DiskBus, NIC: h.NIC, Uname: r.mask.String(r.result.Uname),
	}
	if r.features != nil {
		m.QEMU = r.features.Version
	}
	return m
}

func (r *run) imageFacts() *metrics.Image {
	if r.config.Image == "" {
		return nil
	}
	return &metrics.Image{Name: r.mask.String(r.config.Image), Digest: r.result.ImageDigest}
}

// startOf says how the guest came up.
func (m *meter) startOf() string {
	if m.saved {
		return stateRestored
	}
	return stateCold
}

func (r *run) bootTimes() *metrics.BootTimes {
	if r.meter.boot == nil {
		return nil
	}
	b := &metrics.BootTimes{
		Start: r.meter.startOf(), Attempts: r.result.Attempts, Total: metrics.Known(r.result.Boot), Phases: metrics.BootPhases(r.bootPhases()),
	}
	if !r.overConsole() { // else it is the login on the console
		b.Login = metrics.Known(r.result.SSH)
	}
	return b
}

// bootPhases are the phases of the last boot. One that was given up has ended
// with its step.
func (r *run) bootPhases() []metrics.Phase {
	end := time.Now()
	for _, p := range r.result.Phases {
		if p.Failed {
			end = p.End
		}
	}
	return r.meter.boot.Phases(end)
}

func (m *meter) network() *metrics.Network {
	if len(m.clients) == 0 {
		return nil
	}
	n := &metrics.Network{Connections: len(m.clients)}
	for _, c := range m.clients {
		sent, received := c.Traffic()
		n.Sent += sent
		n.Received += received
	}
	return n
}

// guestTraffic is that of the last machine, which may have ended.
func (r *run) guestTraffic() *metrics.Traffic {
	if r.machine == nil {
		return nil
	}
	t, ok := r.machine.Traffic()
	if !ok {
		return nil
	}
	return &metrics.Traffic{Sent: t.Sent, Received: t.Received, SentFrames: t.SentFrames, ReceivedFrames: t.ReceivedFrames}
}

func (r *run) workspaceBytes() *metrics.Workspace {
	c := &r.checkout
	if !c.in {
		return nil
	}
	return &metrics.Workspace{Way: c.way, InFiles: c.tree.Files, InBytes: c.tree.Bytes, BackFiles: r.result.BackFiles, BackBytes: r.result.BackBytes}
}

func (r *run) snapshotBytes() *metrics.Snapshot {
	if r.result.Snapshot == "" {
		return nil
	}
	s := &metrics.Snapshot{State: r.result.Snapshot, Restored: r.meter.restored, Downloaded: r.meter.downloaded}
	if r.warm.saving == nil {
		return s
	}
	select {
	case <-r.warm.saving:
		s.Saved, s.Uploaded = r.warm.saved, r.warm.uploaded
	default: // it goes on, after an interrupt
	}
	return s
}

// reportMetrics puts the numbers into the report.
func (r *run) reportMetrics(rep *report.Report) {
	m := &r.meter
	rep.Usage.Peak = m.peak
	if u := m.usage; u != nil {
		rep.Usage.CPU, rep.Usage.GuestCPU, rep.Usage.Read, rep.Usage.Written = u.CPU, u.GuestCPU, u.Read, u.Written
	}
	if _, peak, err := qemu.ProcessMemory(os.Getpid()); err == nil {
		rep.Usage.Own = peak
	}
	for _, f := range m.files {
		switch f.Name {
		case "image":
			rep.Usage.Image, rep.Usage.Disk = f.Allocated, f.Virtual
		case "overlay":
			rep.Usage.Overlay = f.Allocated
		}
	}
	if n := m.network(); n != nil {
		rep.Usage.Sent, rep.Usage.Received = n.Sent, n.Received
	}
	if g := r.guestTraffic(); g != nil {
		rep.Usage.NetSent, rep.Usage.NetGot = g.Sent, g.Received
	}
	if m.boot != nil {
		for _, p := range r.bootPhases() {
			rep.BootPhases = append(rep.BootPhases, report.Phase{Name: string(p.Name), Start: p.Start, Took: p.Took, Failed: !p.Complete})
		}
	}
	if r.bench != nil {
		rep.Benchmark = r.bench.report()
	}
}
