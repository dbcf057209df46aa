// Package diagnostic finds what compilers complain about in the output of a
// build, so that it can be shown on the line of the source that it is about:
// GCC and Clang, rustc, Go, Python, make, shells, and the linker. It also knows
// what such an error means on the Hurd.
//
// The output is a guest's and may be anything: what is kept of it is bounded.
package diagnostic

import (
	"hash/maphash"
	"io"
	"slices"
	"sync"
)

// Severity is how bad a diagnostic is.
type Severity string

// The severities. Notes belong to an error or a warning and are left out.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one complaint about one place in the source.
type Diagnostic struct {
	Severity Severity
	File     string // relative to the workspace; empty: outside of it, or none
	Path     string // as it was printed
	Line     int    // from 1; 0: none
	Column   int    // from 1; 0: none
	Message  string // one line
}

// Counts are how many different diagnostics there were.
type Counts struct {
	Errors, Warnings int
}

// Kept is how many errors, and how many warnings, are kept when Options name
// no number: GitHub shows as many per step and kind.
const Kept = 10

// What is remembered at most, whatever the output.
const (
	maxSeen    = 10000 // diagnostics that are known again
	maxMessage = 500   // bytes of a message
	maxPath    = 1024  // bytes of a path
)

// Options says where the source is in the guest.
type Options struct {
	Root string // of the workspace in the guest, absolute; empty: no file is in it
	Dir  string // in which the script begins, absolute; empty: Root
	Keep int    // how many errors, and how many warnings; 0: Kept
}

// Collector gathers the diagnostics of a script's output. It is safe for use
// by several goroutines.
type Collector struct {
	opt Options

	mu       sync.Mutex
	seed     maphash.Seed
	seen     map[uint64]struct{}
	counts   Counts
	errors   []Diagnostic
	warnings []Diagnostic
	fallback *Diagnostic // of a tool that only says that another one failed
	hints    []Hint
}

// New makes a Collector.
func New(o Options) *Collector {
	if o.Dir == "" {
		o.Dir = o.Root
	}
	if o.Keep <= 0 {
		o.Keep = Kept
	}
	return &Collector{opt: o, seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}}
}

// Writer gives a writer for one stream of output. Its Write never fails and
// may be called with any part of a line; Close takes an unfinished last line.
// Each stream needs a Writer of its own, for one goroutine at a time.
func (c *Collector) Writer() io.WriteCloser {
	return &writer{scanner: scanner{collector: c, dirs: []string{c.opt.Dir}}}
}

// Diagnostics returns the first errors, then the first warnings, in the order
// of the output and each once. When make failed and nothing says why, make's
// own word is the only error.
func (c *Collector) Diagnostics() []Diagnostic {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errors) == 0 && c.fallback != nil {
		return append([]Diagnostic{*c.fallback}, c.warnings...)
	}
	return slices.Concat(c.errors, c.warnings)
}

// Counts tells how many there were, with those that were not kept. Beyond
// 10,000 different ones a repeated one counts again.
func (c *Collector) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	if counts.Errors == 0 && c.fallback != nil {
		counts.Errors = 1
	}
	return counts
}

// Hints returns what there is to know about porting to the Hurd for the errors
// that were seen, each once.
func (c *Collector) Hints() []Hint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.hints)
}

// add takes a diagnostic that a scanner found.
func (c *Collector) add(d Diagnostic, fallback bool) {
	d.Message, d.Path = bound(d.Message, maxMessage), bound(d.Path, maxPath)
	c.mu.Lock()
	defer c.mu.Unlock()
	if fallback {
		if c.fallback == nil {
			c.fallback = &d
		}
		return
	}
	if !c.isNew(d) {
		return
	}
	c.addHints(d.Message)
	list, count := &c.errors, &c.counts.Errors
	if d.Severity == Warning {
		list, count = &c.warnings, &c.counts.Warnings
	}
	*count++
	if len(*list) < c.opt.Keep {
		*list = append(*list, d)
	}
}

func (c *Collector) isNew(d Diagnostic) bool {
	key := maphash.Comparable(c.seed, d)
	if _, known := c.seen[key]; known {
		return false
	}
	if len(c.seen) < maxSeen {
		c.seen[key] = struct{}{}
	}
	return true
}

func (c *Collector) addHints(message string) {
	for _, h := range porting {
		if h.matches(message) && !slices.ContainsFunc(c.hints, func(known Hint) bool { return known == h.Hint }) {
			c.hints = append(c.hints, h.Hint)
		}
	}
}
