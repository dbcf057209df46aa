// Package environment makes the environment variables of a script in the guest
// of those of this process: which ones, under which names of paths, and how
// they get through a shell. It reads and writes nothing itself.
package environment

import (
	"path"
	"slices"
	"strings"
)

// A Variable is one that the script gets.
type Variable struct {
	Name, Value string

	// File, when not empty, is the name of a file or directory among those of the
	// script, and its path, which only the guest knows, is the value.
	File string
}

// A File is what must be there in the guest for a Variable's File.
type File struct {
	Name    string // one that ends with / is a directory
	Content []byte
	Written bool // the script writes to it for the runner
}

// A Skipped is a variable of this process that the script does not get.
type Skipped struct{ Name, Why string }

// Names of the files that a script writes to for the runner.
const (
	Output  = "output"
	Env     = "env"
	Path    = "path"
	Summary = "summary"
	State   = "state"
)

const (
	eventFile = "event.json"
	tempDir   = "temp/"
	// eventLimit is how long the event may be in bytes: it has to go through the
	// guest's SSH, at less than 1 MB/s in an emulated one.
	eventLimit = 1 << 20
)

// given are the variables that have a value of their own in the guest.
func given() []Variable {
	return []Variable{
		{Name: "GITHUB_OUTPUT", File: Output},
		{Name: "GITHUB_ENV", File: Env},
		{Name: "GITHUB_PATH", File: Path},
		{Name: "GITHUB_STEP_SUMMARY", File: Summary},
		{Name: "GITHUB_STATE", File: State},
		{Name: "RUNNER_TEMP", File: tempDir},
	}
}

// Host is what this process knows.
type Host struct {
	Environ   []string // as from os.Environ
	Paths     Paths    // what of this host is in the guest, and where
	Workspace string   // the workspace's path in the guest; empty: it has none

	// Event is the content of the file that GITHUB_EVENT_PATH names; nil: the
	// script gets none.
	Event []byte
}

// An Environment is what a script gets.
type Environment struct {
	Variables []Variable // sorted by name
	Files     []File
	Skipped   []Skipped // sorted by name
}

// New puts a script's environment together: every GITHUB_* and RUNNER_*
// variable of this process, CI, and what the user has named, which comes from
// Parse and wins.
//
// Paths are those of the guest (see Paths); a GITHUB_* or RUNNER_* variable
// with a path that the guest does not have (the tool cache, the action's own
// directory) is left out. The five files of the runner, a directory for
// temporary files and the event are made in the guest; they are there without a
// runner as well, so that a script does not have to care. Left out unless named
// is what ends with _TOKEN: a token goes into a guest when somebody wants it to.
func New(host Host, named []Variable) Environment {
	e := Environment{Files: []File{
		{Name: Output, Written: true}, {Name: Env, Written: true}, {Name: Path, Written: true},
		{Name: State, Written: true}, {Name: Summary, Written: true}, {Name: tempDir},
	}}
	all := map[string]Variable{}
	for _, entry := range host.Environ {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name != "CI" && !automatic(name) || own(name) {
			continue
		}
		if value = host.Paths.ToGuest(value); skipped(host, name, value) != "" {
			e.Skipped = append(e.Skipped, Skipped{name, skipped(host, name, value)})
			continue
		}
		all[name] = Variable{Name: name, Value: value}
	}
	for _, v := range append(given(), e.runner(host)...) {
		all[v.Name] = v
	}
	for _, v := range named {
		v.Value = host.Paths.ToGuest(v.Value)
		all[v.Name] = v
		e.Skipped = slices.DeleteFunc(e.Skipped, func(s Skipped) bool { return s.Name == v.Name })
	}
	for _, v := range all {
		e.Variables = append(e.Variables, v)
	}
	slices.SortFunc(e.Variables, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(e.Skipped, func(a, b Skipped) int { return strings.Compare(a.Name, b.Name) })
	return e
}

// automatic tells whether a variable goes into the guest without being named.
func automatic(name string) bool {
	return strings.HasPrefix(name, "GITHUB_") || strings.HasPrefix(name, "RUNNER_")
}

// own tells whether the guest has a value of its own for a variable.
func own(name string) bool {
	switch name {
	case "GITHUB_WORKSPACE", "GITHUB_EVENT_PATH", "RUNNER_WORKSPACE":
		return true
	}
	return slices.ContainsFunc(given(), func(v Variable) bool { return v.Name == name })
}

// skipped says why an automatic variable does not go into the guest.
func skipped(host Host, name, value string) string {
	switch {
	case !shellName(name):
		return "a shell can't set a variable of this name"
	case strings.Contains(value, "\x00"):
		return "the value holds a NUL"
	case strings.HasSuffix(name, "_TOKEN"):
		return "a token goes into the guest only when env names it"
	case path.IsAbs(value) && !host.Paths.inGuest(value):
		return "the path " + value + " is not in the guest"
	}
	return ""
}

// runner makes the variables that depend on what the guest has.
func (e *Environment) runner(host Host) []Variable {
	var vs []Variable
	if host.Workspace != "" {
		vs = append(vs, Variable{Name: "GITHUB_WORKSPACE", Value: host.Workspace})
		if slices.ContainsFunc(host.Environ, func(s string) bool { return strings.HasPrefix(s, "RUNNER_WORKSPACE=") }) {
			vs = append(vs, Variable{Name: "RUNNER_WORKSPACE", Value: path.Dir(host.Workspace)})
		}
	}
	switch {
	case len(host.Event) > eventLimit:
		e.Skipped = append(e.Skipped, Skipped{"GITHUB_EVENT_PATH", "the event is longer than 1 MiB"})
	case host.Event != nil:
		e.Files = append(e.Files, File{Name: eventFile, Content: host.Event})
		vs = append(vs, Variable{Name: "GITHUB_EVENT_PATH", File: eventFile})
	}
	return vs
}

// Shell writes the environment as a POSIX shell program that exports it. dir is
// the name of the shell variable that holds the directory of the Files.
func (e Environment) Shell(dir string) []byte {
	var b strings.Builder
	for _, v := range e.Variables {
		if v.File != "" {
			b.WriteString("export " + v.Name + `="$` + dir + "/" + strings.TrimSuffix(v.File, "/") + "\"\n")
			continue
		}
		b.WriteString("export " + v.Name + "='" + strings.ReplaceAll(v.Value, "'", `'\''`) + "'\n")
	}
	return []byte(b.String())
}
