package guest

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Stage is how far a connection attempt got.
type Stage string

// The stages of an attempt, in order.
const (
	StageConnect   Stage = "connect"   // the port did not accept
	StageBanner    Stage = "banner"    // it accepted, and no SSH server spoke
	StageHandshake Stage = "handshake" // a server spoke; the key exchange was not completed
	StageHostKey   Stage = "host-key"  // the server has a key that is not pinned
	StageAuth      Stage = "auth"      // the server refused the login
	StageCommand   Stage = "command"   // logged in; the first command did not run
)

// doing says what an attempt was doing in a stage.
func (s Stage) doing() string {
	switch s {
	case StageConnect:
		return "connecting"
	case StageBanner:
		return "waiting for the SSH server's first line"
	case StageHandshake:
		return "exchanging keys"
	case StageHostKey:
		return "checking the host key"
	case StageAuth:
		return "logging in"
	case StageCommand:
		return "running the first command"
	}
	return "dialling"
}

// A DialError says why no command could be run in the guest.
type DialError struct {
	Addr     string
	Stage    Stage // of the last attempt that failed, or of one under way that got further
	Attempts int   // how many were begun
	Last     error // how the last attempt failed; nil when none has
	Cause    error // why no further one was made: the context's cause; nil when Last is final
}

// Error says how far it got, after how many attempts, and how the last one failed.
func (e *DialError) Error() string {
	text := fmt.Sprintf("reaching the guest over SSH at %s: ", e.Addr)
	if e.Cause != nil {
		text += e.Cause.Error() + "; "
	}
	attempts := fmt.Sprintf("%d attempts", e.Attempts)
	if e.Attempts == 1 {
		attempts = "1 attempt"
	}
	text += fmt.Sprintf("after %s it failed while %s", attempts, e.Stage.doing())
	if e.Last != nil {
		text += ": " + e.Last.Error()
	}
	return text
}

// Unwrap gives the cause and the last attempt's error.
func (e *DialError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Cause, e.Last} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// A HostKeyError says that the server's host key is not one of those pinned.
type HostKeyError struct {
	Got    ssh.PublicKey // nil when the server has no key of a pinned type
	Types  []string      // the types that the server has, when Got is nil
	Pinned []ssh.PublicKey
}

// Error names both keys by their fingerprints.
func (e *HostKeyError) Error() string {
	want := make([]string, len(e.Pinned))
	for i, k := range e.Pinned {
		want[i] = k.Type() + " " + ssh.FingerprintSHA256(k)
	}
	got := "no key of that type, only " + printable(strings.Join(e.Types, ", "))
	if e.Got != nil {
		got = printable(e.Got.Type()) + " " + ssh.FingerprintSHA256(e.Got)
	}
	return fmt.Sprintf("the server's host key is not the expected one: expected %s, got %s "+
		"(the guest replaced its key, or something else answers at this port)", strings.Join(want, " or "), got)
}

// An AuthError says that the server refused the login.
type AuthError struct {
	User   string
	Key    ssh.PublicKey // what was offered
	Server string        // the server's version
	Err    error
}

// Error names the user and the key.
func (e *AuthError) Error() string {
	return fmt.Sprintf("the server (%s) refused the key %s %s for user %s: the user may not exist or may not log in, "+
		"or the key is not in its authorized_keys (whose owner and mode matter): %v",
		printable(e.Server), e.Key.Type(), ssh.FingerprintSHA256(e.Key), e.User, e.Err)
}

// Unwrap gives the SSH library's error.
func (e *AuthError) Unwrap() error { return e.Err }

// ErrLost is wrapped by every error that means that the connection to the
// guest has ended: nothing is known of what happened to a command.
var ErrLost = errors.New("the connection to the guest was lost")

// ErrClosed is the reason of a connection that this side has closed.
var ErrClosed = errors.New("the connection to the guest was closed")

// ErrSilent is the reason of a connection that was given up because the guest
// did not answer keepalives.
var ErrSilent = errors.New("the guest does not answer")

// A LostError is an ErrLost with its reason.
type LostError struct {
	Reason error // io.EOF, a reset, ErrSilent, ErrClosed
}

// Error says why.
func (e *LostError) Error() string { return fmt.Sprintf("%v: %v", ErrLost, e.Reason) }

// Unwrap gives ErrLost and the reason.
func (e *LostError) Unwrap() []error { return []error{ErrLost, e.Reason} }

// ErrNoStatus says that the server closed a command's channel without an exit
// status.
var ErrNoStatus = errors.New("the SSH server reported no exit status")

// textLimit bounds what is kept of texts that come from the guest.
const textLimit = 4 << 10

// printable bounds a text of the guest and takes the control characters out.
func printable(text string) string {
	if len(text) > textLimit {
		text = text[:textLimit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
