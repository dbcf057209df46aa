package report

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	markup "github.com/yuin/goldmark/renderer/html"
	"golang.org/x/net/html"

	"github.com/org/hurd-qemu-action/internal/units"
)

// hostile are texts that want to be more than text.
var hostile = []string{
	"<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</code></td></table><h1>x</h1>", "\"><svg onload=alert(1)>", "'><a href=//evil.org>",
	"```\n\n# heading\n\n```mermaid\n", "````````````\n", "~~~\n", "\n\n[link](https://evil.org)\n\n", "![image](https://evil.org/x.png)", "https://evil.org www.evil.org a@evil.org @user #1",
	"\n\n<!-- ", "]]>", "</details>\n\n**bold**", "| a | b |\n|---|---|\n| c | d |", "&lt;b&gt; &#60;b&#62;", "{{.Secret}} ${{ secrets.X }}", "click a href \"javascript:alert(1)\"",
	"%%{init: {'securityLevel': 'loose'}}%%", "a: b, c; d # e", "title x\nsection y\n", "</style><style>*{display:none}", "</textarea></title>", "\x00\x1b[2J\u202e\u2028\ufeff",
	strings.Repeat("`", 300), strings.Repeat("<", 5000), "\xff\xfe<\xc0\xbc>", "- [ ] task", "    indented", "\\`\\|\\<", "x\r\n\r\ny", "javascript:alert(1)",
}

// everywhere puts a text into every place of a Report that holds one.
func everywhere(text string) Report {
	r := Report{
		Result: "boot-failed", Title: text, Cause: text, Advice: []string{text, text}, Script: &Script{Signal: text}, Took: s, Run: s, Boot: s,
		Accel: text, AccelReason: text, Phases: []Phase{{text, 0, s, text, true}, {text, s, s, text, false}}, Attempts: 2, Uname: text, BootPhases: []Phase{{Name: text, Took: s}},
		Image: Image{text, text}, Machine: Machine{text, text, 1, units.GiB, text, text}, Snapshot: text,
		CopyIn: &Copy{1, 1, s, []string{text}}, CopyBack: &Copy{1, 1, s, []string{text}},
		Findings: []Finding{{s, text, Fatal, text, text}, {s, text, Warning, text, "x" + text}}, Hints: []Hint{{text, text}, {text, "https://www.gnu.org/"}},
		Links: []Link{{text, "https://github.com/"}, {text, text}}, Serial: []Line{{0, "before"}, {s, text}, {s, "x" + text}, {2 * s, text + "`"}}, Screenshot: []byte(text),
		Version: text, Inputs: []Input{{text, text, false}, {text, text, true}},
	}
	return r
}

// skeleton lists the elements and attributes of a document, without its text.
// Values of attributes count, but for the page's own policy.
func skeleton(t testing.TB, document string) []string {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for n := range doc.Descendants() {
		switch n.Type {
		case html.ElementNode:
			list = append(list, fmt.Sprint(n.Data, n.Attr))
		case html.CommentNode:
			list = append(list, "comment")
		}
	}
	return list
}

// markdown renders as GitHub does, with raw HTML left as it is: what GitHub's
// filter would take out must not be there in the first place.
var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote), goldmark.WithRendererOptions(markup.WithUnsafe()))

