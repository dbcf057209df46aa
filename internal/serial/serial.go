// Package serial shares a serial line of a machine among clients: over TCP, raw
// or as telnet, and over Unix sockets. A serial line has no connections of its
// own, so what comes while nobody listens is kept for the next one.
package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// keptMost is how much output is kept for later clients.
	keptMost = 64 << 10
	// queueMost is how far behind a client may be. One that does not read must
	// not hold up the guest, nor the others.
	queueMost = 1 << 20
	// clientsMost is how many can be connected at a time.
	clientsMost = 16
	// lingerQuiet is how long a client that has sent its last gets answers: until
	// nothing has come for this time. A serial line has no end of file.
	lingerQuiet = 3 * time.Second
	// flushTime bounds what a client still gets when the hub is closed.
	flushTime = 500 * time.Millisecond
)

// Options say how a Hub shares its line.
type Options struct {
	// Replay gives every client what came last, as a terminal shows it. Otherwise
	// output is given once: to those who are connected or, when nobody is, to the
	// next one. Whoever has sent its last (as `echo ls | socat - TCP:...` has) may
	// go at any moment, and does not count: a second such tool gets the answer.
	Replay bool
	// Refuse says why nothing may be typed now; "" lets it be typed. nil: always.
	Refuse func() string
	// LingerQuiet is for tests; 0 means three seconds.
	LingerQuiet time.Duration
}

// A Hub is one line and its clients. Its methods are safe for concurrent use.
type Hub struct {
	opt Options

	mu       sync.Mutex
	send     func(ctx context.Context, p []byte) error // to the guest; nil: there is none
	kept     []byte
	clients  map[*client]bool
	open     []io.Closer // listeners
	closed   bool
	lastByte time.Time

	ctx     context.Context //nolint:containedctx // it is the hub's life, which Close ends
	cancel  context.CancelFunc
	working sync.WaitGroup
}

// NewHub makes a hub that no line is attached to yet.
func NewHub(opt Options) *Hub {
	if opt.LingerQuiet <= 0 {
		opt.LingerQuiet = lingerQuiet
	}
	h := &Hub{opt: opt, clients: map[*client]bool{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Attach sets what is done with what clients type. Another machine's line takes
// the place of the one before.
func (h *Hub) Attach(send func(ctx context.Context, p []byte) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.send = send
}

// Write takes what the guest has sent. It never fails, nor blocks.
func (h *Hub) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastByte = time.Now()
	listened := false
	for c := range h.clients {
		if c.put(p) && !c.half {
			listened = true
		}
	}
	if h.opt.Replay || !listened {
		h.keep(p)
	}
	return len(p), nil
}

func (h *Hub) keep(p []byte) {
	h.kept = append(h.kept, p...)
	if over := len(h.kept) - keptMost; over > 0 {
		h.kept = append(h.kept[:0], h.kept[over:]...)
	}
}

// ListenTCP serves the line on a port of 127.0.0.1 until Close, to a telnet
// client or raw, and returns the address. Port 0 takes a free one.
func (h *Hub) ListenTCP(ctx context.Context, port int, telnet bool) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", fmt.Errorf("serving the serial port: %w", err)
	}
	return l.Addr().String(), h.serve(l, telnet)
}

// ListenUnix serves the line, raw, on a socket that only this user can use.
func (h *Hub) ListenUnix(ctx context.Context, path string) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("serving the serial port: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("serving the serial port: %w", err), l.Close())
	}
	return h.serve(l, false)
}

// serve accepts clients until the hub is closed.
func (h *Hub) serve(l net.Listener, telnet bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.Join(net.ErrClosed, l.Close())
	}
	h.open = append(h.open, l)
	h.working.Go(func() {
		for {
			conn, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // out of descriptors, for example: it passes
				select {
				case <-h.ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
				}
			default:
				h.accept(conn, telnet)
			}
		}
	})
	return nil
}

