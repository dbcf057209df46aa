package metrics

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func secs(values ...float64) []time.Duration {
	var list []time.Duration
	for _, v := range values {
		list = append(list, time.Duration(v*float64(time.Second)))
	}
	return list
}

// TestStats has values that NumPy's percentile and scipy's median_abs_deviation give.
func TestStats(t *testing.T) {
	s := func(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }
	for _, tc := range []struct {
		name  string
		times []time.Duration
		want  Stats
	}{
		{"none", nil, Stats{}},
		{"one", secs(3), Stats{1, s(3), s(3), s(3), s(3), s(3), s(3), 0}},
		{"two", secs(4, 2), Stats{2, s(3), s(2), s(4), s(3), s(2.5), s(3.5), s(1)}},
		{"three", secs(1, 10, 2), Stats{3, s(2), s(1), s(10), 0, s(1.5), s(6), s(1)}},
		{"an outlier", secs(1, 1.5, 2, 2.5, 100), Stats{5, s(2), s(1), s(100), s(21.4), s(1.5), s(2.5), s(0.5)}},
		{"an even number", secs(1, 2, 3, 4, 5, 6), Stats{6, s(3.5), s(1), s(6), s(3.5), s(2.25), s(4.75), s(1.5)}},
		{"all alike", secs(2, 2, 2, 2), Stats{4, s(2), s(2), s(2), s(2), s(2), s(2), 0}},
	} {
		got := StatsOf(tc.times)
		if tc.want.Mean == 0 && len(tc.times) > 0 { // 13/3 s is no whole number of nanoseconds
			if d := got.Mean - s(13.0/3); d.Abs() > 2 {
				t.Errorf("%s: mean %v", tc.name, got.Mean)
			}
			got.Mean = 0
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// FuzzStats holds what is true of any times, in whatever order.
func FuzzStats(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		var times []time.Duration
		for _, b := range data {
			times = append(times, time.Duration(b)*time.Duration(b)*time.Millisecond)
		}
		s := StatsOf(times)
		if s.Min > s.Quartile1 || s.Quartile1 > s.Median || s.Median > s.Quartile3 || s.Quartile3 > s.Max || s.Mean < s.Min || s.Mean > s.Max || s.MAD > s.Max-s.Min || s.MAD < 0 {
			t.Errorf("%v: %+v", times, s)
		}
		other := slices.Clone(times)
		rand.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		if StatsOf(other) != s {
			t.Errorf("%v: %+v, in another order %+v", times, s, StatsOf(other))
		}
		below, above := 0, 0
		for _, d := range times {
			if d < s.Median {
				below++
			} else if d > s.Median {
				above++
			}
		}
		if below > len(times)/2 || above > len(times)/2 {
			t.Errorf("%v: %d below and %d above the median %v", times, below, above, s.Median)
		}
	})
}

func TestBenchmarkDocument(t *testing.T) {
	two, zero := 2, 0
	b := Benchmark{
		Version: "v1.2.0", Began: epoch, Result: "script-failed", Script: "5a0b", Start: "restored", Wanted: 5, Resolution: Known(61 * ms),
		Times: []Measured{
			{Seconds(510 * ms), Known(500 * ms), &zero, false}, {Seconds(490 * ms), nil, &zero, false}, {Seconds(3 * time.Second), nil, &two, true},
		},
		Machine: full().Machine, Image: full().Image,
	}
	data, err := b.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "benchmark.json", string(data))
	if s := b.Stats(); s.Count != 2 || s.Max != 510*ms {
		t.Errorf("the failed repetition counts: %+v", s)
	}
	empty, err := Benchmark{Wanted: 3}.JSON()
	var back Benchmark
	if err != nil || json.Unmarshal(empty, &back) != nil || back.Times == nil || back.Summary != nil || back.Wanted != 3 {
		t.Errorf("without a repetition: %v\n%s", err, empty)
	}
}