func rendered(t testing.TB, summary string) string {
	t.Helper()
	var b bytes.Buffer
	if err := markdown.Convert([]byte(summary), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHostileInGitHubsParser has GitHub's own parser, cmark-gfm, with all its
// extensions, in place of the one of the other tests.
func TestHostileInGitHubsParser(t *testing.T) {
	binary, err := exec.LookPath("cmark-gfm")
	if err != nil {
		if os.Getenv("E2E_REQUIRED") == "1" {
			t.Fatal("no cmark-gfm (Debian package cmark-gfm), and E2E_REQUIRED=1")
		}
		t.Skip("no cmark-gfm: apt-get install cmark-gfm")
	}
	parse := func(summary string) []string {
		cmd := exec.Command(binary, "--unsafe", "-e", "table", "-e", "strikethrough", "-e", "autolink", "-e", "tasklist")
		cmd.Stdin = strings.NewReader(summary)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return skeleton(t, string(out))
	}
	if !slices.Contains(parse("https://evil.org"), "a[{ href https://evil.org}]") {
		t.Error("the parser makes no links of addresses: the test is blind for them")
	}
	for _, text := range hostile {
		bad, good := hostilePair(text)
		if diff := cmp.Diff(parse(good.Summary()), parse(bad.Summary())); diff != "" {
			t.Errorf("%q changes the summary (-harmless +hostile):\n%s", text, diff)
		}
	}
}

// hostilePair is a Report full of a hostile text, and one of a harmless text.
func hostilePair(text string) (bad, good Report) {
	bad, good = everywhere(text), everywhere(harmless(text))
	// Addresses by themselves become links of their own place, rightly.
	for _, r := range []*Report{&bad, &good} {
		r.Hints[0].URL, r.Links[1].URL = "", ""
	}
	return bad, good
}

// harmless gives a text that takes the same decisions as the hostile one, and
// is harmless: some rows are there only when there is something to show.
func harmless(text string) string {
	if clean(text, 20) == "" {
		return ""
	}
	return "harmless"
}

// checkHostile holds that a hostile text makes the same elements as a harmless
// one, in the summary and in the page.
func checkHostile(t *testing.T, text string) {
	t.Helper()
	bad, good := hostilePair(text)
	if len(text) > 20 && clean(text[:20], 20) == "" {
		return // empty or not depends on where it is cut
	}
	if diff := cmp.Diff(skeleton(t, rendered(t, good.Summary())), skeleton(t, rendered(t, bad.Summary()))); diff != "" {
		t.Errorf("%q changes the summary (-harmless +hostile):\n%s", text, diff)
	}
	if len(bad.Summary()) > SummaryLimit {
		t.Errorf("the summary has %d bytes", len(bad.Summary()))
	}
	if diff := cmp.Diff(skeleton(t, pageOf(t, good)), skeleton(t, pageOf(t, bad))); diff != "" {
		t.Errorf("%q changes the page (-harmless +hostile):\n%s", text, diff)
	}
	checkGantt(t, bad.gantt())
}

func TestHostile(t *testing.T) {
	for _, text := range hostile {
		checkHostile(t, text)
	}
}

// TestHostileCounts shows that the comparison would see an element.
func TestHostileCounts(t *testing.T) {
	if len(skeleton(t, rendered(t, "<p>a</p>\n"))) == len(skeleton(t, rendered(t, "<p>a<b>b</b></p>\n\n[x](https://y)\n"))) {
		t.Error("elements are not seen")
	}
	if !strings.Contains(rendered(t, "https://evil.org"), "<a ") {
		t.Error("the renderer makes no links of addresses: the test is blind for them")
	}
}

// TestFencesHold has each text as a whole line of the console, in the fence.
func TestFencesHold(t *testing.T) {
	for _, text := range hostile {
		r := Report{Result: "guest-lost", Serial: []Line{{0, "first"}, {0, text}, {0, "last"}}}
		out := rendered(t, r.summaryTail())
		if strings.Count(out, "<pre>") != 1 || !regexp.MustCompile(`(?s)<pre><code class="language-text">first\n.*last\n</code></pre>\n</details>`).MatchString(out) {
			t.Errorf("%q gives\n%s", text, out)
		}
	}
}

// Lines of a Gantt chart that Mermaid's grammar takes for what they are meant
// to be: gantt.jison tries its rules in order, ignoring the case.
var (
	ganttHead = "```mermaid\ngantt\n    title Phases of the run, in seconds\n    dateFormat x\n    axisFormat %s\n    todayMarker off\n"
	ganttTask = regexp.MustCompile(`^    \pL[^#:;%{}"'<>&\x60\n]* :(done|crit), \d+, \d+$`)
	ganttWord = regexp.MustCompile(`(?i)^(gantt|dateFormat|inclusiveEndDates|topAxis|axisFormat|tickInterval|includes|excludes|todayMarker|weekday|weekend|\d{4}-\d\d-\d\d|title|accTitle|accDescr|section|click|call|href)`)
)

func checkGantt(t *testing.T, chart string) {
	t.Helper()
	body, ok := strings.CutPrefix(chart, ganttHead)
	body, end := strings.CutSuffix(body, "```\n")
	if !ok || !end {
		t.Errorf("the chart is\n%s", chart)
		return
	}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if !ganttTask.MatchString(line) || ganttWord.MatchString(strings.TrimSpace(line)) {
			t.Errorf("Mermaid does not take %q for a task", line)
		}
	}
}

func TestGantt(t *testing.T) {
	for name, want := range map[string]string{
		"Boot": "Boot", "Copy in": "Copy in", "a: b; c # d": "a b c d", "Section 1": "Phase Section 1", "ganttify": "Phase ganttify", "TITLE x": "Phase TITLE x",
		"": "Phase", "%%": "Phase", "2024-01-01": "Phase 2024 01 01", "click x": "Phase click x", "Größe": "Größe", "(x)": "Phase (x)", "Endless": "Phase Endless",
	} {
		if got := task(name); got != want {
			t.Errorf("task(%q) = %q, want %q", name, got, want)
		}
	}
	r := Report{}
	for i := range 200 {
		r.Phases = append(r.Phases, Phase{Name: strings.Repeat("é", 100), Start: time.Duration(i) * s, Took: -s})
	}
	checkGantt(t, r.gantt())
	if n := len(r.gantt()); n > 10000 || strings.Count(r.gantt(), ":done,") != maxTasks {
		t.Errorf("a chart of %d bytes", n)
	}
}

// TestSummaryIsBounded fills everything with as much as possible.
func TestSummaryIsBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("<", 10000), strings.Repeat("é\"", 10000), strings.Repeat("`", 10000), strings.Repeat("@#", 5000)} {
		r := everywhere(text)
		for range 9 {
			r.Advice, r.Phases, r.Findings = append(r.Advice, r.Advice...), append(r.Phases, r.Phases...), append(r.Findings, r.Findings...)
			r.Hints, r.Links, r.Serial, r.Inputs = append(r.Hints, r.Hints...), append(r.Links, r.Links...), append(r.Serial, r.Serial...), append(r.Inputs, r.Inputs...)
			r.CopyIn.Warnings = append(r.CopyIn.Warnings, r.CopyIn.Warnings...)
		}
		got := r.Summary()
		if len(got) > SummaryLimit || !strings.Contains(got, "<h3>") {
			t.Errorf("%.5q: %d bytes", text, len(got))
		}
		if n := len(pageOf(t, r)); n > 16<<20 {
			t.Errorf("%.5q: a page of %d bytes", text, n)
		}
	}
}

// FuzzHostile holds that no text makes an element, an attribute, a link or a
// picture, breaks out of a fence, or is anything but a task for Mermaid.
func FuzzHostile(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(checkHostile)
}
