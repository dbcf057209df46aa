package actions

import (
	"io"
	"sync"
)

// A MaskWriter passes on what is written to it, with *** for each secret, and
// for secrets that overlap or adjoin one for all of them. How the text is cut
// into writes does not matter. It holds back no more than the end of the text
// that could be the beginning of a secret, so a prompt is seen at once.
type MaskWriter struct {
	m *Masker
	w io.Writer

	mu    sync.Mutex
	a     *automaton
	state int32
	held  []byte // not passed on yet
	begin int64  // where held begins in the text
	end   int64  // where held ends
	spans []span // secrets that end after begin; in order, none touch
	done  int64  // where the last secret ends that *** was written for
}

// A span is a part of the text.
type span struct{ begin, end int64 }

// Writer returns a writer that masks what m knows at the time of each write. A
// secret that is made known later is masked from there on, what was held back
// included. Close passes on what is held back; it does not close w.
func (m *Masker) Writer(w io.Writer) *MaskWriter {
	return &MaskWriter{m: m, w: w, a: m.current(), done: -1}
}

// Write masks p. An error is that of the writer below, which may have taken
// a part; what it was to take is dropped.
func (w *MaskWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.renew()
	w.feed(p)
	// A secret to come begins no earlier than the text that the state stands for.
	settled := w.end - int64(w.a.nodes[w.state].depth)
	for _, s := range w.spans {
		if s.begin <= settled {
			settled = max(settled, s.end)
		}
	}
	if err := w.pass(settled); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close passes on what is held back: the text has ended, and so this is no
// secret. The writer can be used on, for another text.
func (w *MaskWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = 0
	err := w.pass(w.end)
	w.done = -1
	return err
}

// renew reads what is held back again when more secrets are known.
func (w *MaskWriter) renew() {
	a := w.m.current()
	if a == w.a {
		return
	}
	held := append([]byte(nil), w.held...)
	w.a, w.state = a, 0
	w.held, w.end = w.held[:0], w.begin
	w.feed(held)
}

// feed reads text and notes the secrets that end in it.
func (w *MaskWriter) feed(p []byte) {
	w.held = append(w.held, p...)
	for _, c := range p {
		w.end++
		if w.state = w.a.step(w.state, c); w.state == 0 {
			continue
		}
		n := w.a.nodes[w.state].match
		if n == 0 {
			continue
		}
		s := span{w.end - int64(n), w.end}
		for i := len(w.spans) - 1; i >= 0 && w.spans[i].end >= s.begin; i-- {
			s.begin = min(s.begin, w.spans[i].begin)
			w.spans = w.spans[:i]
		}
		w.spans = append(w.spans, s)
	}
}

// pass writes the text until limit, which no secret crosses.
func (w *MaskWriter) pass(limit int64) error {
	var out []byte
	plain := func(until int64) {
		if until > w.begin {
			out = append(out, w.held[:until-w.begin]...)
			w.held, w.begin = w.held[until-w.begin:], until
		}
	}
	passed := 0
	for _, s := range w.spans {
		if s.end > limit {
			break
		}
		passed++
		plain(s.begin)
		if s.begin > w.done {
			out = append(out, mask...)
		}
		w.done = max(w.done, s.end)
		if s.end > w.begin {
			w.held, w.begin = w.held[s.end-w.begin:], s.end
		}
	}
	w.spans = append(w.spans[:0], w.spans[passed:]...)
	plain(limit)
	w.held = append([]byte(nil), w.held...) // lets go of the text before
	if len(out) == 0 {
		return nil
	}
	_, err := w.w.Write(out)
	return err
}
