package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// Options set up a Console. The zero value keeps the last lines, finds what
// Patterns knows, and passes nothing on.
type Options struct {
	Log      io.Writer   // gets every byte as it came (serial.log); nil: none
	LogLimit units.Bytes // how much of it; 0 means 64M, after which a note ends the log

	// OnLine and OnFinding are called from Run, in order, for every complete
	// line and then for what was found in it (a prompt is found while its line
	// is still in progress). They hold up the console: they must not block, nor
	// call Run. They may be nil.
	OnLine    func(Line)
	OnFinding func(Finding)

	// OnPartial is called like them for the line in progress, whenever there is
	// more of it: a list of boot modules grows for seconds. It may be nil.
	OnPartial func(Line)

	Now      func() time.Time // nil: time.Now
	Patterns []Pattern        // nil: Patterns()
	Lines    int              // lines kept for Tail; see Ring
	Bytes    units.Bytes      // text kept for Tail; see Ring

	// EchoWait bounds the wait for the echo of what Send typed before it types
	// on: 0 means 100ms. See Send.
	EchoWait time.Duration
}

const (
	defaultLogLimit = 64 * units.MiB
	readSize        = 32 << 10
	// drainTime bounds how long Run reads on after its context has ended, for
	// what the machine said last. It matters when QEMU lives on: otherwise the
	// end of the stream comes first.
	drainTime = 50 * time.Millisecond
)

// logEnd is written to a log that has reached its limit.
const logEnd = "\n[the rest of the console is not kept: this log has reached its limit]\n"

// A Console owns the connection to a guest's serial port. Its methods are safe
// for concurrent use, beside one call of Run.
type Console struct {
	conn io.ReadWriter
	opt  Options

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever anything below changes
	splitter Splitter
	scanner  *scanner
	ring     Ring
	findings []Finding
	watches  []*Watch
	flow     []byte // output not yet consumed by Expect
	bytes    units.Bytes
	lastByte time.Time
	logged   units.Bytes
	logErr   error
	taps     []*tap
	hidden   int  // calls of Conceal that were not taken back
	secret   bool // the line in progress has bytes that came while hidden
	ended    bool
	endErr   error

	sending chan struct{} // holds a token while nobody types
}

// New makes a Console on a connection: one end of a socket pair or a pipe.
// When the context of Run ends, the connection's SetReadDeadline stops a read
// in progress, or its Close where it has no deadlines.
func New(conn io.ReadWriter, opt Options) *Console {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Patterns == nil {
		opt.Patterns = Patterns()
	}
	if opt.LogLimit <= 0 {
		opt.LogLimit = defaultLogLimit
	}
	if opt.EchoWait <= 0 {
		opt.EchoWait = 100 * time.Millisecond
	}
	c := &Console{
		conn: conn, opt: opt, changed: make(chan struct{}), scanner: newScanner(opt.Patterns),
		ring: Ring{Lines: opt.Lines, Bytes: opt.Bytes}, sending: make(chan struct{}, 1),
		lastByte: opt.Now(),
	}
	c.splitter.record = true
	c.sending <- struct{}{}
	return c
}

// Run reads the console until it ends (nil), ctx ends (its cause) or reading
// fails. A log that could not be written is part of the error, and does not
// stop the reading: a guest must not stand still because nobody reads.
func (c *Console) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.stopReading)
	defer stop()
	buf := make([]byte, readSize)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 {
			c.take(buf[:n])
		}
		if err != nil {
			return c.finish(ctx, err)
		}
	}
}

func (c *Console) stopReading() {
	if d, ok := c.conn.(interface{ SetReadDeadline(time.Time) error }); ok {
		if d.SetReadDeadline(time.Now().Add(drainTime)) == nil {
			return
		}
	}
	if closer, ok := c.conn.(io.Closer); ok {
		_ = closer.Close() // Run reports why it stopped
	}
}

