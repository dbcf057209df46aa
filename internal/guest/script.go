package guest

import (
	"context"
	_ "embed" // the scripts that run in the guest
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

//go:embed scripts/run.sh
var runScript string

//go:embed scripts/stop.sh
var stopScript string

//go:embed scripts/become.sh
var becomeScript string

// A Script is what a user wants to have run in the guest.
type Script struct {
	Text string // anything; it becomes a file

	// Shell is the command line that runs it: see ParseShell. Empty: bash -eo
	// pipefail {0}, or sh -e {0} where the guest has no bash.
	Shell string

	// Dir is the working directory: absolute, or relative to the home directory,
	// as ~ and ~/ are. Empty: the home directory.
	Dir string

	// User runs the script. Empty: the one who is logged in. Another one must
	// exist (see EnsureUser), and only root can run a script as another one. The
	// script has the user's HOME, USER, LOGNAME and SHELL and the PATH of a login.
	User string

	// Env is a shell program that sets the script's environment, with export. It
	// may use $hurd_files, see Files. It is a file that only the user can read and
	// is emptied before the script starts: no value is in any program's arguments.
	Env []byte

	// Files are made before the script starts in a directory that is the user's
	// alone: the one that FilesVariable names within Env.
	Files []File

	// OnStart is called when all is prepared and the script is about to be started,
	// and OnEnd when its end is known: Result.Duration is the time between them.
	// They may be nil.
	OnStart, OnEnd func()

	// KillGrace is how long the script's processes have between TERM and KILL
	// when the context ends. 0 means two seconds.
	KillGrace time.Duration

	// KillGraceFor says the same for a cause: what the guest is told over a serial
	// console is typed, which takes a busy one seconds. nil, or 0, means KillGrace.
	KillGraceFor func(cause error) time.Duration

	// CollectWithin says how long killing what is left of the script and fetching
	// the Files may take when the context has ended for a cause, in one command. A
	// busy emulated guest takes seconds to start one. nil, or 0, means 2.5 s.
	CollectWithin func(cause error) time.Duration
}

// A Result is how a script ended in the guest.
type Result struct {
	Status int // exit status; 128+n when signal n killed it
	// Signal is the one that killed it, 0 for none. No shell tells the statuses
	// 130 and 141 from the signals 2 and 13: they count as these.
	Signal   int
	Duration time.Duration // on the host's clock, from its start to its end
	Detached bool          // it left a process behind that holds its output open

	// Files are those with File.Collect, as the script left them, by their names.
	// One is missing when there is no such file any more, or something else than
	// a file, or when the guest had no time to send it.
	Files map[string]Collected
}

// A DirError says that the working directory can't be entered.
type DirError struct{ Dir string }

// Error names the directory.
func (e *DirError) Error() string {
	return fmt.Sprintf("the working directory %q does not exist in the guest or can't be entered", e.Dir)
}

// A ShellError says that the guest has no such shell.
type ShellError struct{ Program string }

// Error names the program.
func (e *ShellError) Error() string {
	return fmt.Sprintf("the guest has no program %q to run the script with: install it, or choose another shell", e.Program)
}

const (
	defaultKillGrace     = 2 * time.Second
	defaultCollectWithin = 2500 * time.Millisecond
	nameLength           = 16
)

// RunScript runs a script in the guest. The script is a file in a directory of
// its own that only the user can enter (as another User: that only one who knows
// its random name can, and only the user can read); its standard input is empty;
// it runs in a session of its own. Its output is passed on as by Run.
//
// The three ends of a script: it exited (Result.Status), a signal killed it
// (Result.Signal as well, recorded in the guest, since not every SSH server
// tells), or the guest was lost (the error is a *LostError). Other errors:
// *TemplateError, *DirError, *ShellError, *UserError, or what a writer returned.
// Result.Files are there with every one of them if the guest still answers.
//
// When ctx ends, the script and all processes of its session are ended in the
// guest, with TERM and after KillGrace with KILL, and the error wraps the cause.
// That takes no more than KillGrace plus three seconds, also when the guest
// does not answer; CollectWithin makes it more or less. Processes that the script
// left behind when it ended by itself are not touched.
func (c *Client) RunScript(ctx context.Context, s Script, stdout, stderr io.Writer) (Result, error) {
	words, err := ParseShell(s.Shell)
	if err != nil {
		return Result{}, err
	}
	if s.KillGrace <= 0 {
		s.KillGrace = defaultKillGrace
	}
	if s.User == c.user {
		s.User = ""
	}
	var r *scriptRun
	var status ExitStatus
	err = errors.New("no directory for temporary files can be written: tried " + tmpTried)
	for i := 0; i < len(c.told.tmp); { // which one can be written only trying tells
		dir := privateDir(c.told.tmp[i])
		r = &scriptRun{client: c, dir: dir, script: s, begin: newBeginning(dir, s.OnStart, stdout, stderr)}
		status, err = r.run(ctx, words)
		_, begun := r.begin.when()
		switch {
		case !begun && err == nil && status.Code == noDirectory:
			i++
			continue
		case !begun && err == nil && r.joined && !status.Detached && ctx.Err() == nil:
			// All that the session has printed is here, and the script's beginning is not
			// in it. What it has made is of no use.
			_, _ = c.Run(ctx, Command{Line: "rm -rf " + quote(dir)})
			continue
		}
		break
	}
	if r == nil {
		return Result{}, fmt.Errorf("preparing the script in the guest: %w", err)
	}
	began, ok := r.begin.when()
	if !ok {
		if err == nil || errors.Is(err, ErrNoStatus) {
			err = fmt.Errorf("the guest could not store it (%s): %s", status, r.begin.noise())
		}
		return Result{}, fmt.Errorf("preparing the script in the guest: %w", err)
	}
	result := Result{Duration: time.Since(began), Detached: status.Detached, Files: r.files}
	call(s.OnEnd)
	if err != nil && !errors.Is(err, ErrNoStatus) {
		if ctx.Err() == nil && c.Err() == nil { // a writer failed, which is not the script's fault
			_, _ = r.collect(ctx, false)
			result.Files = r.files
		}
		return result, fmt.Errorf("running the script in the guest: %w", err)
	}
	if ctx.Err() != nil { // the script was faster, and its end is worth knowing
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.collectWithin(context.Cause(ctx)))
		defer cancel()
		ctx = late
	}
	record, recordErr := r.collect(ctx, false)
	result.Files = r.files
	if recordErr != nil && status.Code < 0 {
		return result, fmt.Errorf("learning how the script ended: %w", recordErr)
	}
	if err := result.read(record, status, s); err != nil {
		return result, err
	}
	return result, nil
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// lastLine is the last line of a command's output. Before it there may be what
// a shell's start files print, which can't be helped.
func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// compact drops a script's comments and empty lines, but not its first line.
// None of ours has a line within quotes that begins with #.
func compact(script string) string {
	var b strings.Builder
	for i, line := range strings.SplitAfter(script, "\n") {
		text := strings.TrimSpace(line)
		if i > 0 && (text == "" || strings.HasPrefix(text, "#")) {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// A scriptRun is a script that runs in the guest.
type scriptRun struct {
	client *Client
	dir    string
	script Script
	begin  *beginning
	joined bool // in the session that was held
	files  map[string]Collected
}

// run prepares the script and runs it by the words of its shell, in one session
// of an SSH server. Over a console, where the output of a live command is mixed
// with what else is printed, the preparing has one of its own.
func (r *scriptRun) run(ctx context.Context, words []string) (ExitStatus, error) {
	args := []string{r.dir, r.script.Dir}
	for _, word := range words {
		args = append(args, strings.ReplaceAll(word, placeholder, r.dir+"/script.sh"))
	}
	line := "sh " + quoteAll(append([]string{r.dir + "/run.sh"}, args...)...)
	if r.script.User != "" {
		line = "sh " + quoteAll(r.dir+"/become.sh", r.dir, r.script.User, line)
	}
	if _, ok := r.client.conn.(sshConn); ok {
		start := "exec " + line
		if r.script.User == "" {
			// One shell less to start, but where a shell that runs a command line
			// does not say which signal has killed a program.
			start = `test -z "${BASH_VERSION-}${KSH_VERSION-}${ZSH_VERSION-}" || ` + start + "\nset -- " + quoteAll(args...) + "\n" + `. "$1/run.sh"`
		}
		up, err := setUp(r.script, r.dir, start)
		if err != nil {
			return ExitStatus{Code: -1}, err
		}
		return r.inSession(ctx, up)
	}
	up, err := setUp(r.script, r.dir, ":")
	if err != nil {
		return ExitStatus{Code: -1}, err
	}
	cmd := up.command()
	ready := newBeginning(r.dir, nil, nil, nil)
	cmd.Stdout, cmd.Stderr = ready.stdout(), ready.stderr()
	status, err := r.client.Run(ctx, cmd)
	if _, ok := ready.when(); !ok || err != nil {
		r.begin = ready
		return status, err
	}
	call(r.script.OnStart)
	r.begin.now()
	return r.follow(ctx, func() (*execution, error) {
		return r.client.start(ctx, Command{Line: "exec " + line, Stdout: r.begin.out, Stderr: r.begin.diag, Live: true})
	})
}

// inSession uploads and runs the script in the session that is held, if there is
// one and it can, or in a new one.
func (r *scriptRun) inSession(ctx context.Context, up *upload) (ExitStatus, error) {
	if h := r.client.held.Swap(nil); h != nil {
		program, ok := up.text()
		if r.joined = ok && !h.ended(); r.joined {
			return r.follow(ctx, func() (*execution, error) {
				if err := context.Cause(ctx); err != nil {
					h.release()
					return nil, err
				}
				return h.run(program, r.begin.stdout(), r.begin.stderr()), nil
			})
		}
		h.release()
	}
	cmd := up.command()
	cmd.Stdout, cmd.Stderr = r.begin.stdout(), r.begin.stderr()
	return r.follow(ctx, func() (*execution, error) { return r.client.start(ctx, cmd) })
}

// follow starts the command that runs the script, waits for it, and ends the
// script in the guest when ctx ends first.
func (r *scriptRun) follow(ctx context.Context, start func() (*execution, error)) (ExitStatus, error) {
	e, err := start()
	if err != nil {
		if ctx.Err() != nil {
			r.end(ctx, nil) // it may have begun all the same
		}
		return ExitStatus{Code: -1}, err
	}
	select {
	case <-e.exited:
	case <-ctx.Done():
		if _, begun := r.begin.when(); !begun {
			e.abandon() // setup.sh gets no more, and can't say that it is done: it goes no further
		}
		r.end(ctx, e.exited)
		e.abandon()
		return ExitStatus{Code: -1}, context.Cause(ctx)
	}
	return e.wait(ctx)
}

// end ends the script's processes: TERM, then KILL, for those that do not heed
// the first as well when the script itself does. exited is closed when the
// script has ended; nil when that can't be known. Of a script that has not begun
// there is nothing to fetch.
func (r *scriptRun) end(ctx context.Context, exited <-chan struct{}) {
	cause := context.Cause(ctx)
	ctx = context.WithoutCancel(ctx)
	if _, begun := r.begin.when(); !begun {
		limited, cancel := context.WithTimeout(ctx, max(r.script.killGrace(cause), r.script.collectWithin(cause)))
		defer cancel()
		r.prevent(limited)
		return
	}
	if exited != nil {
		term, cancel := context.WithTimeout(ctx, r.script.killGrace(cause))
		r.terminate(term)
		select {
		case <-exited:
		case <-r.client.lost:
		case <-term.Done():
		}
		cancel()
	}
	late, cancel := context.WithTimeout(ctx, r.script.collectWithin(cause))
	defer cancel()
	_, _ = r.collect(late, true) // the files are all that can be had; the guest may be deaf
}

func (s Script) killGrace(cause error) time.Duration {
	if s.KillGraceFor != nil {
		if grace := s.KillGraceFor(cause); grace > 0 {
			return grace
		}
	}
	return s.KillGrace
}

func (s Script) collectWithin(cause error) time.Duration {
	if s.CollectWithin != nil {
		if most := s.CollectWithin(cause); most > 0 {
			return most
		}
	}
	return defaultCollectWithin
}

// terminate runs stop.sh. Whether it worked does not matter: there is nothing
// else to try before the KILL.
func (r *scriptRun) terminate(ctx context.Context) {
	_, _ = r.client.Run(ctx, Command{Line: "exec sh " + quoteAll(r.dir+"/stop.sh", r.dir, "TERM")})
}

// prevent leaves word for run.sh where setup.sh has not got so far, if need be in
// the directory that setup.sh must make itself; a script that has begun without
// our knowing is killed. There is nothing else to try if that fails.
func (r *scriptRun) prevent(ctx context.Context) {
	const script = `test -e "$1/pid" && exec sh "$1/stop.sh" "$1" KILL; mkdir "$1" 2>/dev/null; : >"$1/stop"; rm -f "$1/env"`
	_, _ = r.client.Run(ctx, Command{Script: script, Args: []string{r.dir}})
}

// read takes the result from the record of run.sh, or else from what the SSH
// server reported of run.sh itself.
func (r *Result) read(record string, status ExitStatus, s Script) error {
	kind, rest, _ := strings.Cut(record, " ")
	n, err := strconv.Atoi(rest)
	switch {
	case kind == "exit" && err == nil && n >= 0 && n <= 255:
		r.Status = n
	case kind == "signal" && err == nil && n > 0 && n <= 127:
		r.Status, r.Signal = 128+n, n
	case kind == "nodir":
		return &DirError{Dir: s.Dir}
	case kind == "noshell":
		return &ShellError{Program: printable(rest)}
	case kind == "nouser":
		return &UserError{User: s.User, Why: printable(rest)}
	case status.Code >= 0:
		r.Status = status.Code
	default:
		return fmt.Errorf("learning how the script ended: its record in the guest says %q, and the SSH server: %s: "+
			"something killed the shell that ran it", printable(record), status)
	}
	return nil
}
