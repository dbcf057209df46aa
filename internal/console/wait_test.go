package console

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestWaitTerminalAfterManyFalseAlarms lets a guest print the same panic more
// often than findings are kept: the last one is seen all the same.
func TestWaitTerminalAfterManyFalseAlarms(t *testing.T) {
	now := time.Unix(1000, 0)
	c := New(nil, Options{Now: func() time.Time { return now }})
	since := now
	for i := range 3 * perKind {
		now = now.Add(time.Second)
		c.take([]byte(fmt.Sprintf("[ %d.0] Kernel panic - not syncing: number %d\n", i, i)))
		f, err := c.WaitTerminal(t.Context(), since)
		if err != nil || !strings.Contains(f.Line.Text, fmt.Sprintf("number %d", i)) {
			t.Fatalf("number %d: %+v, %v", i, f, err)
		}
		since = f.Line.Time
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := c.WaitTerminal(ctx, since); err == nil {
		t.Errorf("found %+v again", f)
	}
	if n := len(c.Findings()); n > perKind {
		t.Errorf("%d findings are kept", n)
	}
}
