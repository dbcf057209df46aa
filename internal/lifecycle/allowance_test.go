package lifecycle

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAllowance has hosts that are busy to different degrees.
func TestAllowance(t *testing.T) {
	for _, tc := range []struct {
		name    string
		starved func(passed time.Duration) time.Duration
		want    time.Duration // until the end
		says    string
	}{
		{"idle", func(time.Duration) time.Duration { return 0 }, 4 * time.Second, "within 4s"},
		{"hardly busy", func(time.Duration) time.Duration { return leastExtension - 1 }, 4 * time.Second, "within 4s"},
		{"busy once", func(time.Duration) time.Duration { return time.Second }, 5 * time.Second, "within 5s"},
		{"half of the time", func(passed time.Duration) time.Duration { return passed / 2 }, 7900 * time.Millisecond, "within 7.9"},
		{"always", func(passed time.Duration) time.Duration { return passed }, 14 * time.Second, "within 14s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := &allowance{limit: 4 * time.Second, most: 10 * time.Second, starved: func() time.Duration { return tc.starved(time.Since(began)) }}
				ctx, cancel := p.context(t.Context())
				defer cancel()
				<-ctx.Done()
				if got := time.Since(began); (got - tc.want).Abs() > 100*time.Millisecond {
					t.Errorf("ended after %v, want %v", got, tc.want)
				}
				if cause := context.Cause(ctx); !strings.Contains(cause.Error(), tc.says) {
					t.Errorf("%v, want %q", cause, tc.says)
				}
			})
		})
	}
}

// TestAllowanceEnds: it costs nothing when the machine is there, and before there is one.
func TestAllowanceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := restoreAllowance(restoreTime)
		if got := p.starved(); got < 0 || got > time.Second {
			t.Errorf("no machine was starved for %v", got)
		}
		ctx, cancel := p.context(t.Context())
		cancel()
		synctest.Wait() // else the test would be left with a goroutine
		if ctx.Err() == nil {
			t.Error("it has not ended")
		}
	})
}
