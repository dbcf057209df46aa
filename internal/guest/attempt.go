package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// wire is a connection that notes when the peer was last heard, and counts what
// passes it.
type wire struct {
	net.Conn
	sent    atomic.Int64
	got     atomic.Int64
	since   time.Time    // when it was made
	heard   atomic.Int64 // nanoseconds from then to the last byte
	onFirst func()       // called at the first byte
	first   sync.Once
}

// quiet is the time since the peer was last heard.
func (w *wire) quiet() time.Duration {
	return time.Since(w.since) - time.Duration(w.heard.Load())
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.since)))
		w.got.Add(int64(n))
		w.first.Do(w.onFirst)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.sent.Add(int64(n))
	return n, err
}

// An attempt is one connection on its way to a first command.
type attempt struct {
	number  int
	cancel  context.CancelCauseFunc // ends it; it is no failure with errOutrun
	slow    bool                    // the one that waits
	answer  time.Duration           // how long to wait for the server's first byte
	login   time.Duration           // how long everything after it may take
	started time.Time

	mu      sync.Mutex
	stage   Stage
	server  string // the server's version
	keyErr  *HostKeyError
	client  *Client
	err     error
	timeout *time.Timer
}

// errNoAnswer ends an attempt that ran out of patience.
var errNoAnswer = errors.New("no answer")

func (a *attempt) reach(s Stage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stage = s
}

func (a *attempt) reached() Stage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stage
}

// run makes the attempt; the outcome is in a.client or a.err. answered is
// called when the server has spoken.
func (a *attempt) run(ctx context.Context, o Options, answered func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := fmt.Errorf("%w within %s", errNoAnswer, a.answer.Round(100*time.Millisecond))
	a.timeout = time.AfterFunc(a.answer, func() { cancel(patience) })
	defer a.stopTimer()

	a.reach(StageConnect)
	conn, err := o.Dial(ctx, "tcp", o.Addr)
	if err != nil {
		a.err = a.failure(ctx, o, err)
		return
	}
	w := &wire{Conn: conn, since: time.Now()}
	w.onFirst = func() {
		a.reach(StageHandshake)
		late := fmt.Errorf("not finished within %s", a.login)
		a.mu.Lock()
		a.timeout.Stop()
		a.timeout = time.AfterFunc(a.login, func() { cancel(late) })
		a.mu.Unlock()
		answered()
	}
	// Everything below blocks in reads and writes: closing ends them.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	a.reach(StageBanner)
	client, err := a.logIn(ctx, o, w)
	if !stop() && err == nil {
		_ = client.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		a.err = a.failure(ctx, o, err)
		return
	}
	a.client = client
}

func (a *attempt) stopTimer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timeout.Stop()
}

// logIn takes the connection from the server's first byte to a command's output.
func (a *attempt) logIn(ctx context.Context, o Options, w *wire) (*Client, error) {
	check := func(_ string, _ net.Addr, key ssh.PublicKey) error {
		for _, pinned := range o.HostKeys {
			if bytes.Equal(pinned.Marshal(), key.Marshal()) {
				a.reach(StageAuth)
				return nil
			}
		}
		a.keyErr = &HostKeyError{Got: key, Pinned: o.HostKeys}
		return a.keyErr
	}
	conn, chans, reqs, err := ssh.NewClientConn(w, o.Addr, o.clientConfig(check))
	if err != nil {
		return nil, err
	}
	a.server = string(conn.ServerVersion())
	a.reach(StageCommand)
	client := newClient(sshConn{ssh.NewClient(conn, chans, reqs), w}, o)
	if err := client.greet(ctx, o); err != nil {
		_ = client.Close()
		return nil, err
	}
	client.took = time.Since(a.started)
	return client, nil
}

// failure puts an error into the words of the stage.
func (a *attempt) failure(ctx context.Context, o Options, err error) error {
	var algorithms *ssh.AlgorithmNegotiationError
	switch {
	case a.keyErr != nil:
		a.reach(StageHostKey)
		return a.keyErr
	case errors.As(err, &algorithms) && strings.Contains(algorithms.What, "host key"):
		a.reach(StageHostKey)
		return &HostKeyError{Types: slices.Clone(algorithms.RequestedAlgorithms), Pinned: o.HostKeys}
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case a.reached() == StageAuth && strings.Contains(err.Error(), "unable to authenticate"):
		// The library has no type for this.
		return &AuthError{User: o.User, Key: o.Signer.PublicKey(), Server: a.serverVersion(), Err: err}
	}
	return &attemptError{err}
}

// An attemptError is an error of the SSH library. It can hold what the server
// said, which is made harmless here.
type attemptError struct{ err error }

func (e *attemptError) Error() string { return printable(e.err.Error()) }
func (e *attemptError) Unwrap() error { return e.err }

func (a *attempt) serverVersion() string {
	if a.server == "" {
		return "unknown version"
	}
	return a.server
}
