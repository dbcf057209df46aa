package report

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestCharts(t *testing.T) {
	r := Report{Samples: []Sample{
		{10 * s, s, 100 * units.MiB, 0, 0},
		{12 * s, 2 * s, 200 * units.MiB, 4 * units.MiB, 0},  // 50 %, 2 MiB/s
		{13 * s, 3 * s, 150 * units.MiB, 4 * units.MiB, 10}, // 100 %
		{20 * s, 0, 10 * units.MiB, 0, 0},                   // another machine
		{24 * s, s, 20 * units.MiB, 2 * units.MiB, 10},      // 25 %, 0.5 MiB/s
	}}
	charts := r.charts()
	if len(charts) != 3 {
		t.Fatalf("%d charts", len(charts))
	}
	cpu, memory, disk := charts[0], charts[1], charts[2]
	if want := "CPU: 58.3 % of one core on average, at most 100 % of one core at 0:13."; cpu.Description != want {
		t.Errorf("got  %q\nwant %q", cpu.Description, want)
	}
	// From 12 s at the left to 24 s at the right; 0 at the bottom, 100 at the top.
	if diff := cmp.Diff([]curve{{"CPU", "a", "M46.0 79.0L71.3 12.0M350.0 112.5h1", plotLeft}}, cpu.Curves); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]gridLine{{"146.0", "0"}, {"79.0", "50"}, {"12.0", "100"}}, cpu.YTicks); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]gridLine{{"122.0", "0:15"}, {"248.7", "0:20"}}, cpu.XTicks); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if memory.Unit != "MiB" || !strings.HasSuffix(memory.Description, "at most 200 MiB at 0:12.") || memory.Legend() {
		t.Errorf("%s: %s", memory.Unit, memory.Description)
	}
	if disk.Unit != "MiB/s" || len(disk.Curves) != 2 || !disk.Legend() || !strings.HasPrefix(disk.Description, "read: 0.833 MiB/s on average, at most 2 MiB/s at 0:12; written:") {
		t.Errorf("%s: %s", disk.Unit, disk.Description)
	}
}

// TestFewSamples has too few for a curve, and samples that say nothing.
func TestFewSamples(t *testing.T) {
	for name, samples := range map[string][]Sample{
		"none": nil, "one": {{At: s}}, "two": {{At: s}, {At: 2 * s}}, "of many machines": {{At: s, CPU: 3}, {At: 2 * s, CPU: 2}, {At: 3 * s, CPU: 1}},
		"one moment": {{At: s}, {At: s}, {At: s}},
	} {
		if got := (Report{Samples: samples}).charts(); len(got) != 0 {
			t.Errorf("%s: %d charts", name, len(got))
		}
	}
	idle := Report{Samples: []Sample{{At: 0}, {At: s}, {At: 2 * s}}}
	for _, c := range idle.charts() {
		if len(c.Curves[0].Path) == 0 || strings.Contains(c.Curves[0].Path+c.Description, "NaN") || len(c.YTicks) < 2 {
			t.Errorf("%+v", c)
		}
	}
}

// TestAxes holds that every range has two to seven marks, inside of the area.
func TestAxes(t *testing.T) {
	for _, top := range []float64{1e-6, 0.3, 1, 7, 49, 50, 51, 99, 100, 101, 400, 1023, 5e9} {
		for _, length := range []time.Duration{2 * s, 7 * s, 61 * s, 9 * time.Minute, time.Hour, 5 * time.Hour, 6 * 24 * time.Hour} {
			run := []point{{0, 0}, {length, top}}
			c := draw("x", "X", 1, "u", series{"s", "a", [][]point{run}})
			if len(c.YTicks) < 2 || len(c.YTicks) > 7 || len(c.XTicks) < 2 || len(c.XTicks) > 14 {
				t.Errorf("%v over %v: %d and %d marks", top, length, len(c.YTicks), len(c.XTicks))
			}
			if last := c.YTicks[len(c.YTicks)-1].At; last != "12.0" {
				t.Errorf("%v: the highest mark is at %s", top, last)
			}
		}
	}
}

func TestThin(t *testing.T) {
	samples := make([]Sample, 10*maxPoints+1)
	for i := range samples {
		samples[i].At = time.Duration(i) * s
		samples[i].CPU = samples[i].At / 2
	}
	got := thin(samples)
	if len(got) > maxPoints || len(got) < maxPoints/2 || got[0].At != 0 {
		t.Errorf("%d are left", len(got))
	}
	if c := (Report{Samples: samples}).charts()[0]; !strings.HasPrefix(c.Description, "CPU: 50 % of one core on average, at most 50 %") {
		t.Errorf("thinning changed the values: %s", c.Description)
	}
}

func TestSteps(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, -1: 1, 1: 1, 1.1: 2, 2.5: 5, 6: 10, 0.03: 0.05, 23: 50} {
		if got := niceStep(v); math.Abs(got-want) > want*1e-9 {
			t.Errorf("niceStep(%v) = %v, want %v", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0:00", 65 * s: "1:05", 3600 * s: "1:00:00", 1499 * time.Millisecond: "0:01"} {
		if got := minutes(d); got != want {
			t.Errorf("minutes(%v) = %q, want %q", d, got, want)
		}
	}
}
