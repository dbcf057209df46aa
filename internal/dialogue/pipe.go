package dialogue

import (
	"bytes"
	"io"
	"sync"
)

// pipeMost is how much a pipe holds before its writer has to wait.
const pipeMost = 8 << 20

// A pipe carries a job's output to whoever reads it. Closing it lets what is in
// it be read; abandoning it frees both sides at once.
type pipe struct {
	mu        sync.Mutex
	cond      *sync.Cond
	buf       bytes.Buffer
	closed    bool
	abandoned bool
}

func newPipe() *pipe {
	p := &pipe{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 && !p.closed && !p.abandoned {
		p.cond.Wait()
	}
	if p.abandoned || p.buf.Len() == 0 {
		return 0, io.EOF
	}
	n, err := p.buf.Read(b)
	p.cond.Broadcast()
	return n, err
}

// Write is io.Writer; RFC 4254 lets either side of standard error be written,
// and nobody writes ours.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() >= pipeMost && !p.closed && !p.abandoned {
		p.cond.Wait()
	}
	if !p.closed && !p.abandoned {
		p.buf.Write(b)
		p.cond.Broadcast()
	}
	return len(b), nil
}

func (p *pipe) end(abandon bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.abandoned = p.abandoned || abandon
	p.cond.Broadcast()
}
