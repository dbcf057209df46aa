package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// A Client is one connection to a guest in which a command has run. All
// commands share it. Its methods are safe for concurrent use.
type Client struct {
	conn    Conn
	silence time.Duration
	user    string // who is logged in
	told    told
	// loginShell is the user's; empty: nobody has told.
	loginShell string
	took       time.Duration

	held       atomic.Pointer[held] // the session of the first command, until something is made of it
	resting    atomic.Bool
	drainQuiet time.Duration // see drainQuiet; shorter in tests

	lost    chan struct{} // closed when the connection has ended
	once    sync.Once
	reason  error // why; read after lost is closed
	working sync.WaitGroup
}

func newClient(conn Conn, o Options) *Client {
	c := &Client{conn: conn, silence: o.Silence, user: o.User, loginShell: o.LoginShell, drainQuiet: drainQuiet, lost: make(chan struct{})}
	c.working.Go(func() { c.end(conn.Wait()) })
	c.working.Go(c.keepAlive)
	return c
}

// LoginShell is the shell that the guest's user has, as its SSH server says.
func (c *Client) LoginShell() string { return c.loginShell }

// Uname is what uname -a printed in the guest; empty when a Greeting renewed it.
func (c *Client) Uname() string { return c.told.uname }

// Took is how long the attempt took that succeeded: from connecting to the
// answer of the first command.
func (c *Client) Took() time.Duration { return c.took }

// Traffic is how many bytes of an SSH connection, encrypted as they are, have gone
// to the guest and come from it; 0 for others. It can be asked after the connection's end.
func (c *Client) Traffic() (sent, received units.Bytes) {
	if over, ok := c.conn.(sshConn); ok {
		return units.Bytes(over.wire.sent.Load()), units.Bytes(over.wire.got.Load())
	}
	return 0, 0
}

// ServerVersion is how the SSH server names itself.
func (c *Client) ServerVersion() string { return printable(string(c.conn.ServerVersion())) }

// Lost is closed when the connection has ended, for whatever reason; Err says why.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Err is nil while the connection lives, and a *LostError afterwards.
func (c *Client) Err() error {
	select {
	case <-c.lost:
		return &LostError{c.reason}
	default:
		return nil
	}
}

// Close ends the connection. Commands that run in the guest live on.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.working.Wait()
	return nil
}

// end closes the connection and keeps the first reason.
func (c *Client) end(reason error) {
	c.once.Do(func() {
		if reason == nil {
			reason = errors.New("the server closed it")
		}
		c.reason = reason
		close(c.lost)
		_ = c.conn.Close() // frees whoever is blocked; the reason is kept
	})
}

// Alive makes a round trip to the guest. It returns nil, a
// *LostError, or the context's cause when the answer did not come in time.
func (c *Client) Alive(ctx context.Context) error {
	answer := make(chan error, 1)
	go func() {
		// Any answer will do, also "no such request".
		_, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil)
		answer <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			<-c.lost // the transport has failed
			return c.Err()
		}
		return nil
	case <-c.lost:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the guest to answer: %w", context.Cause(ctx))
	}
}

// Rest has the client ask nothing of its own until the function is called: a
// guest that is silent meanwhile does not count as lost.
func (c *Client) Rest() (resume func()) {
	c.resting.Store(true)
	return func() { c.resting.Store(false) }
}

// keepAlive asks for an answer when the guest has said nothing for a third of
// the allowed silence, and gives up when it has said nothing for all of it.
func (c *Client) keepAlive() {
	ask := make(chan struct{}, 1)
	c.working.Go(func() {
		for range ask {
			// Blocks until the answer comes or the connection ends.
			if _, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				return
			}
		}
	})
	defer close(ask)
	timer := time.NewTimer(c.silence / 3)
	defer timer.Stop()
	for {
		select {
		case <-c.lost:
			return
		case <-timer.C:
		}
		if c.resting.Load() {
			timer.Reset(c.silence / 3)
			continue
		}
		quiet := c.conn.Quiet()
		if quiet >= c.silence {
			c.end(fmt.Errorf("%w (for %s)", ErrSilent, quiet.Round(time.Second)))
			return
		}
		if quiet >= c.silence/3 {
			select {
			case ask <- struct{}{}:
			default: // the last question is still open
			}
		}
		timer.Reset(c.silence / 3)
	}
}

// bounded keeps the first textLimit bytes of what is written to it.
type bounded struct{ buf bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := textLimit - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (b *bounded) String() string { return b.buf.String() }
