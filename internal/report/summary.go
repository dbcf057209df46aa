package report

import (
	"fmt"
	"html"
	"strings"
)

// SummaryLimit bounds Summary, in bytes. GitHub drops a step's summary that is
// larger than 1 MiB, and the script may write into the same one.
const SummaryLimit = 48 << 10

// What of each list the summary shows.
const (
	summaryTail     = 40 // lines of the console
	summaryFindings = 20
	summaryAdvice   = 8
	summaryHints    = 8
	summaryLinks    = 20
	summaryInputs   = 30
	summaryWarnings = 10
	summaryLine     = 240 // bytes of a line of the console
)

// Summary is the run's part of the job summary, in GitHub's Markdown.
//
// All text stands in HTML blocks, escaped: Markdown's own syntax does not apply
// in them, and so the one rule of HTML holds instead of the many of Markdown.
// An HTML block ends at an empty line, which no text can make, being one line
// itself. What is left are the chart, of letters and digits, and the console in
// a fence that is longer than any within.
func (r Report) Summary() string {
	var b strings.Builder
	left := false
	for _, section := range []string{
		r.summaryHead(), r.summaryBenchmark(), r.summaryTail(), r.summaryFindings(), r.summaryHints(), r.summaryWarnings(),
		r.gantt(), r.summaryPhases(), r.summaryFacts(), r.summaryLinks(), r.summaryInputs(),
	} {
		if section == "" {
			continue
		}
		if b.Len()+len(section) > SummaryLimit-200 {
			left = true
			continue
		}
		b.WriteString(section + "\n")
	}
	foot := "hurd-qemu-action " + clean(r.Version, 60)
	if left {
		foot += " · A part did not fit here; the report has it."
	}
	fmt.Fprintf(&b, "<p><sub>%s</sub></p>\n", text(strings.TrimSpace(foot)))
	return b.String()
}

// text escapes a text of one line for HTML. The joiner, which has no width,
// keeps GitHub from making links of @name and #1.
func text(s string) string {
	return html.EscapeString(strings.NewReplacer("@", "@\u2060", "#", "#\u2060").Replace(clean(s, 2000)))
}

// code is text in a language of machines, where GitHub makes no links.
func code(s string) string { return "<code>" + html.EscapeString(clean(s, 2000)) + "</code>" }

func (r Report) summaryHead() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<h3>%s %s</h3>\n", r.mark(), text(r.headline()))
	line := join(" · ", r.scriptFact(), with("booted in ", took(r.Boot), ""), clean(r.Accel, 40), count(r.Attempts, "boot attempt", "boot attempts"))
	if line != "" {
		fmt.Fprintf(&b, "<p>%s</p>\n", text(line))
	}
	if cause := clean(r.Cause, 2000); cause != "" {
		fmt.Fprintf(&b, "<p><strong>Cause:</strong> %s</p>\n", text(cause))
	}
	if advice, left := most(r.Advice, summaryAdvice); len(advice) > 0 {
		b.WriteString("<p><strong>What to do:</strong></p>\n<ul>\n")
		for _, a := range advice {
			fmt.Fprintf(&b, "<li>%s</li>\n", text(clean(a, 500)))
		}
		b.WriteString(more(left, "li") + "</ul>\n")
	}
	return b.String()
}

// most gives the first of a list, and how many there are besides.
func most[T any](list []T, limit int) ([]T, int) {
	if len(list) > limit {
		return list[:limit], len(list) - limit
	}
	return list, 0
}

// more says in an element how many were left out.
func more(left int, element string) string {
	if left == 0 {
		return ""
	}
	return fmt.Sprintf("<%s>and %d more</%[1]s>\n", element, left)
}

// summaryTail is the end of the console, which is open where it may say why.
func (r Report) summaryTail() string {
	if !r.failed() || len(r.Serial) == 0 {
		return ""
	}
	var lines []string
	longest := 2
	for _, l := range r.Serial[max(0, len(r.Serial)-summaryTail):] {
		line := strings.TrimRight(visible(l.Text, summaryLine), " ")
		if line == "" && (len(lines) == 0 || lines[len(lines)-1] == "") {
			continue
		}
		longest = max(longest, longestRun(line, '`'))
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return ""
	}
	open := ""
	if r.ofGuest() {
		open = " open"
	}
	fence := strings.Repeat("`", longest+1)
	return fmt.Sprintf("<details%s><summary>The end of the console</summary>\n\n%stext\n%s\n%s\n\n</details>\n",
		open, fence, strings.Join(lines, "\n"), fence)
}

