package lifecycle

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/hurd-qemu-action/internal/snapshot"
)

func never(time.Duration) time.Duration         { return 0 }
func half(passed time.Duration) time.Duration   { return passed / 2 }
func always(passed time.Duration) time.Duration { return passed }

// TestAllowance has hosts that are busy to different degrees.
func TestAllowance(t *testing.T) {
	for _, tc := range []struct {
		name    string
		starved func(passed time.Duration) time.Duration
		waited  func(passed time.Duration) time.Duration
		want    time.Duration // until the end
		says    string
		slow    bool // the cache
	}{
		{"idle", never, never, 4 * time.Second, "within 4s", false},
		{"hardly busy", func(time.Duration) time.Duration { return leastExtension - 1 }, never, 4 * time.Second, "within 4s", false},
		{"busy once", func(time.Duration) time.Duration { return time.Second }, never, 5 * time.Second, "within 5s", false},
		{"half of the time", half, never, 7900 * time.Millisecond, "within 7.9", false},
		{"always", always, never, 34 * time.Second, "within 34s", false},
		{"a cache that is not fast", never, half, 7900 * time.Millisecond, "within 7.9", false},
		{"busy, and a cache that is not fast", half, func(passed time.Duration) time.Duration { return passed / 3 }, 23700 * time.Millisecond, "within 23.7s", false},
		{"a slow cache", never, always, 34 * time.Second, "within 34s, 34s of which its disk was waited for", true},
		{"busy, and a slow cache", half, half, 34 * time.Second, "within 34s, 17s of which its disk was waited for", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := &allowance{limit: 4 * time.Second, most: starvedTime,
					starved: func() time.Duration { return tc.starved(time.Since(began)) },
					waited:  func() time.Duration { return tc.waited(time.Since(began)) }}
				ctx, cancel := p.context(t.Context())
				defer cancel()
				<-ctx.Done()
				if got := time.Since(began); (got - tc.want).Abs() > 100*time.Millisecond {
					t.Errorf("ended after %v, want %v", got, tc.want)
				}
				err := caused(ctx, io.ErrUnexpectedEOF)
				if !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%v, want %q", err, tc.says)
				}
				if slow := (&run{}).otherFault(err) != ""; slow != tc.slow {
					t.Errorf("the cache is at fault: %t, want %t", slow, tc.slow)
				}
				if why := (&run{}).otherFault(errors.Join(snapshot.ErrDamaged, err)); why != "" {
					t.Errorf("a damaged machine is kept: %s", why)
				}
				if caused(ctx, err) != err { //nolint:errorlint // the same one
					t.Errorf("the cause is told twice: %v", caused(ctx, err))
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
