package shard

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// What of an output a Spool keeps: its beginning and its end, in bytes. A
// script may print without end.
const (
	spoolHead = 64 << 20
	spoolTail = 256 << 10
)

// Spool keeps an output until it can be shown, in a file that has no name and
// goes with the process. Of a very long one the middle is left out.
type Spool struct {
	limit int64

	mu   sync.Mutex
	file *os.File
	head int64  // bytes in the file
	tail []byte // of what came after; at most twice spoolTail
	lost int64  // bytes between them
	err  error  // of the file; what came later is lost
}

// NewSpool makes a spool in a directory.
func NewSpool(dir string) (*Spool, error) {
	f, err := os.CreateTemp(dir, "hurd-qemu-action-output-")
	if err != nil {
		return nil, fmt.Errorf("making a file for a script's output: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // the first error counts
		return nil, fmt.Errorf("making a file for a script's output: %w", err)
	}
	return &Spool{limit: spoolHead, file: f}, nil
}

// Write never fails: an output that can't be kept is shown as far as it was.
func (s *Spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := p
	if n := min(int64(len(p)), s.limit-s.head); n > 0 && s.err == nil {
		var written int
		written, s.err = s.file.Write(p[:n])
		s.head += int64(written)
		rest = p[n:]
	}
	s.tail = append(s.tail, rest...)
	if over := len(s.tail) - spoolTail; over > spoolTail {
		s.tail = append(s.tail[:0], s.tail[over:]...)
		s.lost += int64(over)
	}
	return len(p), nil
}

// Reader gives what was kept so far, with a line in the place of what was not.
func (s *Spool) Reader() io.Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := []io.Reader{io.NewSectionReader(s.file, 0, s.head)}
	if s.err != nil {
		parts = append(parts, bytes.NewBufferString(fmt.Sprintf("\n[the rest of the output was not kept: %v]\n", s.err)))
	}
	if s.lost > 0 {
		parts = append(parts, bytes.NewBufferString(fmt.Sprintf("\n[%d bytes of the output are left out]\n", s.lost)))
	}
	return io.MultiReader(append(parts, bytes.NewReader(bytes.Clone(s.tail)))...)
}

// Close removes what was kept.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}
