package results

import "sync"

// Progress is told how many bytes are done, of how many; total is -1 when it is
// not known. It is never called twice at a time. When a transfer has to begin
// anew, done does, too.
type Progress func(done, total int64)

// meter adds up what several connections transfer.
type meter struct {
	progress Progress // nil: nobody wants to know

	mu    sync.Mutex
	done  int64
	total int64
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done += n; m.progress != nil {
		m.progress(m.done, m.total)
	}
}

func (m *meter) reset(total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.total = 0, total
}