// finish ends the console: the line in progress becomes a line.
func (c *Console) finish(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		err = nil
	default:
		err = fmt.Errorf("reading the serial console: %w", err)
	}
	c.mu.Lock()
	found := c.lines(c.splitter.Flush())
	c.ended, c.endErr = true, err
	c.signal()
	logErr, taps := c.logErr, slices.Clone(c.taps)
	c.mu.Unlock()
	c.pass(found)
	for _, t := range taps {
		t.ended()
	}
	return errors.Join(err, logErr)
}

// event is a line and what was found in it.
type event struct {
	line     Line
	findings []Finding
	secret   bool
}

func (c *Console) take(p []byte) {
	c.mu.Lock()
	hidden := c.hidden > 0
	if !hidden {
		c.log(p)
	}
	c.bytes += units.Bytes(len(p))
	c.lastByte = c.opt.Now()
	events := c.lines(c.splitter.Write(p))
	if partial := c.splitter.Partial(); partial != "" {
		c.secret = c.secret || hidden
		line := Line{Time: c.lastByte, Text: partial, Partial: true}
		if !c.secret {
			c.watched(line)
		}
		events = append(events, event{line, c.scan(line), c.secret})
	}
	c.keepFlow(c.splitter.takeFlow())
	c.signal()
	taps := slices.Clone(c.taps)
	c.mu.Unlock()
	c.pass(events)
	for _, t := range taps {
		t.bytes(p, hidden)
	}
}

// lines takes complete lines. One that holds what is not to be shown is only
// searched for findings.
func (c *Console) lines(texts []string) []event {
	events := make([]event, 0, len(texts))
	for _, text := range texts {
		secret := c.secret || c.hidden > 0
		c.secret = false
		line := Line{Time: c.lastByte, Text: text}
		if !secret {
			c.ring.Add(line)
			c.watched(line)
		}
		events = append(events, event{line, c.scan(line), secret})
	}
	return events
}

func (c *Console) scan(line Line) []Finding {
	found := c.scanner.scan(line)
	c.findings = append(c.findings, found...)
	return found
}

func (c *Console) pass(events []event) {
	for _, e := range events {
		switch {
		case e.secret:
		case e.line.Partial && c.opt.OnPartial != nil:
			c.opt.OnPartial(e.line)
		case !e.line.Partial && c.opt.OnLine != nil:
			c.opt.OnLine(e.line)
		}
		if c.opt.OnFinding != nil {
			for _, f := range e.findings {
				c.opt.OnFinding(f)
			}
		}
	}
}

func (c *Console) log(p []byte) {
	if c.opt.Log == nil || c.logErr != nil || c.logged >= c.opt.LogLimit {
		return
	}
	if room := c.opt.LogLimit - c.logged; units.Bytes(len(p)) >= room {
		p = append(slices.Clone(p[:room]), logEnd...)
	}
	n, err := c.opt.Log.Write(p)
	c.logged += units.Bytes(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		c.logErr = fmt.Errorf("writing the serial log (it is incomplete): %w", err)
	}
}

// signal wakes up everyone who waits for a change. The caller holds mu.
func (c *Console) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Tail returns the last n lines (all that are kept when n is negative), the
// line in progress among them.
func (c *Console) Tail(n int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.ring.Tail(-1)
	if partial := c.splitter.Partial(); partial != "" && !c.secret {
		lines = append(lines, Line{Time: c.lastByte, Text: partial, Partial: true})
	}
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines
}

// Forgotten is the number of lines before those that Tail can give.
func (c *Console) Forgotten() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring.Forgotten()
}

// Bytes is how much the guest has sent.
func (c *Console) Bytes() units.Bytes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// LastByte is when the guest last sent anything, or when the console was made.
func (c *Console) LastByte() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastByte
}

// Findings returns what was found so far, in order. No kind is kept more than
// 16 times.
func (c *Console) Findings() []Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.findings)
}

// LogError is the error that made the log incomplete, or nil. Run returns it too.
func (c *Console) LogError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logErr
}
