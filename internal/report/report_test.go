package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/org/hurd-qemu-action/internal/units"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func pageOf(t testing.TB, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	// The style and the script are files of their own.
	short := strings.NewReplacer(styleSource, "(report.css)", scriptSource, "(report.js)", digest(styleSource), "(of report.css)", digest(scriptSource), "(of report.js)")
	for name, r := range cases(t) {
		golden(t, name+".md", r.Summary())
		golden(t, name+".html", short.Replace(pageOf(t, r)))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", path, diff)
	}
}

// TestSecretsAreNotShown holds it for both forms, also when they are given.
func TestSecretsAreNotShown(t *testing.T) {
	r := common()
	for form, got := range map[string]string{"summary": r.Summary(), "page": pageOf(t, r)} {
		if strings.Contains(got, "PRIVATE") || !strings.Contains(got, "(set, and not shown)") || !strings.Contains(got, "ssh-private-key") {
			t.Errorf("the %s:\n%s", form, got)
		}
	}
}

// TestEverythingIsShown changes each part of a Report and holds that both
// forms show it, or the one that is named.
func TestEverythingIsShown(t *testing.T) {
	const word = "xylophone"
	for name, tc := range map[string]struct {
		r    Report
		want string
		only string
	}{
		"Title":       {Report{Title: word}, word, ""},
		"Cause":       {Report{Cause: word}, word, ""},
		"Advice":      {Report{Advice: []string{word}}, word, ""},
		"Script":      {Report{Script: &Script{Status: 42}}, "exit status 42", ""},
		"signal":      {Report{Script: &Script{Signal: "SEGV"}, Run: 3 * time.Second}, "killed by signal SEGV after 3.00 s", ""},
		"Run":         {Report{Run: 3 * time.Second}, "ran 3.00 s", ""},
		"Began":       {Report{Began: time.Unix(0, 0)}, "1970-01-01 00:00:00 UTC", "page"},
		"Took":        {Report{Took: 61 * time.Second}, "61.0 s", ""},
		"Accel":       {Report{Accel: word}, word, ""},
		"AccelReason": {Report{AccelReason: word}, word, ""},
		"phase":       {Report{Phases: []Phase{{Name: word, Took: 7 * time.Second}}}, word, ""},
		"its time":    {Report{Phases: []Phase{{Name: "x", Took: 7 * time.Second}}}, "7.00 s", ""},
		"its note":    {Report{Phases: []Phase{{Name: "x", Note: word}}}, word, ""},
		"its end":     {Report{Phases: []Phase{{Name: "x", Failed: true}}}, "failed", ""},
		"Attempts":    {Report{Attempts: 3}, "in 3 attempts", ""},
		"Boot":        {Report{Boot: 7 * time.Second}, "7.00 s until a command had run", ""},
		"SSH":         {Report{Boot: 7 * time.Second, SSH: 2 * time.Second}, "of which SSH 2.00 s", ""},
		"Uname":       {Report{Uname: word}, word, ""},
		"Image":       {Report{Image: Image{Name: word}}, word, ""},
		"digest":      {Report{Image: Image{Digest: word}}, word, ""},
		"machine":     {Report{Machine: Machine{"pc", "pentium", 2, units.GiB, "ide", "rtl8139"}}, "pc, pentium, 2 CPUs, 1 GiB of memory, disks on ide, network rtl8139", ""},
		"peak":        {Report{Usage: Usage{Peak: units.GiB}}, "1 GiB at most", ""},
		"disks":       {Report{Usage: Usage{Read: units.MiB, Written: 2 * units.MiB, Overlay: 3 * units.MiB}}, "1 MiB read, 2 MiB written, overlay of 3 MiB", ""},
		"CPU":         {Report{Usage: Usage{CPU: 7 * time.Second, GuestCPU: 6 * time.Second}}, "guest 6.00 s, QEMU in all 7.00 s", ""},
		"own memory":  {Report{Usage: Usage{Own: units.MiB}}, "this program 1 MiB", ""},
		"image":       {Report{Usage: Usage{Disk: 2 * units.GiB, Image: units.GiB}}, "on an image of 2 GiB in 1 GiB", ""},
		"network":     {Report{Usage: Usage{NetSent: units.KiB, NetGot: units.MiB}}, "1 KiB sent, 1 MiB received", ""},
		"traffic":     {Report{Usage: Usage{Sent: units.KiB, Received: units.MiB}}, "1 KiB sent, 1 MiB received", ""},
		"boot phases": {Report{BootPhases: []Phase{{Name: "kernel", Took: 3 * time.Second}, {Name: word, Took: time.Second, Failed: true}}}, "kernel 3.00 s, " + word + " 1.00 s and no further", ""},
		"benchmark":   {Report{Benchmark: repeated(3, 3)}, "edian 0.534 s of 3 repetitions", ""},
		"its spread":  {Report{Benchmark: repeated(3, 3)}, "0.500 s", ""},
		"its failure": {Report{Benchmark: repeated(5, 3)}, "Repetition 4 failed after 1.200 s and is not counted.", ""},
		"no time":     {Report{Benchmark: &Benchmark{Wanted: 3}}, "o time: 0 of 3 repetitions succeeded", ""},
		"resolution":  {Report{Benchmark: repeated(3, 3)}, "an empty command takes 0.061 s", ""},
		"Snapshot":    {Report{Snapshot: word}, word, ""},
		"CopyIn":      {Report{CopyIn: &Copy{Files: 1, Size: units.MiB, Took: time.Second}}, "1 file, 1 MiB, 1.00 s", ""},
		"CopyBack":    {Report{CopyBack: &Copy{Files: 2, Warnings: []string{word}}}, "2 files, 1 warning", ""},
		"its warning": {Report{CopyBack: &Copy{Warnings: []string{word}}}, "Copying back: " + word, ""},
		"finding":     {Report{Findings: []Finding{{Severity: Fatal, Title: "x", Line: word, At: time.Minute}}}, word, ""},
		"its title":   {Report{Findings: []Finding{{Severity: Warning, Title: word, Line: "x"}}}, word, ""},
		"milestone":   {Report{Findings: []Finding{{Severity: Milestone, Title: word, Line: "x"}}}, word, "page"},
		"Errors":      {Report{Errors: 2, Warnings: 1}, "2 errors, 1 warning", ""},
		"hint":        {Report{Hints: []Hint{{word, "https://example.org/h"}}}, `<a href="https://example.org/h"`, ""},
		"link":        {Report{Links: []Link{{word, "https://example.org/l?a=1&b=2"}}}, `<a href="https://example.org/l?a=1&amp;b=2"`, ""},
		"near link":   {Report{Links: []Link{{word, "logs/serial.log"}}}, `<a href="logs/serial.log"`, "page"},
		"serial":      {Report{Result: "boot-failed", Serial: []Line{{time.Minute, word}}}, word, ""},
		"lost":        {Report{Serial: []Line{{0, "x"}}, Lost: 77}, "77 lines before them are not known", "page"},
		"Version":     {Report{Version: word}, word, ""},
		"input":       {Report{Inputs: []Input{{Name: "x", Value: word}}}, word, ""},
	} {
		for form, got := range map[string]string{"summary": tc.r.Summary(), "page": pageOf(t, tc.r)} {
			if tc.only != "" && form != tc.only {
				continue
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("%s: no %q in the %s:\n%s", name, tc.want, form, got)
			}
		}
	}
}

