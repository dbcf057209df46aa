package cloudinit

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// Marks takes the marks out of the output of a step with Commands. What comes
// in pieces is passed on line by line, so that every division of the output
// gives the same.
type Marks struct {
	mark  string
	to    io.Writer
	ended func(status int)
	line  []byte
}

// longLine is what is kept of a line without an end.
const longLine = 64 << 10

// NewMarks passes output on to a writer, and calls ended for each command that
// has ended.
func NewMarks(mark string, to io.Writer, ended func(status int)) *Marks {
	return &Marks{mark: mark, to: to, ended: ended}
}

// Write takes output of the step.
func (m *Marks) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		end := bytes.IndexByte(p[n:], '\n') + 1
		if end == 0 {
			end = len(p) - n
		}
		end = min(end, longLine-len(m.line))
		m.line = append(m.line, p[n:n+end]...)
		n += end
		if m.line[len(m.line)-1] == '\n' || len(m.line) >= longLine {
			if err := m.Flush(); err != nil {
				return n, err
			}
		}
	}
	return len(p), nil
}

// Flush passes on what is kept: to be called at the end of the output.
func (m *Marks) Flush() error {
	line := m.line
	m.line = nil
	at := bytes.Index(line, []byte(m.mark+" "))
	if at >= 0 {
		status, err := strconv.Atoi(strings.TrimSpace(string(line[at+len(m.mark)+1:])))
		if err == nil && status >= 0 && status <= 255 {
			if line = line[:at]; len(line) > 0 { // the command's last line had no end
				line = append(line, '\n')
			}
			defer m.ended(status)
		}
	}
	if len(line) == 0 {
		return nil
	}
	_, err := m.to.Write(line)
	return err
}
