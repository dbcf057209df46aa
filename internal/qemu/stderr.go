package qemu

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// stderrLines is how many of QEMU's last lines are kept for errors.
const stderrLines = 12

// stderrLineLimit bounds one line that is kept, in bytes.
const stderrLineLimit = 400

// noise is what QEMU writes while nothing is wrong.
func noise() []string {
	return []string{
		"Slirp: Failed to send packet", // the guest has no network yet
		"host doesn't support requested feature",
	}
}

// transcript passes QEMU's standard error on to the log, all of it, and keeps
// the last lines that mean something.
type transcript struct {
	log io.Writer // nil for none

	mu      sync.Mutex
	partial []byte
	lines   []string
}

// Write never fails: QEMU must not die of a full disk under its log.
func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.log != nil {
		_, _ = t.log.Write(p)
	}
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := stderrLineLimit - len(t.partial); room > 0 {
			t.partial = append(t.partial, line[:min(room, len(line))]...)
		}
		if ended {
			t.keep(string(t.partial))
			t.partial = t.partial[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (t *transcript) keep(line string) {
	line = strings.TrimSpace(line)
	if line == "" {
		return
	}
	for _, n := range noise() {
		if strings.Contains(line, n) {
			return
		}
	}
	t.lines = append(t.lines, line)
	if len(t.lines) > stderrLines {
		t.lines = t.lines[1:]
	}
}

// tail gives the lines that were kept, and what follows the last newline.
func (t *transcript) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(string(t.partial))
	t.partial = nil
	return strings.Join(t.lines, "\n")
}

// quote writes a command line as a shell would read it.
func quote(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsFunc(arg, needsQuotes) {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func needsQuotes(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%", r)
}