// longestRun is the length of the longest run of a byte.
func longestRun(s string, c byte) int {
	longest, run := 0, 0
	for i := range len(s) {
		if run++; s[i] != c {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

func (r Report) summaryFindings() string {
	all := r.notable()
	if len(all) == 0 {
		return ""
	}
	findings, left := most(all, summaryFindings)
	var b strings.Builder
	b.WriteString("<p><strong>On the console:</strong></p>\n<ul>\n")
	for _, f := range findings {
		fmt.Fprintf(&b, "<li>%s at %s: %s</li>\n", text(clean(f.Title, 120)), clock(f.At), code(clean(f.Line, summaryLine)))
	}
	b.WriteString(more(left, "li") + "</ul>\n")
	return b.String()
}

func (r Report) summaryHints() string {
	hints, left := most(r.Hints, summaryHints)
	if len(hints) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("<p><strong>Porting to the Hurd:</strong></p>\n<ul>\n")
	for _, h := range hints {
		link := ""
		if address := web(h.URL); address != "" {
			link = fmt.Sprintf(` <a href="%s">Guidelines</a>`, html.EscapeString(address))
		}
		fmt.Fprintf(&b, "<li>%s%s</li>\n", text(clean(h.Text, 500)), link)
	}
	b.WriteString(more(left, "li") + "</ul>\n")
	return b.String()
}

func (r Report) summaryWarnings() string {
	warnings, left := r.warnings(summaryWarnings)
	if len(warnings) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("<p><strong>Warnings:</strong></p>\n<ul>\n")
	for _, w := range warnings {
		fmt.Fprintf(&b, "<li>%s</li>\n", text(w))
	}
	b.WriteString(more(left, "li") + "</ul>\n")
	return b.String()
}

// summaryPhases is the chart for those whose client draws none.
func (r Report) summaryPhases() string {
	phases, left := most(r.Phases, maxTasks)
	if len(phases) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("<details><summary>Phases</summary>\n<table>\n<tr><th>Phase</th><th>Start</th><th>Took</th><th>Result</th></tr>\n")
	for _, p := range phases {
		note := clean(p.Note, 120)
		if p.Failed {
			note = join(": ", "failed", note)
		}
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", text(clean(p.Name, 60)), clock(p.Start), seconds(p.Took), text(note))
	}
	b.WriteString("</table>\n" + more(left, "p") + "</details>\n")
	return b.String()
}

func (r Report) summaryFacts() string { return table(r.facts()) }

// table has a row per fact.
func table(rows []fact) string {
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("<table>\n")
	for _, row := range rows {
		value := text(row.Value)
		if row.Code {
			value = code(row.Value)
		}
		fmt.Fprintf(&b, "<tr><th align=\"left\">%s</th><td>%s</td></tr>\n", text(row.Name), value)
	}
	b.WriteString("</table>\n")
	return b.String()
}

func (r Report) summaryLinks() string {
	links, left := most(r.Links, summaryLinks)
	if len(links) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("<p><strong>Files:</strong></p>\n<ul>\n")
	for _, l := range links {
		name := text(clean(l.Name, 120))
		if address := web(l.URL); address != "" {
			name = fmt.Sprintf(`<a href="%s">%s</a>`, html.EscapeString(address), name)
		}
		fmt.Fprintf(&b, "<li>%s</li>\n", name)
	}
	b.WriteString(more(left, "li") + "</ul>\n")
	return b.String()
}

func (r Report) summaryInputs() string {
	rows, left := r.inputs(summaryInputs)
	if len(rows) == 0 {
		return ""
	}
	return "<details><summary>Inputs that differ from their defaults</summary>\n" + table(rows) + more(left, "p") + "</details>\n"
}
