package diagnostic

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine bounds a line; what follows on it is ignored. Messages that name a
// C++ template are the longest that matter.
const maxLine = 4096

// The states of a writer within an escape sequence (ECMA-48, 5.4 and 8.3.89).
type escape int

const (
	none      escape = iota
	started          // after ESC
	control          // in a control sequence: a colour
	text             // in a control string: a hyperlink
	textEnded        // in a control string, after ESC
)

// writer cuts bytes into lines and takes escape sequences out of them.
type writer struct {
	scanner scanner
	line    []byte
	state   escape
	cr      bool // the last byte was a carriage return
}

// Write takes the next bytes of the stream.
func (w *writer) Write(p []byte) (int, error) {
	for _, b := range p {
		w.take(b)
	}
	return len(p), nil
}

// Close takes the last line when no line end followed it.
func (w *writer) Close() error {
	if len(w.line) > 0 {
		w.end()
	}
	w.scanner.close()
	return nil
}

func (w *writer) take(b byte) {
	// A line end ends a sequence as well: one that is cut off must not eat the rest.
	if b == '\n' || b == '\r' {
		if b != '\n' || !w.cr {
			w.end()
		}
		w.cr, w.state = b == '\r', none
		return
	}
	w.cr = false
	switch w.state {
	case none:
		switch {
		case b == 0x1b:
			w.state = started
		case len(w.line) < maxLine:
			w.line = append(w.line, b)
		}
	case started:
		switch {
		case b == '[':
			w.state = control
		case strings.IndexByte("]PX^_", b) >= 0:
			w.state = text
		case b >= 0x20 && b <= 0x2f: // one that goes on: a character set
		default:
			w.state = none
		}
	case control:
		if b >= 0x40 && b <= 0x7e {
			w.state = none
		}
	case text:
		switch b {
		case 0x07: // what xterm takes for the end
			w.state = none
		case 0x1b:
			w.state = textEnded
		}
	case textEnded:
		w.state = none
	}
}

func (w *writer) end() {
	w.scanner.scan(printable(string(w.line)))
	w.line = w.line[:0]
}

// printable takes out what could make a text look like another one: control
// characters but for the tab, and marks of direction; invalid UTF-8 becomes
// U+FFFD.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029') {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// bound cuts a text to a number of bytes, at the end of a character.
func bound(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
