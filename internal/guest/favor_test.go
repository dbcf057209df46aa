package guest

import (
	"context"
	"testing"
	"time"
)

// TestDialFavors: when a server begins to speak to one of several connections,
// the others are closed, and it is not asked to exchange keys with them.
func TestDialFavors(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		// All connections of the first 3 s are answered at that moment, but for the
		// first, which gets nothing but a first line.
		f.answer = func(n int, at time.Duration) (time.Duration, reaction) {
			switch {
			case n == 1:
				return 3 * time.Second, babble
			case at < 3*time.Second:
				return 3*time.Second + time.Duration(n)*time.Millisecond - at, serve
			}
			return 0, serve
		}
		failed := 0
		o.OnFailure = func(int, Stage, error) { failed++ }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := Dial(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		// 15 s is what a server gets that has spoken; the next attempt is a new one.
		if took := time.Since(f.begin); took < 18*time.Second || took > 19*time.Second || failed != 3 {
			t.Errorf("after %v and %d failures, want 18 s and the two quick ones that were replaced, and the first", took, failed)
		}
		_ = c.Close()
	})
}
