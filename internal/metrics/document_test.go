package metrics

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/org/hurd-qemu-action/internal/units"
)

const ms = time.Millisecond

func known(d time.Duration) *Seconds { return Known(d) }

// full is a run of which everything is known.
func full() Run {
	zero := 0
	b := Benchmark{Wanted: 4, Times: []Measured{{Took: Seconds(510 * ms), ExitCode: &zero}, {Took: Seconds(500 * ms)}, {Took: Seconds(600 * ms)}}}
	return Run{
		Version: "v1.2.0", Began: epoch, Result: "success", Took: Seconds(95400 * ms), Script: known(61200 * ms),
		Machine: &Machine{"tcg", "7.2.22", "A Processor @ 3 GHz", 2, "pc-q35-7.2", "qemu64", 1, 2 * units.GiB, "ahci", "e1000", "GNU hurd 0.9 GNU-Mach 1.8"},
		Image:   &Image{"debian", "sha256:5a0b"},
		Boot: &BootTimes{"cold", 2, known(21340 * ms), known(1800 * ms), BootPhases([]Phase{
			{Kernel, 2 * time.Second, 3 * time.Second, "GNU Mach's banner", "GNU Mach's first boot module", true},
			{Userland, 5 * time.Second, 16 * time.Second, "GNU Mach's first boot module", "", false},
		})},
		Steps:  []Step{{"Boot", 0, Seconds(9 * time.Second), true}, {"Boot", Seconds(9 * time.Second), Seconds(500 * ms), false}, {"Script", Seconds(10 * time.Second), Seconds(time.Second), false}},
		Usage:  &Usage{Seconds(80 * time.Second), Seconds(70 * time.Second), Seconds(75 * time.Second), 512 * units.MiB, 143 * units.MiB, 0},
		Action: &Process{40 * units.MiB}, Files: []File{{"image", 4 * units.GiB, units.GiB}, {"overlay", 4 * units.GiB, 36 * units.MiB}, {"odd", 0, 0}},
		Network:   &Network{2, 1000, 2000},
		Traffic:   &Traffic{3000, 4000, 30, 40},
		Workspace: &Workspace{"disk", 2000, 50 * units.MiB, 14, 3 * units.MiB},
		Snapshot:  &Snapshot{"saved", 30 * units.MiB, 0, 0, 8 * units.MiB},
		Benchmark: b.InRun(), Collecting: Seconds(4 * ms),
	}
}

func failed() Run {
	return Run{
		Began: epoch, Result: "boot-failed", ExitCode: 125, Took: Seconds(2 * time.Second),
		Boot: &BootTimes{Start: "cold", Attempts: 1}, Benchmark: Benchmark{Wanted: 3}.InRun(),
	}
}

func TestDocuments(t *testing.T) {
	for name, r := range map[string]Run{"full": full(), "failed": failed(), "nothing": {}} {
		data, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", string(data))
		golden(t, name+".prom", r.OpenMetrics())
		var back Run
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		again, err := back.JSON()
		if diff := cmp.Diff(string(data), string(again)); diff != "" || err != nil {
			t.Errorf("%s does not survive reading (-first +second): %v\n%s", name, err, diff)
		}
	}
}

// TestNamesHaveUnits holds that every number of a document tells its unit in its
// name, or counts something.
func TestNamesHaveUnits(t *testing.T) {
	counts := []string{"exit_code", "attempts", "cpus", "host_cpus", "ssh_connections", "in_files", "back_files", "count", "wanted_repetitions"}
	seen := map[reflect.Type]bool{}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			of := f.Type
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			switch {
			case name == "":
				t.Errorf("%s.%s has no name", typ, f.Name)
			case of == reflect.TypeFor[Seconds]():
				if name != "seconds" && !strings.HasSuffix(name, "_seconds") {
					t.Errorf("%s is in seconds", name)
				}
			case of == reflect.TypeFor[units.Bytes]():
				if !strings.HasSuffix(name, "_bytes") {
					t.Errorf("%s is in bytes", name)
				}
			case of.Kind() == reflect.Int:
				if !strings.Contains(strings.Join(counts, " "), name) {
					t.Errorf("%s counts what?", name)
				}
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[Run]())
	check(reflect.TypeFor[Benchmark]())
	if len(seen) < 14 {
		t.Errorf("only %d types were seen", len(seen))
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", time.Second: "1", 1500 * ms: "1.5", 1234567 * time.Nanosecond: "0.001235", 499: "0", -time.Second: "-1", math.MaxInt64: "9223372036.854776",
	} {
		data, err := json.Marshal(Seconds(d))
		if err != nil || string(data) != want {
			t.Errorf("%v: %s, %v; want %s", d, data, err, want)
		}
	}
	for _, bad := range []string{`"1"`, `1e300`, `-1e300`, `{}`, `null`} {
		var s Seconds
		if err := json.Unmarshal([]byte(bad), &s); err == nil && bad != "null" {
			t.Errorf("%s is read as %v", bad, time.Duration(s))
		}
	}
}

