package metrics

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/org/hurd-qemu-action/internal/units"
)

// prefix begins the names of all metrics.
const prefix = "hurd_qemu_"

// A family is a metric with all its samples. All are gauges: a run is over when
// they are written, and will be followed by others that begin at 0. So Prometheus'
// older text format, which knows no info metrics, takes the text as well.
type family struct {
	name, unit, help string
	samples          []sample
}

type sample struct {
	labels []label
	value  string
}

type label struct{ name, value string }

// OpenMetrics writes the run's numbers in the OpenMetrics text format (version
// 1.0.0), without timestamps. What is not known has no sample, and a metric
// without samples is left out.
func (r Run) OpenMetrics() string {
	var b strings.Builder
	for _, f := range r.families() {
		f.write(&b)
	}
	b.WriteString("# EOF\n")
	return b.String()
}

func (f family) write(b *strings.Builder) {
	if len(f.samples) == 0 {
		return
	}
	name := prefix + f.name
	if f.unit != "" {
		name += "_" + f.unit
	}
	b.WriteString("# TYPE " + name + " gauge\n")
	if f.unit != "" {
		b.WriteString("# UNIT " + name + " " + f.unit + "\n")
	}
	b.WriteString("# HELP " + name + " " + escapeHelp(f.help) + "\n")
	for _, s := range f.samples {
		b.WriteString(name)
		for i, l := range s.labels {
			b.WriteString([]string{"{", ","}[min(i, 1)] + l.name + `="` + escapeLabel(l.value) + `"`)
		}
		if len(s.labels) > 0 {
			b.WriteByte('}')
		}
		b.WriteString(" " + s.value + "\n")
	}
}

// escapeLabel makes a text a label's value (OpenMetrics 1.0.0, escaped-string).
func escapeLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(valid(s))
}

func escapeHelp(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(valid(s))
}

