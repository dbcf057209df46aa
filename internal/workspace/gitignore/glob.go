package gitignore

import "strings"

// glob is a compiled wildcard pattern: a row of steps. It is matched by
// following all ways through it at once, in time proportional to the lengths of
// pattern and name, because names may come from a guest.
type glob []step

type kind uint8

const (
	literal  kind = iota // one certain byte
	set                  // one byte of a set; never a slash
	star                 // any bytes but slashes
	starstar             // any bytes
	gap                  // nothing, or any bytes that end with a slash: "**/"
	never                // nothing matches from here on
)

type step struct {
	kind kind
	char byte
	set  *[256]bool
}

// compile reads a pattern as git's wildmatch does under WM_PATHNAME.
func compile(text string) glob {
	g := glob{}
	for i := 0; i < len(text); {
		s, n := step{kind: literal, char: text[i]}, 1
		switch text[i] {
		case '\\':
			if i+1 == len(text) {
				return append(g, step{kind: never})
			}
			s.char, n = text[i+1], 2
		case '?':
			s = step{kind: set, set: all()}
		case '[':
			s, n = class(text[i:])
		case '*':
			s, n = stars(text, i)
		}
		g = append(g, s)
		i += n
	}
	return g
}

// stars reads a row of stars that begins at i.
func stars(text string, i int) (step, int) {
	n := len(text[i:]) - len(strings.TrimLeft(text[i:], "*"))
	after := text[i+n:]
	switch begins := i == 0 || text[i-1] == '/'; {
	case n == 1 || !begins:
		return step{kind: star}, n
	case strings.HasPrefix(after, "/"):
		return step{kind: gap}, n + 1
	case after == "" || strings.HasPrefix(after, `\/`):
		return step{kind: starstar}, n
	}
	return step{kind: star}, n
}

func all() *[256]bool {
	var s [256]bool
	for c := range s {
		s[c] = c != '/'
	}
	return &s
}

// class reads a bracket expression, and how long it is.
func class(text string) (step, int) {
	var s [256]bool
	i, negated := 1, false
	if i < len(text) && (text[i] == '!' || text[i] == '^') {
		negated = true
		i++
	}
	previous := byte(0)
	for first := true; first || i < len(text) && text[i] != ']'; first = false {
		if i >= len(text) {
			return step{kind: never}, len(text)
		}
		c := text[i]
		switch {
		case c == '\\':
			if i++; i == len(text) {
				return step{kind: never}, len(text)
			}
			c = text[i]
			s[c] = true
		case c == '-' && previous != 0 && i+1 < len(text) && text[i+1] != ']':
			if i++; text[i] == '\\' {
				if i++; i == len(text) {
					return step{kind: never}, len(text)
				}
			}
			for b := int(previous); b <= int(text[i]); b++ {
				s[b] = true
			}
			c = 0
		case c == '[' && strings.HasPrefix(text[i:], "[:"):
			end := strings.IndexByte(text[i+2:], ']')
			if end < 0 {
				return step{kind: never}, len(text)
			}
			name, ok := strings.CutSuffix(text[i+2:i+2+end], ":")
			if !ok {
				s['['] = true // as if the bracket were one of the set
				break
			}
			in, known := classes[name]
			if !known {
				return step{kind: never}, len(text)
			}
			for b := range s {
				s[b] = s[b] || in(byte(b))
			}
			i += 2 + end
			c = 0
		default:
			s[c] = true
		}
		previous = c
		i++
	}
	if i >= len(text) {
		return step{kind: never}, len(text)
	}
	for b := range s {
		s[b] = s[b] != negated
	}
	s['/'] = false
	return step{kind: set, set: &s}, i + 1
}

// classes are the named sets, which git limits to ASCII.
var classes = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return c > ' ' && c < 0x7f },
	"lower":  func(c byte) bool { return c >= 'a' && c <= 'z' },
	"print":  func(c byte) bool { return c >= ' ' && c < 0x7f },
	"punct":  func(c byte) bool { return c > ' ' && c < 0x7f && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return strings.IndexByte(" \t\n\r", c) >= 0 },
	"upper":  func(c byte) bool { return c >= 'A' && c <= 'Z' },
	"xdigit": func(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' },
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// match tells whether the whole of name is what the pattern describes.
func (g glob) match(name string) bool {
	var small [2][64]bool // most patterns are short
	now, next := small[0][:], small[1][:]
	if len(g) >= len(now) {
		now, next = make([]bool, len(g)+1), make([]bool, len(g)+1)
	}
	g.enter(now, 0)
	for i := range len(name) {
		clear(next)
		alive := false
		for at, here := range now[:len(g)] {
			if here && g.take(next, at, name[i]) {
				alive = true
			}
		}
		if !alive {
			return false
		}
		now, next = next, now
	}
	return now[len(g)]
}

// enter marks a step as reached, and those behind it that need no byte.
func (g glob) enter(states []bool, at int) {
	for !states[at] {
		states[at] = true
		if at == len(g) || g[at].kind != star && g[at].kind != starstar && g[at].kind != gap {
			return
		}
		at++
	}
}

// take follows one step by one byte.
func (g glob) take(next []bool, at int, c byte) bool {
	ok := false
	switch s := g[at]; s.kind {
	case literal:
		if ok = c == s.char; ok {
			g.enter(next, at+1)
		}
	case set:
		if ok = s.set[c]; ok {
			g.enter(next, at+1)
		}
	case star:
		if ok = c != '/'; ok {
			g.enter(next, at)
		}
	case starstar:
		ok = true
		g.enter(next, at)
	case gap:
		ok = true
		if c == '/' {
			g.enter(next, at)
		} else {
			next[at] = true // still in the gap: what follows needs a slash first
		}
	}
	return ok
}
