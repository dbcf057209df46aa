package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A ClockError says that the guest's clock could not be set. The guest is
// usable; its clock is wrong by Skew.
type ClockError struct {
	Skew   time.Duration // guest minus host, before; 0 when it is not known
	Known  bool          // Skew is
	Status ExitStatus
	Stderr string // what date said
}

// Error says how wrong the clock is and what date said.
func (e *ClockError) Error() string {
	off := ""
	if e.Known {
		off = fmt.Sprintf(" (which is off by %s)", e.Skew)
	}
	return fmt.Sprintf("setting the guest's clock%s: date %s: %s", off, e.Status, e.Stderr)
}

// clock is what became of setting the guest's clock.
type clock struct {
	skew time.Duration
	err  error
	set  bool // or was tried to
}

// Clock tells by how much the guest's clock was off (guest minus host, to the
// second) when it was last set, by the Greeting or SetClock; 0 for a Greeting
// that renews. Only root may do so in most guests: failing is a *ClockError, with the
// skew when the clock could at least be read.
func (c *Client) Clock() (skew time.Duration, err error) {
	if !c.told.clock.set {
		return 0, errors.New("nobody has set the guest's clock")
	}
	return c.told.clock.skew, c.told.clock.err
}

// SetClock sets the guest's clock once more and is like Clock otherwise. It is
// not to be called twice at a time.
func (c *Client) SetClock(ctx context.Context) (skew time.Duration, err error) {
	answer, err := c.hello(ctx, Greeting{SetClock: true})
	if err != nil {
		return 0, fmt.Errorf("setting the guest's clock: %w", err)
	}
	c.told.clock = answer.clock
	return c.Clock()
}

// readClock reads "BEFORE STATUS TEXT", where the clock was to be set to now.
// BEFORE is - when the time was not asked for.
func readClock(answer string, now time.Time) clock {
	was, rest, _ := strings.Cut(answer, " ")
	code, text, _ := strings.Cut(rest, " ")
	status, statusErr := strconv.ParseUint(code, 10, 8)
	seconds, err := strconv.ParseInt(was, 10, 64)
	c := clock{set: true}
	switch {
	case was == "-":
		err = nil
	case err == nil:
		c.skew = inSeconds(seconds - now.Unix())
	default:
		text += " (the time could not be read)"
	}
	if err != nil || statusErr != nil || status != 0 {
		c.err = &ClockError{Skew: c.skew, Known: err == nil && was != "-", Status: ExitStatus{Code: int(status)}, Stderr: printable(strings.TrimSpace(text))}
	}
	return c
}

// inSeconds makes a duration of seconds that a hostile guest may have chosen.
func inSeconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(max(min(n, most), -most)) * time.Second
}
