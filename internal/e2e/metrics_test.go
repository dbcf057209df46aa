package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/units"
)

// numbers reads a JSON document of a run.
func numbers[T any](t *testing.T, p *program, path string) (doc T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.workspace, path))
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// openMetrics reads the text as Prometheus does, into samples by their names
// and labels.
func openMetrics(t *testing.T, p *program, path string) map[string]float64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.workspace, path))
	if err != nil {
		t.Fatal(err)
	}
	parser, err := textparse.New(text, "application/openmetrics-text; version=1.0.0", labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return samples
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		if entry == textparse.EntrySeries {
			series, _, value := parser.Series()
			samples[string(series)] = value
		}
	}
}

// phaseNames are those of a boot, with a question mark where it has ended.
func phaseNames(b *metrics.BootTimes) string {
	var names []string
	for _, p := range b.Phases {
		name := string(p.Name)
		if !p.Complete {
			name += "?"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// benchmarkScript takes longer each time, uses the processor, and writes to the disk.
const benchmarkScript = `n=$(($(cat /n 2>/dev/null || echo 0) + 1)); echo $n >/n
echo "this is run $n"
echo "count=$n" >>"$GITHUB_OUTPUT"
i=0; while [ $i -lt $((n * 2000)) ]; do i=$((i + 1)); done
head -c 3000000 /dev/urandom >/random; sync
`

// TestE2EBenchmark repeats a script in one guest, and holds all that is said of
// it and of the run in numbers.
func TestE2EBenchmark(t *testing.T) {
	needGuest(t)
	summary := filepath.Join(t.TempDir(), "summary")
	began := time.Now()
	p := start(t, setup{action: true, files: map[string]string{"file": "in the workspace"}, env: []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_BENCHMARK=3", "INPUT_RUN=" + benchmarkScript,
		"GITHUB_STEP_SUMMARY=" + summary, "INPUT_ARTIFACT-NAME=numbers",
	}})
	p.keep = []string{"file"}
	if status := p.wait(); status != 0 {
		t.Fatalf("exit status = %d", status)
	}
	took := time.Since(began)
	out := p.outputs()
	if out["metrics"] != ".hurd/run-1/metrics.json" || out["benchmark"] != ".hurd/run-1/benchmark.json" || out["count"] != "3" {
		t.Fatalf("outputs %v", out)
	}
	checkBenchmark(t, p, out)
	checkMetrics(t, p, out["metrics"], took)
	for i := range 3 {
		run := "Repetition " + string(rune('1'+i)) + " of 3"
		has(t, "the log", p.stdout.String(), "::group::"+run+"\n", "this is run "+string(rune('1'+i))+"\n", run+": ")
	}
	has(t, "the log", p.stdout.String(), "Benchmark: median ", "quartiles", "an empty command takes", "The script succeeded after")
	md, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	has(t, "the summary", string(md), "<strong>Benchmark:</strong> median ", "```mermaid\nxychart-beta\n", "Boot phases", "firmware ", "Processor time", "SSH traffic", "overlay of ", "metrics.json", "benchmark.json")
	page, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/report.html"))
	if err != nil || strings.Count(string(page), "<circle cx=") < 3 {
		t.Errorf("the report has no dots of the benchmark: %v", err)
	}
	if found, err := filepath.Glob(filepath.Join(p.workspace, ".hurd/artifacts/numbers*")); err != nil || len(found) != 1 {
		t.Errorf("artifacts %v, %v", found, err)
	} else {
		for _, name := range []string{"hurd/benchmark.json", "hurd/metrics.json", "hurd/metrics.prom"} {
			if info, err := os.Stat(filepath.Join(found[0], name)); err != nil || info.Size() == 0 {
				t.Errorf("in the artifact: %v", err)
			}
		}
	}
}

func checkBenchmark(t *testing.T, p *program, out map[string]string) {
	t.Helper()
	b := numbers[metrics.Benchmark](t, p, out["benchmark"])
	if b.Schema != metrics.BenchmarkSchema || len(b.Times) != 3 || b.Summary == nil || b.Summary.Count != 3 || b.Wanted != 3 || b.Start != "cold" || b.Result != "success" {
		t.Fatalf("%+v", b)
	}
	for i, m := range b.Times {
		if m.Took < b.Summary.Min || m.Took > b.Summary.Max || m.Took <= 0 || m.GuestCPU == nil || *m.GuestCPU <= 0 || *m.ExitCode != 0 {
			t.Errorf("repetition %d: %+v", i+1, m)
		}
	}
	if m := b.Machine; m == nil || m.Accel != "tcg" || m.QEMU == "" || m.CPUModel == "" || m.Memory != 512*units.MiB || m.HostCPU == "" || m.HostCPUs < 1 {
		t.Errorf("the host: %+v", m)
	}
	if b.Resolution == nil || *b.Resolution <= 0 || *b.Resolution > b.Summary.Median {
		t.Errorf("the resolution is %v, the median %v", b.Resolution, b.Summary.Median)
	}
	median, err := time.ParseDuration(out["median-seconds"] + "s")
	if d := median - time.Duration(b.Summary.Median); err != nil || d.Abs() > time.Millisecond {
		t.Errorf("the output median-seconds is %q, the document has %v", out["median-seconds"], time.Duration(b.Summary.Median))
	}
}

// checkMetrics holds what must be true of the numbers of any run of this script.
func checkMetrics(t *testing.T, p *program, path string, took time.Duration) {
	t.Helper()
	doc := numbers[metrics.Run](t, p, path)
	if got := phaseNames(doc.Boot); got != "firmware loader kernel userland ssh" {
		t.Errorf("phases %s", got)
	}
	sum := metrics.Seconds(0)
	for _, phase := range doc.Boot.Phases {
		if d := time.Duration(phase.Start - sum); d.Abs() > 10*time.Microsecond || phase.Took <= 0 { // each is rounded to microseconds
			t.Errorf("phase %+v, the one before ends at %v", phase, time.Duration(sum))
		}
		sum += phase.Took
	}
	if d := time.Duration(sum - *doc.Boot.Total); d.Abs() > time.Millisecond {
		t.Errorf("the phases are %v long, the boot %v", time.Duration(sum), time.Duration(*doc.Boot.Total))
	}
	u := doc.Usage
	if u == nil || u.GuestCPU <= 0 || u.GuestCPU > u.QEMUCPU || time.Duration(u.QEMUCPU) > 3*took || u.Peak < 64*units.MiB || u.Peak > 2*units.GiB {
		t.Fatalf("usage %+v", u)
	}
	if u.Read < units.MiB || u.Written < 3000000 {
		t.Errorf("disk %+v", u)
	}
	allocated := map[string]units.Bytes{}
	for _, f := range doc.Files {
		allocated[f.Name] = f.Allocated
		if f.Virtual < f.Allocated {
			t.Errorf("%+v", f)
		}
	}
	if allocated["image"] < 10*units.MiB || allocated["overlay"] < 3000000 || allocated["workspace"] <= 0 || len(allocated) != 3 {
		t.Errorf("files %+v", doc.Files)
	}
	if n := doc.Network; n == nil || n.Connections != 1 || n.Sent < 5*units.KiB || n.Received < 5*units.KiB || n.Sent > 10*units.MiB {
		t.Errorf("network %+v", n)
	}
	// What passes the card are our connections, and the guest's own little talk.
	if g, n := doc.Traffic, doc.Network; g == nil || n == nil || g.Received < n.Sent || g.Sent < n.Received || g.SentFrames < 20 || g.ReceivedFrames < 20 || g.Sent > 10*units.MiB {
		t.Errorf("guest network %+v, SSH %+v", g, n)
	}
	if doc.Action == nil || doc.Action.Peak < 5*units.MiB || doc.Action.Peak > units.GiB || doc.Workspace == nil || doc.Workspace.InFiles != 1 {
		t.Errorf("%+v, %+v", doc.Action, doc.Workspace)
	}
	if c := time.Duration(doc.Collecting); c <= 0 {
		t.Errorf("collecting took %v", c)
	}
	samples := openMetrics(t, p, filepath.Join(filepath.Dir(path), "metrics.prom"))
	for name, want := range map[string]float64{
		`hurd_qemu_cpu_seconds{of="guest"}`:                                     time.Duration(u.GuestCPU).Seconds(),
		`hurd_qemu_disk_written_bytes`:                                          float64(u.Written),
		`hurd_qemu_boot_phase_duration_seconds{phase="kernel",complete="true"}`: time.Duration(doc.Boot.Phases[2].Took).Seconds(),
		`hurd_qemu_benchmark_repetitions`:                                       3,
		`hurd_qemu_disk_file_allocated_bytes{file="overlay"}`:                   float64(allocated["overlay"]),
		`hurd_qemu_benchmark_duration_seconds{statistic="median"}`:              time.Duration(doc.Benchmark.Summary.Median).Seconds(),
	} {
		if got, ok := samples[name]; !ok || got < want-1e-6 || got > want+1e-6 {
			t.Errorf("%s = %v, %v; metrics.json has %v", name, got, ok, want)
		}
	}
}
