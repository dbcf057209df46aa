package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/diagnostic"
	"github.com/org/hurd-qemu-action/internal/environment"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

// lookup finds a variable of this process.
func (h Host) lookup(name string) (string, bool) {
	for i := len(h.Environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(h.Environ[i], name+"="); ok {
			return value, true
		}
	}
	return "", false
}

func (h Host) getenv(name string) string {
	value, _ := h.lookup(name)
	return value
}

// containerWorkspace is where the runner puts the workspace into a container action.
const containerWorkspace = "/github/workspace"

// outside is the workspace's path where later steps run: outside of this
// container. Runners keep it in a directory of the repository's name; empty: not known.
func (h Host) outside() string {
	_, name, ok := strings.Cut(h.Repository, "/")
	parent := h.getenv("RUNNER_WORKSPACE")
	if h.Workspace != containerWorkspace || !ok || !path.IsAbs(parent) || strings.HasPrefix(parent+"/", "/github/") {
		return ""
	}
	return path.Join(parent, name)
}

// paths say what this host and the guest have in common. The path that later
// steps know comes first.
func (r *run) paths() environment.Paths {
	if r.checkout.way == syncNone {
		return nil
	}
	p := environment.Paths{{Host: r.Host.Workspace, Guest: workspace.GuestPath}}
	if outside := r.Host.outside(); outside != "" {
		p = append(environment.Paths{{Host: outside, Guest: workspace.GuestPath}}, p...)
	}
	return p
}

// sources say where in the guest the sources are that compilers complain about.
func (r *run) sources() diagnostic.Options {
	if !r.checkout.in {
		return diagnostic.Options{}
	}
	return diagnostic.Options{Root: workspace.GuestPath, Dir: r.scriptDir()}
}

// readEnvironment validates the input env, and registers what must never be shown.
func (r *run) readEnvironment() []error {
	for _, f := range config.Fields() {
		if f.Secret {
			r.mask.Mask(f.Value(&r.Inputs))
		}
	}
	for _, name := range []string{"ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITHUB_TOKEN"} {
		r.mask.Mask(r.Host.getenv(name))
	}
	variables, problems := environment.Parse(r.config.Env, r.Host.lookup)
	for _, v := range variables {
		if actions.LooksSecret(v.Name) {
			r.mask.Mask(v.Value)
		}
	}
	r.variables = variables
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = fmt.Errorf("env: %w", p)
	}
	return errs
}

// scriptEnvironment is what the script gets besides its text.
func (r *run) scriptEnvironment() (shell []byte, files []guest.File) {
	h := environment.Host{Environ: r.Host.Environ, Paths: r.paths()}
	if r.checkout.in {
		h.Workspace = workspace.GuestPath
	}
	if name := r.Host.getenv("GITHUB_EVENT_PATH"); name != "" {
		h.Event, _ = os.ReadFile(name) // a script that needs it will say so
	}
	e := environment.New(h, r.variables)
	for _, s := range e.Skipped {
		r.Log.Debug(s.Name + " is not passed on: " + s.Why)
	}
	for _, f := range e.Files {
		file := guest.File{Name: f.Name, Content: f.Content}
		if f.Written {
			file.Collect = actions.FileLimit
		}
		files = append(files, file)
	}
	return e.Shell(guest.FilesVariable), files
}

// collectTime is how long the files of a script may take that was stopped for
// taking too long. A busy emulated guest takes seconds to start a command.
const collectTime = 20 * time.Second

func collectWithin(cause error) time.Duration {
	if errors.As(cause, new(timeoutError)) {
		return collectTime
	}
	return time.Second // an interrupt leaves little time, and a guest that is lost does not answer
}

// mergeFiles takes over what the script wrote to the runner's files.
func (r *run) mergeFiles(collected map[string]guest.Collected) {
	if r.result.Script > 0 && len(collected) == 0 {
		r.warn("The script's outputs are lost", "what it wrote to GITHUB_OUTPUT, GITHUB_ENV, GITHUB_PATH, GITHUB_STATE and GITHUB_STEP_SUMMARY could not be fetched from the guest any more")
	}
	written := func(name string) actions.Written {
		c := collected[name]
		return actions.Written{Text: c.Content, Size: c.Size}
	}
	reserved := make([]string, 0, len(config.Outputs()))
	for _, o := range config.Outputs() {
		reserved = append(reserved, o.Name)
	}
	merged, err := r.Log.Files().Merge(actions.CommandFiles{
		Output: written(environment.Output), Env: written(environment.Env), Path: written(environment.Path),
		State: written(environment.State), Summary: written(environment.Summary),
	}, actions.MergeOptions{Reserved: reserved, Translate: r.paths().ToHost, SummaryReserve: summaryReserve})
	for _, refused := range merged.Refused {
		r.warn("Not taken over from the script", refused.Error())
	}
	if err != nil {
		r.warn("The script's results are not complete", err.Error())
	}
	if n := len(merged.Outputs) + len(merged.Env) + len(merged.Paths) + len(merged.State); r.Log.Commands() && n+merged.Summary > 0 {
		r.Log.Printf("Taken over from the script: %s, %s, %s for PATH, %s of summary",
			counted(len(merged.Outputs), "output"), counted(len(merged.Env), "variable"), counted(len(merged.Paths), "path"), counted(merged.Summary, "byte"))
	}
}
