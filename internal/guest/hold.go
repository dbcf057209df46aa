package guest

import (
	"context"
	"crypto/rand"
	"io"
	"strings"
	"sync"
	"time"
)

// A held session is that of a connection's first command: its shell waits for a
// program, which makes it the session of the first script.
type held struct {
	execution *execution
	program   *io.PipeWriter // the end of its standard input
	out, diag *later
}

// firstHeld is firstCommand, but for the session, which is held.
func (c *Client) firstHeld(ctx context.Context, args []string, stdin string) (status ExitStatus, answer, noise string, err error) {
	mark := rand.Text()
	h := &held{out: &later{}, diag: &later{}}
	b := newBeginning(mark, nil, h.out, h.diag)
	b.before.room = noiseMost
	rest, program := io.Pipe()
	h.program = program
	h.execution, err = c.start(ctx, Command{
		Script: helloScript + holdScript, Args: append(args, mark),
		Stdin: io.MultiReader(strings.NewReader(stdin), rest), Stdout: b.stdout(), Stderr: b.stderr(),
	})
	if err != nil {
		return ExitStatus{Code: -1}, "", "", err
	}
	c.working.Go(func() {
		select {
		case <-c.lost:
		case <-h.execution.exited:
		}
		_ = program.Close() // nobody reads what is to come
	})
	select {
	case <-b.begun:
		c.held.Store(h)
		answer = b.before.buf.String()
		return ExitStatus{}, answer, b.noise(), nil
	case <-h.execution.exited:
	case <-ctx.Done():
	}
	status, err = h.execution.wait(ctx)
	return status, b.before.buf.String() + string(b.tail), b.noise(), err
}

// release ends the session: there is no script for it.
func (h *held) release() { _ = h.program.Close() }

// end releases the session and waits until it has ended, for no longer than a
// guest needs that is alive.
func (h *held) end(ctx context.Context) {
	h.release()
	limited, cancel := context.WithTimeout(ctx, endMost)
	defer cancel()
	select {
	case <-h.execution.exited:
	case <-limited.Done():
	}
	h.execution.output.close()
	_ = h.execution.channel.Close()       // fails when it is closed
	_ = h.execution.client.Alive(limited) // the server has done with it when it answers
}

// endMost is how long end waits.
const endMost = 5 * time.Second

// ended tells whether the shell has not waited.
func (h *held) ended() bool {
	select {
	case <-h.execution.exited:
		return true
	default:
		return false
	}
}

// run gives the session its program.
func (h *held) run(program string, stdout, stderr io.Writer) *execution {
	h.out.set(stdout)
	h.diag.set(stderr)
	go func() {
		// A shell that has died takes nothing, which its status tells.
		_, _ = io.WriteString(h.program, program)
		_ = h.program.Close()
	}()
	return h.execution
}

// later is a writer that is told later where to write. What comes before that is dropped.
type later struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *later) set(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
}

// Write passes on what the writer that was set returns.
func (l *later) Write(p []byte) (int, error) {
	l.mu.Lock()
	w := l.w
	l.mu.Unlock()
	if w == nil {
		return len(p), nil
	}
	return w.Write(p)
}
