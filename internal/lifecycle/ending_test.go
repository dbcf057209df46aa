package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestEnding holds how long what comes at the end may take.
func TestEnding(t *testing.T) {
	for _, tc := range []struct {
		name      string
		interrupt time.Duration // after the beginning; negative: never
		begin     time.Duration // of what comes at the end
		want      time.Duration // how long that has
		budget    bool          // it was the interrupt's
	}{
		{"never interrupted", -1, 0, time.Minute, false},
		{"interrupted before", 0, time.Second, endBudget - 2*time.Second, true},
		{"interrupted meanwhile", 10 * time.Second, 0, 10*time.Second + endBudget - time.Second, true},
		{"interrupted long before", 0, time.Hour, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var e ending
				defer context.AfterFunc(ctx, func() { e.interrupted(time.Now()) })()
				if tc.interrupt >= 0 {
					go func() {
						time.Sleep(tc.interrupt)
						cancel()
					}()
				}
				time.Sleep(tc.begin)
				begin := time.Now()
				last, stop := e.context(ctx, time.Minute, time.Second)
				defer stop()
				<-last.Done()
				if took := time.Since(begin); took != tc.want {
					t.Errorf("it had %v, want %v", took, tc.want)
				}
				if got := errors.Is(context.Cause(last), budgetError{}); got != tc.budget {
					t.Errorf("cause %v", context.Cause(last))
				}
			})
		})
	}
}

// TestEndingCounts holds that a second interrupt gives no more time.
func TestEndingCounts(t *testing.T) {
	var e ending
	first := time.Now()
	e.interrupted(first)
	e.interrupted(first.Add(time.Minute))
	if got := e.deadline(); !got.Equal(first.Add(endBudget)) {
		t.Errorf("the deadline is %v after the first interrupt", got.Sub(first))
	}
}
