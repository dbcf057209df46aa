package dialogue_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/dialogue"
	"github.com/org/hurd-qemu-action/internal/guest"
)

// catIs has the guest print live output with a program of the test's.
func (w *world) catIs(t *testing.T, program string) {
	t.Helper()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	text := "#!/bin/sh\ntest $# = 0 && test -e " + w.dir + "/on || exec " + cat + " \"$@\"\n" + program
	if err := os.WriteFile(filepath.Join(w.dir, "cat"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// on has that program begin.
func (w *world) on(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// clientWith is client, with the test's programs and limits.
func (w *world) clientWith(t *testing.T, step time.Duration) *guest.Client {
	t.Helper()
	_, c := w.shell(t, step)
	return c
}

// shell gives the Shell as well.
func (w *world) shell(t *testing.T, step time.Duration) (*dialogue.Shell, *guest.Client) {
	t.Helper()
	s := &dialogue.Session{Console: w.console, Step: step, Poke: true}
	if err := s.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), "PATH="+w.dir+":$PATH"); err != nil {
		t.Fatal(err)
	}
	sh, err := dialogue.OpenShell(t.Context(), w.console, s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := guest.Over(t.Context(), sh, guest.Options{User: sh.User()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return sh, c
}

// running is a command whose output comes as it is printed.
type running struct {
	out  waiter // and behind it, when its end was lost, what the shell says of it
	done chan error
}

// runLive runs one that ends with status 7; said is called when it has printed text.
func runLive(t *testing.T, c *guest.Client, line, text string, said func()) *running {
	t.Helper()
	r := &running{out: waiter{text: text, found: said}, done: make(chan error, 1)}
	go func() {
		status, err := c.Run(context.WithoutCancel(t.Context()), guest.Command{Line: line, Stdout: &r.out, Live: true})
		if err == nil && status.Code != 7 {
			t.Errorf("status %v", status)
		}
		r.done <- err
		close(r.done)
	}()
	return r
}

// loseEnd passes output on without the mark of its end.
const loseEnd = "exec sed -u '/-x[0-9]/d'\n"

// TestShellLastWords: a job that has ended may have printed what has not come yet,
// and is not known to have ended before it has.
func TestShellLastWords(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	w.catIs(t, `read -r mark; echo "$mark"; : >`+w.dir+"/marked; while ! test -e "+w.dir+"/go; do :; done\n"+loseEnd)
	c := w.clientWith(t, 20*time.Second)
	w.on(t)
	said := make(chan struct{})
	r := runLive(t, c, "echo 'the last words'; exit 7", "the last words\n", func() { close(said) })
	for {
		ended, _ := filepath.Glob(w.dir + "/hqa.*/[0-9]*s")
		// What is typed is not to be mixed up with the mark of the beginning.
		if marked, _ := filepath.Glob(w.dir + "/marked"); len(ended) > 0 && len(marked) > 0 {
			break
		}
	}
	for range 3 {
		if err := c.Alive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-said:
	case err := <-r.done:
		t.Logf("it has ended before: %v", err)
	}
	if err := askUntil(t, c, r.done); err != nil || !strings.HasPrefix(r.out.String(), "the last words\n") {
		t.Errorf("%v, %q", err, r.out.String())
	}
}

// TestShellLeftBehind: what a job leaves behind can keep its output open, and
// then its end is known all the same.
func TestShellLeftBehind(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	w.catIs(t, loseEnd)
	c := w.clientWith(t, time.Second)
	w.on(t)
	said := make(chan struct{})
	r := runLive(t, c, "echo begun; (while ! test -e "+w.dir+"/go; do sleep 0.1; done) & exit 7", "begun\n", func() { close(said) })
	<-said
	if err := askUntil(t, c, r.done); err != nil || !strings.HasPrefix(r.out.String(), "begun\n") {
		t.Errorf("%v, %q", err, r.out.String())
	}
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// askUntil asks whether the guest lives, again and again, until a command ends.
func askUntil(t *testing.T, c *guest.Client, done <-chan error) error {
	t.Helper()
	for {
		if err := c.Alive(t.Context()); err != nil {
			return err
		}
		select {
		case err := <-done:
			return err
		default:
		}
	}
}

// TestShellFarewell: the last command finds nothing of ours left in the guest.
func TestShellFarewell(t *testing.T) {
	t.Parallel()
	w := boot(t, "dash")
	sh, c := w.shell(t, 20*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	out := &waiter{text: "begun\n", found: cancel}
	if _, err := c.Run(ctx, guest.Command{Line: "cat; sleep 1", Stdin: strings.NewReader("begun\n"), Stdout: out, Live: true}); !errors.Is(err, context.Canceled) {
		t.Fatal(err) // it leaves files
	}
	left, _ := filepath.Glob(w.dir + "/hqa.*/*")
	if len(left) == 0 {
		t.Error("there is nothing to remove")
	}
	for _, name := range left {
		if strings.HasSuffix(name, "i") {
			t.Error("the input of a command that runs is kept in the guest")
		}
	}
	sh.Farewell()
	if status, err := c.Run(t.Context(), guest.Command{Line: "ls " + w.dir + " >" + w.dir + "/list; exit 3"}); err != nil || status.Code != 3 {
		t.Errorf("%v, %v", status, err)
	}
	if list, err := os.ReadFile(filepath.Join(w.dir, "list")); err != nil || string(list) != "list\n" {
		t.Errorf("%q, %v", list, err)
	}
}