// valid is text without what some parsers stop at.
func valid(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// add appends a sample; labels are names and values in turn. An empty value is
// the same as no label.
func (f *family) add(value string, labels ...string) {
	s := sample{value: value}
	for i := 0; i+1 < len(labels); i += 2 {
		if labels[i+1] != "" {
			s.labels = append(s.labels, label{labels[i], labels[i+1]})
		}
	}
	f.samples = append(f.samples, s)
}

// seconds is a family of one sample, or of none when it is not known.
func seconds(name, help string, value *Seconds) family {
	f := family{name: name, unit: "seconds", help: help}
	if value != nil {
		f.add(value.text())
	}
	return f
}

func bytes(name, help string) family { return family{name: name, unit: "bytes", help: help} }

func size(b units.Bytes) string { return strconv.FormatInt(int64(b), 10) }

func (r Run) families() []family {
	all := []family{r.info(), r.exit(), seconds("run_duration", "Whole run, until these numbers were put together.", &r.Took),
		seconds("script_duration", "Script; of a benchmark, all repetitions together.", r.Script), r.steps()}
	all = append(all, r.boot()...)
	all = append(all, r.usage()...)
	all = append(all, r.files()...)
	all = append(all, r.transfers()...)
	all = append(all, r.benchmark()...)
	return append(all, seconds("collecting_duration", "What collecting these numbers has cost the run.", &r.Collecting))
}

// info says in labels what the numbers belong to. What a guest says of itself
// is not among them.
func (r Run) info() family {
	f := family{name: "run_info", help: "What the run was; its value is always 1."}
	labels := []string{"result", r.Result, "action_version", r.Version}
	if m := r.Machine; m != nil {
		labels = append(labels, "accel", m.Accel, "qemu_version", m.QEMU, "machine", m.Type, "cpu_model", m.CPUModel, "host_cpu_model", m.HostCPU)
	}
	if r.Image != nil {
		labels = append(labels, "image", r.Image.Name, "image_digest", r.Image.Digest)
	}
	if r.Boot != nil {
		labels = append(labels, "start", r.Boot.Start)
	}
	f.add("1", labels...)
	return f
}

func (r Run) exit() family {
	f := family{name: "exit_code", help: "Exit status of the step."}
	f.add(strconv.Itoa(r.ExitCode))
	return f
}

// steps adds up those of one name: a set of labels may occur once.
func (r Run) steps() family {
	f := family{name: "step_duration", unit: "seconds", help: "Steps of the run."}
	sums := map[string]Seconds{}
	var names []string
	for _, s := range r.Steps {
		if _, ok := sums[s.Name]; !ok {
			names = append(names, s.Name)
		}
		sums[s.Name] += s.Took
	}
	for _, name := range names {
		f.add(sums[name].text(), "step", name)
	}
	return f
}

func (r Run) boot() []family {
	if r.Boot == nil {
		return nil
	}
	attempts := family{name: "boot_attempts", help: "Machines that were booted."}
	attempts.add(strconv.Itoa(r.Boot.Attempts))
	phases := family{name: "boot_phase_duration", unit: "seconds", help: "Parts of the boot that could be told apart; the one in which a boot was given up is not complete."}
	for _, p := range r.Boot.Phases {
		phases.add(p.Took.text(), "phase", string(p.Name), "complete", strconv.FormatBool(p.Complete))
	}
	return []family{
		seconds("boot_duration", "From the start of QEMU until a command had run in the guest.", r.Boot.Total),
		seconds("boot_ssh_duration", "SSH connection that succeeded, its wait for an answer included.", r.Boot.Login), attempts, phases,
	}
}

func (r Run) usage() []family {
	cpu := family{name: "cpu", unit: "seconds", help: "Processor time: of the threads that run the guest's processors, and of the whole QEMU process."}
	peak := bytes("peak_resident", "Most memory of the host that a process had.")
	read, written := bytes("disk_read", "What the guest has read from its disks."), bytes("disk_written", "What the guest has written to its disks.")
	if u := r.Usage; u != nil {
		cpu.add(u.GuestCPU.text(), "of", "guest")
		cpu.add(u.QEMUCPU.text(), "of", "qemu")
		peak.add(size(u.Peak), "process", "qemu")
		read.add(size(u.Read))
		written.add(size(u.Written))
	}
	if r.Action != nil {
		peak.add(size(r.Action.Peak), "process", "action")
	}
	memory := bytes("guest_memory", "Memory that the guest was given.")
	if m := r.Machine; m != nil && m.Memory > 0 {
		memory.add(size(m.Memory))
	}
	return []family{cpu, peak, memory, read, written}
}

func (r Run) files() []family {
	virtual := bytes("disk_file_virtual", "Size of a disk as the guest sees it.")
	allocated := bytes("disk_file_allocated", "What a disk's file takes of the host's disk.")
	for _, f := range r.Files {
		if f.Virtual > 0 {
			virtual.add(size(f.Virtual), "file", f.Name)
		}
		allocated.add(size(f.Allocated), "file", f.Name)
	}
	return []family{virtual, allocated}
}

func (r Run) transfers() []family {
	ssh := bytes("ssh", "Encrypted bytes of this program's own SSH connections to the guest.")
	if n := r.Network; n != nil {
		ssh.add(size(n.Sent), "direction", "sent")
		ssh.add(size(n.Received), "direction", "received")
	}
	traffic := bytes("guest_network", "What has passed the guest's network card, with the headers of its frames.")
	frames := family{name: "guest_network_frames", help: "Frames that have passed the guest's network card."}
	if g := r.Traffic; g != nil {
		traffic.add(size(g.Sent), "direction", "sent")
		traffic.add(size(g.Received), "direction", "received")
		frames.add(strconv.FormatInt(g.SentFrames, 10), "direction", "sent")
		frames.add(strconv.FormatInt(g.ReceivedFrames, 10), "direction", "received")
	}
	files := family{name: "workspace_files", help: "Files of the workspace that went into the guest, or came back."}
	contents := bytes("workspace", "Contents of the files of the workspace that went into the guest, or came back.")
	if w := r.Workspace; w != nil {
		files.add(strconv.Itoa(w.InFiles), "direction", "in")
		files.add(strconv.Itoa(w.BackFiles), "direction", "back")
		contents.add(size(w.InBytes), "direction", "in")
		contents.add(size(w.BackBytes), "direction", "back")
	}
	snapshot := bytes("snapshot", "What was moved for a saved machine.")
	if s := r.Snapshot; s != nil {
		for _, way := range []struct {
			name string
			size units.Bytes
		}{{"saved", s.Saved}, {"restored", s.Restored}, {"downloaded", s.Downloaded}, {"uploaded", s.Uploaded}} {
			if way.size > 0 {
				snapshot.add(size(way.size), "way", way.name)
			}
		}
	}
	return []family{ssh, traffic, frames, files, contents, snapshot}
}

func (r Run) benchmark() []family {
	if r.Benchmark == nil {
		return nil
	}
	count := family{name: "benchmark_repetitions", help: "Repetitions of the script that succeeded."}
	times := family{name: "benchmark_duration", unit: "seconds", help: "Script's time over the repetitions; mad is the median absolute deviation."}
	s := r.Benchmark.Summary
	if s == nil {
		count.add("0")
		return []family{count}
	}
	count.add(strconv.Itoa(s.Count))
	for _, v := range []struct {
		name  string
		value Seconds
	}{
		{"median", s.Median}, {"min", s.Min}, {"quartile1", s.Quartile1}, {"quartile3", s.Quartile3}, {"max", s.Max}, {"mad", s.MAD}, {"mean", s.Mean},
	} {
		times.add(v.value.text(), "statistic", v.name)
	}
	return []family{count, times}
}
