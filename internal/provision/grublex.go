package provision

import "strings"

// grubWord is one word of a GRUB script with its place in the file.
type grubWord struct {
	text       string // quotes and backslashes removed; variables not expanded
	start, end int
}

// grubCommand is a row of words up to a newline, a semicolon or a brace.
type grubCommand []grubWord

func (c grubCommand) is(names ...string) bool {
	for _, name := range names {
		if len(c) > 0 && c[0].text == name {
			return true
		}
	}
	return false
}

func (c grubCommand) has(word string) bool {
	for _, w := range c {
		if w.text == word {
			return true
		}
	}
	return false
}

func (c grubCommand) last() grubWord { return c[len(c)-1] }

// lexGrub splits a GRUB script into commands (GRUB manual, "Writing full
// configuration files directly"): words separated by blanks, three kinds of
// quoting, comments, backslash-newline, and braces as words of their own. It
// takes any input: a command with an unterminated quote, which reaches to the
// end of the file, is left out.
func lexGrub(cfg []byte) []grubCommand {
	l := &grubLexer{src: cfg}
	for l.at < len(cfg) {
		l.step()
	}
	if !l.open {
		l.endCommand()
	}
	return l.commands
}

type grubLexer struct {
	src      []byte
	at       int
	commands []grubCommand
	command  grubCommand
	open     bool // the file ended inside a quote or after a backslash
}

func (l *grubLexer) endCommand() {
	if len(l.command) > 0 {
		l.commands = append(l.commands, l.command)
		l.command = nil
	}
}

func (l *grubLexer) step() {
	switch c := l.src[l.at]; {
	case c == '\n' || c == ';' || c == '&' || c == '|':
		l.at++
		l.endCommand()
	case c == ' ' || c == '\t' || c == '\r':
		l.at++
	case c == '\\' && l.newlineAt(l.at+1) > 0:
		l.at += 1 + l.newlineAt(l.at+1)
	case c == '#':
		for l.at < len(l.src) && l.src[l.at] != '\n' {
			l.at++
		}
	default:
		l.word()
	}
}

// newlineAt is the length of the newline at a place, 0 when there is none.
func (l *grubLexer) newlineAt(i int) int {
	rest := l.src[min(i, len(l.src)):]
	switch {
	case len(rest) > 0 && rest[0] == '\n':
		return 1
	case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
		return 2
	}
	return 0
}

func (l *grubLexer) word() {
	var text strings.Builder
	w := grubWord{start: l.at}
	for l.at < len(l.src) && strings.IndexByte(" \t\r\n;&|", l.src[l.at]) < 0 {
		switch c := l.src[l.at]; {
		case c == '\'':
			l.quoted(&text, '\'')
		case c == '"':
			l.quoted(&text, '"')
		case c == '\\' && l.newlineAt(l.at+1) > 0:
			l.at += 1 + l.newlineAt(l.at+1)
			continue
		case c == '\\' && l.at+1 < len(l.src):
			text.WriteByte(l.src[l.at+1])
			l.at += 2
		default:
			l.open = c == '\\'
			text.WriteByte(c)
			l.at++
		}
		w.end = l.at // not after a backslash-newline: an edit goes before it
	}
	w.text = text.String()
	if w.end <= w.start {
		return
	}
	raw := string(l.src[w.start:w.end])
	if raw == "}" {
		l.endCommand()
	}
	l.command = append(l.command, w)
	if raw == "{" || raw == "}" {
		l.endCommand()
	}
}

// quoted reads a quoted part of a word, the cursor on its first quote.
func (l *grubLexer) quoted(text *strings.Builder, quote byte) {
	for l.at++; l.at < len(l.src) && l.src[l.at] != quote; l.at++ {
		if quote == '"' && l.src[l.at] == '\\' && l.at+1 < len(l.src) {
			l.at++
		}
		text.WriteByte(l.src[l.at])
	}
	l.open = l.at == len(l.src)
	l.at = min(l.at+1, len(l.src))
}
