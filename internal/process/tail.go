package process

import (
	"io"
	"sync"
)

// Tail is a writer that keeps the last Limit bytes. It is safe for use by
// several goroutines.
type Tail struct {
	Limit int // bytes to keep; 0 keeps none

	mu  sync.Mutex
	buf []byte
	cut bool
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.Limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns what was kept.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// Truncated tells whether earlier bytes were dropped.
func (t *Tail) Truncated() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut
}

type tee struct{ first, second io.Writer }

func (t *tee) Write(p []byte) (int, error) {
	_, _ = t.second.Write(p)
	return t.first.Write(p)
}
