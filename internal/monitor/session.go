package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// A Session carries out commands on a connection to a monitor, one at a time.
type Session struct {
	Conn *qmp.Conn

	// Keep stores the picture of a screendump under the name that the command
	// gives it, and returns where it is. It may be nil when no command has one.
	Keep func(name string, picture []byte) (file string, err error)

	commands []string // that QEMU knows, once it was asked
}

// An Answer is what became of a command.
type Answer struct {
	ID     json.RawMessage // the command's own
	Return json.RawMessage // as QEMU said it; nil: it refused
	Error  *Refusal        // nil: it did not

	// Notes say more than QEMU does: what a refusal means, what was done instead.
	Notes []string
	// Failed tells that the command did not do what it is for: QEMU refused
	// it, or the human monitor complained in its text.
	Failed bool
}

// Refusal is the error of an answer.
type Refusal struct {
	Class string `json:"class"` // "GenericError", "CommandNotFound", ...
	Text  string `json:"desc"`
}

// JSON is the answer as QMP writes it, on one line.
func (a Answer) JSON() []byte {
	return encode(struct {
		Return json.RawMessage `json:"return,omitempty"`
		Error  *Refusal        `json:"error,omitempty"`
		ID     json.RawMessage `json:"id,omitempty"`
	}{a.Return, a.Error, a.ID})
}

// Refused is the answer to what never came to be a command.
func Refused(id json.RawMessage, class string, err error) Answer {
	return Answer{ID: id, Error: &Refusal{class, err.Error()}, Failed: true}
}

// Do carries out a command. The error is that of a connection or of a context
// that ended; a refusal is an Answer.
func (s *Session) Do(ctx context.Context, c Command) (Answer, error) {
	a, err := s.do(ctx, c)
	var refusal *qmp.Error
	if errors.As(err, &refusal) {
		a, err = Answer{Error: &Refusal{refusal.Class, refusal.Desc}, Failed: true}, nil
		s.explain(ctx, &c, &a)
	}
	a.ID = c.ID
	if err != nil {
		return a, err
	}
	a.Failed = a.Failed || c.Name == human && complains(a.Return)
	a.Notes = append(a.Notes, remarks(c, a)...)
	return a, nil
}

func (s *Session) do(ctx context.Context, c Command) (Answer, error) {
	switch {
	case len(c.Chords) > 0:
		return s.press(ctx, c)
	case c.Name == screendump && c.Picture != "":
		return s.picture(ctx, c)
	case c.Name == "qmp_capabilities":
		return Answer{Return: json.RawMessage("{}"), Notes: []string{"qmp_capabilities was done when the connection was made; leave it out"}}, nil
	}
	return s.execute(ctx, c.Name, c.Arguments)
}

func (s *Session) execute(ctx context.Context, name string, arguments map[string]any) (Answer, error) {
	var args any
	if len(arguments) > 0 {
		args = arguments
	}
	var result json.RawMessage
	err := s.Conn.Execute(ctx, name, args, &result)
	return Answer{Return: result}, err
}

// press presses keys one after the other. QEMU takes them all at once and lets
// them wait; it drops what is too much, and the next command must not come
// before the keys: so each is waited for.
func (s *Session) press(ctx context.Context, c Command) (Answer, error) {
	for i, chord := range c.Chords {
		if err := s.Conn.Execute(ctx, "send-key", chord.arguments(c.Hold.Milliseconds()), nil); err != nil {
			if len(c.Chords) > 1 {
				err = fmt.Errorf("key %d of %d: %w", i+1, len(c.Chords), err)
			}
			return Answer{}, err
		}
		// A key goes down, stays, goes up, and stays: QEMU waits after both.
		if err := s.wait(ctx, 2*c.Hold*time.Duration(len(chord))); err != nil {
			return Answer{}, err
		}
	}
	return Answer{Return: json.RawMessage("{}")}, nil
}

func (s *Session) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.Conn.Done():
		return s.Conn.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// picture takes a picture of the screen.
func (s *Session) picture(ctx context.Context, c Command) (Answer, error) {
	data, err := s.Conn.Screendump(ctx, c.Arguments)
	if err != nil {
		return Answer{}, err
	}
	file, err := s.Keep(c.Picture, data)
	if err != nil {
		return Refused(nil, "GenericError", fmt.Errorf("keeping the picture: %w", err)), nil
	}
	return Answer{Return: encode(map[string]any{"file": file, "size": len(data)})}, nil
}

// Status asks whether the machine runs, and in which state it is if it does not.
func (s *Session) Status(ctx context.Context) (running bool, state string, err error) {
	var status struct {
		Running bool   `json:"running"`
		Status  string `json:"status"`
	}
	err = s.Conn.Execute(ctx, "query-status", nil, &status)
	return status.Running, status.Status, err
}

// complains tells whether the human monitor did not do what it was told. It
// says so in its text only.
func complains(result json.RawMessage) bool {
	var text string
	if json.Unmarshal(result, &text) != nil {
		return false
	}
	for _, beginning := range []string{"unknown command: ", "Error: ", "invalid parameter", "invalid char"} {
		if strings.HasPrefix(text, beginning) {
			return true
		}
	}
	return strings.Contains(text, `Try "help `)
}
