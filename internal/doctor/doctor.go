// Package doctor looks at a host, or at the runner of a job, and says of each
// thing that a run depends on whether it is fine, works but slow, or is broken
// and how to fix it.
//
// A check asks the host only through a Host, so that every verdict can be had
// in a test; it has a time limit, also where it asks a device or a file system
// that never answers.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is what a check thinks of what it has looked at.
type Verdict string

// The verdicts, from good to bad.
const (
	Skipped Verdict = "skipped" // it was not looked at, or does not matter here
	Fine    Verdict = "fine"
	Limited Verdict = "limited" // it works, and something else does not
	Slow    Verdict = "slow"    // it works, but slow
	Broken  Verdict = "broken"
)

// order is that of the verdicts.
var order = []Verdict{Skipped, Fine, Limited, Slow, Broken}

// worse tells whether v is worse than w.
func (v Verdict) worse(w Verdict) bool { return slices.Index(order, v) > slices.Index(order, w) }

// Good tells whether there is nothing to be done.
func (v Verdict) Good() bool { return v == Fine || v == Skipped }

// Words say a verdict to people.
func (v Verdict) Words() string {
	switch v {
	case Skipped:
		return "not checked"
	case Limited:
		return "works with limits"
	case Slow:
		return "works but slow"
	}
	return string(v)
}

// Mark is a verdict in one character, which no color has to help.
func (v Verdict) Mark() string {
	switch v {
	case Fine:
		return "✓"
	case Limited, Slow:
		return "!"
	case Broken:
		return "✗"
	}
	return "-"
}

// Finding is what a check has found.
type Finding struct {
	Check   string   `json:"check"` // its name
	Title   string   `json:"title"` // what was looked at
	Group   string   `json:"group"`
	Verdict Verdict  `json:"verdict"`
	Text    string   `json:"text"`            // what there is, in one line
	Fix     []string `json:"fix,omitempty"`   // what to do about it, one sentence each
	Quote   []string `json:"quote,omitempty"` // lines of a guest
	Covers  []string `json:"covers,omitempty"`
	Seconds float64  `json:"seconds"` // that it took
}

// Advice is the finding in one sentence for whoever looks at something else.
func (f Finding) Advice() string {
	text := fmt.Sprintf("%s: %s: %s", f.Title, f.Verdict.Words(), f.Text)
	if len(f.Fix) > 0 {
		text += ". " + f.Fix[0]
	}
	return text
}

// Report is the outcome of all checks.
type Report struct {
	Verdict  Verdict   `json:"verdict"` // the worst
	Findings []Finding `json:"findings"`
	Seconds  float64   `json:"seconds"`
}

// Count is how many findings have a verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Problems are the findings that something is to be done about, the worst first.
func (r Report) Problems() []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if !f.Verdict.Good() {
			list = append(list, f)
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, b.Verdict), slices.Index(order, a.Verdict))
	})
	return list
}

// Check is one question to a host.
type Check struct {
	Name  string // for machines, unique
	Title string // for people
	Group string

	quick bool          // cheap enough, and of interest, when a boot has failed
	net   bool          // asks the network
	busy  bool          // keeps a processor busy: one of these at a time
	limit time.Duration // 0: defaultLimit
	run   func(context.Context, *exam) []Finding
}

// How long things may take.
const (
	defaultLimit = 3 * time.Second
	// DefaultLimit bounds all checks together.
	DefaultLimit = 14 * time.Second
)

// Options say what is asked.
type Options struct {
	Offline bool          // nothing that needs the network
	Quick   bool          // only what is cheap, for a boot that has failed
	Limit   time.Duration // for all of it; 0: DefaultLimit
}

// Run makes the checks, at once but for those that need a processor. It returns
// in time, also when a check does not: that one is called broken.
func Run(ctx context.Context, h Host, o Options) Report {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(o.Limit, DefaultLimit), errors.New("all the checks together took too long"))
	defer cancel()
	e := newExam(ctx, h)
	var chosen []Check
	for _, c := range Checks() {
		if !o.Quick || c.quick {
			chosen = append(chosen, c)
		}
	}
	results := make([]chan []Finding, len(chosen))
	turn := make(chan struct{}) // closed when it is the turn of the next busy check
	close(turn)
	for i, c := range chosen {
		results[i] = make(chan []Finding, 1)
		mine, done := turn, func() {}
		if c.busy {
			next := make(chan struct{})
			turn, done = next, func() { close(next) }
		}
		go func() {
			defer done()
			if c.busy {
				<-mine // each ends within its limit
			}
			results[i] <- e.examine(ctx, c, o)
		}()
	}
	rep := Report{Verdict: Fine}
	for i := range chosen {
		for _, f := range <-results[i] {
			if f.Verdict.worse(rep.Verdict) {
				rep.Verdict = f.Verdict
			}
			rep.Findings = append(rep.Findings, f)
		}
	}
	rep.Seconds = seconds(time.Since(began))
	return rep
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// examine makes one check within its limit. What it is that hangs, a device or
// a network file system, cannot be interrupted, so it is left behind.
func (e *exam) examine(ctx context.Context, c Check, o Options) []Finding {
	began := time.Now()
	if c.net && o.Offline {
		return c.complete(one(skipped("left out, as asked for")), 0)
	}
	if ctx.Err() != nil {
		return c.complete(one(skipped("no time was left for it: "+context.Cause(ctx).Error())), 0)
	}
	limit := cmp.Or(c.limit, defaultLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	done := make(chan []Finding, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- one(broken(fmt.Sprintf("the check itself failed: %v", r), "Report this as a bug of hurd-qemu-action."))
			}
		}()
		done <- c.run(ctx, e)
	}()
	select {
	case found := <-done:
		return c.complete(found, time.Since(began))
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case found := <-done: // it knows more than that its time is over
		return c.complete(found, time.Since(began))
	case <-timer.C:
	}
	return c.complete(one(broken(fmt.Sprintf("no answer: %v", context.Cause(ctx)),
		"Look for a device or a network file system that hangs: it may hang a run as well.")), time.Since(began))
}

// grace is for a check whose time is over to say so itself.
const grace = 250 * time.Millisecond

// complete adds what findings have in common.
func (c Check) complete(found []Finding, took time.Duration) []Finding {
	for i := range found {
		f := &found[i]
		f.Check, f.Group, f.Covers, f.Seconds = c.Name, c.Group, entriesOf(c.Name), seconds(took)
		f.Title = cmp.Or(f.Title, c.Title)
		f.Text = strings.Join(strings.Fields(f.Text), " ") // errors may have several lines
	}
	return found
}

func one(f Finding) []Finding { return []Finding{f} }

func fine(text string) Finding    { return Finding{Verdict: Fine, Text: text} }
func skipped(text string) Finding { return Finding{Verdict: Skipped, Text: text} }

func limited(text string, fix ...string) Finding {
	return Finding{Verdict: Limited, Text: text, Fix: fix}
}
func slow(text string, fix ...string) Finding { return Finding{Verdict: Slow, Text: text, Fix: fix} }
func broken(text string, fix ...string) Finding {
	return Finding{Verdict: Broken, Text: text, Fix: fix}
}
