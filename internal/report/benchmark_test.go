package report

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// xyChart is what Mermaid's grammar takes (xychart.jison), as it is used here.
var xyChart = regexp.MustCompile("^```mermaid\nxychart-beta\n    title \"[^\"\n]+\"\n    x-axis \\[(\"[0-9-]+\"(?:, \"[0-9-]+\")*)\\]\n" +
	"    y-axis \"s\" 0 --> ([0-9.]+)\n    bar \\[([0-9., ]+)\\]\n    line \\[([0-9., ]+)\\]\n```\n$")

// TestXYChart holds the chart for any number of repetitions: as many values as
// labels, none above the axis, and never too many.
func TestXYChart(t *testing.T) {
	for _, n := range []int{1, 2, 39, 40, 41, 83, 1000} {
		b := repeated(n, n)
		m := xyChart.FindStringSubmatch(b.xychart())
		if m == nil {
			t.Fatalf("%d repetitions:\n%s", n, b.xychart())
		}
		top, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		count := strings.Count(m[1], ", ") + 1
		for _, list := range m[3:] {
			values := strings.Split(list, ", ")
			if len(values) != count || count > maxChartBars || count < min(n, maxChartBars/2) {
				t.Errorf("%d repetitions: %d labels, %d values", n, count, len(values))
			}
			for _, v := range values {
				if f, err := strconv.ParseFloat(v, 64); err != nil || f <= 0 || f > top {
					t.Errorf("%d repetitions: the value %q, %v, of at most %v", n, v, err, top)
				}
			}
		}
	}
}

// TestGroups: no repetition is left out, and an outlier among many is one of a
// median.
func TestGroups(t *testing.T) {
	b := &Benchmark{}
	for i := range 45 {
		b.Times = append(b.Times, Repetition{Took: time.Duration(i+1) * s})
	}
	groups, each := b.groups(20)
	var text []string
	for _, g := range groups {
		text = append(text, fmt.Sprintf("%s:%v", g.label, g.took))
	}
	want := "1-3:2s 4-6:5s 7-9:8s 10-12:11s 13-15:14s 16-18:17s 19-21:20s 22-24:23s 25-27:26s 28-30:29s 31-33:32s 34-36:35s 37-39:38s 40-42:41s 43-45:44s"
	if got := strings.Join(text, " "); got != want || each != 3 {
		t.Errorf("%d each: %s", each, got)
	}
	if groups, _ := (&Benchmark{Times: b.Times[:4]}).groups(3); len(groups) != 2 || groups[0].took != 1500*time.Millisecond {
		t.Errorf("the median of two: %v", groups)
	}
}

func TestBenchmarkText(t *testing.T) {
	b := &Benchmark{
		Wanted: 4, Times: []Repetition{{500 * time.Millisecond, false}, {1000 * time.Millisecond, false}, {20 * time.Millisecond, true}},
		Median: 750 * time.Millisecond, Min: 500 * time.Millisecond, Max: 1000 * time.Millisecond, Quartile1: 625 * time.Millisecond, Quartile3: 875 * time.Millisecond, MAD: 250 * time.Millisecond,
	}
	want := `Benchmark: median 0.750 s of 2 of 4 repetitions
Repetition 3 failed after 0.020 s and is not counted.
From 0.500 s to 1.000 s, quartiles 0.625 s and 0.875 s, median absolute deviation 0.250 s
Each time is the script's, from its start until its end was known here.
1  0.500 s  ███████████████
2  1.000 s  ██████████████████████████████`
	if got := strings.Join(b.Text(), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join((&Benchmark{Wanted: 2, Times: []Repetition{{s, true}}}).Text(), "\n"); got != "Benchmark: no time: 0 of 2 repetitions succeeded\nRepetition 1 failed after 1.000 s and is not counted." {
		t.Errorf("got %s", got)
	}
	if lines := repeated(100, 100).Text(); len(lines) > maxTextBars+5 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestBlocks(t *testing.T) {
	for d, want := range map[time.Duration]string{s: strings.Repeat("█", 30), 0: "▏", s / 2: strings.Repeat("█", 15), s / 240: "▏", s * 17 / 240: "██▏", s * 7 / 240: "▉", 2 * s: strings.Repeat("█", 30)} {
		if got := blocks(d, s); got != want {
			t.Errorf("blocks(%v) = %q, want %q", d, got, want)
		}
	}
}

// TestDots: each repetition that succeeded has a dot within the chart, also when
// all are alike or the axis would go below 0.
func TestDots(t *testing.T) {
	same := &Benchmark{Wanted: 2, Times: []Repetition{{s, false}, {s, false}}, Median: s, Min: s, Max: s, Quartile1: s, Quartile3: s}
	zero := &Benchmark{Wanted: 1, Times: []Repetition{{}}}
	for name, b := range map[string]*Benchmark{"same": same, "zero": zero, "one": repeated(1, 1), "many": repeated(1000, 990)} {
		d := Report{Benchmark: b}.dots()
		if len(d.Points) != len(b.good()) || len(d.YTicks) < 2 || len(d.XTicks) < 1 || len(d.XTicks) > 12 {
			t.Errorf("%s: %d dots, ticks %v and %v", name, len(d.Points), d.XTicks, d.YTicks)
		}
		for _, p := range d.Points {
			x, _ := strconv.ParseFloat(p.X, 64)
			y, err := strconv.ParseFloat(p.Y, 64)
			if err != nil || math.IsNaN(y) || x < plotLeft || x > plotRight || y < dotsTop || y > plotBottom {
				t.Errorf("%s: a dot at %s, %s", name, p.X, p.Y)
			}
		}
	}
	if (Report{}).dots() != nil || len(Report{Benchmark: &Benchmark{Wanted: 2}}.dots().Points) != 0 {
		t.Error("there are dots of nothing")
	}
}