// accept makes a client of a connection.
func (h *Hub) accept(conn net.Conn, telnet bool) {
	c := &client{hub: h, conn: conn}
	c.wake = sync.NewCond(&h.mu)
	if telnet {
		c.telnet = &Telnet{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.clients) >= clientsMost {
		_ = conn.Close() // nothing was said
		return
	}
	if telnet {
		c.queue = append(c.queue, c.telnet.Greeting()...)
	}
	c.put(h.kept)
	if !h.opt.Replay {
		h.kept = h.kept[:0]
	}
	h.clients[c] = true
	h.working.Go(c.write)
	h.working.Go(c.read)
}

// Close ends all clients, after a moment for what they have not got yet.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	for _, l := range h.open {
		_ = l.Close() // its socket is gone with it
	}
	for c := range h.clients {
		c.done = true
		_ = c.conn.SetDeadline(time.Now().Add(flushTime)) // a connection that has none is closed by its end
		c.wake.Broadcast()
	}
	h.mu.Unlock()
	h.cancel()
	h.working.Wait()
	return nil
}

// A client is whoever is connected; all of it is guarded by the hub's lock.
type client struct {
	hub    *Hub
	conn   net.Conn
	telnet *Telnet // nil: raw
	queue  []byte  // what it has not got yet
	half   bool    // it has sent its last
	done   bool    // it gets what is queued, and no more
	gone   bool    // it can't be written to
	wake   *sync.Cond
}

// put queues output, and tells whether the client will get it; the hub is locked.
func (c *client) put(p []byte) bool {
	if c.done || c.gone {
		return false
	}
	if c.telnet != nil {
		p = c.telnet.Encode(p)
	}
	if len(c.queue)+len(p) > queueMost {
		c.gone = true
		_ = c.conn.Close() // it does not read
		c.wake.Broadcast()
		return false
	}
	c.queue = append(c.queue, p...)
	c.wake.Broadcast()
	return true
}

// write sends what is queued until the client is done or gone.
func (c *client) write() {
	h := c.hub
	for {
		h.mu.Lock()
		for len(c.queue) == 0 && !c.done && !c.gone {
			c.wake.Wait()
		}
		p := c.queue
		c.queue = nil
		end := c.gone || c.done && len(p) == 0
		h.mu.Unlock()
		if end {
			break
		}
		if _, err := c.conn.Write(p); err != nil {
			h.mu.Lock()
			c.gone = true
			h.mu.Unlock()
		}
	}
	h.mu.Lock()
	delete(h.clients, c)
	h.mu.Unlock()
	_ = c.conn.Close() // it has got everything
}

// read types what the client sends.
func (c *client) read() {
	h := c.hub
	buf := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && !c.input(buf[:n]) {
			break
		}
		if err != nil {
			break
		}
	}
	h.mu.Lock()
	c.half = true
	h.mu.Unlock()
	c.linger()
	h.mu.Lock()
	defer h.mu.Unlock()
	c.done = true
	c.wake.Broadcast()
}

// input has what a client sent typed; false: there is no more use in it.
func (c *client) input(p []byte) bool {
	h := c.hub
	h.mu.Lock()
	if c.telnet != nil {
		var reply []byte
		p, reply = c.telnet.Decode(p)
		c.queue = append(c.queue, reply...)
		c.wake.Broadcast()
	} else {
		p = append([]byte(nil), p...)
	}
	send := h.send
	h.mu.Unlock()
	if len(p) == 0 {
		return true
	}
	why := ""
	if h.opt.Refuse != nil {
		why = h.opt.Refuse()
	}
	switch {
	case why == "" && send == nil:
		why = "the machine does not run"
	case why == "":
		if err := send(h.ctx, p); err != nil {
			why = err.Error()
		}
	}
	if why == "" {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c.put([]byte("\r\n[hurd-qemu-action: not typed: " + why + "]\r\n"))
	return !c.gone && !c.done
}

// linger waits until a client that sends nothing more has got the answer, or is gone.
func (c *client) linger() {
	h := c.hub
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-timer.C:
		}
		h.mu.Lock()
		last, over := h.lastByte, c.gone || c.done
		h.mu.Unlock()
		if last.Before(begin) {
			last = begin
		}
		left := h.opt.LingerQuiet - time.Since(last)
		if over || left <= 0 {
			return
		}
		timer.Reset(left)
	}
}