// TestLinks holds which addresses become links.
func TestLinks(t *testing.T) {
	for address, want := range map[string][2]bool{ // in the summary, in the page
		"https://github.com/o/r": {true, true}, "serial.log": {false, true}, "logs/a-b.c": {false, true},
		"http://github.com/": {}, "javascript:alert(1)": {}, "data:text/html,x": {}, "//evil.org/x": {}, "https:evil": {}, "https://": {}, "/etc/passwd": {},
		"../x": {}, "a/../../x": {}, ".x": {}, "https://user:pass@evil.org/": {}, "\x00https://a": {}, "": {}, "a b": {}, "a:b": {}, "a?b": {},
		"https://github.com/" + strings.Repeat("a", maxURL): {}, strings.Repeat("a", maxURL+1): {},
	} {
		r := Report{Links: []Link{{"name", address}}}
		got := [2]bool{strings.Contains(r.Summary(), "<a "), strings.Contains(pageOf(t, r), `rel="noreferrer">name`)}
		if got != want {
			t.Errorf("%q: %v, want %v", address, got, want)
		}
	}
}

func TestScreenshot(t *testing.T) {
	good := cases(t)["boot-failed"].Screenshot
	wide := append([]byte(nil), good...)
	copy(wide[16:], []byte{0x7f, 0xff, 0xff, 0xff}) // the width, then its checksum is wrong as well
	for name, tc := range map[string]struct {
		png  []byte
		want bool
	}{
		"good": {good, true}, "none": {nil, false}, "no PNG": {[]byte("<svg onload=alert(1)>"), false}, "cut": {good[:20], false},
		"too wide": {wide, false}, "too large": {append(append([]byte(nil), good...), make([]byte, maxScreenshot)...), false},
	} {
		got := pageOf(t, Report{Screenshot: tc.png})
		if strings.Contains(got, "<img ") != tc.want {
			t.Errorf("%s: %v, want %v", name, !tc.want, tc.want)
		}
	}
}

