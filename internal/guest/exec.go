package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Command is a line for the login shell of the guest's user, or a script.
type Command struct {
	Line string

	// Script, instead of Line, is a script of a POSIX shell, which is run with the
	// Args whatever the login shell is. Lines of it that begin with # are left
	// out, so none may stand within quotes. Args may hold anything but NUL.
	Script string
	Args   []string

	Stdin  io.Reader // nil: nothing, the command reads an end of file
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: discarded; may be the same as Stdout

	// Live wants the output as it comes, where that has its price: over a serial
	// console it may then hold what others print there, and is one stream.
	Live bool
}

// ExitStatus is how a command ended, in the words of the SSH server.
type ExitStatus struct {
	Code   int    // exit status; -1 when a signal ended the command and the server says so
	Signal string // name of that signal without SIG, such as KILL
	// Detached says that something the command left behind still held its
	// output open, and that waiting for more of it was given up; or that the
	// context ended after the command, with output still on its way.
	Detached bool
}

// String puts the status into words: "exited with status 7".
func (s ExitStatus) String() string {
	if s.Signal != "" {
		return "was killed by signal " + printable(s.Signal)
	}
	return fmt.Sprintf("exited with status %d", s.Code)
}

// A command's output may still be on its way when its status has come, and a
// process that it left in the background may hold the output open for ever: once
// the status is there the output ends when nothing came for drainQuiet, and
// after drainMost in any case. Time in which a writer is blocked does not count:
// nobody listened to the guest then. That holds for the drainData bytes after
// the status, which may be older than it: 2 MiB of the channel's window are
// here and as much for each stream may wait in the server, besides the pipes.
// What follows is from something else, and a writer slower than that must not
// keep us for ever.
const (
	drainQuiet = 2 * time.Second
	drainMost  = 30 * time.Second
	drainData  = 8 << 20
)

// Run runs a command to its end. There are two kinds of failure: that of the
// command is in the ExitStatus, ours is the error: a *LostError, the context's
// cause, ErrNoStatus, or what a writer returned.
//
// Output is passed on as it comes; calls of the two writers never overlap.
// Within a stream the order is exact; between the two it is the order of
// arrival, as far as the server kept it.
//
// When ctx ends the command is sent a KILL signal, which most servers ignore:
// it may live on in the guest. RunScript does better. Stdin is read on until it
// ends or fails, and that may be after Run has returned.
//
// A slow writer slows the command down and loses nothing: Run waits for it, also
// after the command's end. Only when waiting ends early, with ctx or because of
// a process left behind, a write under way gets two more seconds (closeMost); one
// that blocks longer may return after Run, and is the last.
func (c *Client) Run(ctx context.Context, cmd Command) (ExitStatus, error) {
	e, err := c.start(ctx, cmd)
	if err != nil {
		return ExitStatus{Code: -1}, fmt.Errorf("running %s in the guest: %w", cmd.brief(), err)
	}
	status, err := e.wait(ctx)
	if err != nil {
		return status, fmt.Errorf("running %s in the guest: %w", cmd.brief(), err)
	}
	return status, nil
}

// brief is the beginning of a command line, for messages.
func (c Command) brief() string {
	const most = 60
	switch line := c.Line; {
	case c.Script != "":
		return "a script of ours"
	case len(line) > most:
		return fmt.Sprintf("%q", line[:most]+"...")
	default:
		return fmt.Sprintf("%q", line)
	}
}

// An execution is a command that runs in the guest.
type execution struct {
	client  *Client
	channel ssh.Channel
	output  *output

	exited chan struct{} // closed when the status is known or the channel is closed
	drain  chan struct{} // closed when both outputs have ended
	status ExitStatus    // valid after exited
	known  bool          // the server has reported a status
}

// openTries is how often a session is asked for that the server refuses: one that
// allows few of them may not be done with the last one, which a round trip changes.
const openTries = 4

// open opens a session.
func (c *Client) open(ctx context.Context) (ssh.Channel, <-chan *ssh.Request, error) {
	for try := 1; ; try++ {
		channel, requests, err := c.openOnce(ctx)
		if try == openTries || !errors.As(err, new(*ssh.OpenChannelError)) {
			return channel, requests, err
		}
		if h := c.held.Swap(nil); h != nil {
			h.end(ctx)
			continue
		}
		limited, cancel := context.WithTimeout(ctx, endMost)
		_ = c.Alive(limited) // else the next try will tell
		cancel()
	}
}

func (c *Client) openOnce(ctx context.Context) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		channel ssh.Channel
		reqs    <-chan *ssh.Request
		err     error
	}
	result := make(chan opened, 1)
	go func() {
		channel, reqs, err := c.conn.OpenChannel("session", nil)
		result <- opened{channel, reqs, err}
	}()
	select {
	case o := <-result:
		return o.channel, o.reqs, o.err
	case <-ctx.Done():
		go func() { // the channel that comes too late
			if late := <-result; late.err == nil {
				go ssh.DiscardRequests(late.reqs)
				_ = late.channel.Close()
			}
		}()
		return nil, nil, context.Cause(ctx)
	}
}

