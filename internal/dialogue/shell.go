package dialogue

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Line is a serial console with all that a Shell needs of it.
type Line interface {
	Console
	// Tap passes on every byte that comes from now on, and tells the end.
	Tap(bytes func(p []byte, hidden bool), ended func()) (stop func())
	// Conceal keeps what comes out of all logs until reveal is called.
	Conceal(what string) (reveal func())
	// LastByte is when the guest was last heard.
	LastByte() time.Time
}

// A Shell runs commands over a serial console, as a shell that is logged in
// there does. It has the methods of a connection in the words of SSH (RFC 4254,
// section 6): sessions with exec, standard input, output and error, and an exit
// status.
//
// Everything that is sent is typed, in lines of which each is acknowledged, and
// checked by its SHA-256. Jobs run in the background of the shell, which so can always
// be asked whether the guest lives. A job's output is kept in files and fetched
// when it has ended, in pieces that are checked; only what was asked for as Live
// comes as it is printed, both streams as one, with whatever else the console
// prints meanwhile. Nothing of the guest but a POSIX shell with cat, dd, od, rm,
// sha256sum, tr and wc is needed.
type Shell struct {
	line    Line
	session *Session
	turn    chan struct{} // holds a token while nobody types
	dirty   bool          // half a line may have been typed; of whoever has the token
	replies chan reply
	user    string
	dir     string   // in the guest
	holding chan int // how many want quiet; whoever changes that has it
	stream  *stream
	stop    func() // of the tap

	mu   sync.Mutex
	jobs map[int]*job
	next int // number of a job
	part int // number of a part of a file
	pace pace
	last bool // what comes next is the last

	unanswered bool     // what was typed last, as far as is known
	concealing []func() // of conceal, until it is answered

	done   chan struct{} // closed when the shell is of no use any more
	once   sync.Once
	reason error // read after done is closed
}

// ErrClosed is why a Shell that was closed runs nothing any more.
var ErrClosed = errors.New("the shell on the serial console was closed")

// errEnded is why there is nothing to run commands on.
var errEnded = errors.New("the serial console has ended")

// programs are those that a Shell cannot do without.
const programs = "cat dd od rm sha256sum tr wc"

// functions are what the guest's shell is taught: short lines are typed fast. $d
// is the directory, and $k the last part of a file that was written; a job's files are NUMBER and a letter: its command line, its
// input, its output and error, its status, and that it was started: it is not again
// when the answer was lost.
//
// In the background of an interactive shell a job is a process group of its own
// and can be interrupted; the outer redirection is for the shell's own remarks. A
// live one runs for long, and its input may hold secrets: it is open, and then gone.
func functions(token string) []string {
	return []string{
		`P() { test "$3" = "$k" && return; printf "$2" >>$d/$1 && k=$3; }`,
		`G() { dd if=$d/$1 bs=` + fmt.Sprint(pieceSize) + ` skip=$2 count=1 >$d/p 2>/dev/null; sha256sum <$d/p; od -An -v -tx1 $d/p | tr -d ' \n'; echo; }`,
		`X() { r=$?; echo $r >$d/$1s; echo "` + token + `"-x$1 $r; }`,
		`S() { test ! -e $d/$1r && : >$d/$1r; }`,
		`L() { S $1 && { { echo "` + token + `"-l$1; rm -f $d/$1i; sh $d/$1c 2>&1; X $1; } <$d/$1i | cat & } 2>/dev/null && q=$!; :; }`,
		`C() { S $1 && { { sh $d/$1c >$d/$1o 2>$d/$1e; X $1; } <$d/$1i & } 2>/dev/null; :; }`,
	}
}

// OpenShell prepares a console whose session has entered a shell.
func OpenShell(ctx context.Context, line Line, s *Session) (*Shell, error) {
	sh := newShell(line, s)
	if err := sh.prepare(ctx); err != nil {
		_ = sh.Close() // never fails
		return nil, fmt.Errorf("preparing the shell on the serial console: %w", err)
	}
	return sh, nil
}

func newShell(line Line, s *Session) *Shell {
	sh := &Shell{
		line: line, session: s, turn: make(chan struct{}, 1), jobs: map[int]*job{}, done: make(chan struct{}),
		holding: make(chan int, 1), replies: make(chan reply, 16),
	}
	sh.holding <- 0
	sh.stream = &stream{token: []byte(s.token), live: sh.live, ended: sh.jobEnded, answered: sh.answered}
	sh.turn <- struct{}{}
	sh.stop = line.Tap(func(p []byte, _ bool) {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.stream.write(p)
	}, func() { sh.end(errEnded) })
	return sh
}

