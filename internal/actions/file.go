package actions

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sethvargo/go-githubactions"
)

// outputName is what the runner takes in steps.ID.outputs.NAME.
var outputName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// FileCommand appends to one of the files that the runner reads when a step ends.
type FileCommand struct {
	getenv func(string) string
	action *githubactions.Action
}

// Files returns the runner's files. Without a runner, or with a runner that
// has no such file, nothing is written and nothing fails.
func (l *Log) Files() FileCommand {
	return FileCommand{getenv: l.opt.Getenv, action: l.command}
}

// SetOutput sets an output of the step. The value may come from the guest: it
// stands between delimiters that are random for each value, because the
// library's own constant one could be forged by a value to set another output.
func (f FileCommand) SetOutput(name, value string) error {
	if f.getenv("GITHUB_OUTPUT") == "" {
		return nil
	}
	if !outputName.MatchString(name) {
		return fmt.Errorf("setting output %q: a name is made of letters, digits, _ and -", name)
	}
	text, err := heredoc(name, value)
	if err != nil {
		return fmt.Errorf("setting output %s: %w", name, err)
	}
	return f.writeLines("output", []string{text})
}

// AddSummary adds Markdown of ours to the step's summary.
func (f FileCommand) AddSummary(markdown string) error {
	return f.writeLines("step_summary", []string{strings.TrimSuffix(markdown, "\n")})
}

// append turns the library's panic on an unwritable file into an error.
func (f FileCommand) append(command, message string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("writing GITHUB_%s: %v", strings.ToUpper(command), r)
		}
	}()
	f.action.IssueFileCommand(&githubactions.Command{Name: command, Message: message})
	return nil
}
