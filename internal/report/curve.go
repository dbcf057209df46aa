package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// The area of a chart, in the units of its viewBox: about CSS pixels, since a
// chart is as wide as a phone's screen on every screen.
const (
	chartWidth  = 360
	chartHeight = 180
	plotLeft    = 46
	plotRight   = chartWidth - 10
	plotTop     = 12
	plotBottom  = chartHeight - 34
)

// maxPoints bounds a curve; there are not more pixels.
const maxPoints = 1200

// chart is a diagram of values over time, in numbers ready to be drawn.
type chart struct {
	ID, Title, Unit  string
	Curves           []curve
	XTicks, YTicks   []gridLine
	Description      string // in words, what the curves show
	Width, Height    int
	Left, Right      int
	Top, Bottom      int
	TimeUnit         string
	LabelY, LegendsY int
}

// Legend tells whether there is more than one curve to tell apart.
func (c chart) Legend() bool { return len(c.Curves) > 1 }

// curve is one line of a chart.
type curve struct {
	Name  string
	Class string // of its look
	Path  string // of SVG
	X     int    // of its legend
}

// gridLine is a mark of an axis.
type gridLine struct {
	At    string // coordinate
	Label string
}

// point is a value at a moment.
type point struct {
	at    time.Duration
	value float64
}

// points gives each stretch of samples of one machine, in the values that f
// makes of a sample and the one before.
func points(samples []Sample, f func(before, s Sample) float64) [][]point {
	var all [][]point
	var run []point
	for i, s := range samples {
		if i == 0 {
			continue
		}
		before := samples[i-1]
		if s.At <= before.At || s.CPU < before.CPU || s.Read < before.Read || s.Written < before.Written {
			all, run = append(all, run), nil // another machine
			continue
		}
		run = append(run, point{s.At, f(before, s)})
	}
	all = append(all, run)
	kept := all[:0]
	for _, run := range all {
		if len(run) > 0 {
			kept = append(kept, run)
		}
	}
	return kept
}

// rate gives bytes a second.
func rate(of func(Sample) units.Bytes) func(before, s Sample) float64 {
	return func(before, s Sample) float64 {
		return float64(of(s)-of(before)) / (s.At - before.At).Seconds()
	}
}

// thin leaves out samples beyond the bound, at even distances.
func thin(samples []Sample) []Sample {
	step := (len(samples) + maxPoints - 1) / maxPoints
	if step <= 1 {
		return samples
	}
	var kept []Sample
	for i := 0; i < len(samples); i += step {
		kept = append(kept, samples[i])
	}
	return kept
}

// charts are the curves of the samples; none when there are fewer than two
// intervals, of which no curve can be made.
func (r Report) charts() []chart {
	samples := thin(r.Samples)
	cpu := points(samples, func(before, s Sample) float64 {
		return 100 * (s.CPU - before.CPU).Seconds() / (s.At - before.At).Seconds()
	})
	total := 0
	for _, run := range cpu {
		total += len(run)
	}
	if total < 2 {
		return nil
	}
	memory := points(samples, func(_, s Sample) float64 { return float64(s.Resident) })
	read := points(samples, rate(func(s Sample) units.Bytes { return s.Read }))
	written := points(samples, rate(func(s Sample) units.Bytes { return s.Written }))
	return []chart{
		draw("cpu", "Guest CPU", 1, "% of one core", series{"CPU", "a", cpu}),
		drawBytes("memory", "Resident memory", "", series{"QEMU", "a", memory}),
		drawBytes("disk", "Disk", "/s", series{"read", "a", read}, series{"written", "b", written}),
	}
}

// series is what becomes a curve.
type series struct {
	name, class string
	runs        [][]point
}

// peak is the highest point, and the mean of all.
func (s series) peak() (top point, mean float64) {
	n := 0
	for _, run := range s.runs {
		for _, p := range run {
			if n == 0 || p.value > top.value {
				top = p
			}
			mean += p.value
			n++
		}
	}
	return top, mean / float64(max(n, 1))
}

