//go:build bench

package e2e

import (
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// spread is a number of measurements of one thing, in one unit.
type spread []float64

func seconds(all []measured, of func(measured) time.Duration) spread {
	var s spread
	for _, m := range all {
		s = append(s, of(m).Seconds())
	}
	return s
}

func first(m measured) time.Duration { return m.first }
func total(m measured) time.Duration { return m.total }

func (s spread) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (s spread) least() float64 { return slices.Min(s) }
func (s spread) most() float64  { return slices.Max(s) }

// String is the median with the least and the most.
func (s spread) String() string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.median(), s.least(), s.most())
}

// ratios divides pair by pair.
func ratios(a, b spread) spread {
	var r spread
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}

// interval is the 95 % bootstrap interval of the median; always the same for
// the same measurements.
func (s spread) interval() (low, high float64) {
	source := rand.New(rand.NewPCG(1, 2))
	medians := make(spread, 2000)
	sample := make(spread, len(s))
	for i := range medians {
		for j := range sample {
			sample[j] = s[source.IntN(len(s))]
		}
		medians[i] = sample.median()
	}
	slices.Sort(medians)
	return medians[len(medians)/40], medians[len(medians)-1-len(medians)/40]
}

// report collects the tables of a run of the benchmark.
type report struct {
	dir  string
	text strings.Builder
}

// newReport makes BENCH_DIR, or build/bench in the repository.
func newReport(t *testing.T) *report {
	t.Helper()
	r := &report{dir: os.Getenv("BENCH_DIR")}
	if r.dir == "" {
		r.dir = "../../build/bench"
	}
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return r
}

// print adds to the report, and shows it at once: the whole takes a while.
func (r *report) print(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Print(text)
	r.text.WriteString(text)
}

// goal says whether a value is as it should be.
func (r *report) goal(what string, value, limit float64, atLeast bool) {
	sign, met := "≤", value <= limit
	if atLeast {
		sign, met = "≥", value >= limit
	}
	verdict := "**missed**"
	if met {
		verdict = "met"
	}
	r.print("- %s: %.3g, wanted %s %.3g: %s\n", what, value, sign, limit, verdict)
}

// save writes the report.
func (r *report) save(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "warm.md"), []byte(r.text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// bar is one line of a plot.
type bar struct {
	label  string
	values spread
}

// plot writes the medians as bars with whiskers from the least to the most.
func (r *report) plot(t *testing.T, name, title, unit string, bars []bar) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name+".svg"), []byte(plotted(title, unit, bars)), 0o666); err != nil {
		t.Fatal(err)
	}
}

// Measures of a plot, in pixels.
const (
	plotWidth, plotLabels, plotValues = 860, 330, 170
	plotTop, plotRow                  = 48, 34
)

func plotted(title, unit string, bars []bar) string {
	longest := 0.0
	for _, b := range bars {
		longest = max(longest, b.values.most())
	}
	scale := func(v float64) float64 { return v / longest * (plotWidth - plotLabels - plotValues) }
	var s strings.Builder
	height := plotTop + plotRow*len(bars) + 12
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="14" role="img">`+"\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&s, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", html.EscapeString(title))
	fmt.Fprintf(&s, `<text x="12" y="28" font-size="16" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
	for i, b := range bars {
		y := float64(plotTop + plotRow*i)
		middle := y + plotRow/2 - 3
		fmt.Fprintf(&s, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", plotLabels-10, middle+5, html.EscapeString(b.label))
		fmt.Fprintf(&s, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="#4878a8"/>`+"\n", plotLabels, y+3, scale(b.values.median()), plotRow-12)
		fmt.Fprintf(&s, `<path d="M%.1f %.1fH%.1f" stroke="#222" stroke-width="2"/>`+"\n", plotLabels+scale(b.values.least()), middle, plotLabels+scale(b.values.most()))
		fmt.Fprintf(&s, `<text x="%.1f" y="%.0f">%s %s</text>`+"\n", plotLabels+scale(b.values.most())+8, middle+5, html.EscapeString(b.values.String()), html.EscapeString(unit))
	}
	return s.String() + "</svg>\n"
}
