package qemu

import (
	"net"
	"sync"
	"time"
)

// console is the guest's serial line. It remembers whether someone reads it,
// so that what QEMU wrote last is not lost when the machine is stopped.
type console struct {
	net.Conn
	once    sync.Once
	reading chan struct{} // closed at the first Read
	ended   chan struct{} // closed when a Read has failed
	close   sync.Once
	finish  sync.Once
}

func newConsole(conn net.Conn) *console {
	return &console{Conn: conn, reading: make(chan struct{}), ended: make(chan struct{})}
}

// Read passes on what the guest wrote; io.EOF follows QEMU's end.
func (c *console) Read(p []byte) (int, error) {
	c.once.Do(func() { close(c.reading) })
	n, err := c.Conn.Read(p)
	if err != nil && !isTimeout(err) {
		c.finish.Do(func() { close(c.ended) })
	}
	return n, err
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// drain gives a reader the time to take what is left.
func (c *console) drain(limit time.Duration) {
	select {
	case <-c.reading:
	default:
		return // nobody reads
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
	}
}

// Close may be called more than once.
func (c *console) Close() error {
	var err error
	c.close.Do(func() { err = c.Conn.Close() })
	return err
}
