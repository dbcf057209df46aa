package provision

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/dialogue"
)

// Dialogue puts a key into a running guest by typing on its serial console, as
// root, and reads the guest's host keys there: a channel that nobody else can
// speak on.
type Dialogue struct {
	Console dialogue.Console
	User    string   // whose authorized_keys gets the keys; empty means root
	Keys    []string // lines of an authorized_keys file
	// Boot bounds the wait for a prompt; 0 means until the context ends.
	Boot time.Duration
	// Step bounds the wait for the answer to what was typed; 0 means a minute.
	Step time.Duration
	// Poke has it press the return key at once: a prompt is there already.
	Poke bool
}

// ErrNoHostKey says that the guest has no host key and could not make one.
var ErrNoHostKey = errors.New("the guest has no SSH host key: is an SSH server installed?")

// Run holds the whole dialogue, from waiting for a prompt to logging out, and
// returns the guest's host keys, at least one.
func (d Dialogue) Run(ctx context.Context) ([]ssh.PublicKey, error) {
	if d.User == "" {
		d.User = "root"
	}
	if !userName.MatchString(d.User) {
		return nil, fmt.Errorf("%q is no user name that can be typed on a console", d.User)
	}
	s := &session{Dialogue: d, Session: &dialogue.Session{Console: d.Console, Boot: d.Boot, Step: d.Step, Poke: d.Poke}}
	if err := s.Enter(ctx); err != nil {
		return nil, fmt.Errorf("logging in on the serial console: %w", err)
	}
	if err := s.authorize(ctx); err != nil {
		return nil, fmt.Errorf("installing the key over the serial console: %w", err)
	}
	keys, err := s.hostKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the host key over the serial console: %w", err)
	}
	if err := s.serve(ctx); err != nil {
		return nil, fmt.Errorf("starting the SSH server over the serial console: %w", err)
	}
	s.Leave(ctx)
	return keys, nil
}

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)

// session is a dialogue in progress.
type session struct {
	Dialogue
	*dialogue.Session
}
