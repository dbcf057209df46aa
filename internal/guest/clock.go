package guest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A ClockError says that the guest's clock could not be set. The guest is
// usable; its clock is wrong by Skew.
type ClockError struct {
	Skew   time.Duration // guest minus host, before; 0 when it could not be read
	Status ExitStatus
	Stderr string // what date said
}

// Error says how wrong the clock is and what date said.
func (e *ClockError) Error() string {
	return fmt.Sprintf("setting the guest's clock (which is off by %s): date %s: %s", e.Skew, e.Status, e.Stderr)
}

// SetClock sets the guest's clock and returns by how much it was off (guest
// minus host, to the second) before. Only root may do so in most guests: failing
// is a *ClockError, with the skew when the clock could at least be read.
func (c *Client) SetClock(ctx context.Context, now time.Time) (skew time.Duration, err error) {
	seconds := now.Round(time.Second).Unix()
	var out, diag bounded
	line := fmt.Sprintf("date -u +%%s; date -u -s @%d >/dev/null", seconds)
	status, err := c.Run(ctx, Command{Line: line, Stdout: &out, Stderr: &diag})
	if err != nil {
		return 0, fmt.Errorf("setting the guest's clock: %w", err)
	}
	guest, readErr := strconv.ParseInt(strings.TrimSpace(lastLine(out.String())), 10, 64)
	if readErr == nil {
		skew = inSeconds(guest - seconds)
	}
	if readErr != nil || status.Code != 0 {
		text := strings.TrimSpace(diag.String())
		if readErr != nil {
			text += " (it printed " + strconv.Quote(printable(out.String())) + ")"
		}
		return skew, &ClockError{Skew: skew, Status: status, Stderr: printable(strings.TrimSpace(text))}
	}
	return skew, nil
}

// inSeconds makes a duration of seconds that a hostile guest may have chosen.
func inSeconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(max(min(n, most), -most)) * time.Second
}
