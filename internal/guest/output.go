package guest

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// closeMost is how long close waits for a writer that is blocked in a write.
const closeMost = 2 * time.Second

// output passes a command's two streams on, one write at a time, and knows how
// much of the time its writers took: that is not the guest's silence.
type output struct {
	turn  chan struct{} // holds a token while a writer is called
	moved chan struct{} // holds a token when a write has ended; for one reader

	mu     sync.Mutex // guards what follows; never held while a writer is called
	closed bool
	err    error
	busy   int // streams that have something to write
	last   progress
}

// progress is what an output had done by some time.
type progress struct {
	busy    bool          // a write is under way
	since   time.Time     // when busy became what it is; zero before the first write
	blocked time.Duration // time in writes, until now
	bytes   int64         // in writes that have ended
}

func newOutput() *output {
	return &output{turn: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
}

func (o *output) copy(w io.Writer, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			o.write(w, buf[:n])
		}
		if err != nil {
			return // the end of the channel; e.requests knows why
		}
	}
}

func (o *output) write(w io.Writer, p []byte) {
	o.begin()
	defer o.end(len(p))
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	if w == nil || o.useless() {
		return // a command that can't write would stand still
	}
	if _, err := w.Write(p); err != nil {
		o.mu.Lock()
		o.err = fmt.Errorf("passing its output on: %w", err)
		o.mu.Unlock()
	}
}

// useless says that nothing is to be written any more.
func (o *output) useless() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed || o.err != nil
}

func (o *output) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy++; o.busy == 1 {
		o.last.busy, o.last.since = true, time.Now()
	}
}

func (o *output) end(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last.bytes += int64(n)
	if o.busy--; o.busy == 0 {
		now := time.Now()
		o.last.blocked += now.Sub(o.last.since)
		o.last.busy, o.last.since = false, now
	}
	select {
	case o.moved <- struct{}{}:
	default: // it is about to be taken
	}
}

// progress tells what was done until now.
func (o *output) progress(now time.Time) progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.last
	if p.busy {
		p.blocked += now.Sub(p.since)
	}
	return p
}

// close lets nothing more through. It waits for a write that is under way, but
// not for ever: one that blocks for more than closeMost is left behind.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	patience := time.NewTimer(closeMost)
	defer patience.Stop()
	for o.progress(time.Now()).busy {
		select {
		case <-o.moved:
		case <-patience.C:
			return
		}
	}
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
