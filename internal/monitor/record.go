package monitor

import (
	"encoding/json"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// Record is a step and its answer in a log of JSON lines.
type Record struct {
	Time      time.Time       `json:"time"`
	Line      int             `json:"line"` // of the script, from 1
	Moment    Moment          `json:"moment"`
	Execute   string          `json:"execute"`
	Arguments map[string]any  `json:"arguments,omitempty"` // without secrets
	Keys      []Chord         `json:"keys,omitempty"`      // unless they are a text, which may be one
	Typed     int             `json:"typed,omitempty"`     // how many keys the text had
	Return    json.RawMessage `json:"return,omitempty"`
	Error     *Refusal        `json:"error,omitempty"`
	Notes     []string        `json:"notes,omitempty"`
}

// Record makes the record of an answer.
func (s Step) Record(at time.Time, a Answer) Record {
	r := Record{
		Time: at, Line: s.Line, Moment: s.Moment, Execute: s.Command.Name, Arguments: s.Command.shownArguments(),
		Return: a.Return, Error: a.Error, Notes: a.Notes,
	}
	if s.Command.Typed {
		r.Typed = len(s.Command.Chords)
	} else {
		r.Keys = s.Command.Chords
	}
	return r
}

// Event is something that QEMU reports on its own.
type Event = qmp.Event

// EventJSON is an event as QMP writes it, on one line.
func EventJSON(e Event) []byte {
	type moment struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	}
	at := moment{-1, -1} // as QEMU writes it when its host has no time
	if !e.Time.IsZero() {
		at = moment{e.Time.Unix(), int64(e.Time.Nanosecond() / 1000)}
	}
	return encode(struct {
		Time  moment          `json:"timestamp"`
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data,omitempty"`
	}{at, e.Name, e.Data})
}
