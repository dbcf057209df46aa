package guest

import (
	"fmt"
	"io"
	"sync"
)

// output passes a command's two streams on, one write at a time.
type output struct {
	heard chan struct{} // holds a token when something came

	mu     sync.Mutex
	closed bool
	err    error
}

func (o *output) copy(w io.Writer, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			o.write(w, buf[:n])
		}
		if err != nil {
			return // the end of the channel; e.requests knows why
		}
	}
}

func (o *output) write(w io.Writer, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.heard <- struct{}{}:
	default:
	}
	if w == nil || o.closed || o.err != nil {
		return // a command that can't write would stand still
	}
	if _, err := w.Write(p); err != nil {
		o.err = fmt.Errorf("passing its output on: %w", err)
	}
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
