// Package cli is the command line of hurd-qemu-action, and the action when
// there is none. It reads the environment, turns signals into the end of a
// context, and wires the packages together.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
)

// statusUsage is the exit status of a command line that cannot be: input-invalid.
const statusUsage = 125

// Command is one call of the program, without what only a process has.
type Command struct {
	Stdin          io.Reader // read for "--shard -", and for qmp without a command
	Stdout, Stderr io.Writer
	Args           []string // without the program's name
	Environ        []string
	Version        string // as the linker set it; empty: the module's
}

// cli is the grammar of the command line.
type cli struct {
	Run      runCommand      `cmd:"" help:"Boot a guest, run a command or script in it, and end with its exit status."`
	Image    imageCommand    `cmd:"" help:"Manage the image store."`
	Snapshot snapshotCommand `cmd:"" help:"Manage the saved machines."`
	QMP      qmpCommand      `cmd:"" name:"qmp" help:"Talk to the monitor of the QEMU of a guest that runs."`
	Doctor   doctorCommand   `cmd:"" help:"Look at this host, and at the guests that run here: what is fine, slow or broken, and how to fix it."`
	Console  consoleCommand  `cmd:"" help:"Connect this terminal to the serial console of a running guest."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

type runCommand struct {
	config.Inputs `embed:""`
	shardFlags    `embed:""`
	Workspace     string   `name:"workspace" default:"." placeholder:"DIR" group:"Local" help:"Directory that stands for the workspace; the logs go to .hurd in it."`
	Command       []string `arg:"" optional:"" name:"command" help:"Command to run in the guest, instead of --run. One argument is a line for the shell; several are a program and its arguments."`
}

type versionCommand struct{}

const description = `Boots GNU/Hurd in QEMU, with KVM where it works, and runs a script in it over SSH.

  hurd-qemu-action run --image disk.qcow2 -- uname -a
  hurd-qemu-action run --image selftest --run 'echo hello; exit 3'
  hurd-qemu-action run --image disk.qcow2 --jobs 4 --shard tests.txt

Exit status: the script's own; 128+n when signal n killed it in the guest; 124 on a timeout; 130 or 143 when interrupted; 125 when the guest or this program failed.

Without arguments it is a GitHub action and reads its inputs from INPUT_* variables.`

// Main runs the command and returns its exit status.
func (c Command) Main() int {
	if len(c.Args) == 0 {
		if c.getenv("GITHUB_ACTIONS") != "true" && !c.hasInputs() {
			c.Args = []string{"--help"}
		} else {
			return c.action()
		}
	}
	var grammar cli
	exited := -1
	parser, err := kong.New(&grammar, kong.Name("hurd-qemu-action"), kong.Description(description),
		kong.Writers(c.Stdout, c.Stderr), kong.Exit(func(status int) { exited = status }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}))
	if err != nil {
		fmt.Fprintf(c.Stderr, "hurd-qemu-action: %v\n", err)
		return statusUsage
	}
	parsed, err := parser.Parse(c.Args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		fmt.Fprintf(c.Stderr, "hurd-qemu-action: %v\nSee hurd-qemu-action --help.\n", err)
		return statusUsage
	case parsed.Command() == "version":
		fmt.Fprintln(c.Stdout, c.version())
		return 0
	case parsed.Command() == "doctor":
		return c.doctor(&grammar.Doctor)
	case parsed.Command() == "console":
		return c.console(&grammar.Console)
	}
	if strings.HasPrefix(parsed.Command(), "qmp") {
		return c.qmp(&grammar.QMP)
	}
	if which, ok := strings.CutPrefix(parsed.Command(), "image "); ok {
		which, _, _ = strings.Cut(which, " ")
		return c.image(&grammar.Image, which)
	}
	if which, ok := strings.CutPrefix(parsed.Command(), "snapshot "); ok {
		which, _, _ = strings.Cut(which, " ")
		return c.snapshot(&grammar.Snapshot, which)
	}
	return c.run(&grammar.Run, func(flag string) bool {
		return slices.ContainsFunc(parsed.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == flag })
	})
}

// action runs as the GitHub action.
func (c Command) action() int {
	inputs, unknown := config.FromEnvironment(c.Environ)
	workspace := c.getenv("GITHUB_WORKSPACE")
	if workspace == "" {
		workspace = "."
	}
	return c.pass(inputs, workspace, unknown)
}

// run runs from a shell. given tells whether a flag is on the command line.
func (c Command) run(r *runCommand, given func(flag string) bool) int {
	if problem := r.problem(given); problem != "" {
		fmt.Fprintln(c.Stderr, "hurd-qemu-action: "+problem)
		return statusUsage
	}
	if r.Shard != "" {
		return c.shard(r, given)
	}
	if len(r.Command) > 0 && r.Run != "" {
		fmt.Fprintln(c.Stderr, "hurd-qemu-action: both --run and a command are given: leave one of them out")
		return statusUsage
	}
	switch len(r.Command) {
	case 0:
	case 1:
		r.Run = r.Command[0]
	default:
		r.Run = "exec " + quoted(r.Command)
	}
	return c.pass(c.flags(r), r.Workspace, nil)
}

// flags are the inputs as the command line has them.
func (c Command) flags(r *runCommand) config.Inputs {
	inputs := config.FromFlags(r.Inputs)
	if inputs.Token == "" {
		inputs.Token = c.getenv("GITHUB_TOKEN") // which other users of the machine can't see, as they can a flag
	}
	return inputs
}

// quoted writes arguments so that a POSIX shell reads them back unchanged.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// pass makes the one pass of a run.
func (c Command) pass(inputs config.Inputs, workspace string, warnings []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer watchSignals(cancel)()
	log := c.log(c.getenv("GITHUB_ACTIONS") == "true", cancel)
	for _, w := range warnings {
		log.Annotate(actions.Warning, "Unknown input", w)
	}
	host, err := c.host(workspace)
	if err != nil {
		log.Annotate(actions.Error, "Internal error", err.Error())
		return statusUsage
	}
	return lifecycle.Run(ctx, lifecycle.Request{Inputs: inputs, Host: host, Log: log}).ExitCode
}

// log is the log of a process: when nobody reads it any more, it cancels.
func (c Command) log(commands bool, cancel context.CancelCauseFunc) *actions.Log {
	return actions.New(actions.Options{
		Stdout: c.Stdout, Stderr: c.Stderr, Commands: commands, Getenv: c.getenv,
		Broken: func(err error) {
			err = fmt.Errorf("writing the output: %w", err)
			if errors.Is(err, syscall.EPIPE) { // as a program that does not catch the signal would end
				err = fmt.Errorf("%w: %w", err, lifecycle.Interrupt{Signal: syscall.SIGPIPE})
			}
			cancel(err)
		},
	})
}

// watchSignals cancels with the cause Interrupt at the first signal that asks
// to end; later ones change nothing, since ending is bounded. SIGPIPE is only
// kept from killing the process: a write error says the same.
func watchSignals(cancel context.CancelCauseFunc) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				cancel(lifecycle.Interrupt{Signal: s.(syscall.Signal)})
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		signal.Stop(pipes)
		close(done)
	}
}

// host says where this run may keep things.
func (c Command) host(workspace string) (lifecycle.Host, error) {
	abs, err := filepath.Abs(workspace)
	if err != nil {
		return lifecycle.Host{}, fmt.Errorf("finding the workspace: %w", err)
	}
	h := lifecycle.Host{
		Workspace: abs, Temp: c.getenv("RUNNER_TEMP"), KVM: "/dev/kvm", Version: c.version(), Progress: c.terminal(),
		Home: c.getenv("HOME"), Environ: c.Environ,
		Repository: c.getenv("GITHUB_REPOSITORY"), API: c.getenv("GITHUB_API_URL"), ResultsURL: c.getenv("ACTIONS_RESULTS_URL"),
		DockerConfig: c.dockerConfig(),
	}
	// Only artifacts need it, and package image says so when it is missing.
	if id, err := strconv.ParseInt(c.getenv("GITHUB_RUN_ID"), 10, 64); err == nil {
		h.RunID = id
	}
	// Runners before 2.329 pass a path of the host that a container does not have.
	if info, err := os.Stat(h.Temp); h.Temp == "" || err != nil || !info.IsDir() {
		h.Temp = os.TempDir()
	}
	if h.Cache, err = os.UserCacheDir(); err != nil {
		h.Cache = h.Temp
	}
	h.Cache = filepath.Join(h.Cache, "hurd-qemu-action")
	h.Container = container("/.dockerenv", os.Hostname)
	return h, nil
}

// containerName is what docker names a container, and its host name, by default.
var containerName = regexp.MustCompile(`^[0-9a-f]{12}$`)

// container is the name of the container that this runs in: docker leaves a mark in it.
func container(mark string, hostname func() (string, error)) string {
	name, err := hostname()
	if _, statErr := os.Stat(mark); err != nil || statErr != nil || !containerName.MatchString(name) {
		return ""
	}
	return name
}

func (c Command) terminal() bool { return isTerminal(c.Stderr) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (c Command) getenv(name string) string {
	for i := len(c.Environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(c.Environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

func (c Command) hasInputs() bool {
	for _, e := range c.Environ {
		if strings.HasPrefix(e, "INPUT_") {
			return true
		}
	}
	return false
}

func (c Command) version() string {
	if c.Version != "" {
		return c.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown version)"
}