// drawBytes is draw in the unit that suits the values.
func drawBytes(id, title, per string, all ...series) chart {
	top := 0.0
	for _, s := range all {
		p, _ := s.peak()
		top = max(top, p.value)
	}
	for _, u := range []struct {
		name string
		size units.Bytes
	}{{"GiB", units.GiB}, {"MiB", units.MiB}} {
		if top >= float64(u.size) {
			return draw(id, title, float64(u.size), u.name+per, all...)
		}
	}
	return draw(id, title, float64(units.KiB), "KiB"+per, all...)
}

// draw puts the values, divided by scale, into the area.
func draw(id, title string, scale float64, unit string, all ...series) chart {
	c := chart{
		ID: id, Title: title, Unit: unit, Width: chartWidth, Height: chartHeight,
		Left: plotLeft, Right: plotRight, Top: plotTop, Bottom: plotBottom, LabelY: plotBottom + 14, LegendsY: chartHeight - 4,
	}
	top, first, last := 0.0, all[0].runs[0][0].at, time.Duration(0)
	for _, s := range all {
		p, _ := s.peak()
		top = max(top, p.value/scale)
		for _, run := range s.runs {
			first, last = min(first, run[0].at), max(last, run[len(run)-1].at)
		}
	}
	step := niceStep(top / 4)
	top = max(math.Ceil(top/step), 1) * step
	x := func(at time.Duration) float64 {
		return plotLeft + float64(at-first)/float64(max(last-first, 1))*(plotRight-plotLeft)
	}
	y := func(v float64) float64 { return plotBottom - v/top*(plotBottom-plotTop) }
	for i := 0; float64(i)*step <= top*1.001; i++ {
		v := float64(i) * step
		c.YTicks = append(c.YTicks, gridLine{coordinate(y(v)), strconv.FormatFloat(v, 'g', 4, 64)})
	}
	every := timeStep(last - first)
	for at := (first + every - 1).Truncate(every); at <= last; at += every {
		c.XTicks = append(c.XTicks, gridLine{coordinate(x(at)), minutes(at)})
	}
	var words []string
	for i, s := range all {
		c.Curves = append(c.Curves, curve{Name: s.name, Class: s.class, Path: path(s.runs, x, func(v float64) float64 { return y(v / scale) }), X: plotLeft + i*90})
		p, mean := s.peak()
		words = append(words, fmt.Sprintf("%s: %.3g %s on average, at most %.3g %s at %s", s.name, mean/scale, unit, p.value/scale, unit, minutes(p.at)))
	}
	c.Description = strings.Join(words, "; ") + "."
	return c
}

// path goes through the points; a point that stands alone is a short line.
func path(runs [][]point, x func(time.Duration) float64, y func(float64) float64) string {
	var b strings.Builder
	for _, run := range runs {
		for i, p := range run {
			letter := "L"
			if i == 0 {
				letter = "M"
			}
			b.WriteString(letter + coordinate(x(p.at)) + " " + coordinate(y(p.value)))
		}
		if len(run) == 1 {
			b.WriteString("h1")
		}
	}
	return b.String()
}

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// niceStep is the next number of 1, 2 and 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// timeStep divides a time into at most five parts that clocks have.
func timeStep(d time.Duration) time.Duration {
	const s, m, h = time.Second, time.Minute, time.Hour
	for _, step := range []time.Duration{s, 2 * s, 5 * s, 10 * s, 20 * s, 30 * s, m, 2 * m, 5 * m, 10 * m, 20 * m, 30 * m, h, 2 * h, 3 * h, 6 * h} {
		if d <= 5*step {
			return step
		}
	}
	return max((d / 5).Truncate(12*h), 12*h)
}

// minutes writes a moment for an axis: 0:05, 12:00, 1:02:00.
func minutes(d time.Duration) string {
	n := int64(d.Round(time.Second) / time.Second)
	if n >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", n/3600, n/60%60, n%60)
	}
	return fmt.Sprintf("%d:%02d", n/60, n%60)
}
