package dialogue

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestConceal: what is typed stays hidden when it is given up, until an answer
// shows that no more of it can come.
func TestConceal(t *testing.T) {
	marks := regexp.MustCompile(`-b(\d+); `)
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	deaf := true
	l := &aLine{}
	sh := aShell(l)
	l.typed = func(text string) {
		m := marks.FindStringSubmatch(text)
		switch {
		case deaf && strings.Contains(text, "s3cr3t"):
			cancel(late) // with the echo still to come
		case m != nil:
			go l.tap([]byte("HTOKEN-b"+m[1]+"\r\nHTOKEN-e"+m[1]+" 0\r\n"), false)
		}
	}
	if err := sh.put(ctx, "1i", []byte("s3cr3t")); !errors.Is(err, late) {
		t.Errorf("err = %v", err)
	}
	if l.hidden != 1 {
		t.Error("the echo would be shown")
	}
	if _, err := sh.typed(t.Context(), ":"); err != nil {
		t.Fatal(err)
	}
	if l.hidden != 0 {
		t.Error("the console stays hidden when all has come")
	}
	deaf = false
	if err := sh.put(t.Context(), "1i", []byte("s3cr3t")); err == nil || l.hidden != 0 { // no digest comes
		t.Errorf("hidden %d after answers, %v", l.hidden, err)
	}
}
