// Package dialogue is what is said on a guest's serial console: logging in,
// commands and their answers, dialogues that a user has written (expect and
// send), and a Shell that runs commands, moves files and reports exit statuses
// over nothing but such a console.
package dialogue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Console is a guest's serial console.
type Console interface {
	// Expect waits until the output that was not consumed yet matches, consumes
	// it up to the end of the match, and returns the match and its groups.
	Expect(ctx context.Context, re *regexp.Regexp) ([]string, error)
	// Send types text.
	Send(ctx context.Context, text string) error
}

// Session is a dialogue with a console: Enter gets to a shell, Run types
// commands. It serves one caller at a time.
type Session struct {
	Console Console
	// Boot bounds the wait for a prompt; 0 means until the context ends.
	Boot time.Duration
	// Step bounds the wait for the answer to what was typed; 0 means a minute.
	Step time.Duration
	// Poke has Enter press the return key at once, when a prompt may be there
	// already and its text may have been consumed.
	Poke bool

	token  string // random: no guest prints it by chance
	prefix string // of every command that is typed
	count  int    // commands so far
}

// Errors that tell what kind of console this is.
var (
	// ErrPassword says that the console wants a password for root.
	ErrPassword = errors.New("the serial console asks for a password, which this program does not know")
	// ErrNoPrompt says that no login or shell prompt came.
	ErrNoPrompt = errors.New("no login prompt came on the serial console")
)

// LoginError marks the errors of Enter; its text is the cause's.
type LoginError struct{ error }

// Unwrap gives the cause.
func (e LoginError) Unwrap() error { return e.error }

// CommandError says that a command typed on the console failed.
type CommandError struct {
	Command string
	Status  string // its exit status
	Output  string // what it wrote, at most 500 bytes
}

// Error names the command and quotes its output.
func (e *CommandError) Error() string {
	return fmt.Sprintf("%q failed with status %s on the serial console: %q", e.Command, e.Status, e.Output)
}

// defaultStep is Session.Step unless it is set.
const defaultStep = time.Minute

func (s *Session) expect(ctx context.Context, re *regexp.Regexp, limit time.Duration) ([]string, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return s.Console.Expect(ctx, re)
}

const (
	// pokeEvery is how often a silent console is asked for its prompt.
	pokeEvery = 15 * time.Second
	// pokeAgain is how soon one is asked again that was asked before it was ready.
	pokeAgain = 2 * time.Second
	// maxLogins bounds how often a name is given at login prompts.
	maxLogins = 3
	// tokenLength keeps commands short, and a token from coming by chance.
	tokenLength = 10
)

// prompt matches what a console can wait with: the message that precedes a
// shell (group 1), Debian's login prompt (2), the Hurd's own login shell (3), a
// password prompt (4), a shell's prompt at the end of what came (5).
var prompt = regexp.MustCompile(`(Last login: )|([Ll]ogin: )|(login> )|([Pp]assword(?: for \S+)?: ?)|[\r\n](?:\[[^\r\n\[\]]{1,60}\]|[^\r\n ]{0,60})([#$] ?)(?:\x1b\[[0-9;?]*[A-Za-z])*$`)

// Enter gets to a shell: the one that is there, or one of root, who has no
// password. Its error is a LoginError.
func (s *Session) Enter(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return LoginError{err}
	}
	return nil
}

func (s *Session) enter(ctx context.Context) error {
	if s.token == "" {
		s.token = "H" + rand.Text()[:tokenLength-1] // a name, for any shell
	}
	if s.Boot > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Boot, fmt.Errorf("%w within %v", ErrNoPrompt, s.Boot))
		defer cancel()
	}
	patience := pokeEvery
	if s.Poke {
		if err := s.Console.Send(ctx, "\n"); err != nil {
			return err
		}
		patience = pokeAgain
	}
	for logins := 0; ; patience = pokeEvery {
		m, err := s.expect(ctx, prompt, patience)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			err = s.Console.Send(ctx, "\n")
		case err != nil:
		case m[4] != "":
			return ErrPassword
		case m[2] != "" || m[3] != "":
			if logins++; logins > maxLogins {
				return errors.New("the login prompt comes back: root may not log in here")
			}
			line := "root\n"
			if m[3] != "" {
				line = "login root\n"
			}
			err = s.Console.Send(ctx, line)
		case m[5] != "":
			var ok bool
			if ok, err = s.probe(ctx); ok {
				return nil
			}
		}
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// probe finds out whether a shell listens, and makes it a quiet one.
func (s *Session) probe(ctx context.Context) (bool, error) {
	if err := s.Console.Send(ctx, "exec /bin/sh\n"); err != nil {
		return false, err
	}
	// The echo stays on: it is how a console knows that the guest keeps up.
	line := `PS1= PS2=; echo "` + s.token + `"-ready`
	if err := s.Console.Send(ctx, line+"\n"); err != nil {
		return false, err
	}
	_, err := s.expect(ctx, regexp.MustCompile(s.token+"-ready"), pokeEvery)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// MaxLine keeps what is typed within the input buffer of every terminal.
const MaxLine = 200

// Run types a command and returns what it wrote. The marks around its output
// are typed in two parts, so that their echo is not taken for them. A command
// that fails is a *CommandError.
func (s *Session) Run(ctx context.Context, command string) (string, error) {
	n, err := s.send(ctx, command)
	if err != nil {
		return "", err
	}
	begin, end := fmt.Sprintf("%s-b%d", s.token, n), fmt.Sprintf("%s-e%d", s.token, n)
	re := regexp.MustCompile(`(?s)` + begin + `\s(.*?)` + end + ` (\d+)\s`)
	m, err := s.expect(ctx, re, s.step())
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return "", &SilentError{Command: command, Limit: s.step()}
	}
	if err != nil {
		return "", err
	}
	return answered(command, m[1], m[2])
}

// send types a command with the marks around its answer, and returns the number in them.
func (s *Session) send(ctx context.Context, command string) (int, error) {
	s.count++
	line := fmt.Sprintf(`%secho "%s"-b%d; %s; echo "%s"-e%d $?`, s.prefix, s.token, s.count, command, s.token, s.count)
	if len(line) >= MaxLine {
		return 0, fmt.Errorf("a command of %d characters is too long for a console", len(line))
	}
	return s.count, s.Console.Send(ctx, line+"\n")
}

func (s *Session) step() time.Duration {
	if s.Step == 0 {
		return defaultStep
	}
	return s.Step
}

// answered is the end of a command that printed something and had a status.
func answered(command, text, status string) (string, error) {
	output := plain(text)
	if status != "0" {
		return output, &CommandError{Command: command, Status: status, Output: output[:min(len(output), 500)]}
	}
	return output, nil
}

// SilentError says that no end of a command came.
type SilentError struct {
	Command string
	Limit   time.Duration
}

// Error names the command and the limit.
func (e *SilentError) Error() string {
	return fmt.Sprintf("%q did not end within %v on the serial console", e.Command, e.Limit)
}

// Leave logs out, so that nobody finds a root shell on the console.
func (s *Session) Leave(ctx context.Context) {
	// What was to be done is done: a console that does not answer now changes nothing.
	_ = s.Console.Send(ctx, "exit\n")
}

// IsOurs tells a failure of the dialogue from one of the command.
func IsOurs(err error) bool {
	var failed *CommandError
	return err != nil && !errors.As(err, &failed)
}

// escapes are what terminals are told, not what people read.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|\r`)

func plain(text string) string { return strings.TrimSpace(escapes.ReplaceAllString(text, "")) }