// parse reads a text with Prometheus' own parser of a format. It gives each
// sample with its value, and the units of the metrics.
func parse(t testing.TB, text, format string) (samples map[string]float64, unitsOf map[string]string) {
	t.Helper()
	p, err := textparse.New([]byte(text), format, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	samples, unitsOf = map[string]float64{}, map[string]string{}
	typed := ""
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return samples, unitsOf
		}
		if err != nil {
			t.Fatalf("as %s: %v\n%s", format, err, text)
		}
		switch entry {
		case textparse.EntryType:
			name, kind := p.Type()
			if typed = string(name); kind != "gauge" {
				t.Errorf("%s is a %s", name, kind)
			}
		case textparse.EntryUnit:
			name, unit := p.Unit()
			unitsOf[string(name)] = string(unit)
		case textparse.EntrySeries:
			_, at, value := p.Series()
			var l labels.Labels
			p.Labels(&l)
			if l.Get("__name__") != typed || at != nil {
				t.Errorf("%s stands with the metric %s, its time is %v", l, typed, at)
			}
			if _, twice := samples[l.String()]; twice {
				t.Errorf("%s occurs twice", l)
			}
			samples[l.String()] = value
		case textparse.EntryInvalid, textparse.EntryHistogram:
			t.Errorf("an entry of type %v", entry)
		case textparse.EntryHelp, textparse.EntryComment:
		}
	}
}

const (
	openMetrics = "application/openmetrics-text; version=1.0.0"
	prometheus  = "text/plain; version=0.0.4"
)

// TestOpenMetricsIsRead reads the text by Prometheus' own parsers, of OpenMetrics
// and of the older format that the node exporter's textfile collector reads.
func TestOpenMetricsIsRead(t *testing.T) {
	text := full().OpenMetrics()
	samples, unitsOf := parse(t, text, openMetrics)
	for name, want := range map[string]float64{
		`{__name__="hurd_qemu_boot_phase_duration_seconds", complete="true", phase="kernel"}`: 3,
		`{__name__="hurd_qemu_step_duration_seconds", step="Boot"}`:                           9.5,
		`{__name__="hurd_qemu_cpu_seconds", of="guest"}`:                                      70,
		`{__name__="hurd_qemu_disk_written_bytes"}`:                                           0,
		`{__name__="hurd_qemu_disk_file_allocated_bytes", file="overlay"}`:                    36 << 20,
		`{__name__="hurd_qemu_ssh_bytes", direction="received"}`:                              2000,
		`{__name__="hurd_qemu_benchmark_duration_seconds", statistic="median"}`:               0.51,
		`{__name__="hurd_qemu_benchmark_repetitions"}`:                                        3,
		`{__name__="hurd_qemu_snapshot_bytes", way="uploaded"}`:                               8 << 20,
	} {
		if got, ok := samples[name]; !ok || got != want {
			t.Errorf("%s = %v, %v; want %v", name, got, ok, want)
		}
	}
	for name, unit := range unitsOf {
		if !strings.HasSuffix(name, "_"+unit) {
			t.Errorf("the unit of %s is %s", name, unit)
		}
	}
	older, _ := parse(t, text, prometheus)
	if diff := cmp.Diff(samples, older); diff != "" {
		t.Errorf("the older format is read differently:\n%s", diff)
	}
	if !strings.HasSuffix(text, "\n# EOF\n") || strings.Count(text, "# EOF") != 1 {
		t.Error("it does not end with # EOF")
	}
	// What is not read: the parser is not blind.
	if _, err := textparse.New([]byte("# TYPE"), openMetrics, labels.NewSymbolTable(), textparse.ParserOptions{}); err == nil {
		p, _ := textparse.New([]byte("# TYPE a gauge\na 1\n"), openMetrics, labels.NewSymbolTable(), textparse.ParserOptions{})
		var last error
		for last == nil {
			_, last = p.Next()
		}
		if errors.Is(last, io.EOF) {
			t.Error("the parser takes a text without # EOF")
		}
	}
}

