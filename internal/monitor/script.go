package monitor

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/org/hurd-qemu-action/internal/spelling"
)

// Moment is when in a machine's life a command is due.
type Moment string

// The moments, as scripts name them.
const (
	BeforeBoot Moment = "before-boot" // QEMU is there, the machine has not run yet
	AfterBoot  Moment = "after-boot"  // the guest answers
	AfterRun   Moment = "after-run"   // all is done in the guest
	OnConsole  Moment = "on-console"  // a line of the console matches
)

// Step is one line of a script.
type Step struct {
	Line    int // from 1
	Moment  Moment
	Pattern *regexp.Regexp // with OnConsole
	Command Command
	Text    string // as it was written
}

// String names the step in messages.
func (s Step) String() string { return fmt.Sprintf("line %d, %s: %s", s.Line, s.Moment, s.Command) }

// Script is the steps in the order in which they were written.
type Script []Step

// At lists the steps of a moment.
func (s Script) At(m Moment) Script {
	var due Script
	for _, step := range s {
		if step.Moment == m {
			due = append(due, step)
		}
	}
	return due
}

// A Problem is what is wrong with a line of a script.
type Problem struct {
	Line int // from 1
	Text string
}

// Error names the line.
func (p Problem) Error() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// ParseScript reads lines of the form
//
//	MOMENT: COMMAND
//	on-console "REGEX": COMMAND
//
// with a COMMAND as Parse reads it. Empty lines, and lines that begin with #,
// are skipped. The pictures of screendumps have plain names: where they go is
// not the script's to say. All problems are found at once.
func ParseScript(text string) (Script, []Problem) {
	var script Script
	var problems []Problem
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		step, err := parseStep(line)
		if err != nil {
			problems = append(problems, Problem{number, err.Error()})
			continue
		}
		step.Line, step.Text = number, line
		script = append(script, step)
	}
	return script, problems
}

func parseStep(line string) (Step, error) {
	var s Step
	head, command, err := s.moment(line)
	if err != nil {
		return Step{}, err
	}
	if strings.TrimSpace(command) == "" {
		return Step{}, fmt.Errorf("there is no command after %s and its colon", head)
	}
	if s.Command, err = Parse(command); err != nil {
		return Step{}, err
	}
	switch name := s.Command.Picture; {
	case name != "" && (name != filepath.Base(name) || strings.HasPrefix(name, ".")):
		return Step{}, fmt.Errorf("screendump: %s: write a plain name such as menu.png: the picture is kept beside the logs", brief(name))
	case s.Moment == BeforeBoot && len(s.Command.Chords) > 0:
		return Step{}, errors.New(`what is typed before the machine runs is lost, since its firmware empties the keyboard: write on-console "REGEX" with a line of the menu`)
	}
	return s, nil
}

// moments is for messages.
const moments = `before-boot, after-boot, after-run and on-console "REGEX"`

// moment reads what is before the command.
func (s *Step) moment(line string) (head, command string, err error) {
	end := strings.IndexAny(line, ": \t\"'{")
	if end < 0 {
		end = len(line)
	}
	word, rest := line[:end], strings.TrimLeft(line[end:], " \t")
	switch s.Moment = Moment(word); s.Moment {
	case BeforeBoot, AfterBoot, AfterRun:
	case OnConsole:
		if rest, err = s.pattern(rest); err != nil {
			return "", "", err
		}
	default:
		text := fmt.Sprintf("%s is no moment", brief(word))
		if near := spelling.Near(word, []string{string(BeforeBoot), string(AfterBoot), string(AfterRun), string(OnConsole)}); len(near) > 0 {
			text += " (did you mean " + near[0] + "?)"
		}
		return "", "", fmt.Errorf("%s: a line begins with one of %s, and a colon", text, moments)
	}
	command, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t"), ":")
	if !ok {
		return "", "", fmt.Errorf("there is no colon after %s", word)
	}
	return word, command, nil
}

// pattern reads the REGEX of on-console. Between " only \" is an escape, since
// regular expressions have backslashes of their own.
func (s *Step) pattern(text string) (rest string, err error) {
	if text == "" || text[0] != '"' && text[0] != '\'' {
		return "", errors.New(`on-console: the pattern is missing: write on-console "REGEX": COMMAND`)
	}
	quote, body := text[:1], text[1:]
	end := -1
	for i := 0; i < len(body); i++ {
		if body[i] == '\\' && quote == `"` {
			i++
		} else if body[i:i+1] == quote {
			end = i
			break
		}
	}
	if end < 0 {
		return "", fmt.Errorf("on-console: no %s ends the pattern", quote)
	}
	expression := body[:end]
	if quote == `"` {
		expression = strings.ReplaceAll(expression, `\"`, `"`)
	}
	s.Pattern, err = regexp.Compile(expression)
	switch {
	case err != nil:
		return "", fmt.Errorf("on-console: %s is not a regular expression: %w", brief(expression), err)
	case s.Pattern.MatchString(""):
		return "", fmt.Errorf("on-console: %s matches every line: write what only the line has that is waited for", brief(expression))
	}
	return body[end+1:], nil
}
