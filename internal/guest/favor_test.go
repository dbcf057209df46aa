package guest

import (
	"context"
	"fmt"
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

// TestDialHint makes an attempt as soon as something says that the guest is
// about to answer, however many others wait.
func TestDialHint(t *testing.T) {
	for _, up := range []time.Duration{50 * time.Millisecond, 10010 * time.Millisecond, 100 * time.Second} {
		t.Run(fmt.Sprint(up), func(t *testing.T) {
			simulated(t, func(t *testing.T, f *forward, o Options) {
				f.answer = func(_ int, at time.Duration) (time.Duration, reaction) {
					if at < up {
						return 0, silence
					}
					return 0, serve
				}
				hint := make(chan struct{}, 1)
				o.Hint = hint
				time.AfterFunc(up, func() { hint <- struct{}{} })
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				c, err := Dial(ctx, o)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(f.begin); took != up {
					t.Errorf("took %v", took)
				}
				if f.most > 4 { // one that was given up may not have ended yet
					t.Errorf("%d connections at once", f.most)
				}
				_ = c.Close()
			})
		})
	}
}
