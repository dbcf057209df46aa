package shard

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// maxLine is where a line without an end is broken, in bytes.
const maxLine = 64 << 10

// Lines is a writer that puts a prefix before every line, and writes whole
// lines only, so that several of them can share one output. What it writes
// depends on what was written to it, not on how that was cut into pieces.
type Lines struct {
	out    io.Writer
	prefix []byte

	mu     sync.Mutex
	line   []byte // that has no end yet
	broken bool   // the line is the rest of one that was broken
	err    error  // of out; nothing is written after it
}

// NewLines returns a Lines. Each of its writes to out ends with a newline.
func NewLines(out io.Writer, prefix string) *Lines {
	return &Lines{out: out, prefix: []byte(prefix)}
}

// Write takes all of p, or fails as out did.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ready []byte
	for rest := p; len(rest) > 0; {
		n, ended := len(rest), false
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			n, ended = i, true
		}
		if room := maxLine - len(l.line); n > room {
			n, ended = room, false
		}
		l.line = append(l.line, rest[:n]...)
		rest = rest[n:]
		switch {
		case ended:
			rest = rest[1:]
			if !l.broken || len(l.line) > 0 { // the end of a line that was broken just before it
				ready = l.end(ready)
			}
			l.broken = false
		case len(l.line) == maxLine:
			ready = l.end(ready)
			l.broken = true
		}
	}
	if l.flush(ready) != nil {
		return 0, l.err
	}
	return len(p), nil
}

// Close writes a last line that has no end, with one.
func (l *Lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) == 0 {
		return l.err
	}
	return l.flush(l.end(nil))
}

// end appends the line to what is ready. A carriage return inside would let the
// rest of the line stand in the place of the prefix.
func (l *Lines) end(ready []byte) []byte {
	line := bytes.TrimSuffix(l.line, []byte("\r"))
	ready = append(ready, l.prefix...)
	ready = append(ready, bytes.ReplaceAll(line, []byte("\r"), append([]byte("\r"), l.prefix...))...)
	l.line = l.line[:0]
	return append(ready, '\n')
}

func (l *Lines) flush(ready []byte) error {
	if l.err == nil && len(ready) > 0 {
		n, err := l.out.Write(ready)
		if err == nil && n < len(ready) {
			err = errors.New("short write")
		}
		l.err = err
	}
	return l.err
}
