package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Benchmark is what was measured of a script that was run again and again. The
// statistics are those of the repetitions that succeeded, and 0 without any.
type Benchmark struct {
	Wanted int          // repetitions
	Times  []Repetition // in order

	Median, Min, Max     time.Duration
	Quartile1, Quartile3 time.Duration
	MAD                  time.Duration // median absolute deviation
	Resolution           time.Duration // what an empty command takes, which is in each of the times; 0: not known
}

// Repetition is one run of the script.
type Repetition struct {
	Took   time.Duration
	Failed bool
}

// What of the repetitions the plots show one by one. Beyond it they are put
// together, as many as it takes, and their median is shown.
const (
	maxTextBars  = 20
	maxChartBars = 40
	textBar      = 30 // characters of the longest bar
)

// precise writes a measured time: 0.512 s, 123.4 s.
func precise(d time.Duration) string {
	digits := 3
	if d >= 100*time.Second {
		digits = 1
	}
	return strconv.FormatFloat(d.Seconds(), 'f', digits, 64) + " s"
}

// good are the times of the repetitions that succeeded.
func (b *Benchmark) good() []time.Duration {
	var times []time.Duration
	for _, r := range b.Times {
		if !r.Failed {
			times = append(times, r.Took)
		}
	}
	return times
}

// group is one repetition, or several that follow each other.
type group struct {
	label string // "3" or "21-30"
	took  time.Duration
}

// groups are at most limit.
func (b *Benchmark) groups(limit int) (list []group, each int) {
	times := b.good()
	each = max(1, (len(times)+limit-1)/limit)
	for i := 0; i < len(times); i += each {
		part := slices.Sorted(slices.Values(times[i:min(i+each, len(times))]))
		g := group{strconv.Itoa(i + 1), (part[(len(part)-1)/2] + part[len(part)/2]) / 2}
		if len(part) > 1 {
			g.label = fmt.Sprintf("%d-%d", i+1, i+len(part))
		}
		list = append(list, g)
	}
	return list, each
}

// headline says how many there were, and the median.
func (b *Benchmark) headline() string {
	n := len(b.good())
	text := plural(n, "repetition", "repetitions")
	if n != b.Wanted {
		text = fmt.Sprintf("%d of %s", n, plural(b.Wanted, "repetition", "repetitions"))
	}
	if n == 0 {
		return "no time: " + text + " succeeded"
	}
	return "median " + precise(b.Median) + " of " + text
}

// failure says which repetition failed; empty: none.
func (b *Benchmark) failure() string {
	for i, r := range b.Times {
		if r.Failed {
			return fmt.Sprintf("Repetition %d failed after %s and is not counted.", i+1, precise(r.Took))
		}
	}
	return ""
}

// measure says what the times are.
func (b *Benchmark) measure() string {
	return "Each time is the script's, from its start until its end was known here" +
		with("; an empty command takes ", resolution(b.Resolution), ", which is in each of them") + "."
}

func resolution(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return precise(d)
}

// numbers are the statistics with their names.
func (b *Benchmark) numbers() []fact {
	if len(b.good()) == 0 {
		return nil
	}
	return []fact{
		{"Median", precise(b.Median), false}, {"Minimum", precise(b.Min), false}, {"First quartile", precise(b.Quartile1), false},
		{"Third quartile", precise(b.Quartile3), false}, {"Maximum", precise(b.Max), false}, {"Median absolute deviation", precise(b.MAD), false},
	}
}

// Text is what was measured, for a log.
func (b *Benchmark) Text() []string {
	lines := []string{"Benchmark: " + b.headline()}
	if failure := b.failure(); failure != "" {
		lines = append(lines, failure)
	}
	if len(b.good()) == 0 {
		return lines
	}
	lines = append(lines, fmt.Sprintf("From %s to %s, quartiles %s and %s, median absolute deviation %s", precise(b.Min), precise(b.Max),
		precise(b.Quartile1), precise(b.Quartile3), precise(b.MAD)), b.measure())
	return append(lines, b.textBars()...)
}

// textBars is a plot for every client.
func (b *Benchmark) textBars() []string {
	groups, each := b.groups(maxTextBars)
	width, times := 0, 0
	for _, g := range groups {
		width, times = max(width, len(g.label)), max(times, len(precise(g.took)))
	}
	var lines []string
	for _, g := range groups {
		lines = append(lines, fmt.Sprintf("%*s  %*s  %s", width, g.label, times, precise(g.took), blocks(g.took, b.Max)))
	}
	if each > 1 {
		lines = append(lines, fmt.Sprintf("(each bar is the median of up to %d repetitions)", each))
	}
	return lines
}

// blocks is a bar of eighths of a character.
func blocks(d, longest time.Duration) string {
	n := int(math.Round(8 * textBar * d.Seconds() / max(longest, 1).Seconds()))
	n = min(max(n, 1), 8*textBar)
	bar := strings.Repeat("█", n/8)
	if n%8 > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[n%8-1])
	}
	return bar
}

