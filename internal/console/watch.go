package console

import (
	"regexp"
	"sync"
)

// Match is a pattern that a line of the console has matched.
type Match struct {
	Index int // of the pattern
	Line  Line
}

// A Watch reports the first line that matches each of its patterns.
type Watch struct {
	patterns []*regexp.Regexp // nil where it has matched

	mu     sync.Mutex
	queue  []Match
	signal chan struct{} // holds a token while there is something in the queue
}

// Watch reports, for each pattern once, the first line that matches from now
// on, or the line in progress: a prompt, a boot menu. Patterns may be nil, for
// none. A Watch sees a line in progress as it is each time that something has
// come, however short it stays; it never holds up the console, and ends with it.
func (c *Console) Watch(patterns []*regexp.Regexp) *Watch {
	w := &Watch{patterns: append([]*regexp.Regexp(nil), patterns...), signal: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches = append(c.watches, w)
	return w
}

// Signal gets a value when Take has something to give.
func (w *Watch) Signal() <-chan struct{} { return w.signal }

// Take returns what has matched since the last call, in order: matches of one
// line come together, in the order of the patterns.
func (w *Watch) Take() []Match {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.queue
	w.queue = nil
	return taken
}

// see matches a line; the console is locked.
func (w *Watch) see(line Line) {
	var found []Match
	for i, re := range w.patterns {
		if re != nil && re.MatchString(line.Text) {
			found = append(found, Match{i, line})
			w.patterns[i] = nil
		}
	}
	if len(found) == 0 {
		return
	}
	w.mu.Lock()
	w.queue = append(w.queue, found...)
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default: // it was told already
	}
}

// watched shows a line to all watches; the console is locked.
func (c *Console) watched(line Line) {
	for _, w := range c.watches {
		w.see(line)
	}
}
