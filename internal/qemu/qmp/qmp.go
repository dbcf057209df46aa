// Package qmp speaks the QEMU Machine Protocol over any byte stream: commands
// matched to replies by id, a context per command, replies of any size, and
// events that a slow consumer can lose but never hold up.
//
// The protocol is described in QEMU's docs/interop/qmp-spec.rst. Only JSON
// values matter here, so the peer may cut its stream into any chunks, and
// print them prettily or not.
package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrClosed is the cause of every call on a connection that this side closed.
var ErrClosed = errors.New("the monitor connection is closed")

// ErrHangup is wrapped by the cause of every call on a connection that QEMU
// ended, which it does when it goes away itself.
var ErrHangup = errors.New("QEMU closed the monitor")

// ErrProtocol is wrapped by the errors for a peer that does not speak QMP.
var ErrProtocol = errors.New("the peer does not speak QMP")

// Error is QEMU's refusal of a command.
type Error struct {
	Class string // "GenericError", "CommandNotFound", "DeviceNotFound", ...
	Desc  string // QEMU's text, for people; it changes between versions
}

// Error gives QEMU's text, and the class when it says more than "error".
func (e *Error) Error() string {
	if e.Class == "" || e.Class == "GenericError" {
		return e.Desc
	}
	return e.Class + ": " + e.Desc
}

// Version is what QEMU's greeting says of itself.
type Version struct {
	Major, Minor, Micro int
	Package             string // the distributor's version, may be empty
}

// String gives the version without the package, "7.2.22".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// UnmarshalJSON reads the form that the greeting and query-version use.
func (v *Version) UnmarshalJSON(data []byte) error {
	var wire struct {
		QEMU struct {
			Major, Minor, Micro int
		} `json:"qemu"`
		Package string `json:"package"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	*v = Version{wire.QEMU.Major, wire.QEMU.Minor, wire.QEMU.Micro, wire.Package}
	return nil
}

// Event is something that QEMU reports on its own.
type Event struct {
	Name string          // "SHUTDOWN", "RESET", "STOP", ...
	Data json.RawMessage // nil where the event has none
	Time time.Time       // QEMU's host clock; zero when QEMU could not tell
}

// message is any value that the peer may send; which fields are present tells
// what it is.
type message struct {
	QMP *struct {
		Version      Version           `json:"version"`
		Capabilities []json.RawMessage `json:"capabilities"`
	} `json:"QMP"`
	ID        json.RawMessage `json:"id"`
	Return    json.RawMessage `json:"return"`
	Error     *wireError      `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

type wireError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// event turns a message into the event that it carries. QEMU writes -1 for
// the seconds when the host's clock failed.
func (m *message) event() Event {
	e := Event{Name: m.Event, Data: m.Data}
	if m.Timestamp.Seconds > 0 {
		e.Time = time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*int64(time.Microsecond))
	}
	return e
}

// command is what this side sends.
type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}
