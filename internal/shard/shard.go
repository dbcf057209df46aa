// Package shard is the fan-out of a list of scripts over guests, without the
// guests: it reads the list, decides which script runs when, keeps the outputs
// of several scripts apart, and puts their results together.
package shard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Script is one entry of a list.
type Script struct {
	Number int    // from 1, in the order of the list
	Line   int    // from 1, of the list's file
	Text   string // the command, for the guest's shell
}

// nameLength bounds Script.Name, in characters.
const nameLength = 40

// Name is the beginning of the command, on one line and without what a
// terminal could take for more than text.
func (s Script) Name() string {
	words := strings.Join(strings.FieldsFunc(s.Text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if utf8.RuneCountInString(words) <= nameLength {
		return words
	}
	return string([]rune(words)[:nameLength-3]) + "..."
}

// What a list may have. The directory of the logs has room for 10000 runs.
const (
	MaxScripts = 5000
	maxCommand = 128 << 10 // bytes in one line
)

// ErrList is a list that can't be used.
var ErrList = errors.New("not a list of scripts")

// Parse reads a list: one command per line. Blank lines, and lines that begin
// with #, are skipped; white space around a command does not count. A list
// without a command is an error, since whoever runs one expects a result.
func Parse(r io.Reader) ([]Script, error) {
	var list []Script
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxCommand)
	n := 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		switch {
		case len(text) == 0 || text[0] == '#':
			continue
		case bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text):
			return nil, fmt.Errorf("%w: line %d is no text in UTF-8", ErrList, n)
		case len(list) == MaxScripts:
			return nil, fmt.Errorf("%w: line %d: it has more than %d commands", ErrList, n, MaxScripts)
		}
		list = append(list, Script{Number: len(list) + 1, Line: n, Text: string(text)})
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%w: line %d is longer than %d KiB: put what is long into a script of the workspace", ErrList, n+1, maxCommand>>10)
	case err != nil:
		return nil, err
	case len(list) == 0:
		return nil, fmt.Errorf("%w: it has no command: write one per line", ErrList)
	}
	return list, nil
}
