package console

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of a Splitter. A guest can send anything, so nothing that it
// sends may grow without limit.
const (
	// DefaultLineLimit is the number of characters after which a line is cut.
	DefaultLineLimit = 4096
	// escapeLimit is the number of bytes after which an escape sequence that
	// has not ended is given up, so that it can't swallow the rest of a log.
	escapeLimit = 256
	tabWidth    = 8
)

// A Splitter turns serial bytes into the lines that a person would see on a
// terminal: CR goes back to the first column, later characters overwrite
// earlier ones, and escape sequences do what they would do within a line or
// are removed. A sequence that moves the cursor to another line ends the line,
// and a line so ended that holds no letter and no digit (the frame of a boot
// menu) is dropped.
//
// What can't be shown is made visible: invalid UTF-8 and control characters
// come out as \xNN, format characters (direction overrides among them) as
// \uNNNN; NUL, BEL and DEL are dropped. A line longer than Limit characters is
// cut there and goes on as the next line.
//
// The lines do not depend on how the bytes were cut into writes. The zero
// value is ready for use.
type Splitter struct {
	Limit int // characters per line; 0 means DefaultLineLimit

	line   []rune
	col    int
	utf8   []byte // an incomplete character, at most three bytes
	state  escapeState
	params []byte // of the escape sequence in progress
	length int    // bytes of the escape sequence in progress
	lines  []string
	record bool   // whether to keep flow
	flow   []byte // see takeFlow
}

// escapeState says what an escape sequence in progress still needs.
type escapeState int

const (
	ground       escapeState = iota // no sequence in progress
	escape                          // ESC was seen
	intermediate                    // ESC and an intermediate byte: one final byte follows
	control                         // ESC [ : parameters and a final byte follow
	text                            // ESC ] and its kin: a string follows, up to BEL or ESC \
	textEscape                      // ESC within such a string
)

// Write takes the next bytes and returns the lines that they completed,
// without line ends.
func (s *Splitter) Write(p []byte) []string {
	s.lines = nil
	for _, b := range p {
		s.byte(b)
	}
	return s.lines
}

// Partial returns the line in progress: a prompt, usually.
func (s *Splitter) Partial() string { return strings.TrimRight(string(s.line), " ") + s.promptSpace() }

// promptSpace keeps the one blank that ends a prompt such as "login: ".
func (s *Splitter) promptSpace() string {
	if n := len(s.line); n > 1 && s.line[n-1] == ' ' && s.line[n-2] != ' ' {
		return " "
	}
	return ""
}

// Flush ends the input: it returns what was still in progress, a character
// that was cut short included. That is no line or one, and two when that
// character crosses the limit.
func (s *Splitter) Flush() []string {
	s.lines = nil
	s.flushInvalid()
	if len(s.line) > 0 {
		s.endLine(false)
	}
	s.state = ground
	return s.lines
}

// Clean returns text as a Splitter shows it, its lines joined by newlines. It
// is meant for what a guest or a program wrote elsewhere than on the console.
func Clean(text []byte) string {
	var s Splitter
	lines := s.Write(text)
	return strings.Join(append(lines, s.Flush()...), "\n")
}

// print adds a character to the flow, if anyone wants it.
func (s *Splitter) print(r rune) {
	if s.record {
		s.flow = utf8.AppendRune(s.flow, r)
	}
}

// takeFlow returns and forgets the characters printed so far in the order in
// which they came, without overwriting: what Expect matches.
func (s *Splitter) takeFlow() []byte {
	flow := s.flow
	s.flow = nil
	return flow
}

func (s *Splitter) byte(b byte) {
	if s.state != ground {
		s.escapeByte(b)
		return
	}
	if len(s.utf8) > 0 || b >= utf8.RuneSelf {
		s.utf8Byte(b)
		return
	}
	s.ascii(b)
}

func (s *Splitter) ascii(b byte) {
	switch b {
	case '\n', '\v', '\f':
		s.print('\n')
		s.endLine(false)
	case '\r':
		s.col = 0
	case '\b':
		s.col = max(s.col-1, 0)
	case '\t':
		s.print('\t')
		s.moveTo(s.col - s.col%tabWidth + tabWidth)
	case 0x1b:
		s.state, s.params, s.length = escape, s.params[:0], 0
	case 0, '\a', 0x7f:
	default:
		if b < ' ' {
			s.literal(hexByte(b))
			return
		}
		s.put(rune(b))
	}
}

func (s *Splitter) utf8Byte(b byte) {
	if len(s.utf8) > 0 && utf8.RuneStart(b) {
		// The character before was cut short; this byte begins something new.
		s.flushInvalid()
		s.byte(b)
		return
	}
	s.utf8 = append(s.utf8, b)
	if !utf8.FullRune(s.utf8) {
		return
	}
	r, size := utf8.DecodeRune(s.utf8)
	if r == utf8.RuneError && size <= 1 {
		s.flushInvalid()
		return
	}
	s.utf8 = s.utf8[:0]
	if !unicode.IsPrint(r) && r != '\u00a0' {
		s.literal(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		return
	}
	s.put(r)
}

func (s *Splitter) flushInvalid() {
	pending := s.utf8
	s.utf8 = nil
	for _, b := range pending {
		s.literal(hexByte(b))
	}
}

func hexByte(b byte) string {
	const digits = "0123456789abcdef"
	return `\x` + string([]byte{digits[b>>4], digits[b&15]})
}

func (s *Splitter) literal(text string) {
	for _, r := range text {
		s.put(r)
	}
}

// put prints one character at the cursor.
func (s *Splitter) put(r rune) {
	s.print(r)
	if s.col >= s.limit() {
		s.endLine(false)
	}
	s.moveTo(s.col)
	if s.col < len(s.line) {
		s.line[s.col] = r
	} else {
		s.line = append(s.line, r)
	}
	s.col++
}

// moveTo sets the cursor's column, and fills the line with blanks up to it.
func (s *Splitter) moveTo(col int) {
	s.col = min(max(col, 0), s.limit())
	for len(s.line) < s.col {
		s.line = append(s.line, ' ')
	}
}

func (s *Splitter) limit() int {
	if s.Limit > 0 {
		return s.Limit
	}
	return DefaultLineLimit
}

// endLine hands out the line. One ended by a cursor movement is dropped when
// it is mere decoration.
func (s *Splitter) endLine(moved bool) {
	line := s.line
	s.line, s.col = s.line[:0], 0
	if moved && !strings.ContainsFunc(string(line), isWord) {
		return
	}
	s.lines = append(s.lines, strings.TrimRight(string(line), " "))
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
