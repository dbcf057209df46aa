package image

import (
	"sync"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// reportEvery is the least time between two reports of one step.
const reportEvery = 250 * time.Millisecond

// meter makes reports of a growing number of bytes.
type meter struct {
	s      *Store
	step   Step
	source string

	mu     sync.Mutex
	last   time.Time // of the last report
	done   int64     // at the last report
	rate   float64   // per second, smoothed
	silent bool
}

func (s *Store) meter(step Step, source string) *meter {
	return &meter{s: s, step: step, source: source, last: s.now(), silent: s.Progress == nil}
}

// Reports makes reports of a transfer that is done elsewhere. The function that
// it returns takes the state; total is -1 when not known.
func Reports(step Step, source string, report func(Report)) func(done, total int64) {
	return (&Store{Progress: report}).meter(step, source).at
}

// at takes the state; total is -1 when not known. What was there from the
// beginning does not count for the rate.
func (m *meter) at(done, total int64) {
	if m.silent {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.s.now()
	past := now.Sub(m.last)
	if past < reportEvery && (done != total || done == m.done) {
		return
	}
	if m.done > 0 && past > 0 {
		const weight = 0.3 // of the newest interval
		current := float64(done-m.done) / past.Seconds()
		if m.rate == 0 {
			m.rate = current
		}
		m.rate += weight * (current - m.rate)
	}
	m.last, m.done = now, done
	r := Report{Step: m.step, Source: m.source, Done: units.Bytes(done), Total: units.Bytes(max(total, 0)), Rate: units.Bytes(m.rate)}
	if m.rate > 0 && total > done {
		r.Left = time.Duration(float64(total-done) / m.rate * float64(time.Second))
	}
	m.s.report(r)
}

// note reports an event.
func (m *meter) note(text string) {
	m.s.report(Report{Step: m.step, Source: m.source, Note: text})
}
