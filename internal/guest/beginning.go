package guest

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// heldMost is how much of a script's standard error is kept until it is known
// that the script has begun. The line that says so was printed first, but it
// comes on another stream: what can overtake it is what the server and the pipes
// hold, which is less. What is more than that is dropped.
const heldMost = 1 << 20

// A beginning finds the line in a session's output that separates what prepares
// a script from the script, or the first command from what follows: what was
// printed before it is kept, and what follows is passed on.
//
// Its two writers are called one at a time, as Run does; when may be called at any time.
type beginning struct {
	mark      []byte
	start     func() // called when the script begins; may be nil
	out, diag io.Writer

	before limited      // what was printed on standard output before the mark; read when begun is closed, or the output
	tail   []byte       // the end of that, which may be half a mark
	held   bytes.Buffer // of standard error

	once  sync.Once
	begun chan struct{}
	at    time.Time // read after begun is closed
}

func newBeginning(line string, start func(), out, diag io.Writer) *beginning {
	return &beginning{mark: []byte("\n" + line + "\n"), start: start, out: discarding(out), diag: discarding(diag), before: limited{room: textLimit}, begun: make(chan struct{})}
}

func discarding(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// now says that the script begins.
func (b *beginning) now() {
	b.once.Do(func() {
		b.at = time.Now()
		close(b.begun)
	})
}

// when tells whether the script has begun, and when.
func (b *beginning) when() (time.Time, bool) {
	select {
	case <-b.begun:
		return b.at, true
	default:
		return time.Time{}, false
	}
}

// noise is what was printed instead of the mark.
func (b *beginning) noise() string {
	var diag bounded
	_, _ = diag.Write(b.held.Bytes()) // never fails
	return said(diag.String(), b.before.buf.String()+string(b.tail))
}

func (b *beginning) stdout() io.Writer { return beginningOut{b} }
func (b *beginning) stderr() io.Writer { return beginningErr{b} }

type beginningOut struct{ *beginning }

func (b beginningOut) Write(p []byte) (int, error) {
	if _, begun := b.when(); begun {
		return b.out.Write(p)
	}
	b.tail = append(b.tail, p...)
	i := bytes.Index(b.tail, b.mark)
	if i < 0 {
		if n := len(b.tail) - len(b.mark) + 1; n > 0 {
			_, _ = b.before.Write(b.tail[:n]) // never fails
			b.tail = append([]byte(nil), b.tail[n:]...)
		}
		return len(p), nil
	}
	_, _ = b.before.Write(b.tail[:i+1]) // never fails
	rest := b.tail[i+len(b.mark):]
	b.tail = nil
	if b.start != nil {
		b.start()
	}
	b.now()
	if held := b.held.Bytes(); len(held) > 0 {
		if _, err := b.diag.Write(held); err != nil {
			return 0, err
		}
	}
	if len(rest) == 0 {
		return len(p), nil
	}
	if _, err := b.out.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

type beginningErr struct{ *beginning }

func (b beginningErr) Write(p []byte) (int, error) {
	if _, begun := b.when(); begun {
		return b.diag.Write(p)
	}
	_, _ = b.held.Write(p[:min(len(p), heldMost-b.held.Len())]) // never fails
	return len(p), nil
}
