package shard

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// trace records when jobs run.
type trace struct {
	mu      sync.Mutex
	running int
	most    int
	order   []int
	began   map[int]time.Duration
	start   time.Time
}

func newTrace() *trace { return &trace{began: map[int]time.Duration{}, start: time.Now()} }

func (tr *trace) job(i int, took time.Duration) {
	tr.mu.Lock()
	tr.running++
	tr.most = max(tr.most, tr.running)
	tr.order = append(tr.order, i)
	tr.began[i] = time.Since(tr.start)
	tr.mu.Unlock()
	time.Sleep(took)
	tr.mu.Lock()
	tr.running--
	tr.mu.Unlock()
}

// TestScheduleWaitsForTheFirst holds that the others wait until the first guest
// is saved, and not until its script has ended.
func TestScheduleWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrace()
		started := Schedule(t.Context(), 5, 2, func(i int, settled func()) bool {
			if i == 0 {
				time.AfterFunc(time.Second, settled)
				tr.job(i, 10*time.Second)
				return true
			}
			tr.job(i, time.Second)
			return true
		})
		if started != 5 || tr.most != 2 || tr.running != 0 || !slices.Equal(tr.order, []int{0, 1, 2, 3, 4}) {
			t.Errorf("%d started, at most %d at once, %d left, in the order %v", started, tr.most, tr.running, tr.order)
		}
		for i, want := range []time.Duration{0, 1, 2, 3, 4} {
			if tr.began[i] != want*time.Second {
				t.Errorf("job %d began after %v, want %d s", i, tr.began[i], want)
			}
		}
	})
}

// TestScheduleAll holds how many jobs run, and when, for what the first ones say.
func TestScheduleAll(t *testing.T) {
	for _, tc := range []struct {
		name    string
		settles []int // jobs that do, at once
		goOn    bool
		limit   int
		want    int
		most    int
		took    time.Duration
	}{
		{"there is a saved machine", []int{0}, true, 3, 6, 3, 2 * time.Second},
		{"one at a time", []int{0}, true, 1, 6, 1, 6 * time.Second},
		{"more at once than there are", []int{0}, true, 50, 6, 6, time.Second},
		{"the first guest was lost", []int{1}, true, 5, 6, 5, 2 * time.Second},
		{"all are lost", nil, true, 3, 6, 1, 6 * time.Second},
		{"there is no image", nil, false, 3, 1, 1, time.Second},
		{"a failure of one's own", []int{0}, false, 3, 6, 3, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTrace()
				started := Schedule(t.Context(), 6, tc.limit, func(i int, settled func()) bool {
					if slices.Contains(tc.settles, i) {
						settled()
						settled() // once more changes nothing
					}
					tr.job(i, time.Second)
					return tc.goOn
				})
				if took := time.Since(tr.start); started != tc.want || len(tr.order) != tc.want || tr.most != tc.most || took != tc.took {
					t.Errorf("%d started, %d ran, at most %d at once, in %v; want %d, %d, %v", started, len(tr.order), tr.most, took, tc.want, tc.most, tc.took)
				}
			})
		})
	}
}

// TestScheduleEnds holds that nothing is started after the end of the context,
// and that what runs is waited for.
func TestScheduleEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		want  int
	}{{"before", 0, 0}, {"the first is not settled", 500 * time.Millisecond, 1}, {"the pool is full", 2500 * time.Millisecond, 3}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				if tc.after == 0 {
					cancel()
				}
				time.AfterFunc(tc.after, cancel)
				tr := newTrace()
				started := Schedule(ctx, 9, 2, func(i int, settled func()) bool {
					time.AfterFunc(time.Second, settled)
					tr.job(i, 2*time.Second)
					return true
				})
				if started != tc.want || tr.running != 0 || len(tr.order) != started {
					t.Errorf("%d started, want %d; %d ran, %d still run", started, tc.want, len(tr.order), tr.running)
				}
				cancel()
			})
		})
	}
}
