package console

import (
	"bytes"
	"strconv"
)

// escapeByte handles one byte of an escape sequence (ECMA-48, as the VT100
// and its descendants understand it). A line feed, CAN, SUB or a sequence that
// goes on for too long ends it.
func (s *Splitter) escapeByte(b byte) {
	s.length++
	switch {
	case b == '\n' || s.length > escapeLimit:
		s.state = ground
		s.byte(b)
		return
	case b == 0x18 || b == 0x1a:
		s.state = ground
		return
	}
	switch s.state {
	case escape:
		s.afterEscape(b)
	case intermediate:
		if b < 0x20 || b > 0x2f {
			s.state = ground
		}
	case control:
		s.controlByte(b)
	case text:
		switch b {
		case '\a':
			s.state = ground
		case 0x1b:
			s.state = textEscape
		}
	case textEscape:
		if b == '\\' {
			s.state = ground
			return
		}
		// Not a terminator: the string is over, a new sequence has begun.
		s.state, s.params, s.length = escape, s.params[:0], 0
		s.escapeByte(b)
	case ground: // not reached: byte sends nothing here in this state
	}
}

func (s *Splitter) afterEscape(b byte) {
	s.state = ground
	switch {
	case b == '[':
		s.state = control
	case bytes.IndexByte([]byte("]PX^_"), b) >= 0:
		s.state = text
	case b >= 0x20 && b <= 0x2f:
		s.state = intermediate
	case b == 0x1b:
		s.state = escape
	case b == 'D' || b == 'E' || b == 'M' || b == 'c': // index, next line, reverse index, reset
		s.verticalMove()
	case b < 0x20 || b >= 0x80: // no sequence at all: the byte stands for itself
		s.byte(b)
	}
}

func (s *Splitter) controlByte(b byte) {
	switch {
	case b >= 0x40 && b <= 0x7e:
		s.state = ground
		s.control(b)
	case b == 0x1b:
		s.state, s.params, s.length = escape, s.params[:0], 0
	case b >= 0x20 && b < 0x40:
		s.params = append(s.params, b)
	case b >= 0x80:
		s.state = ground
		s.byte(b)
	}
}

// control carries out a control sequence as far as it concerns one line.
func (s *Splitter) control(final byte) {
	switch final {
	case 'A', 'B', 'E', 'F', 'H', 'd', 'f', 'S', 'T', 'L', 'M':
		s.verticalMove()
	case 'C', 'a':
		s.moveTo(s.col + s.param(1))
	case 'D':
		s.moveTo(s.col - s.param(1))
	case 'G', '`':
		s.moveTo(s.param(1) - 1)
	case 'K':
		s.erase(s.param(0))
	case 'J':
		if s.param(0) >= 2 {
			s.verticalMove()
			return
		}
		s.erase(s.param(0))
	}
}

// param is the first parameter of the sequence.
func (s *Splitter) param(missing int) int {
	first, _, _ := bytes.Cut(s.params, []byte(";"))
	n, err := strconv.ParseUint(string(first), 10, 31)
	if err != nil || n == 0 && missing == 1 {
		return missing
	}
	return int(min(n, uint64(s.limit())))
}

func (s *Splitter) erase(mode int) {
	switch mode {
	case 0:
		s.line = s.line[:min(s.col, len(s.line))]
	case 1:
		for i := range min(s.col+1, len(s.line)) {
			s.line[i] = ' '
		}
	case 2:
		s.line = s.line[:0]
	}
}

// verticalMove leaves the line for another one.
func (s *Splitter) verticalMove() {
	if len(s.line) == 0 {
		s.col = 0
		return
	}
	if n := len(s.flow); n > 0 && s.flow[n-1] != '\n' {
		s.print('\n')
	}
	s.endLine(true)
}
