package report

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// maxTasks bounds the chart. Mermaid itself refuses diagrams of more than
// 50,000 characters (maxTextSize), which GitHub does not change.
const maxTasks = 40

// gantt draws the phases as a Mermaid chart; "" when there are none. The axis
// has seconds: the times are milliseconds since the epoch for Mermaid, and of
// all formats only %s (d3-time-format) says the same in every time zone.
func (r Report) gantt() string {
	if len(r.Phases) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("```mermaid\ngantt\n    title Phases of the run, in seconds\n    dateFormat x\n    axisFormat %s\n    todayMarker off\n")
	for i, p := range r.Phases {
		if i == maxTasks {
			break
		}
		tag := "done"
		if p.Failed {
			tag = "crit"
		}
		start := max(p.Start, 0).Milliseconds()
		end := start + max(p.Took, time.Millisecond).Milliseconds()
		fmt.Fprintf(&b, "    %s %s :%s, %d, %d\n", task(p.Name), seconds(p.Took), tag, start, end)
	}
	b.WriteString("```\n")
	return b.String()
}

// keywords begin a line of a Gantt chart that is no task (mermaid's
// gantt.jison, which ignores the case and does not look for the word's end).
var keywords = []string{
	"gantt", "dateformat", "inclusiveenddates", "topaxis", "axisformat", "tickinterval", "includes", "excludes", "todaymarker",
	"weekday", "weekend", "title", "acctitle", "accdescr", "section", "click", "call", "href", "end", "displaymode",
}

// task makes a name that Mermaid takes for nothing else: letters, digits and
// the little that has no meaning there.
func task(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._/()", r) {
			return r
		}
		return ' '
	}, clean(name, 60))
	name = strings.Join(strings.Fields(name), " ")
	lower := strings.ToLower(name)
	for _, k := range keywords {
		if strings.HasPrefix(lower, k) {
			return "Phase " + name
		}
	}
	if name == "" || !unicode.IsLetter([]rune(name)[0]) {
		return strings.TrimSpace("Phase " + name)
	}
	return name
}