func (sh *Shell) prepare(ctx context.Context) error {
	missing, err := sh.ask(ctx, "for c in "+programs+"; do command -v $c >/dev/null || printf '%s ' $c; done")
	if err != nil {
		return err
	}
	if missing != "" {
		return fmt.Errorf("the guest lacks %s", strings.Join(strings.Fields(missing), ", "))
	}
	// The name can't be guessed, and mkdir does not follow a link.
	name := "/hqa." + strings.ToLower(sh.session.token)
	out, err := sh.typed(ctx, `u=$(umask); umask 077; for b in "${TMPDIR:-/tmp}" /var/tmp "$HOME" /dev/shm; do d=$b`+name+`; mkdir $d && break; done; test -d $d`)
	if err != nil {
		return fmt.Errorf("making a directory for temporary files: %w (%s)", err, out)
	}
	// What is typed is not to be kept, a shell that waits is not to log out, and a
	// terminal is to leave tabs alone.
	for _, f := range append(functions(sh.session.token), "unset HISTFILE TMOUT 2>/dev/null || :", "stty tab0 2>/dev/null || :") {
		if _, err := sh.typed(ctx, f); err != nil {
			return err
		}
	}
	if _, err := sh.typed(ctx, "umask $u"); err != nil {
		return err
	}
	if sh.dir, err = sh.ask(ctx, "echo $d"); err != nil {
		return err
	}
	sh.user, err = sh.ask(ctx, "id -un")
	return err
}

// User is who is logged in.
func (sh *Shell) User() string { return sh.user }

// resyncTime bounds the waiting for a shell that was left in the middle of a line.
const resyncTime = 5 * time.Second

// typed types a command that does no harm when it is typed twice, since it may
// have to be: something else can be printed into the marks of its answer.
func (sh *Shell) typed(ctx context.Context, command string) (string, error) {
	var out string
	var err error
	for range tries {
		if out, err = sh.typedOnce(ctx, command, false); !isSilent(ctx, err) {
			break
		}
	}
	return out, err
}

// answerForm is what ask has printed, which looks like nothing else.
var answerForm = regexp.MustCompile(`<=([^<\n]*)=>\r*\n?`)

// ask types a command for the one line that it prints, and tells that from what
// else the guest prints.
func (sh *Shell) ask(ctx context.Context, command string) (string, error) {
	var out string
	for range tries {
		var err error
		if out, err = sh.typed(ctx, `echo "<=$(`+command+`)=>"`); err != nil {
			return "", err
		}
		if m := answerForm.FindStringSubmatch(out); m != nil {
			return strings.TrimSpace(m[1]), nil
		}
	}
	return "", fmt.Errorf("%q is answered with %q", command, out)
}

// typedOnce types one command and returns its answer. silent: it has none of its own,
// and what comes meanwhile is a job's.
func (sh *Shell) typedOnce(ctx context.Context, command string, silent bool) (string, error) {
	if err := sh.take(ctx); err != nil {
		return "", err
	}
	defer func() { sh.turn <- struct{}{} }()
	return sh.answer(ctx, command, silent)
}

// start types a command that prints nothing, and starts a job or has it go on.
func (sh *Shell) start(ctx context.Context, command string) error {
	var err error
	for range tries {
		if _, err = sh.typedOnce(ctx, command, true); !isSilent(ctx, err) {
			break
		}
	}
	return err
}

// take waits for the turn to type.
func (sh *Shell) take(ctx context.Context) error {
	select {
	case <-sh.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-sh.done:
		return sh.reason
	}
	if ctx.Err() != nil {
		sh.turn <- struct{}{}
		return context.Cause(ctx)
	}
	return nil
}

// answer types a command and waits for its answer. silent: it has none.
func (sh *Shell) answer(ctx context.Context, command string, silent bool) (string, error) {
	if sh.dirty {
		limited, cancel := context.WithTimeoutCause(ctx, resyncTime, &SilentError{Command: ":", Limit: resyncTime})
		defer cancel()
		// Erase the line, interrupt what is in the foreground, see who is there.
		if err := sh.session.Console.Send(limited, "\x15\x03\n"); err != nil {
			return "", err
		}
		if _, err := sh.exchange(limited, ":", false); err != nil {
			return "", err
		}
	}
	out, err := sh.exchange(ctx, command, silent)
	sh.dirty = IsOurs(err)
	return out, err
}

// reply is the end of a command that was typed.
type reply struct {
	command      int
	text, status string
}

