package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"fmt"
	"html/template"
	"image/png"
	"io"
	"time"
)

//go:embed assets/report.html.tmpl
var pageSource string

//go:embed assets/report.css
var styleSource string

//go:embed assets/report.js
var scriptSource string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"clean": clean, "seconds": seconds, "clock": clock,
}).Parse(pageSource))

// What of each list the page shows.
const (
	pageList       = 200
	maxScreenshot  = 4 << 20 // bytes of the PNG
	maxScreenPixel = 8192    // of each side
)

// page is what the template is filled with.
type page struct {
	Report
	Policy   string
	Style    template.CSS
	Script   template.JS
	Headline string
	Good     bool
	Open     bool // whether the run's end is not known, or was asked for
	Subtitle string
	Facts    []fact
	Problems []string
	Changed  []fact
	More     int // lists of the page that were cut
	Bars     []bar
	Charts   []chart
	Dots     *dots
	Screen   *screen
	Log      serialLog
	Files    []file
	Hinted   []file
	Advised  []string
}

// bar is a phase with its place in the timeline, in thousandths of its width.
type bar struct {
	Phase
	X, Width int
}

// screen is the screenshot as the page holds it.
type screen struct {
	URL           template.URL
	Width, Height int
}

// file is a name with an address, or without one.
type file struct{ Name, URL string }

// HTML writes the page: one file that needs nothing besides, and whose policy
// forbids it to fetch anything. It can be read without scripts.
func (r Report) HTML(w io.Writer) error {
	if err := pageTemplate.Execute(w, r.page()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (r Report) page() page {
	p := page{
		Report: r, Policy: policy(), Style: template.CSS(styleSource), Script: template.JS(scriptSource), //nolint:gosec // both are ours
		Headline: r.headline(), Good: r.Result == "success", Open: r.Result == "" || r.Result == "canceled",
		Facts: r.facts(), Bars: r.bars(), Charts: r.charts(), Dots: r.dots(), Screen: r.screen(), Log: r.log(),
	}
	if !r.Began.IsZero() {
		p.Subtitle = r.Began.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	p.Subtitle = join(" · ", p.Subtitle, r.scriptFact(), with("booted in ", took(r.Boot), ""), clean(r.Accel, 40))
	cut := func(left int) { p.More += left }
	var left int
	p.Problems, left = r.warnings(pageList)
	cut(left)
	p.Changed, left = r.inputs(pageList)
	cut(left)
	p.Advised, left = most(r.Advice, pageList)
	cut(left)
	links, left := most(r.Links, pageList)
	cut(left)
	for _, l := range links {
		address := web(l.URL)
		if address == "" && beside.MatchString(l.URL) && len(l.URL) <= maxURL {
			address = l.URL
		}
		p.Files = append(p.Files, file{clean(l.Name, 200), address})
	}
	hints, left := most(r.Hints, pageList)
	cut(left)
	for _, h := range hints {
		p.Hinted = append(p.Hinted, file{clean(h.Text, 500), web(h.URL)})
	}
	return p
}

// policy is the page's Content-Security-Policy: nothing but its own style, its
// own script, and pictures that it holds itself.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; img-src data:; base-uri 'none'; form-action 'none'",
		digest(styleSource), digest(scriptSource))
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// bars places the phases in a timeline from 0 to the end of the last.
func (r Report) bars() []bar {
	phases, _ := most(r.Phases, pageList)
	end := r.end()
	var bars []bar
	for _, p := range phases {
		x := int(1000 * max(p.Start, 0) / end)
		bars = append(bars, bar{p, min(x, 996), max(int(1000*min(p.Took, end)/end), 4)})
	}
	return bars
}

// End is the end of the last phase, and never 0.
func (r Report) end() time.Duration {
	end := time.Millisecond
	for _, p := range r.Phases {
		end = max(end, p.Start+p.Took)
	}
	return end
}

// HasFacts tells whether the section of facts has any part.
func (p page) HasFacts() bool { return len(p.Facts)+len(p.Changed)+len(p.Files) > 0 }

// Total is the length of the timeline in words.
func (p page) Total() string { return seconds(p.end()) }

// screen takes the screenshot when it is a PNG of a size that a browser shows.
func (r Report) screen() *screen {
	if len(r.Screenshot) == 0 || len(r.Screenshot) > maxScreenshot {
		return nil
	}
	config, err := png.DecodeConfig(bytes.NewReader(r.Screenshot))
	if err != nil || config.Width < 1 || config.Height < 1 || config.Width > maxScreenPixel || config.Height > maxScreenPixel {
		return nil
	}
	return &screen{
		URL:   template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(r.Screenshot)), //nolint:gosec // letters and digits only
		Width: config.Width, Height: config.Height,
	}
}