// TestLongLog holds what of 50,000 lines the page has.
func TestLongLog(t *testing.T) {
	r := big(t)
	l := r.log()
	var numbers []int
	left := 0
	for _, c := range l.Chunks {
		left += c.Left
		if len(c.Lines) > logChunk {
			t.Errorf("a chunk of %d lines", len(c.Lines))
		}
		for _, line := range c.Lines {
			numbers = append(numbers, line.Number)
			if len(line.Text) > logLine+len("…") {
				t.Errorf("line %d has %d bytes", line.Number, len(line.Text))
			}
		}
	}
	if !slices.IsSorted(numbers) || len(numbers) != l.Shown || left+l.Shown != 50000 || numbers[0] != 1 || numbers[len(numbers)-1] != 50000 {
		t.Errorf("%d lines are shown and %d left out, from %d to %d", l.Shown, left, numbers[0], numbers[len(numbers)-1])
	}
	if want := logHead + 4 + 2*logContext + 1 + 3 + logTail; l.Shown != want {
		t.Errorf("%d lines are shown, want %d", l.Shown, want)
	}
	for i, n := range []int{3, 1999, 20000, 20003, 49999} {
		if l.Findings[i].Number != n {
			t.Errorf("finding %d is at line %d, want %d", i, l.Findings[i].Number, n)
		}
	}
	if got := pageOf(t, r); len(got) > 4<<20 || strings.Count(got, "lines are left out here") != 2 {
		t.Errorf("the page has %d bytes", len(got))
	}
}

func TestLocate(t *testing.T) {
	r := Report{Serial: []Line{{s, "a"}, {2 * s, "b"}, {2 * s, "a"}, {3 * s, "login: root"}, {4 * s, "b"}}}
	for _, tc := range []struct {
		at   time.Duration
		line string
		want int
	}{{s, "a", 1}, {2 * s, "a", 3}, {2 * s, "b", 2}, {3 * s, "b", 5}, {3 * s, "login:", 4}, {0, "b", 2}, {5 * s, "b", 0}, {s, "c", 0}, {s, "", 0}, {s, " ", 0}} {
		if got := r.locate(Finding{At: tc.at, Line: tc.line}); got != tc.want {
			t.Errorf("%q at %v is line %d, want %d", tc.line, tc.at, got, tc.want)
		}
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 s", -s: "0 s", 840 * time.Millisecond: "0.84 s", 12340 * time.Millisecond: "12.3 s", 9999 * time.Millisecond: "10.0 s",
		125 * s: "2 min 5 s", 99960 * time.Millisecond: "1 min 40 s", 3599600 * time.Millisecond: "1 h 0 min", 26*time.Hour + 90*s: "26 h 2 min",
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0:00.000", -s: "0:00.000", 59999999 * time.Microsecond: "0:59.999", 61 * s: "1:01.000", 3661 * s: "1:01:01.000"} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb\x00c": "a[31mbc", " a\t\n\r b ": "a b", "\xff": "\ufffd", "x\u202ey": "xy", "a\u200bb\u2028c\ufe0f": "abc", "a\u00a0b": "a b",
		"abcdefghijkl": "abcdefghijkl", "abcdefghijklm": "abcdefghijkl…", "abcdefghijké": "abcdefghijk…", "\U000e0041x": "x",
	} {
		if got := clean(in, 12); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRunsOfBackticks(t *testing.T) {
	for text, want := range map[string]int{"": 0, "a": 0, "`": 1, "a``b```": 3, "````a`": 4} {
		if got := longestRun(text, '`'); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestPage looks at the page as a browser's parser sees it.
func TestPage(t *testing.T) {
	for name, r := range cases(t) {
		doc, err := html.Parse(strings.NewReader(pageOf(t, r)))
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		level := 0
		for n := range doc.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if id := attribute(n, "id"); id != "" && ids[id] {
				t.Errorf("%s: two elements have the id %s", name, id)
			} else if id != "" {
				ids[id] = true
			}
			switch n.Data {
			case "html":
				if attribute(n, "lang") != "en" {
					t.Errorf("%s: no language", name)
				}
			case "h1", "h2", "h3":
				if l := int(n.Data[1] - '0'); l > level+1 {
					t.Errorf("%s: a heading of level %d after one of %d", name, l, level)
				} else {
					level = l
				}
			case "style", "script":
				if !strings.Contains(policy(), n.Data+"-src 'sha256-"+digest(n.FirstChild.Data)+"'") {
					t.Errorf("%s: the policy forbids the page's own %s", name, n.Data)
				}
			case "img":
				if attribute(n, "alt") == "" || !strings.HasPrefix(attribute(n, "src"), "data:image/png;base64,") {
					t.Errorf("%s: an image without text, or from elsewhere", name)
				}
			}
			for _, a := range n.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: the policy forbids %s=%q", name, a.Key, a.Val)
				}
			}
		}
		for n := range doc.Descendants() {
			for _, key := range []string{"href", "aria-labelledby", "aria-describedby", "for"} {
				for id := range strings.FieldsSeq(attribute(n, key)) {
					if key == "href" && !strings.HasPrefix(id, "#") {
						continue
					}
					if !ids[strings.TrimPrefix(id, "#")] {
						t.Errorf("%s: %s=%q leads nowhere", name, key, id)
					}
				}
			}
		}
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
