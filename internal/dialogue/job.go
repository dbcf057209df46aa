package dialogue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/units"
)

const (
	// inputMost bounds what is typed for one job: about a minute on an emulated machine.
	inputMost = units.Bytes(512 << 10)
	// outputMost bounds what is fetched of each of a job's outputs: about as long.
	outputMost = 4 << 20
)

// A job is a session: a command on its way into the guest, there, and back.
type job struct {
	shell    *Shell
	requests chan *ssh.Request
	stdout   *pipe
	stderr   *pipe
	exited   chan int // its status in the guest
	isLive   bool
	ended    ended // of the shell's lock

	mu      sync.Mutex
	line    string
	input   bytes.Buffer
	tooMuch bool
	began   bool
	cancel  context.CancelCauseFunc // nil before it began
	closed  bool
	ending  sync.Once
}

func newJob(sh *Shell) *job {
	return &job{shell: sh, requests: make(chan *ssh.Request, 1), stdout: newPipe(), stderr: newPipe(), exited: make(chan int, 1)}
}

// Live has the output come as it is printed.
func (j *job) Live() { j.isLive = true }

// Read reads the standard output.
func (j *job) Read(p []byte) (int, error) { return j.stdout.Read(p) }

// Stderr reads the standard error, which has nothing when it is live.
func (j *job) Stderr() io.ReadWriter { return j.stderr }

// Write adds to the standard input. The command begins when that is complete.
func (j *job) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if units.Bytes(j.input.Len()+len(p)) > inputMost {
		j.tooMuch = true
		return 0, fmt.Errorf("more than %s are too much to be typed on a serial console", inputMost.Human())
	}
	return j.input.Write(p)
}

// CloseWrite ends the standard input and has the command begin.
func (j *job) CloseWrite() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.began || j.line == "" {
		return io.EOF
	}
	j.began = true
	ctx, release := j.shell.context(context.Background())
	ctx, j.cancel = context.WithCancelCause(ctx)
	go func() {
		defer release()
		j.run(ctx)
	}()
	return nil
}

// SendRequest takes exec, and signal, which only ends the waiting: as most SSH
// servers do.
func (j *job) SendRequest(name string, _ bool, payload []byte) (bool, error) {
	switch name {
	case "exec":
		var m struct{ Line string }
		if err := ssh.Unmarshal(payload, &m); err != nil {
			return false, err
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.line = m.Line
		return m.Line != "", nil
	case "signal":
		j.stop(errAbandoned)
		return true, nil
	}
	return false, nil
}

var errAbandoned = errors.New("the command was given up")

// Close abandons the command; one that runs in the guest lives on.
func (j *job) Close() error {
	if !j.stop(errAbandoned) {
		j.ending.Do(func() { close(j.requests) })
	}
	j.finish(true)
	return nil
}

// stop ends the wait for the command, and tells whether it has begun.
func (j *job) stop(reason error) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.cancel != nil {
		j.cancel(reason)
	}
	return j.began
}

// finish lets go of the readers. abandon drops what they have not read.
func (j *job) finish(abandon bool) {
	j.stdout.end(abandon)
	j.stderr.end(abandon)
}

// run takes the command through the guest.
func (j *job) run(ctx context.Context) {
	number := j.shell.register(j)
	defer j.shell.forget(number)
	status, err := j.execute(ctx, number)
	if err == nil {
		payload := ssh.Marshal(struct{ Status uint32 }{uint32(status)})
		j.requests <- &ssh.Request{Type: "exit-status", Payload: payload}
	}
	j.finish(false)
	j.ending.Do(func() { close(j.requests) })
}

// execute brings the command into the guest, waits for its end, and fetches its output.
func (j *job) execute(ctx context.Context, number int) (int, error) {
	name := fmt.Sprint(number)
	sh := j.shell
	if j.tooMuch {
		j.complain("its input has more than %s, which is too much to be typed on a serial console", inputMost.Human())
		return 1, nil
	}
	if !j.isLive {
		if err := sh.hold(ctx); err != nil {
			return 0, err
		}
		defer sh.goOn(ctx)
	}
	line, last := j.line, sh.isLast()
	if last {
		line = `rm -rf "${0%/*}"` + "\n" + line // the shell has it open
	}
	err := sh.put(ctx, name+"c", []byte(line))
	if err == nil {
		err = sh.put(ctx, name+"i", j.input.Bytes())
	}
	if err == nil {
		kind := "C "
		if j.isLive {
			kind = "L "
		}
		err = sh.start(ctx, kind+name)
	}
	if err != nil {
		if ctx.Err() == nil {
			j.complain("%v", err)
			return 1, nil
		}
		return 0, err
	}
	var status int
	select {
	case status = <-j.exited:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if status < 0 {
		return 0, errors.New("its status is not known")
	}
	if last {
		return status, nil
	}
	if !j.isLive {
		if err := j.fetch(ctx, name); err != nil {
			return 0, err
		}
	}
	_, err = sh.typed(ctx, "rm -f $d/p $d/"+name+"[cioers]")
	if IsOurs(err) && ctx.Err() != nil {
		return 0, err
	}
	return status, nil
}

// fetch passes the outputs on.
func (j *job) fetch(ctx context.Context, name string) error {
	for _, out := range []struct {
		letter string
		to     *pipe
	}{{"o", j.stdout}, {"e", j.stderr}} {
		data, size, err := j.shell.get(ctx, name+out.letter, outputMost)
		_, _ = out.to.Write(data) // never fails
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			j.complain("its output was not fetched from the guest: %v", err)
		}
		if size > outputMost {
			j.complain("of its output of %s only the first %s were fetched: a serial console is slow", units.Bytes(size).Human(), units.Bytes(outputMost).Human())
		}
	}
	return nil
}

// complain adds to the standard error what our side has to say.
func (j *job) complain(format string, args ...any) {
	fmt.Fprintf(j.stderr, "hurd-qemu-action: "+format+"\n", args...)
}
