package image

import (
	"fmt"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Step is a part of the way from a source to a disk.
type Step string

// The steps that are reported.
const (
	StepFetch   Step = "fetching"
	StepSend    Step = "sending" // to a registry
	StepUnpack  Step = "unpacking"
	StepVerify  Step = "verifying"
	StepPrepare Step = "preparing"
	StepWait    Step = "waiting" // for another process that does it
)

// Report is the state of a step, at most a few times a second, or a note about
// something that happened on the way.
type Report struct {
	Step   Step
	Source string        // what it is about; without credentials or queries
	Note   string        // when not "": something to tell once, such as a lost connection
	Done   units.Bytes   // of Total
	Total  units.Bytes   // 0 when not known
	Rate   units.Bytes   // per second, over the last seconds
	Left   time.Duration // until the end at that rate; 0 when not known
}

// String is one line for people.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", r.Step, r.Source)
	switch {
	case r.Note != "":
		b.WriteString(r.Note)
		return b.String()
	case r.Total > 0:
		fmt.Fprintf(&b, "%s of %s (%d %%)", r.Done.Human(), r.Total.Human(), 100*r.Done/r.Total)
	default:
		b.WriteString(r.Done.Human())
	}
	if r.Rate > 0 {
		fmt.Fprintf(&b, ", %s/s", r.Rate.Human())
	}
	if r.Left > 0 {
		fmt.Fprintf(&b, ", %s left", r.Left.Round(time.Second))
	}
	return b.String()
}

// barWidth is the number of characters of a bar.
const barWidth = 20

// Bar is String with a bar in front, for a terminal on which it is drawn again
// and again. What has no known end has no bar.
func (r Report) Bar() string {
	if r.Total <= 0 || r.Note != "" {
		return r.String()
	}
	full := int(barWidth * min(max(r.Done, 0), r.Total) / r.Total)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "] " + r.String()
}
