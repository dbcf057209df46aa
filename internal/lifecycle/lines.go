package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/serial"
	"github.com/org/hurd-qemu-action/internal/units"
)

// The sockets in a run directory on which the guest's serial lines are served:
// the console, with what it said last, and the second line.
const (
	ConsoleSocket      = "console.sock"
	SecondSerialSocket = "serial2.sock"
)

// serialLines are the guest's serial lines as others use them.
type serialLines struct {
	console *serial.Hub
	second  *serial.Hub // nil: the guest has no second line
	log     *lineLog    // of the second line
}

// lineLogMost is how much of the second serial line is kept, as of the console.
const lineLogMost = 64 * units.MiB

// A lineLog keeps what a line has sent, up to a limit. It never fails: a line must
// not end because nobody can keep what it says.
type lineLog struct {
	w    io.Writer
	room units.Bytes
	warn func(text string) // called once, when no more is kept
}

// Write takes all of p.
func (l *lineLog) Write(p []byte) (int, error) {
	if l.room <= 0 {
		return len(p), nil
	}
	kept := p[:min(units.Bytes(len(p)), l.room)]
	l.room -= units.Bytes(len(kept))
	_, err := l.w.Write(kept)
	switch {
	case err != nil:
		l.room = 0
		l.warn("it could not be written: " + err.Error())
	case l.room == 0:
		_, _ = io.WriteString(l.w, "\n[the rest of this line is not kept: the log has reached its limit]\n") // the warning says so too
		l.warn("it has reached its limit of " + lineLogMost.Human())
	}
	return len(p), nil
}

// openLines serves the serial lines, before there is a machine: a port that is
// taken is told before anything else is done.
func (r *run) openLines(ctx context.Context) error {
	l := &r.lines
	l.console = serial.NewHub(serial.Options{Replay: true, Refuse: r.refuseTyping})
	r.cleanup.push("closing "+ConsoleSocket, func(context.Context) error { return l.console.Close() })
	if err := l.console.ListenUnix(ctx, filepath.Join(r.dir, ConsoleSocket)); err != nil {
		return fail(Internal, "The console cannot be served", err)
	}
	if !r.config.SerialPort.Set {
		return nil
	}
	const name = "serial2.log"
	w, err := r.log(name)
	if err != nil {
		return err
	}
	l.log = &lineLog{w, lineLogMost, func(text string) {
		r.Log.Annotate(actions.Warning, "The log of the second serial port is not complete", r.logs.path(name)+" ends early: "+text+". The port itself goes on.")
	}}
	l.second = serial.NewHub(serial.Options{})
	r.cleanup.push("closing the second serial port", func(context.Context) error { return l.second.Close() })
	if err := l.second.ListenUnix(ctx, filepath.Join(r.dir, SecondSerialSocket)); err != nil {
		return fail(Internal, "The second serial port cannot be served", err)
	}
	address, err := l.second.ListenTCP(ctx, r.config.SerialPort.Port, r.config.SerialPort.Telnet)
	if err != nil {
		return fail(InputInvalid, "Invalid input", fmt.Errorf("serial-port: %w", err), "Name a port that nobody uses, or 0 for any free one.")
	}
	how := "raw"
	if r.config.SerialPort.Telnet {
		how = "telnet"
	}
	r.Log.Printf("The guest's second serial port is served on %s (%s), to every user of this machine; its log is %s", address, how, r.logs.path(name))
	return nil
}

// attachLines connects the lines of a machine.
func (r *run) attachLines(m *qemu.Machine) {
	c := r.console
	c.Tap(func(p []byte, hidden bool) {
		if !hidden {
			_, _ = r.lines.console.Write(p) // never fails
		}
	}, func() {})
	r.lines.console.Attach(func(ctx context.Context, p []byte) error { return c.Send(ctx, string(p)) })
	conn := m.Second()
	if r.lines.second == nil || conn == nil {
		return
	}
	r.lines.second.Attach(func(ctx context.Context, p []byte) error { return writeLine(ctx, conn, p) })
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.MultiWriter(r.lines.second, r.lines.log), conn); done <- err }()
	r.cleanup.push("reading the second serial port to its end", func(limit context.Context) error {
		select {
		case err := <-done:
			return err
		case <-limit.Done():
			return context.Cause(limit)
		}
	})
}

// writeLine types on a line until ctx ends: a guest that does not read its line
// must not keep whoever types.
func writeLine(ctx context.Context, conn net.Conn, p []byte) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) }) // a line that is closed needs none
	defer stop()
	if _, err := conn.Write(p); err != nil {
		return errors.New("the machine has ended")
	}
	return nil
}

// refuseTyping says why a person may not type on the console: whoever does
// while the program itself speaks there would garble what both say.
func (r *run) refuseTyping() string {
	if why := r.speaking.Load(); why != nil {
		return *why
	}
	return ""
}

// speak keeps others from typing on the console until the function is called.
func (r *run) speak(why string) (end func()) {
	r.speaking.Store(&why)
	return func() { r.speaking.Store(nil) }
}

// letType lets people type on a console that the program itself speaks on,
// while it has nothing to say, until the function is called.
func (r *run) letType() (end func()) {
	why := r.speaking.Swap(nil)
	return func() { r.speaking.Store(why) }
}
