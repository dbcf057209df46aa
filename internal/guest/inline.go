package guest

import (
	"bytes"
	"strconv"
	"strings"
)

// printing is a command of a POSIX shell that prints data, whatever it holds,
// without starting a program: in an emulated guest one costs more than all that
// the shell does. What is not plain text becomes an octal escape, so that no
// shell's idea of characters matters.
func printing(data []byte) string {
	var b strings.Builder
	b.Grow(len(data) + len("printf ''"))
	b.WriteString("printf '")
	for i, c := range data {
		switch {
		case c == '-' && i == 0: // a key in PEM begins so: an option, to dash
			b.WriteString(`\055`)
		case c == '\'':
			b.WriteString(`'\''`)
		case c == '%':
			b.WriteString("%%")
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n' || c == '\t' || c >= ' ' && c <= '~':
			b.WriteByte(c)
		default:
			b.WriteString(`\`)
			b.WriteByte('0' + c>>6)
			b.WriteByte('0' + c>>3&7)
			b.WriteByte('0' + c&7)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// inlineMost is the most text of a program that one file's content becomes: a
// shell reads its program byte by byte. A script with a larger file can't use the
// session that is held, so that it should be more than an event of GitHub.
const inlineMost = 48 << 10

// filling is what setup.sh takes on its standard input: the contents of large
// files, and behind them a program that makes all files.
type filling struct {
	large   bytes.Buffer
	program strings.Builder
}

// file has one made.
func (f *filling) file(name string, content []byte) {
	if len(content) == 0 {
		f.step(": >" + quote(name))
		return
	}
	if len(content) <= inlineMost {
		if text := printing(content); len(text) <= inlineMost {
			f.step(text + " >" + quote(name))
			return
		}
	}
	f.step("part " + strconv.Itoa(f.large.Len()+1) + " " + strconv.Itoa(len(content)) + " " + quote(name))
	f.large.Write(content)
}

func (f *filling) step(command string) {
	if f.program.Len() > 0 {
		f.program.WriteString(" &&\n")
	}
	f.program.WriteString(command)
}
