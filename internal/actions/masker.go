package actions

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// mask is what stands for a secret.
const mask = "***"

// shortest is how many bytes a secret has at least. Shorter ones would make a
// log unreadable and are guessed anyway.
const shortest = 4

// A Masker knows values that must not be shown or kept, and takes them out of
// what is. It is safe for use by several goroutines.
type Masker struct {
	announce func(value string)

	mu      sync.Mutex
	known   map[string]bool // values given to Mask
	secrets map[string]bool // what is looked for
	machine *automaton      // for secrets; nil when it has to be built
}

// NewMasker returns a Masker that knows nothing yet. announce is called with
// every new value, so that the runner masks it as well (Log.AddMask does that);
// it may be nil.
func NewMasker(announce func(value string)) *Masker {
	return &Masker{announce: announce, known: map[string]bool{}, secrets: map[string]bool{}}
}

// Mask makes a value a secret from now on: as it is, without white space around
// it, each of its lines, and as it looks in JSON, in Go's and shells' quotes, in
// a URL, in HTML and in base64 (also with something before or after it). It
// tells whether the value is masked: one with fewer than 4 bytes is not.
func (m *Masker) Mask(value string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if trimmed := strings.TrimSpace(value); len(trimmed) < shortest || strings.Trim(trimmed, "*") == "" {
		return false
	}
	if m.known[value] {
		return true
	}
	m.known[value] = true
	m.add(value)
	for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
		m.add(line)
	}
	m.machine = nil
	if m.announce != nil {
		m.announce(value)
	}
	return true
}

// add makes secrets of one text.
func (m *Masker) add(text string) {
	text = strings.TrimSpace(text)
	if len(text) < shortest {
		return // a line of a longer value
	}
	for _, s := range append(spellings(text), text) {
		if len(s) >= shortest && strings.Trim(s, "*") != "" {
			m.secrets[s] = true
		}
	}
}

// spellings are other forms in which programs print a text. The runner masks
// much the same ones (HostContext.cs).
func spellings(text string) []string {
	all := []string{
		url.QueryEscape(text), url.PathEscape(text), html.EscapeString(text),
		strings.Trim(strconv.Quote(text), `"`), strings.ReplaceAll(text, "'", `'\''`),
	}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if enc.Encode(text) == nil { // a string always can be
			quoted := strings.TrimSpace(b.String())
			all = append(all, quoted[1:len(quoted)-1])
		}
	}
	return append(all, base64Forms(text)...)
}

// base64Forms are the characters that a text becomes in base64, however many
// bytes stand before it and whatever follows: those that depend on other bytes
// too are left out.
func base64Forms(text string) []string {
	var all []string
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			coded := encoding.EncodeToString(append(make([]byte, before), text...))
			first := (before*8 + 5) / 6
			last := (before + len(text)) * 8 / 6
			all = append(all, coded[first:last])
		}
	}
	return all
}

// String returns a text with its secrets masked.
func (m *Masker) String(text string) string {
	var b strings.Builder
	w := m.Writer(&b)
	_, _ = w.Write([]byte(text)) // a strings.Builder takes everything
	_ = w.Close()
	return b.String()
}

// current is the automaton for all secrets of this moment.
func (m *Masker) current() *automaton {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.machine == nil {
		m.machine = newAutomaton(m.secrets)
	}
	return m.machine
}

// An automaton finds all occurrences of a set of strings in one pass
// (Aho and Corasick 1975).
type automaton struct {
	root  [256]int32
	nodes []node // the first is the root
}

// A node stands for a prefix of a string of the set.
type node struct {
	child, sibling int32 // 0: none
	fail           int32 // the longest proper suffix that is a prefix as well
	depth          int32 // its length
	match          int32 // length of the longest string of the set that ends it; 0: none
	char           byte
}

func newAutomaton(set map[string]bool) *automaton {
	a := &automaton{nodes: make([]node, 1)}
	for s := range set {
		state := int32(0)
		for i := range len(s) {
			next := a.child(state, s[i])
			if next == 0 {
				next = int32(len(a.nodes))
				a.nodes = append(a.nodes, node{char: s[i], depth: int32(i + 1), sibling: a.nodes[state].child})
				a.nodes[state].child = next
				if state == 0 {
					a.root[s[i]] = next
				}
			}
			state = next
		}
		a.nodes[state].match = int32(len(s))
	}
	a.link()
	return a
}

// link sets fail and match, shorter prefixes first.
func (a *automaton) link() {
	queue := []int32{0}
	for len(queue) > 0 {
		parent := queue[0]
		queue = queue[1:]
		for c := a.nodes[parent].child; c != 0; c = a.nodes[c].sibling {
			n := &a.nodes[c]
			if parent != 0 {
				n.fail = a.step(a.nodes[parent].fail, n.char)
			}
			if n.match == 0 {
				n.match = a.nodes[n.fail].match
			}
			queue = append(queue, c)
		}
	}
}

func (a *automaton) child(state int32, char byte) int32 {
	if state == 0 {
		return a.root[char]
	}
	for c := a.nodes[state].child; c != 0; c = a.nodes[c].sibling {
		if a.nodes[c].char == char {
			return c
		}
	}
	return 0
}

// step is the state after one more byte.
func (a *automaton) step(state int32, char byte) int32 {
	for {
		if next := a.child(state, char); next != 0 || state == 0 {
			return next
		}
		state = a.nodes[state].fail
	}
}
