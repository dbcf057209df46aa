package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ErrEnded is wrapped by the errors of waits for a console that has ended.
var ErrEnded = errors.New("the serial console has ended")

const (
	// flowLimit bounds the output kept for Expect; the oldest is dropped.
	flowLimit = 64 << 10
	// typeSize is how much Send types at once: the FIFO of a 16550 UART.
	typeSize = 16
)

func (c *Console) keepFlow(p []byte) {
	c.flow = append(c.flow, p...)
	if over := len(c.flow) - flowLimit; over > 0 {
		c.flow = slices.Delete(c.flow, 0, over)
	}
}

// wait calls done, under the lock, until it returns true, each time after
// something has changed.
func (c *Console) wait(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		ok, ended, endErr, changed := done(), c.ended, c.endErr, c.changed
		c.mu.Unlock()
		switch {
		case ok:
			return nil
		case ended && endErr != nil:
			return fmt.Errorf("%w: %w", ErrEnded, endErr)
		case ended:
			return ErrEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Expect waits for output that matches re and was not consumed by an earlier
// Expect, consumes everything up to the end of the match, and returns the match
// and its submatches. It sees the characters in the order in which they came,
// lines ended by \n, without escape sequences and carriage returns; the line in
// progress as well. At most the last 64 KiB wait to be consumed. One caller at
// a time.
//
// The error wraps the context's cause or ErrEnded and quotes the last line.
func (c *Console) Expect(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	var match []string
	err := c.wait(ctx, func() bool {
		at := re.FindSubmatchIndex(c.flow)
		if at == nil {
			return false
		}
		for i := 0; i < len(at); i += 2 {
			text := ""
			if at[i] >= 0 {
				text = string(c.flow[at[i]:at[i+1]])
			}
			match = append(match, text)
		}
		c.flow = slices.Delete(c.flow, 0, at[1])
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for %q on the serial console (its last line is %q): %w", re, c.lastLine(), err)
	}
	return match, nil
}

func (c *Console) lastLine() string {
	lines := c.Tail(-1)
	for _, line := range slices.Backward(lines) {
		if text := strings.TrimSpace(line.Text); text != "" {
			return text[:min(len(text), 200)]
		}
	}
	return ""
}

// WaitLine returns the first line that matches, past or to come; the line in
// progress as well, since a prompt has no end. The error wraps the context's
// cause or ErrEnded.
func (c *Console) WaitLine(ctx context.Context, re *regexp.Regexp) (Line, error) {
	var found Line
	seen := int64(0) // lines that did not match, from the very first on
	err := c.wait(ctx, func() bool {
		kept := c.ring.kept
		for _, line := range kept[min(max(seen-c.ring.lost, 0), int64(len(kept))):] {
			if re.MatchString(line.Text) {
				found = line
				return true
			}
		}
		seen = c.ring.lost + int64(len(kept))
		found = Line{Time: c.lastByte, Text: c.splitter.Partial(), Partial: true}
		return !c.secret && found.Text != "" && re.MatchString(found.Text)
	})
	if err != nil {
		return Line{}, fmt.Errorf("waiting for a line with %q on the serial console: %w", re, err)
	}
	return found, nil
}

// WaitFinding returns the first finding of one of the kinds, past or to come;
// without kinds, the first terminal one. The error wraps the context's cause or
// ErrEnded.
func (c *Console) WaitFinding(ctx context.Context, kinds ...Kind) (Finding, error) {
	return c.waitFinding(ctx, describe(kinds), func(f Finding) bool {
		return slices.Contains(kinds, f.Kind) || len(kinds) == 0 && f.Terminal()
	})
}

// WaitTerminal returns the last terminal finding, if its line came later than
// since, or the next one.
// What a console says is no proof: whoever finds the guest alive all the same
// waits again, from the time of that line on.
func (c *Console) WaitTerminal(ctx context.Context, since time.Time) (Finding, error) {
	var found Finding
	// Not among the findings that are kept, which are bounded: a guest that
	// cries wolf must not hide its real end.
	err := c.wait(ctx, func() bool {
		found = c.scanner.terminal
		return found.Terminal() && found.Line.Time.After(since)
	})
	if err != nil {
		return Finding{}, fmt.Errorf("waiting for %s on the serial console: %w", describe(nil), err)
	}
	return found, nil
}

func (c *Console) waitFinding(ctx context.Context, what string, fits func(Finding) bool) (Finding, error) {
	var found Finding
	seen := 0
	err := c.wait(ctx, func() bool {
		for _, f := range c.findings[seen:] {
			if fits(f) {
				found = f
				return true
			}
		}
		seen = len(c.findings)
		return false
	})
	if err != nil {
		return Finding{}, fmt.Errorf("waiting for %s on the serial console: %w", what, err)
	}
	return found, nil
}

func describe(kinds []Kind) string {
	if len(kinds) == 0 {
		return "the guest's end"
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, " or ")
}

// WaitSilence returns nil as soon as the guest has sent nothing for the given
// time, counted from its last byte or from when the console was made. The error
// is the context's cause or ErrEnded.
func (c *Console) WaitSilence(ctx context.Context, limit time.Duration) error {
	for {
		c.mu.Lock()
		before, rest := c.bytes, limit-c.opt.Now().Sub(c.lastByte)
		c.mu.Unlock()
		quiet, cancel := context.WithTimeoutCause(ctx, rest, errQuiet)
		err := c.wait(quiet, func() bool { return c.bytes != before })
		cancel()
		if errors.Is(err, errQuiet) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var errQuiet = errors.New("no byte came in time")

// Send types text on the console. Serial lines have no flow control that a
// guest could use, and a guest that is busy loses what comes too fast: so 16
// bytes are written at a time, and the next only when as many bytes have come
// back (the echo) or, where nothing is echoed (passwords), after the EchoWait
// of the options. End text with \r or \n as the guest expects it: a getty takes
// both. Texts of several callers do not mix.
//
// When ctx ends the connection's SetWriteDeadline, where it has one, stops a
// write that the machine does not take.
func (c *Console) Send(ctx context.Context, text string) error {
	select {
	case <-c.sending:
		defer func() { c.sending <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("typing on the serial console: %w", context.Cause(ctx))
	}
	stop := c.stopWriting(ctx)
	defer stop()
	for len(text) > 0 {
		n := min(typeSize, len(text))
		before := c.Bytes()
		if _, err := io.WriteString(c.conn, text[:n]); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("typing on the serial console: %w", err)
		}
		text = text[n:]
		if err := c.echo(ctx, before, n); err != nil {
			return fmt.Errorf("typing on the serial console: %w", err)
		}
	}
	return nil
}

// echo waits until n bytes have come since the count was before.
func (c *Console) echo(ctx context.Context, before units.Bytes, n int) error {
	late, cancel := context.WithTimeoutCause(ctx, c.opt.EchoWait, errQuiet)
	defer cancel()
	err := c.wait(late, func() bool { return c.bytes >= before+units.Bytes(n) })
	if errors.Is(err, errQuiet) {
		return nil
	}
	return err
}

// stopWriting bounds writes by ctx; the function that it returns lifts that.
func (c *Console) stopWriting(ctx context.Context) (lift func()) {
	d, ok := c.conn.(interface{ SetWriteDeadline(time.Time) error })
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = d.SetWriteDeadline(time.Unix(1, 0)) // without deadlines the write ends with the machine
	})
	return func() {
		if !stop() {
			<-done
			_ = d.SetWriteDeadline(time.Time{}) // for the next Send
		}
	}
}
