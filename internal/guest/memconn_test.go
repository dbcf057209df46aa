package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A memConn is one end of a connection within this process, for tests in which
// time is simulated: a network socket would stop the simulated clock.
type memConn struct {
	in, out *memQueue
}

func memPipe() (a, b net.Conn) {
	x, y := newMemQueue(), newMemQueue()
	return &memConn{x, y}, &memConn{y, x}
}

func (c *memConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

func (c *memConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *memConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *memConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *memConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type memQueue struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newMemQueue() *memQueue {
	q := &memQueue{}
	q.cond = sync.NewCond(&q.mu)
	return q
}

func (q *memQueue) read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.buf.Len() == 0 {
		if q.closed {
			return 0, io.EOF
		}
		q.cond.Wait()
	}
	return q.buf.Read(p)
}

func (q *memQueue) write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, io.ErrClosedPipe
	}
	defer q.cond.Broadcast()
	return q.buf.Write(p)
}

func (q *memQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.cond.Broadcast()
}

// A forward is QEMU's user network: it accepts at once, whatever the guest does.
type forward struct {
	server *sshServer
	// answer decides what becomes of a connection made at this time after the
	// start: how long until the guest answers, or what it answers.
	answer func(number int, at time.Duration) (delay time.Duration, do reaction)

	mu     sync.Mutex
	begin  time.Time
	count  int
	live   int
	most   int // live at once
	conns  []net.Conn
	starts []time.Duration
}

type reaction int

const (
	serve   reaction = iota // an SSH server takes it
	reset                   // it is closed
	silence                 // nothing ever comes
	junk                    // something that is not SSH answers
	babble                  // the server's first line comes, and nothing else
)

func newForward(s *sshServer) *forward { return &forward{server: s, begin: time.Now()} }

func (f *forward) dial(_ context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := memPipe()
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Since(f.begin)
	f.count++
	f.live++
	f.most = max(f.most, f.live)
	f.starts = append(f.starts, at)
	f.conns = append(f.conns, ours, theirs)
	delay, do := f.answer(f.count, at)
	time.AfterFunc(delay, func() {
		switch do {
		case serve:
			f.server.serve(theirs)
		case reset:
			_ = theirs.Close()
		case junk:
			_, _ = theirs.Write([]byte("HTTP/1.1 400 Bad Request\r\n\x1b[31m\r\n\r\n"))
			_ = theirs.Close()
		case babble:
			_, _ = theirs.Write([]byte("SSH-2.0-stuck\r\n"))
		case silence:
		}
	})
	return &countedConn{Conn: ours, closed: func() {
		f.mu.Lock()
		f.live--
		f.mu.Unlock()
	}}, nil
}

// stop ends every connection: no goroutine may outlive a simulated time.
func (f *forward) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
}

type countedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *countedConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
