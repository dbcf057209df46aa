package actions

import (
	"crypto/rand"
	"strings"
	"unicode"
	"unicode/utf8"
)

// openFence makes the runner take nothing for a command until closeFence. Each
// fence has a token of its own, which nobody could have guessed when the text
// inside was made. l.mu is held.
func (l *Log) openFence() {
	if l.drawn {
		l.put(l.opt.Stderr, "\r\x1b[K")
		l.drawn = false
	}
	if !l.opt.Commands || l.fence != "" {
		return
	}
	// The runner refuses tokens that are commands or pause-logging; random text is neither.
	l.fence = rand.Text()
	l.put(l.opt.Stdout, "::stop-commands::"+l.fence+"\n")
}

// closeFence ends the guest's last line, so that the token stands at the start
// of one, and the fence. l.mu is held.
func (l *Log) closeFence() {
	if l.drawn {
		l.put(l.opt.Stderr, "\r\x1b[K")
		l.drawn = false
	}
	if l.midway {
		l.put(l.ours(), "\n")
		l.midway = false
	}
	if l.fence != "" {
		l.put(l.opt.Stdout, "::"+l.fence+"::\n")
		l.fence = ""
	}
}

// couldBeCommand tells whether the runner might find a command in the text:
// :: at the start of a line, after white space, or ##[ anywhere.
func couldBeCommand(text string) bool {
	if strings.Contains(text, "##[") {
		return true
	}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if strings.HasPrefix(strings.TrimSpace(line), "::") {
			return true
		}
	}
	return false
}

// Printable makes text from elsewhere safe to show: escape sequences and other
// control characters become visible or vanish, invalid UTF-8 becomes U+FFFD,
// tabs and newlines stay.
func Printable(s string) string {
	s = strings.TrimSuffix(s, "\n")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == utf8.RuneError:
			return utf8.RuneError
		case r < ' ' || r == 0x7f || unicode.Is(unicode.Cc, r):
			return -1
		case unicode.Is(unicode.Bidi_Control, r):
			return -1 // would let text look like other text
		}
		return r
	}, s)
}
