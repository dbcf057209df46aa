package guest

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts that run in the guest
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed scripts/hello.sh
var helloScript string

//go:embed scripts/hold.sh
var holdScript string

// A Greeting is what the first command of a connection does besides telling what
// the guest is. One command for all of it saves an emulated guest a tenth of a
// second for each further one.
type Greeting struct {
	// SetClock gives the guest the time of this host: see Client.Clock.
	SetClock bool

	// Renew makes a guest that was restored one of its own: the files (keys, that
	// is) get new beginnings, the kernel's random numbers a seed of ours. A host key
	// among them is not in use before Rekey. Only root can do that. A guest that
	// can't is not tried again: the error of Dial wraps a *RenewError. What the guest
	// is and by how much its clock was off is not asked then: either costs the start
	// of a program, and follows from its saving.
	Renew []Beginning

	// Hold keeps the session of the first command, over SSH, for the first script:
	// an emulated guest takes a twentieth of a second to start another shell, and
	// twice that where the login shell only starts a second one. What is changed
	// meanwhile of that which a login reads (/etc/environment, the user's groups)
	// does not hold for that script.
	Hold bool
}

// A Beginning is what a file in the guest shall begin with.
type Beginning struct {
	File string
	Data []byte
}

// notRenewed is the status of hello.sh when a file could not be written.
const notRenewed = 74

// seedSize is how much randomness a restored guest gets: twice what any of the
// generators in use takes in.
const seedSize = 512

// A RenewError says that a restored guest could not be given keys of its own.
type RenewError struct {
	Status ExitStatus
	Said   string // what the guest printed
}

// Error says how the attempt ended.
func (e *RenewError) Error() string {
	return fmt.Sprintf("renewing the guest: the script %s: %s", e.Status, e.Said)
}

// told is what the first command has told.
type told struct {
	uname string
	shell string   // of the login
	tmp   []string // where a script can be put, the best first
	clock clock
}

// greet runs the first command and keeps what it tells.
func (c *Client) greet(ctx context.Context, o Options) (err error) {
	if c.told, err = c.hello(ctx, o.Greeting); err == nil && !o.unsure {
		c.loginShell = c.told.shell
	}
	return err
}

func (c *Client) hello(ctx context.Context, g Greeting) (told, error) {
	seconds, bytes := "", ""
	var now time.Time
	if g.SetClock {
		now = time.Now().Round(time.Second)
		seconds = strconv.FormatInt(now.Unix(), 10)
	}
	program := ""
	if g.Renew != nil {
		var err error
		if program, err = renewing(g.Renew); err != nil {
			return told{}, err
		}
		bytes = strconv.Itoa(len(program))
	}
	first := c.firstCommand
	if _, overSSH := c.conn.(sshConn); overSSH && g.Hold {
		first = c.firstHeld
	}
	status, text, noise, err := first(ctx, []string{seconds, bytes}, program)
	if err != nil {
		return told{}, err
	}
	if status.Code == notRenewed && g.Renew != nil {
		return told{}, &RenewError{Status: status, Said: noise}
	}
	answer, ok := readHello(text, now)
	if !ok || status.Code != 0 {
		return told{}, fmt.Errorf("the first command %s: %s", status, noise)
	}
	return answer, nil
}

// firstCommand runs hello.sh with its arguments and its standard input, to the
// end. It returns what was printed on standard output, and all of that for a
// message.
func (c *Client) firstCommand(ctx context.Context, args []string, stdin string) (status ExitStatus, answer, noise string, err error) {
	out, diag := &limited{room: noiseMost}, &limited{room: textLimit} // a login shell may have much to say
	status, err = c.Run(ctx, Command{Script: helloScript, Args: args, Stdin: strings.NewReader(stdin), Stdout: out, Stderr: diag})
	answer = out.buf.String()
	return status, answer, said(diag.buf.String(), answer), err
}

// renewing is the program that gives files new beginnings.
func renewing(files []Beginning) (string, error) {
	seed := make([]byte, seedSize)
	if _, err := io.ReadFull(rand.Reader, seed); err != nil {
		return "", fmt.Errorf("renewing the guest: %w", err)
	}
	// The kernel's own source of randomness may take what it likes.
	program := "test ! -c /dev/urandom || " + printing(seed) + " >/dev/urandom 2>/dev/null\n:"
	for _, f := range files {
		program += " &&\n" + printing(f.Data) + " 1<>" + quote(f.File)
	}
	return program + " &&\nrenewed=yes\n", nil
}

// readHello reads the answer to the first command, and tells whether it is one.
// The clock was set to now, unless that is zero.
func readHello(answer string, now time.Time) (t told, ok bool) {
	for line := range strings.Lines(answer) {
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch kind {
		case "uname":
			t.uname, ok = printable(strings.TrimSpace(rest)), true
		case "shell":
			t.shell, ok = rest, true
		case "tmp":
			if path.IsAbs(rest) {
				t.tmp = append(t.tmp, path.Clean(rest))
			}
		case "clock":
			if !now.IsZero() {
				t.clock = readClock(rest, now)
			}
		}
	}
	return t, ok
}

// said is what a command printed, harmless and in one line.
func said(diag, out string) string {
	return printable(strings.TrimSpace(diag + " " + out))
}
