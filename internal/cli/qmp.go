package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/monitor"
)

// qmpCommand talks to the monitor of a guest that runs.
type qmpCommand struct {
	Guest   string        `name:"guest" placeholder:"WHICH" help:"Which guest, if several run: its run directory, or the end of its name."`
	Socket  string        `name:"socket" placeholder:"PATH" help:"The QMP socket of any QEMU, instead of a guest of this program."`
	Events  bool          `name:"events" help:"Print QEMU's events too, between the answers and while more commands are waited for."`
	Timeout time.Duration `name:"timeout" default:"1m" placeholder:"DURATION" help:"How long an answer may take."`
	Command []string      `arg:"" optional:"" passthrough:"" name:"command" help:"Command, such as query-status, device_del id=usb1, sendkey ctrl-alt-delete, type 'some text', screendump FILE.png, hmp info pic, or JSON. Without one, commands are read from standard input, one per line."`
}

// statusRefused is the exit status when QEMU refused a command.
const statusRefused = 1

// qmp talks to the monitor of a guest that runs.
func (c Command) qmp(cmd *qmpCommand) int {
	words := cmd.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	var one *monitor.Command
	if len(words) > 0 {
		parsed, err := monitor.ParseWords(words)
		if err != nil {
			return c.failed(fmt.Errorf("qmp: %w", err))
		}
		one = &parsed
	}
	if cmd.Guest != "" && cmd.Socket != "" {
		return c.failed(errors.New("both --guest and --socket are given: leave one of them out"))
	}
	refused := false
	status := c.manage("", func(ctx context.Context, host lifecycle.Host) error {
		socket := cmd.Socket
		if socket == "" {
			dir, err := lifecycle.FindRunning(ctx, host.Temp, cmd.Guest)
			if err != nil {
				return err
			}
			socket = lifecycle.MonitorSocket(dir)
		}
		conn, err := monitor.Dial(ctx, socket)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // all that was asked is answered
		s := &qmpSession{Command: c, Session: &monitor.Session{Conn: conn, Keep: keepPicture}, timeout: cmd.Timeout}
		if cmd.Events {
			events := conn.Subscribe()
			defer events.Close()
			s.events = events.Events()
		}
		if one != nil {
			err = s.do(ctx, *one)
		} else {
			err = s.lines(ctx)
		}
		refused = s.refused
		return err
	})
	if status == 0 && refused {
		return statusRefused
	}
	return status
}

// keepPicture writes the picture of a screendump where the user wants it.
func keepPicture(name string, picture []byte) (string, error) {
	return name, os.WriteFile(name, picture, 0o644) //nolint:gosec // a file as any program of the user's writes it
}

// qmpSession prints the answers of one connection.
type qmpSession struct {
	Command
	*monitor.Session
	events  <-chan monitor.Event // nil: nobody wants them
	timeout time.Duration
	refused bool
	quit    bool // the last command was to end QEMU
}

// do carries a command out and prints its answer on one line.
func (s *qmpSession) do(ctx context.Context, command monitor.Command) error {
	limit := s.timeout + 4*command.Hold*time.Duration(len(command.Chords))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("QEMU did not answer within %s (--timeout)", limit))
	defer cancel()
	answer, err := s.Do(ctx, command)
	s.drain() // what came before the answer
	if err != nil {
		return err
	}
	s.answer(answer)
	s.quit = command.Name == "quit"
	return nil
}

func (s *qmpSession) answer(answer monitor.Answer) {
	fmt.Fprintf(s.Stdout, "%s\n", answer.JSON())
	for _, note := range answer.Notes {
		fmt.Fprintf(s.Stderr, "hurd-qemu-action: %s\n", note)
	}
	s.refused = s.refused || answer.Failed
}

// drain prints the events that have come.
func (s *qmpSession) drain() {
	for {
		select {
		case e, open := <-s.events:
			if !open {
				s.events = nil
				return
			}
			s.event(e)
		default:
			return
		}
	}
}

func (s *qmpSession) event(e monitor.Event) { fmt.Fprintf(s.Stdout, "%s\n", monitor.EventJSON(e)) }

// line is one of standard input.
type line struct {
	text string
	err  error // of reading it; io.EOF after the last
}

// lines reads commands from standard input and carries them out until it ends.
func (s *qmpSession) lines(ctx context.Context) error {
	if isTerminal(s.Stdin) {
		fmt.Fprintln(s.Stderr, "Commands for QEMU, one per line; an empty input (Ctrl-D) ends this.")
	}
	input := make(chan line)
	go readLines(ctx, s.Stdin, input)
	var pending string // JSON that goes on in the next line
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, open := <-s.events:
			if open {
				s.event(e)
			} else {
				s.events = nil
			}
		case <-s.Conn.Done():
			s.drain()
			if s.quit {
				return nil
			}
			return s.Conn.Err()
		case l := <-input:
			rest, err := s.take(ctx, pending, l)
			if err != nil || l.err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return err
			}
			pending = rest
		}
	}
}

// take carries out what a line holds, or returns it when it is incomplete.
func (s *qmpSession) take(ctx context.Context, pending string, l line) (rest string, err error) {
	if l.err != nil && !errors.Is(l.err, io.EOF) {
		return "", fmt.Errorf("reading standard input: %w", l.err)
	}
	text := strings.TrimSpace(pending + l.text)
	if text == "" || text[0] == '#' {
		return "", nil
	}
	command, err := monitor.Parse(text)
	switch {
	case errors.Is(err, monitor.ErrIncomplete) && l.err == nil && len(text) < maxPending:
		return text + "\n", nil
	case err != nil:
		s.answer(monitor.Refused(nil, "GenericError", err))
		return "", nil
	}
	return "", s.do(ctx, command)
}

// maxPending bounds a command that goes on over several lines.
const maxPending = 1 << 20

// readLines reads lines of any length; the last one need not end.
func readLines(ctx context.Context, from io.Reader, to chan<- line) {
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadString('\n')
		select {
		case to <- line{text, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
