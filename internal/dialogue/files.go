package dialogue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

const (
	// pieceSize is how much of a file is fetched at a time.
	pieceSize = 2048
	// tries is how often something is sent or fetched that arrived damaged: a
	// kernel that prints on the same line does that.
	tries = 4
	// lineRoom is what of a typed line is left for a file's content, beside the
	// marks around it.
	lineRoom = MaxLine - 90
)

// conceal hides what is typed or fetched, until the function that it returns is
// called and what was typed last is answered: only then all of it has come. When
// no answer ever comes the rest of the console stays hidden.
func (sh *Shell) conceal(what string) (end func()) {
	reveal := sh.line.Conceal(what)
	return func() {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if sh.unanswered {
			sh.concealing = append(sh.concealing, reveal)
		} else {
			reveal()
		}
	}
}

// reveal notes that what was typed is answered.
func (sh *Shell) reveal() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.unanswered = false
	for _, reveal := range sh.concealing {
		reveal()
	}
	sh.concealing = nil
}

// put types data into a file of the guest's directory.
func (sh *Shell) put(ctx context.Context, name string, data []byte) error {
	if len(data) == 0 {
		_, err := sh.typed(ctx, ": >$d/"+name)
		return err
	}
	defer sh.conceal(units.Bytes(len(data)).Human() + " are typed here")()
	want := digest(data)
	var last error
	for range tries {
		out, err := sh.putOnce(ctx, name, data)
		if slices.Contains(strings.Split(out, "\n"), want) {
			return nil
		}
		if IsOurs(err) && !isSilent(ctx, err) {
			return err
		}
		last = err
	}
	err := fmt.Errorf("%s did not get into the guest undamaged in %d tries", units.Bytes(len(data)).Human(), tries)
	if last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// putOnce types a file and returns what sha256sum says of it, among other things.
func (sh *Shell) putOnce(ctx context.Context, name string, data []byte) (string, error) {
	if _, err := sh.typed(ctx, ": >$d/"+name); err != nil {
		return "", err
	}
	for _, text := range escaped(data, lineRoom) {
		sh.mu.Lock()
		sh.part++
		part := sh.part
		sh.mu.Unlock()
		if _, err := sh.typed(ctx, fmt.Sprintf("P %s '%s' %d", name, text, part)); err != nil {
			return "", err
		}
	}
	return sh.typed(ctx, "sha256sum <$d/"+name)
}

// isSilent tells an answer that was lost, or damaged by something else that the
// guest printed, from the end of the context.
func isSilent(ctx context.Context, err error) bool {
	var silent *SilentError
	return ctx.Err() == nil && errors.As(err, &silent)
}

// escaped writes data as format strings of printf, within single quotes, of no
// more than room characters each.
func escaped(data []byte, room int) []string {
	var parts []string
	var b strings.Builder
	for _, c := range data {
		text := string(rune(c))
		switch {
		case c == '\n':
			text = `\n`
		case c == '%':
			text = `%%`
		// A format must not look like an option, and interactive shells have their
		// own ideas about exclamation marks.
		case c < ' ' || c >= 0x7f || c == '\\' || c == '\'' || c == '!' || c == '-' && b.Len() == 0:
			text = fmt.Sprintf(`\%03o`, c)
		}
		if b.Len()+len(text) > room {
			parts = append(parts, b.String())
			b.Reset()
			if c == '-' {
				text = `\055`
			}
		}
		b.WriteString(text)
	}
	return append(parts, b.String())
}

// get fetches no more than most bytes of a file of the guest's directory, whose size it tells.
func (sh *Shell) get(ctx context.Context, name string, most int) (data []byte, size int, err error) {
	text, err := sh.ask(ctx, "wc -c <$d/"+name)
	if err != nil {
		return nil, 0, err
	}
	if _, err := fmt.Sscan(text, &size); err != nil || size < 0 {
		return nil, 0, fmt.Errorf("reading the size of the output: the guest says %q", text)
	}
	if size == 0 {
		return nil, 0, nil
	}
	defer sh.conceal(units.Bytes(min(size, most)).Human() + " are fetched here")()
	for len(data) < min(size, most) {
		piece, err := sh.piece(ctx, name, len(data)/pieceSize)
		if err != nil {
			return data, size, err
		}
		data = append(data, piece...)
		if len(piece) < pieceSize {
			break
		}
	}
	return data[:min(len(data), most)], size, nil
}

// piece fetches a piece of a file.
func (sh *Shell) piece(ctx context.Context, name string, number int) ([]byte, error) {
	for range tries {
		text, err := sh.typedOnce(ctx, fmt.Sprintf("G %s %d", name, number), false)
		switch {
		case err == nil:
			if data, ok := checked(text); ok {
				return data, nil
			}
		case IsOurs(err) && !isSilent(ctx, err):
			return nil, err
		}
	}
	return nil, fmt.Errorf("a piece of %d bytes did not come undamaged from the guest in %d tries", pieceSize, tries)
}

// checked reads what the function G prints: the digest, and the bytes as hexadecimal digits.
func checked(text string) ([]byte, bool) {
	sum, digits, _ := strings.Cut(text, "\n")
	data, err := hex.DecodeString(strings.TrimSpace(digits))
	return data, err == nil && strings.TrimSpace(sum) == digest(data)
}

// digest is what sha256sum prints of its standard input.
func digest(data []byte) string { return fmt.Sprintf("%x  -", sha256.Sum256(data)) }