func (sh *Shell) exchange(ctx context.Context, command string, silent bool) (string, error) {
	sh.mu.Lock()
	sh.session.prefix = ""
	if silent || sh.hasLive() {
		sh.session.prefix = sh.session.token + "=; " // so that its echo is not taken for the job's output
	}
	sh.stream.silent = 0
	if silent {
		sh.stream.silent = sh.session.count + 1
	}
	sh.unanswered = true
	sh.mu.Unlock()
	n, err := sh.session.send(ctx, command)
	if err != nil {
		return "", err
	}
	timer := time.NewTimer(sh.session.step())
	defer timer.Stop()
	for {
		select {
		case r := <-sh.replies:
			if r.command == n { // and not the late one of a command that was given up
				sh.reveal()
				return answered(command, r.text, r.status)
			}
		case <-timer.C:
			return "", &SilentError{Command: command, Limit: sh.session.step()}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-sh.done:
			return "", sh.reason
		}
	}
}

// hasLive tells whether a job's output comes as it is printed, or soon will; the
// shell is locked.
func (sh *Shell) hasLive() bool {
	for _, j := range sh.jobs {
		if j.isLive {
			return true
		}
	}
	return sh.stream.job != 0
}

// answered takes the answer to a command; the stream is locked.
func (sh *Shell) answered(command int, text, status string) {
	select {
	case sh.replies <- reply{command, text, status}:
	default: // nobody waits for so many
	}
}

// hold stops the live output, so that what is typed and answered meanwhile does
// not get mixed up with it. When it succeeds, goOn must follow.
func (sh *Shell) hold(ctx context.Context) error { return sh.change(ctx, 1, "STOP") }

// goOn takes one hold back. The shell may be of no use any more, and then it fails.
func (sh *Shell) goOn(ctx context.Context) {
	ctx, cancel := sh.context(context.WithoutCancel(ctx))
	defer cancel()
	_ = sh.change(ctx, -1, "CONT") // nobody waits for output any more
}

// change signals who prints the live output when the first wants quiet and when
// the last no longer does.
func (sh *Shell) change(ctx context.Context, by int, signal string) error {
	var n int
	select {
	case n = <-sh.holding:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { sh.holding <- n }()
	sh.mu.Lock()
	signaled := sh.stream.job != 0 && (n == 0 || n+by == 0)
	if n+by == 0 {
		sh.stream.quiet = false // before it goes on
	}
	sh.mu.Unlock()
	if signaled {
		// One that has ended meanwhile can't be signaled. What comes while this is
		// typed is its output.
		if err := sh.start(ctx, "kill -s "+signal+" $q 2>/dev/null || :"); err != nil && by > 0 {
			return err
		}
	}
	n += by
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.pace.chunks++ // standing still is not being at the end
	sh.stream.quiet = n > 0 && sh.stream.job != 0
	return nil
}

// end makes the shell useless; the first reason counts.
func (sh *Shell) end(reason error) {
	sh.once.Do(func() {
		sh.reason = reason
		close(sh.done)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		for _, j := range sh.jobs {
			j.finish(true)
		}
	})
}

// Close ends it; what runs in the guest lives on, and so does its directory there:
// see Farewell for a guest whose disk is kept.
func (sh *Shell) Close() error {
	sh.end(ErrClosed)
	sh.stop()
	return nil
}

// Farewell has the next command, which brings the guest down, remove all that is
// kept in the guest for this Shell before it does anything else. Nothing is known
// of it but its status, and nothing can be run after it.
func (sh *Shell) Farewell() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.last = true
}

func (sh *Shell) isLast() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.last
}

// Wait waits until the console has ended, or Close was called, and says which.
func (sh *Shell) Wait() error {
	<-sh.done
	return sh.reason
}

// ServerVersion says what this is, in the place of an SSH server.
func (sh *Shell) ServerVersion() []byte { return []byte("serial console") }

// context is one that ends with the shell as well.
func (sh *Shell) context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case <-sh.done:
			cancel(sh.reason)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// OpenChannel begins a session; there are no other channels.
func (sh *Shell) OpenChannel(name string, _ []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	if name != "session" {
		return nil, nil, &ssh.OpenChannelError{Reason: ssh.UnknownChannelType, Message: "a serial console has sessions only"}
	}
	select {
	case <-sh.done:
		return nil, nil, sh.reason
	default:
	}
	j := newJob(sh)
	return j, j.requests, nil
}

// register gives a job its number.
func (sh *Shell) register(j *job) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.next++
	sh.jobs[sh.next] = j
	return sh.next
}

func (sh *Shell) forget(number int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.jobs, number)
}