// summaryBenchmark is the benchmark's part of the summary: the chart for who can
// draw Mermaid, and a plot of characters for everybody else.
func (r Report) summaryBenchmark() string {
	b := r.Benchmark
	if b == nil {
		return ""
	}
	var s strings.Builder
	fmt.Fprintf(&s, "<p><strong>Benchmark:</strong> %s.%s</p>\n", text(b.headline()), with(" ", text(b.failure()), ""))
	if len(b.good()) == 0 {
		return s.String()
	}
	var heads, values strings.Builder
	for _, n := range b.numbers() {
		fmt.Fprintf(&heads, "<th>%s</th>", text(n.Name))
		fmt.Fprintf(&values, "<td>%s</td>", text(n.Value))
	}
	fmt.Fprintf(&s, "<table>\n<tr>%s</tr>\n<tr>%s</tr>\n</table>\n\n%s\n", heads.String(), values.String(), b.xychart())
	fmt.Fprintf(&s, "<details><summary>The repetitions</summary>\n<pre>%s</pre>\n<p>%s</p>\n</details>\n", strings.Join(b.textBars(), "\n"), text(b.measure()))
	return s.String()
}

// xychart draws the repetitions as a Mermaid chart. All of it is ours: words,
// and numbers.
func (b *Benchmark) xychart() string {
	groups, each := b.groups(maxChartBars)
	labels, values, medians := make([]string, len(groups)), make([]string, len(groups)), make([]string, len(groups))
	for i, g := range groups {
		labels[i] = `"` + g.label + `"`
		values[i] = number(g.took)
		medians[i] = number(b.Median)
	}
	title := "Seconds of each repetition, and their median"
	if each > 1 {
		title = fmt.Sprintf("Seconds, medians of %d repetitions, and the median of all", each)
	}
	return fmt.Sprintf("```mermaid\nxychart-beta\n    title \"%s\"\n    x-axis [%s]\n    y-axis \"s\" 0 --> %s\n    bar [%s]\n    line [%s]\n```\n",
		title, strings.Join(labels, ", "), number(max(b.Max*11/10, time.Millisecond)), strings.Join(values, ", "), strings.Join(medians, ", "))
}

func number(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }

// dots is the chart of the page: a dot for each repetition, a line for the
// median, a band between the quartiles.
type dots struct {
	chart
	Points      []dot
	Median      string // its coordinate
	Band, BandH string // of the band: upper end and height
	BandW       int
	Numbers     []fact
	Headline    string
	Failure     string
	Measure     string
}

type dot struct{ X, Y string }

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// The chart of a benchmark is as wide as the page's column on a phone.
const dotsTop = plotTop + 4

func (r Report) dots() *dots {
	b := r.Benchmark
	if b == nil {
		return nil
	}
	d := &dots{Headline: capital(b.headline()), Failure: b.failure(), Measure: b.measure(), Numbers: b.numbers()}
	times := b.good()
	if len(times) == 0 {
		return d
	}
	d.chart = chart{
		ID: "benchmark", Title: "Repetitions", Unit: "s", Width: chartWidth, Height: chartHeight,
		Left: plotLeft, Right: plotRight, Top: dotsTop, Bottom: plotBottom, LabelY: plotBottom + 14, LegendsY: chartHeight - 4,
	}
	low, high := b.Min.Seconds(), b.Max.Seconds()
	pad := max((high-low)/10, high/100, 1e-3)
	low, high = max(low-pad, 0), high+pad
	y := func(t time.Duration) float64 {
		return plotBottom - (t.Seconds()-low)/(high-low)*(plotBottom-dotsTop)
	}
	x := func(i int) float64 { return plotLeft + (float64(i)+0.5)/float64(len(times))*(plotRight-plotLeft) }
	for i, t := range times {
		d.Points = append(d.Points, dot{coordinate(x(i)), coordinate(y(t))})
	}
	d.BandW = plotRight - plotLeft
	d.Median, d.Band, d.BandH = coordinate(y(b.Median)), coordinate(y(b.Quartile3)), coordinate(max(y(b.Quartile1)-y(b.Quartile3), 1))
	step := niceStep((high - low) / 6)
	for v := math.Ceil(low/step) * step; v <= high; v += step {
		d.YTicks = append(d.YTicks, gridLine{coordinate(plotBottom - (v-low)/(high-low)*(plotBottom-dotsTop)), strconv.FormatFloat(v, 'g', 5, 64)})
	}
	every := int(max(niceStep(float64(len(times))/6), 1))
	for i := every; i <= len(times); i += every {
		d.XTicks = append(d.XTicks, gridLine{coordinate(x(i - 1)), strconv.Itoa(i)})
	}
	d.Description = fmt.Sprintf("A dot for each repetition, a line at the median (%s), and a band between the quartiles. The axis does not begin at 0.", precise(b.Median))
	if low == 0 {
		d.Description = strings.TrimSuffix(d.Description, " The axis does not begin at 0.")
	}
	return d
}
