package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message, so that a peer gone mad cannot fill our
// memory. The largest known reply, query-qmp-schema, has 240 KB.
const maxMessage = 16 << 20

// Conn is a QMP connection after its handshake. It is safe for use by several
// goroutines; any number of commands may be in flight.
type Conn struct {
	rwc     io.ReadWriteCloser
	version Version
	frames  chan frame    // to the writing goroutine
	done    chan struct{} // closed when the connection has ended
	workers sync.WaitGroup

	mu      sync.Mutex
	err     error // why the connection ended; set before done is closed
	nextID  uint64
	pending map[uint64]chan message
	subs    map[*Subscription]struct{}
}

// frame is one command on its way out; file, when set, goes with it and is
// closed once written.
type frame struct {
	data []byte
	file *os.File
}

// Dial connects to the monitor that listens at a Unix socket's path. ctx
// bounds the connecting and the handshake.
func Dial(ctx context.Context, path string) (*Conn, error) {
	conn, err := connect(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("dialing monitor: %w", err)
	}
	return New(ctx, conn)
}

// dialEvery is the pause between attempts at a socket whose queue is full.
const dialEvery = 10 * time.Millisecond

// connect waits in line: QEMU's queue has room for one client beside the one
// that it serves, and the kernel refuses others at once (connect(2), EAGAIN).
func connect(ctx context.Context, path string) (net.Conn, error) {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if errors.Is(err, context.DeadlineExceeded) { // the context's, as net has it
			<-ctx.Done() // it may be a moment late, and can say why
			return nil, context.Cause(ctx)
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		timer := time.NewTimer(dialEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// New takes over a byte stream, waits for QEMU's greeting and leaves the
// negotiation mode. ctx bounds that, not the connection's life. The stream is
// closed on failure, and by Close; its Close must make a blocked Read and
// Write return, as that of every net.Conn does.
func New(ctx context.Context, rwc io.ReadWriteCloser) (*Conn, error) {
	c := &Conn{
		rwc:     rwc,
		frames:  make(chan frame),
		done:    make(chan struct{}),
		pending: map[uint64]chan message{},
		subs:    map[*Subscription]struct{}{},
	}
	greeting := make(chan Version, 1)
	c.workers.Add(2)
	go c.read(greeting)
	go c.write()
	if err := c.handshake(ctx, greeting); err != nil {
		_ = c.Close() // the handshake's failure is the news
		return nil, err
	}
	return c, nil
}

func (c *Conn) handshake(ctx context.Context, greeting <-chan Version) error {
	select {
	case c.version = <-greeting:
	case <-c.done:
		return fmt.Errorf("waiting for the monitor's greeting: %w", c.Err())
	case <-ctx.Done():
		return fmt.Errorf("waiting for the monitor's greeting: %w", context.Cause(ctx))
	}
	return c.Execute(ctx, "qmp_capabilities", nil, nil)
}

// Version is QEMU's, from the greeting.
func (c *Conn) Version() Version { return c.version }

// Done is closed when the connection has ended, whoever ended it.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended: ErrClosed after Close, ErrHangup when
// QEMU went away, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection, and with it every pending call and subscription.
// It returns when no goroutine of the connection is left.
func (c *Conn) Close() error {
	err := c.fail(ErrClosed)
	c.workers.Wait()
	if err != nil {
		return fmt.Errorf("closing monitor: %w", err)
	}
	return nil
}

// fail ends the connection for a cause; only the first one counts.
func (c *Conn) fail(cause error) error {
	c.mu.Lock()
	first := c.err == nil
	subs := c.subs
	if first {
		c.err = cause
		c.subs = nil
		close(c.done)
	}
	c.mu.Unlock()
	if !first {
		return nil
	}
	for s := range subs {
		s.end()
	}
	return c.rwc.Close()
}

// Execute runs a command and waits for its reply. args may be nil; result may
// be nil, or a pointer as for json.Unmarshal (a *json.RawMessage gets the
// value as it came). A refusal by QEMU is an *Error; the other errors wrap
// the connection's or the context's cause. A command whose context ends may
// still be carried out by QEMU.
func (c *Conn) Execute(ctx context.Context, name string, args, result any) error {
	return c.execute(ctx, name, args, result, nil)
}

// ExecuteFile is Execute for the commands that take a file descriptor along
// (add-fd, getfd). The connection must be over a Unix socket; the file stays
// the caller's.
func (c *Conn) ExecuteFile(ctx context.Context, name string, args, result any, file *os.File) error {
	if _, ok := c.rwc.(*net.UnixConn); !ok {
		return fmt.Errorf("executing %s: a file can only go over a Unix socket", name)
	}
	// The frame may be written after the caller has given up and closed its
	// file, so it gets a descriptor of its own.
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("executing %s: duplicating %s: %w", name, file.Name(), err)
	}
	return c.execute(ctx, name, args, result, os.NewFile(uintptr(fd), file.Name()))
}

func (c *Conn) execute(ctx context.Context, name string, args, result any, file *os.File) error {
	id, reply := c.register()
	defer c.forget(id)
	data, err := json.Marshal(command{Execute: name, Arguments: args, ID: id})
	if err != nil {
		closeFile(file)
		return fmt.Errorf("executing %s: encoding its arguments: %w", name, err)
	}
	select {
	case c.frames <- frame{append(data, '\n'), file}:
	case <-c.done:
		closeFile(file)
		return fmt.Errorf("executing %s: %w", name, c.Err())
	case <-ctx.Done():
		closeFile(file)
		return fmt.Errorf("executing %s: the monitor accepts no command: %w", name, context.Cause(ctx))
	}
	select {
	case m := <-reply:
		return decode(name, m, result)
	case <-ctx.Done():
		return fmt.Errorf("executing %s: no reply: %w", name, context.Cause(ctx))
	case <-c.done:
	}
	// The reply to quit and the end of the stream arrive together.
	select {
	case m := <-reply:
		return decode(name, m, result)
	default:
		return fmt.Errorf("executing %s: %w", name, c.Err())
	}
}

func decode(name string, m message, result any) error {
	if m.Error != nil {
		return fmt.Errorf("executing %s: %w", name, &Error{Class: m.Error.Class, Desc: m.Error.Desc})
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("executing %s: decoding its reply: %w", name, err)
	}
	return nil
}

func (c *Conn) register() (uint64, chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	reply := make(chan message, 1)
	c.pending[c.nextID] = reply
	return c.nextID, reply
}

func (c *Conn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// write owns the stream's sending side: a caller that gives up leaves a
// whole frame behind, never half of one.
func (c *Conn) write() {
	defer c.workers.Done()
	for {
		select {
		case <-c.done:
			return
		case f := <-c.frames:
			err := c.send(f)
			closeFile(f.file)
			if err != nil {
				_ = c.fail(lost("writing to the monitor", err)) // its end is reported by every call
				return
			}
		}
	}
}

func (c *Conn) send(f frame) error {
	if f.file == nil {
		_, err := c.rwc.Write(f.data)
		return err
	}
	conn, ok := c.rwc.(*net.UnixConn)
	if !ok {
		return errors.ErrUnsupported
	}
	n, _, err := conn.WriteMsgUnix(f.data, unix.UnixRights(int(f.file.Fd())), nil)
	if err == nil && n < len(f.data) {
		_, err = conn.Write(f.data[n:])
	}
	return err
}

func closeFile(file *os.File) {
	if file != nil {
		_ = file.Close() // a descriptor that was only passed on
	}
}

// read owns the stream's receiving side. It hands out replies and events
// without ever waiting for whoever gets them.
func (c *Conn) read(greeting chan<- Version) {
	defer c.workers.Done()
	limited := &io.LimitedReader{R: c.rwc, N: maxMessage}
	decoder := json.NewDecoder(limited)
	for {
		var m message
		if err := decoder.Decode(&m); err != nil {
			_ = c.fail(readFailure(err, limited.N)) // its end is reported by every call
			return
		}
		limited.N = maxMessage
		if err := c.dispatch(m, greeting); err != nil {
			_ = c.fail(err) // as above
			return
		}
	}
}

func readFailure(err error, left int64) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case left <= 0:
		return fmt.Errorf("%w: a message is larger than %d MiB", ErrProtocol, maxMessage>>20)
	case errors.As(err, &syntax), errors.As(err, &kind):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return lost("reading from the monitor", err)
}

// lost names the cause of a stream's end. A peer that goes away with commands
// unread resets the connection.
func lost(doing string, err error) error {
	for _, hangup := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, hangup) {
			return fmt.Errorf("%w: %w", ErrHangup, err)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (c *Conn) dispatch(m message, greeting chan<- Version) error {
	switch {
	case m.QMP != nil:
		select {
		case greeting <- m.QMP.Version:
		default: // a second greeting says nothing new
		}
		return nil
	case m.Event != "":
		c.publish(m.event())
		return nil
	case m.Return == nil && m.Error == nil:
		return fmt.Errorf("%w: a message is neither greeting, reply nor event", ErrProtocol)
	}
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		// QEMU sends such a thing only when it could not parse what we sent;
		// no call could know that it is meant.
		text := "a reply has no id of ours"
		if m.Error != nil {
			text += ": " + m.Error.Desc
		}
		return fmt.Errorf("%w: %s", ErrProtocol, text)
	}
	c.mu.Lock()
	reply := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if reply != nil { // else its caller has given up
		reply <- m
	}
	return nil
}
