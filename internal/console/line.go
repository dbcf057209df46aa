// Package console reads a guest's serial console: bytes become lines, lines
// become findings (a panic, a login prompt, a full disk), and findings with the
// other evidence of a failed run become a cause that a person can act upon. It
// also types on the console.
//
// The formats are those of GNU Mach and the Hurd, Linux, GRUB and SeaBIOS, as
// recorded from real machines in testdata/serial.
package console

import (
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// A Line is one line of the console as a terminal would show it.
type Line struct {
	Time    time.Time // when its last character arrived
	Text    string    // without the line end; see Splitter
	Partial bool      // still being written: a prompt, or a guest that stopped in the middle
}

// A Ring keeps the last lines within two bounds. It is not safe for concurrent use.
type Ring struct {
	Lines int         // how many lines at most; 0 means 2000
	Bytes units.Bytes // how much text at most; 0 means 1M

	kept []Line
	size units.Bytes
	lost int64
}

// The bounds of a Ring that names none.
const (
	defaultRingLines = 2000
	defaultRingBytes = units.MiB
)

// Add appends a line and forgets the oldest ones beyond the bounds. The newest
// line is always kept.
func (r *Ring) Add(line Line) {
	lines, bytes := r.Lines, r.Bytes
	if lines <= 0 {
		lines = defaultRingLines
	}
	if bytes <= 0 {
		bytes = defaultRingBytes
	}
	r.kept = append(r.kept, line)
	r.size += units.Bytes(len(line.Text))
	drop := 0
	for drop < len(r.kept)-1 && (len(r.kept)-drop > lines || r.size > bytes) {
		r.size -= units.Bytes(len(r.kept[drop].Text))
		r.kept[drop] = Line{}
		drop++
	}
	r.kept = r.kept[drop:]
	r.lost += int64(drop)
}

// Tail returns a copy of the last n lines, oldest first; all of them when n is
// negative.
func (r *Ring) Tail(n int) []Line {
	if n < 0 || n > len(r.kept) {
		n = len(r.kept)
	}
	return append([]Line(nil), r.kept[len(r.kept)-n:]...)
}

// Forgotten is the number of lines that no longer fit.
func (r *Ring) Forgotten() int64 { return r.lost }
