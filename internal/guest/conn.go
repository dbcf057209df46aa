package guest

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Conn carries a Client's commands: an SSH connection, or something else that
// speaks of sessions as SSH does (RFC 4254, section 6). A session gets "exec"
// with a line for a shell, and perhaps "signal" KILL; its input ends with
// CloseWrite; it tells "exit-status", unless it was cut off. The request
// "keepalive@openssh.com" of the connection is answered when the guest is alive.
//
// A channel that has a method Live is told by it, before "exec", that the output
// is wanted as it comes.
type Conn interface {
	OpenChannel(name string, data []byte) (ssh.Channel, <-chan *ssh.Request, error)
	SendRequest(name string, wantReply bool, payload []byte) (ok bool, reply []byte, err error)
	ServerVersion() []byte
	Quiet() time.Duration // since the guest was last heard
	Wait() error          // for the end of the connection; why it ended
	Close() error         // also ends what waits
}

// sshConn is the Conn that Dial makes.
type sshConn struct {
	*ssh.Client
	wire *wire
}

func (c sshConn) Quiet() time.Duration { return c.wire.quiet() }

// Close frees whoever is blocked, also in a write that the peer does not take.
func (c sshConn) Close() error { return c.wire.Close() }

// Over makes a Client of a connection that is there already, and runs the first
// command there. Of the options only User, Silence and Greeting, but for its Hold, count.
// The connection is the Client's from now on: it is closed with the Client, or
// when this fails.
func Over(ctx context.Context, conn Conn, o Options) (*Client, error) {
	o = o.withCommonDefaults()
	begin := time.Now()
	c := newClient(conn, o)
	if err := c.greet(ctx, o); err != nil {
		_ = c.Close() // it was of no use
		return nil, fmt.Errorf("running the first command in the guest: %w", err)
	}
	c.took = time.Since(begin)
	return c, nil
}
