package metrics

import (
	"strings"
	"sync"
	"time"
)

// Phase is a part of a boot that could be told from the others.
type Phase struct {
	Name     PhaseName
	Start    time.Duration // since the start of QEMU
	Took     time.Duration
	Began    string // what showed its beginning, for people
	Ended    string // what showed its end; empty: the boot had not got further
	Complete bool
}

// scanLimit bounds the part of a line in which marks are looked for.
const scanLimit = 512

// The signs that are not lines of the console.
const (
	startSign  = "the start of QEMU"
	answerSign = "an SSH server's first word"
	readySign  = "the first command"
)

// sign is when a phase began, and what showed it.
type sign struct {
	at   time.Time
	name string
}

// Boot follows one boot. Its methods are safe for concurrent use.
//
// A phase begins with its first mark, and no mark counts any more once a later
// phase has begun: a guest may print anything. The end of a phase is the
// beginning of the next one; when that was not seen, the two can't be told
// apart, and neither is reported.
type Boot struct {
	marks []Mark

	mu     sync.Mutex
	signs  [5]sign // by the index in order
	last   int     // the phase that began last
	system System  // whose banner was seen
	ready  sign
}

// NewBoot begins with the start of QEMU. The marks are Marks, or none for a saved
// machine: what its console says is not about a boot.
func NewBoot(started time.Time, marks []Mark) *Boot {
	b := &Boot{marks: marks}
	b.signs[0] = sign{started, startSign}
	return b
}

// Saw takes a line of the console, or what is there of it.
func (b *Boot) Saw(at time.Time, line string) {
	if len(line) > scanLimit {
		line = line[:scanLimit]
	}
	if strings.TrimSpace(line) == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last >= index(Userland) {
		return // nothing that the console says matters any more
	}
	for _, m := range b.marks {
		i := index(m.Begins)
		if i <= b.last || m.System != "" && b.system != "" && m.System != b.system || !m.in(line) {
			continue
		}
		b.begin(i, sign{at, m.Name})
		if m.Begins == Kernel {
			b.system = m.System
		}
	}
}

// Answered says that an SSH server of the guest has spoken; only the first time counts.
func (b *Boot) Answered(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := index(SSH); b.last < i && b.ready.at.IsZero() {
		b.begin(i, sign{at, answerSign})
	}
}

// Ready says that the guest is up: a command has run in it.
func (b *Boot) Ready(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ready.at.IsZero() {
		b.ready = sign{at, readySign}
	}
}

func (b *Boot) begin(i int, s sign) {
	b.signs[i], b.last = s, i
}

// Phases are those that are known. A boot that is not ready has one that is not
// complete and goes until end, unless nothing at all was seen.
func (b *Boot) Phases(end time.Time) []Phase {
	b.mu.Lock()
	defer b.mu.Unlock()
	var phases []Phase
	for i, name := range order {
		s := b.signs[i]
		if s.at.IsZero() {
			continue
		}
		next, complete := b.after(i)
		if !complete && (i < b.last || i == 0 || !b.ready.at.IsZero()) {
			continue // it has ended, nobody knows when
		}
		p := Phase{Name: name, Start: s.at.Sub(b.signs[0].at), Took: end.Sub(s.at), Began: s.name}
		if complete {
			p.Took, p.Ended, p.Complete = next.at.Sub(s.at), next.name, true
		}
		phases = append(phases, p)
	}
	return phases
}

// after is the sign that ends a phase. Without SSH the userland ends when the
// guest is ready.
func (b *Boot) after(i int) (sign, bool) {
	next := b.ready
	if i+1 < len(order) && (order[i] != Userland || !b.signs[i+1].at.IsZero()) {
		next = b.signs[i+1]
	}
	return next, !next.at.IsZero()
}

func index(name PhaseName) int {
	for i, n := range order {
		if n == name {
			return i
		}
	}
	return -1
}
