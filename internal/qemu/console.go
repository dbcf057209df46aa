package qemu

import (
	"io"
	"net"
	"sync"
	"time"
)

// drainTime bounds the reading of what a dead QEMU has left in a socket. It
// takes no time at all, unless someone else holds the other end.
const drainTime = 500 * time.Millisecond

// console is the guest's serial line. What QEMU wrote before its end can be
// read for ever, even when the descriptor is long closed.
type console struct {
	net.Conn

	reading  sync.Mutex // held while the socket is read
	finished bool       // the socket is closed, and rest holds what was in it
	rest     []byte
}

// Read passes on what the guest wrote, and io.EOF after QEMU's end.
func (c *console) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if !c.finished {
		return c.Conn.Read(p)
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// finish takes what is left in the socket, when QEMU is gone, and closes it.
// A reader that waits in the socket comes back first: there is an end to read.
func (c *console) finish() {
	_ = c.SetReadDeadline(time.Now().Add(drainTime)) // a socket that was closed already needs none
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.finished {
		return
	}
	c.rest, _ = io.ReadAll(c.Conn) // as much as there is
	c.finished = true
	_ = c.Close() // nothing more can be sent to QEMU
}