// TestEveryNumberIsInBoth holds that what the JSON document has is in the
// OpenMetrics text too: a change of any number changes the text.
func TestEveryNumberIsInBoth(t *testing.T) {
	before := full().OpenMetrics()
	for name, change := range map[string]func(*Run){
		"result": func(r *Run) { r.Result = "x" }, "exit": func(r *Run) { r.ExitCode++ }, "took": func(r *Run) { r.Took *= 2 }, "script": func(r *Run) { *r.Script *= 2 },
		"memory": func(r *Run) { r.Machine.Memory++ }, "boot": func(r *Run) { *r.Boot.Total *= 2 }, "login": func(r *Run) { *r.Boot.Login *= 2 }, "attempts": func(r *Run) { r.Boot.Attempts++ },
		"phase": func(r *Run) { r.Boot.Phases[1].Took *= 2 }, "step": func(r *Run) { r.Steps[1].Took *= 2 }, "guest": func(r *Run) { r.Usage.GuestCPU *= 2 }, "qemu": func(r *Run) { r.Usage.QEMUCPU *= 2 },
		"peak": func(r *Run) { r.Usage.Peak++ }, "read": func(r *Run) { r.Usage.Read++ }, "written": func(r *Run) { r.Usage.Written++ }, "action": func(r *Run) { r.Action.Peak++ },
		"virtual": func(r *Run) { r.Files[0].Virtual++ }, "allocated": func(r *Run) { r.Files[1].Allocated++ }, "sent": func(r *Run) { r.Network.Sent++ }, "received": func(r *Run) { r.Network.Received++ },
		"guest sent": func(r *Run) { r.Traffic.Sent++ }, "guest received": func(r *Run) { r.Traffic.Received++ }, "frames sent": func(r *Run) { r.Traffic.SentFrames++ }, "frames received": func(r *Run) { r.Traffic.ReceivedFrames++ },
		"in files": func(r *Run) { r.Workspace.InFiles++ }, "in": func(r *Run) { r.Workspace.InBytes++ }, "back files": func(r *Run) { r.Workspace.BackFiles++ }, "back": func(r *Run) { r.Workspace.BackBytes++ },
		"saved": func(r *Run) { r.Snapshot.Saved++ }, "restored": func(r *Run) { r.Snapshot.Restored++ }, "downloaded": func(r *Run) { r.Snapshot.Downloaded++ }, "uploaded": func(r *Run) { r.Snapshot.Uploaded++ },
		"median": func(r *Run) { r.Benchmark.Summary.Median *= 2 }, "mad": func(r *Run) { r.Benchmark.Summary.MAD += 5e6 }, "count": func(r *Run) { r.Benchmark.Summary.Count++ },
		"collecting": func(r *Run) { r.Collecting *= 2 },
	} {
		r := full()
		change(&r)
		if r.OpenMetrics() == before {
			t.Errorf("a change of %s is not seen", name)
		}
	}
}

// FuzzOpenMetrics holds that no text breaks out of its label.
func FuzzOpenMetrics(f *testing.F) {
	for _, s := range []string{"", `\`, `"`, "\n", "a\r\nb", "\x00\xff", "# EOF\n", `\n"} 1`, "\u2028\u0085", "é{}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := full()
		r.Result, r.Version, r.Image.Name, r.Image.Digest, r.Boot.Start = s, s, s, s, s
		r.Machine.Accel, r.Machine.QEMU, r.Machine.HostCPU, r.Steps[0].Name, r.Files[0].Name = s, s, s, "a"+s, "b"+s
		for _, format := range []string{openMetrics, prometheus} {
			samples, _ := parse(t, r.OpenMetrics(), format)
			info := 0
			for name := range samples {
				if strings.Contains(name, `"hurd_qemu_run_info"`) {
					info++
				}
			}
			if info != 1 {
				t.Errorf("%q as %s: %d samples of run_info", s, format, info)
			}
		}
		if data, err := r.JSON(); err != nil || !json.Valid(data) {
			t.Errorf("%q: no JSON, %v", s, err)
		}
	})
}
