package qemu

import (
	"context"
	"sync"
	"time"
)

// What a Sampler does that is told nothing else.
const (
	defaultInterval = time.Second
	defaultSamples  = 600
)

// Sampler records a machine's Usage over time within bounded memory: when it
// has as many samples as it may keep, it forgets every second one and samples
// half as often from then on.
type Sampler struct {
	Interval time.Duration // between samples at the beginning; 0: 1 s
	Limit    int           // how many samples are kept at most, at least 2; 0: 600

	mu      sync.Mutex
	samples []Usage
}

// Run samples until ctx ends, at once and then at every interval. usage is
// Machine.Usage. There is never more than one question under way: while the
// monitor is slow to answer, samples are left out, so that none pile up before
// a command of someone else's. A failed question is a sample left out as well.
// When Run returns, no question is under way.
func (s *Sampler) Run(ctx context.Context, usage func(context.Context) (Usage, error)) {
	interval, limit := s.Interval, s.Limit
	if interval <= 0 {
		interval = defaultInterval
	}
	if limit == 0 {
		limit = defaultSamples
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		// A ticker drops the ticks that come while this takes its time.
		if u, err := usage(ctx); err == nil && s.add(u, max(limit, 2)) {
			interval *= 2
			ticker.Reset(interval)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// add keeps a sample and tells whether the resolution was halved for it.
func (s *Sampler) add(u Usage, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, u)
	if len(s.samples) <= limit {
		return false
	}
	kept := s.samples[:0]
	for i := 0; i < len(s.samples); i += 2 {
		kept = append(kept, s.samples[i])
	}
	s.samples = kept
	return true
}

// Samples returns a copy of what was recorded so far, oldest first.
func (s *Sampler) Samples() []Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Usage(nil), s.samples...)
}
