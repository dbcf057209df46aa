// Package tunnel makes a port of an SSH server of the user's lead to a port
// here (RFC 4254, section 7): the way in to a machine that nothing can connect to.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options say which server, and where its port leads. All but Alive are required.
type Options struct {
	User     string
	Addr     string // host:port of the SSH server
	Signer   ssh.Signer
	HostKeys []ssh.PublicKey // that the server may show; there is no trust on first use
	Target   string          // host:port here

	// Alive is how often the server is asked whether it is still there, which also
	// keeps the connection open on its way. 0 means 30 s.
	Alive time.Duration
}

const defaultAlive = 30 * time.Second

// handshakeTime bounds connecting and logging in.
const handshakeTime = 20 * time.Second

// Tunnel is a port of the server that leads here.
type Tunnel struct {
	client   *ssh.Client
	listener net.Listener
	target   string
	ended    chan struct{}
	once     sync.Once
	reason   error // read after ended is closed
	working  sync.WaitGroup
}

// Open logs in and has the server listen on a free port of its 127.0.0.1.
func Open(ctx context.Context, o Options) (*Tunnel, error) {
	client, err := logIn(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel at %s: %w", o.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // frees the request
	listener, err := client.Listen("tcp", "127.0.0.1:0")
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = client.Close() // the failure above is the news
		return nil, fmt.Errorf("opening a tunnel at %s: the server forwards no port (AllowTcpForwarding in its sshd_config?): %w", o.Addr, err)
	}
	t := &Tunnel{client: client, listener: listener, target: o.Target, ended: make(chan struct{})}
	alive := o.Alive
	if alive == 0 {
		alive = defaultAlive
	}
	t.working.Go(t.accept)
	t.working.Go(func() { t.keepAlive(alive) })
	return t, nil
}

// logIn connects, and accepts none but the pinned keys.
func logIn(ctx context.Context, o Options) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTime, fmt.Errorf("it did not let us in within %s", handshakeTime))
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // frees the handshake
	c, chans, reqs, err := ssh.NewClientConn(conn, o.Addr, &ssh.ClientConfig{
		User: o.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(o.Signer)},
		HostKeyCallback: pinned(o.HostKeys), HostKeyAlgorithms: algorithms(o.HostKeys),
	})
	if !stop() && err == nil {
		_ = c.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// pinned refuses all other keys.
func pinned(keys []ssh.PublicKey) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, got ssh.PublicKey) error {
		for _, k := range keys {
			if string(k.Marshal()) == string(got.Marshal()) {
				return nil
			}
		}
		return fmt.Errorf("it shows the %s key %s, which is not the one that was given", got.Type(), ssh.FingerprintSHA256(got))
	}
}

// algorithms has the server show a key of the kinds that are pinned, when it has several.
func algorithms(keys []ssh.PublicKey) []string {
	var names []string
	for _, k := range keys {
		if k.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		names = append(names, k.Type())
	}
	return names
}

// Port is the server's.
func (t *Tunnel) Port() int {
	if a, ok := t.listener.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// Done is closed when the tunnel has ended; Err says why.
func (t *Tunnel) Done() <-chan struct{} { return t.ended }

// Err is nil while the tunnel is open.
func (t *Tunnel) Err() error {
	select {
	case <-t.ended:
		return t.reason
	default:
		return nil
	}
}

// ErrClosed is the reason of a tunnel that this side closed.
var ErrClosed = errors.New("the tunnel is closed")

// Close ends the tunnel and all that goes through it.
func (t *Tunnel) Close() error {
	t.end(ErrClosed)
	t.working.Wait()
	return nil
}

func (t *Tunnel) end(reason error) {
	t.once.Do(func() {
		t.reason = reason
		close(t.ended)
		_ = t.client.Close() // frees whoever is blocked; the reason is kept
	})
}

func (t *Tunnel) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			t.end(fmt.Errorf("the server ended it: %w", err))
			return
		}
		t.working.Go(func() { t.join(conn) })
	}
}

// join carries one connection until both sides have said all.
func (t *Tunnel) join(remote net.Conn) {
	defer func() { _ = remote.Close() }() // all has been said
	local, err := (&net.Dialer{Timeout: handshakeTime}).DialContext(context.Background(), "tcp", t.target)
	if err != nil {
		return // the other side sees its connection end
	}
	defer func() { _ = local.Close() }() // all has been said
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either side may end at any time
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // the other side may have gone
		}
	}
	stop := make(chan struct{})
	go func() { // the end of the tunnel ends what goes through it
		select {
		case <-t.ended:
			_ = local.Close()
		case <-stop:
		}
	}()
	both.Go(func() { pass(local, remote) })
	both.Go(func() { pass(remote, local) })
	both.Wait()
	close(stop)
}

func (t *Tunnel) keepAlive(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-t.ended:
			return
		case <-ticker.C:
		}
		// A connection that takes packets and gives none ends here, not in a quarter of an hour.
		late := time.AfterFunc(every, func() { t.end(fmt.Errorf("the server has not answered for %s", every)) })
		_, _, err := t.client.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			t.end(fmt.Errorf("the server is gone: %w", err))
			return
		}
	}
}
