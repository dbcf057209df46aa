package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// item is one of the words after a command's name.
type item struct {
	key    string // of key=value; empty: a plain word
	value  any    // of key=value
	word   string // a plain word
	quoted bool   // it was in quotes
}

// argumentName is what may be before = in key=value. Dots lead into objects.
var argumentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// split takes what follows a command's name on its line apart.
func split(text string) ([]item, error) {
	var items []item
	for {
		text = strings.TrimLeft(text, " \t")
		if text == "" {
			return items, nil
		}
		it, rest, err := next(text)
		if err != nil {
			return nil, err
		}
		if rest != "" && !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "\t") {
			return nil, fmt.Errorf("there is no blank before %s", brief(rest))
		}
		items = append(items, it)
		text = rest
	}
}

// next reads the first item of a text that begins with no blank.
func next(text string) (it item, rest string, err error) {
	if text[0] == '"' || text[0] == '\'' {
		it.quoted = true
		it.word, rest, err = quotation(text)
		return it, rest, err
	}
	end := strings.IndexAny(text, " \t=")
	if end < 0 || text[end] != '=' || !argumentName.MatchString(text[:end]) {
		word, rest := cutBlank(text)
		return item{word: word}, rest, nil
	}
	it.key = text[:end]
	it.value, rest, err = value(text[end+1:])
	if err != nil {
		return item{}, "", fmt.Errorf("%s: %w", it.key, err)
	}
	return it, rest, nil
}

// cutBlank cuts at the first blank, which stays.
func cutBlank(text string) (word, rest string) {
	if end := strings.IndexAny(text, " \t"); end >= 0 {
		return text[:end], text[end:]
	}
	return text, ""
}

// value reads the value that a text begins with.
func value(text string) (v any, rest string, err error) {
	switch {
	case text == "":
		return "", "", nil
	case text[0] == '"' || text[0] == '\'':
		return unbox(quotation(text))
	case text[0] == '{' || text[0] == '[':
		return decode(text)
	}
	word, rest := cutBlank(text)
	return typed(word), rest, nil
}

func unbox(text, rest string, err error) (any, string, error) { return text, rest, err }

// decode reads the JSON value that a text begins with.
func decode(text string) (v any, rest string, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early")
		}
		return nil, "", fmt.Errorf("%s is not JSON: %w", brief(text), err)
	}
	return v, text[d.InputOffset():], nil
}

// typed is the value of a bare word: a number, true, false, null, or a string.
func typed(word string) any {
	switch word {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	}
	if c := word[:min(1, len(word))]; c != "" && strings.Contains("-0123456789", c) && json.Valid([]byte(word)) {
		return json.Number(word)
	}
	return word
}

// quotation reads the text in quotes that a text begins with. Between ' it
// stands for itself, between " the escapes of JSON are known, and \e, \xNN and \'.
func quotation(text string) (content, rest string, err error) {
	if text[0] == '\'' {
		content, rest, ok := strings.Cut(text[1:], "'")
		if !ok {
			return "", "", fmt.Errorf("no ' ends %s", brief(text))
		}
		return content, rest, nil
	}
	var b strings.Builder
	for rest = text[1:]; rest != ""; {
		switch rest[0] {
		case '"':
			return b.String(), rest[1:], nil
		case '\\':
			c, size, err := escaped(rest)
			if err != nil {
				return "", "", err
			}
			b.WriteRune(c)
			rest = rest[size:]
		default:
			_, size := utf8.DecodeRuneInString(rest)
			b.WriteString(rest[:size])
			rest = rest[size:]
		}
	}
	return "", "", fmt.Errorf(`no " ends %s`, brief(text))
}

// escapes are the characters after \ that stand for another one.
var escapes = map[byte]rune{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', 'e': 0x1b, '"': '"', '\'': '\'', '\\': '\\', '/': '/'}

// escaped reads an escape sequence.
func escaped(text string) (c rune, size int, err error) {
	if len(text) > 1 {
		if c, ok := escapes[text[1]]; ok {
			return c, 2, nil
		}
		digits := map[byte]int{'x': 2, 'u': 4}[text[1]]
		if digits > 0 && len(text) >= 2+digits {
			if n, err := strconv.ParseUint(text[2:2+digits], 16, 32); err == nil && utf8.ValidRune(rune(n)) {
				return rune(n), 2 + digits, nil
			}
		}
	}
	return 0, 0, fmt.Errorf(`%s is no escape: write \\ for a backslash`, brief(text[:min(6, len(text))]))
}

// maxBrief bounds what an error quotes.
const maxBrief = 40

func brief(text string) string {
	if runes := []rune(text); len(runes) > maxBrief {
		return strconv.Quote(string(runes[:maxBrief])) + "..."
	}
	return strconv.Quote(text)
}

// object makes the arguments of key=value items; a.b=c leads into an object.
func object(items []item) (map[string]any, error) {
	if len(items) == 0 {
		return nil, nil //nolint:nilnil // no arguments are not an error
	}
	top := map[string]any{}
	for _, it := range items {
		if it.key == "" {
			return nil, fmt.Errorf("%s is not key=value: arguments are written as in query-block, device_del id=disk1", brief(it.word))
		}
		at, path := top, strings.Split(it.key, ".")
		for _, name := range path[:len(path)-1] {
			inner, ok := at[name].(map[string]any)
			if !ok {
				if at[name] != nil {
					return nil, fmt.Errorf("%s: %s is no object", it.key, name)
				}
				inner = map[string]any{}
				at[name] = inner
			}
			at = inner
		}
		last := path[len(path)-1]
		if _, twice := at[last]; twice {
			return nil, fmt.Errorf("%s is there twice", it.key)
		}
		at[last] = it.value
	}
	return top, nil
}