// start begins a command; it does not wait for its end.
func (c *Client) start(ctx context.Context, cmd Command) (*execution, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	channel, requests, err := c.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.explain(err)
	}
	e := &execution{
		client: c, channel: channel, output: newOutput(),
		exited: make(chan struct{}), drain: make(chan struct{}),
	}
	if cmd.Script != "" {
		cmd.Line = scriptLine(c.loginShell, cmd.Script, cmd.Args...)
	}
	go e.requests(requests)
	e.copyOutput(cmd)
	if live, ok := channel.(interface{ Live() }); ok && cmd.Live {
		live.Live()
	}
	if err := e.exec(ctx, cmd); err != nil {
		e.abandon()
		return nil, err
	}
	return e, nil
}

// exec sends the command line and connects its input.
func (e *execution) exec(ctx context.Context, cmd Command) error {
	accepted := make(chan error, 1)
	go func() {
		ok, err := e.channel.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{cmd.Line}))
		if err == nil && !ok {
			err = errors.New("the SSH server refused to run a command")
		}
		accepted <- err
	}()
	select {
	case err := <-accepted:
		if err != nil {
			return e.client.explain(err)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	go func() {
		if cmd.Stdin != nil {
			// A command that does not read its input is no failure.
			_, _ = io.Copy(e.channel, cmd.Stdin)
		}
		_ = e.channel.CloseWrite() // fails when the command has ended
	}()
	return nil
}

// explain tells a lost connection from other errors of the library.
func (c *Client) explain(err error) error {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		return fmt.Errorf("the SSH server opened no channel: %s", printable(refused.Message))
	}
	if errors.Is(err, io.EOF) {
		// Either the connection or, rarely, just this channel has ended.
		select {
		case <-c.lost:
		case <-time.After(time.Second):
		}
	}
	if lost := c.Err(); lost != nil {
		return lost
	}
	return err
}

// requests takes what the server says of the command.
func (e *execution) requests(reqs <-chan *ssh.Request) {
	var once sync.Once
	exited := func() { once.Do(func() { close(e.exited) }) }
	defer exited()
	for req := range reqs {
		switch req.Type {
		case "exit-status":
			var m struct{ Status uint32 }
			if ssh.Unmarshal(req.Payload, &m) == nil && !e.known {
				e.status, e.known = ExitStatus{Code: int(m.Status & 0xff)}, true
				exited()
			}
		case "exit-signal":
			var m struct {
				Signal    string
				Core      bool
				Text, Tag string
			}
			if ssh.Unmarshal(req.Payload, &m) == nil && !e.known {
				e.status, e.known = ExitStatus{Code: -1, Signal: m.Signal}, true
				exited()
			}
		}
		if req.WantReply {
			_ = req.Reply(false, nil) // fails when the channel has ended
		}
	}
}

func (e *execution) copyOutput(cmd Command) {
	var both sync.WaitGroup
	both.Go(func() { e.output.copy(cmd.Stdout, e.channel) })
	both.Go(func() { e.output.copy(cmd.Stderr, e.channel.Stderr()) })
	go func() { both.Wait(); close(e.drain) }()
}

// wait waits for the end of the command and of its output.
func (e *execution) wait(ctx context.Context) (ExitStatus, error) {
	defer e.abandon()
	select {
	case <-e.exited:
	case <-ctx.Done():
		e.kill()
		return ExitStatus{Code: -1}, context.Cause(ctx)
	}
	detached := e.drained(ctx)
	if !e.known {
		if lost := e.client.waitLost(); lost != nil {
			return ExitStatus{Code: -1}, lost
		}
		return ExitStatus{Code: -1}, ErrNoStatus
	}
	status := e.status
	status.Detached = detached
	return status, e.output.failure()
}

// waitLost returns the reason when the connection has ended or is just ending:
// its channels are closed a moment before that is known.
func (c *Client) waitLost() error {
	select {
	case <-c.lost:
	case <-time.After(200 * time.Millisecond):
	}
	return c.Err()
}

// drained waits for the rest of the output of a command that has ended. It
// tells whether there could have been more.
func (e *execution) drained(ctx context.Context) (detached bool) {
	begin := time.Now()
	before := e.output.progress(begin)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		left := e.patience(now, begin, before)
		timer.Reset(left)
		select {
		case <-e.drain:
			return false
		case <-e.output.moved:
		case <-ctx.Done():
			return true
		case <-timer.C:
			if left == 0 {
				return true
			}
		}
	}
}

// patience is how long to wait for more output at a time after the command's
// end, at begin, when the output was at before: 0 means no longer.
func (e *execution) patience(now, begin time.Time, before progress) time.Duration {
	p := e.output.progress(now)
	most := drainMost - now.Sub(begin)
	late := p.bytes-before.bytes > drainData
	if !late {
		most += p.blocked - before.blocked
	}
	switch {
	case p.busy && !late:
		return forever // until the write ends
	case p.busy:
		return max(most, 0)
	}
	from := begin
	if p.since.After(begin) {
		from = p.since
	}
	return max(min(most, e.client.drainQuiet-now.Sub(from)), 0)
}

// kill asks the server to kill the command, without waiting for a connection
// that takes nothing.
func (e *execution) kill() {
	go func() {
		_, _ = e.channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{"KILL"}))
		_ = e.channel.Close()
	}()
}

// abandon closes the channel and lets no more output through.
func (e *execution) abandon() {
	e.output.close()
	go func() { _ = e.channel.Close() }() // fails when it is closed already
}
