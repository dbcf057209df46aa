package provision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Console is a guest's serial console.
type Console interface {
	// Expect waits until the output that was not consumed yet matches, consumes
	// it up to the end of the match, and returns the match and its groups.
	Expect(ctx context.Context, re *regexp.Regexp) ([]string, error)
	// Send types text.
	Send(ctx context.Context, text string) error
}

// Dialogue puts a key into a running guest by typing on its serial console, as
// root, and reads the guest's host keys there: a channel that nobody else can
// speak on.
type Dialogue struct {
	Console Console
	User    string   // whose authorized_keys gets the keys; empty means root
	Keys    []string // lines of an authorized_keys file
	// Boot bounds the wait for a prompt; 0 means until the context ends.
	Boot time.Duration
	// Step bounds the wait for the answer to what was typed; 0 means a minute.
	Step time.Duration
}

// Errors that tell what kind of console this is.
var (
	// ErrConsolePassword says that the console wants a password for root.
	ErrConsolePassword = errors.New("the serial console asks for a password, which this program does not know: use another way to provision")
	// ErrNoPrompt says that no login or shell prompt came.
	ErrNoPrompt = errors.New("no login prompt came on the serial console")
	// ErrNoHostKey says that the guest has no host key and could not make one.
	ErrNoHostKey = errors.New("the guest has no SSH host key: is an SSH server installed?")
)

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

// Run holds the whole dialogue, from waiting for a prompt to logging out, and
// returns the guest's host keys, at least one.
func (d Dialogue) Run(ctx context.Context) ([]ssh.PublicKey, error) {
	if d.User == "" {
		d.User = "root"
	}
	if d.Step == 0 {
		d.Step = time.Minute
	}
	if !userName.MatchString(d.User) {
		return nil, fmt.Errorf("%q is no user name that can be typed on a console", d.User)
	}
	s := &session{Dialogue: d, token: rand.Text()[:10]}
	if err := s.enter(ctx); err != nil {
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
	s.leave(ctx)
	return keys, nil
}

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)

// session is a dialogue in progress.
type session struct {
	Dialogue
	token string // random: no guest prints it by chance
	count int    // commands so far
}

func (s *session) expect(ctx context.Context, re *regexp.Regexp, limit time.Duration) ([]string, error) {
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
	// logins bounds how often a name is given at login prompts.
	maxLogins = 3
)

// prompt matches what a console can wait with: the message that precedes a
// shell (group 1), Debian's login prompt (2), the Hurd's own login shell (3), a
// password prompt (4), a shell's prompt at the end of what came (5).
var prompt = regexp.MustCompile(`(Last login: )|([Ll]ogin: )|(login> )|([Pp]assword(?: for \S+)?: ?)|[\r\n](?:\[[^\r\n\[\]]{1,60}\]|[^\r\n ]{0,60})([#$] ?)(?:\x1b\[[0-9;?]*[A-Za-z])*$`)

// enter gets to a shell of root.
func (s *session) enter(ctx context.Context) error {
	if s.Boot > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Boot, fmt.Errorf("%w within %v", ErrNoPrompt, s.Boot))
		defer cancel()
	}
	for logins := 0; ; {
		m, err := s.expect(ctx, prompt, pokeEvery)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			err = s.Console.Send(ctx, "\n")
		case err != nil:
		case m[4] != "":
			return ErrConsolePassword
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
func (s *session) probe(ctx context.Context) (bool, error) {
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

// maxLine keeps what is typed within the input buffer of every terminal.
const maxLine = 200

// run types a command and returns what it wrote. The marks around its output
// are typed in two parts, so that their echo is not taken for them.
func (s *session) run(ctx context.Context, command string) (string, error) {
	s.count++
	begin, end := fmt.Sprintf("%s-b%d", s.token, s.count), fmt.Sprintf("%s-e%d", s.token, s.count)
	line := fmt.Sprintf(`echo "%s"-b%d; %s; echo "%s"-e%d $?`, s.token, s.count, command, s.token, s.count)
	if len(line) >= maxLine {
		return "", fmt.Errorf("a command of %d characters is too long for a console", len(line))
	}
	if err := s.Console.Send(ctx, line+"\n"); err != nil {
		return "", err
	}
	re := regexp.MustCompile(`(?s)` + begin + `\s(.*?)` + end + ` (\d+)\s`)
	m, err := s.expect(ctx, re, s.Step)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return "", fmt.Errorf("%q did not end within %v on the serial console", command, s.Step)
	}
	if err != nil {
		return "", err
	}
	output := plain(m[1])
	if m[2] != "0" {
		return output, &CommandError{Command: command, Status: m[2], Output: output[:min(len(output), 500)]}
	}
	return output, nil
}

// escapes are what terminals are told, not what people read.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|\r`)

func plain(text string) string { return strings.TrimSpace(escapes.ReplaceAllString(text, "")) }
