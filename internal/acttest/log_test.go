package acttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of act's log, as act --json writes it (logrus's JSON
// format with the fields that pkg/runner adds). act prints two kinds of lines
// that are not JSON: its final error, and panics; they are kept in Msg alone.
type event struct {
	JobID  string   `json:"jobID,omitempty"`
	Job    string   `json:"job,omitempty"`
	StepID []string `json:"stepID,omitempty"` // the id, or the index, of a step
	Stage  string   `json:"stage,omitempty"`  // Pre, Main or Post of a step

	// How a step or a job ended: success, failure or skipped.
	StepResult string `json:"stepResult,omitempty"`
	JobResult  string `json:"jobResult,omitempty"`

	// What a step printed: a line (RawOutput), or a workflow command that act
	// obeyed, unless Command is "ignored". Outputs and the like that came by
	// file are told as the command of that name.
	RawOutput bool              `json:"raw_output,omitempty"`
	Command   string            `json:"command,omitempty"`
	Name      string            `json:"name,omitempty"`
	Arg       string            `json:"arg,omitempty"`
	KvPairs   map[string]string `json:"kvPairs,omitempty"`
	Raw       string            `json:"raw,omitempty"`
	Content   string            `json:"content,omitempty"` // of the step's summary

	Msg string `json:"msg"`
}

// step is the id of the step, or "".
func (e event) step() string {
	if len(e.StepID) == 0 {
		return ""
	}
	return e.StepID[0]
}

// actLog is all that act said of one run.
type actLog []event

// readLog reads act's log. A line that is no JSON object is an event of its own.
func readLog(r io.Reader) (actLog, error) {
	var log actLog
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		e := event{}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{Msg: lines.Text()}
		}
		log = append(log, e)
	}
	if err := lines.Err(); err != nil {
		return log, fmt.Errorf("reading act's log after %d lines: %w", len(log), err)
	}
	return log, nil
}

// of selects the events of one step.
func (l actLog) of(job, step string) actLog {
	return slices.DeleteFunc(slices.Clone(l), func(e event) bool { return e.JobID != job || e.step() != step })
}

// results counts how the runs of each job ended: a job of a matrix has several.
func (l actLog) results() map[string]map[string]int {
	all := map[string]map[string]int{}
	for _, e := range l {
		if e.JobResult == "" {
			continue
		}
		if all[e.JobID] == nil {
			all[e.JobID] = map[string]int{}
		}
		all[e.JobID][e.JobResult]++
	}
	return all
}

// outputs are those that the events set.
func (l actLog) outputs() map[string]string {
	all := map[string]string{}
	for _, e := range l {
		if e.Command == "set-output" {
			all[e.Name] = e.Arg
		}
	}
	return all
}

// annotations are the events that GitHub would show as such.
func (l actLog) annotations() actLog {
	return slices.DeleteFunc(slices.Clone(l), func(e event) bool {
		return !slices.Contains([]string{"error", "warning", "notice"}, e.Command)
	})
}

// printed are the lines that were shown and not taken for commands.
func (l actLog) printed() []string {
	var all []string
	for _, e := range l {
		if e.RawOutput {
			all = append(all, strings.TrimRight(e.Msg, "\r\n"))
		}
	}
	return all
}

// ran says whether act ran the step at all.
func (l actLog) ran() bool {
	return slices.ContainsFunc(l, func(e event) bool { return e.StepResult != "" && e.StepResult != "skipped" })
}

// kernelLine is what a booting Linux prints, which makes most of the log.
var kernelLine = regexp.MustCompile(`^\s*\[ *\d+\.\d+\]`)

// essence drops what no check looks at: the boot of the guests, and act's
// own progress with the paths of the machine that it ran on.
func (l actLog) essence() actLog {
	return slices.DeleteFunc(slices.Clone(l), func(e event) bool {
		told := e.RawOutput && !kernelLine.MatchString(e.Msg) || e.Command != "" || e.StepResult != "" || e.JobResult != ""
		return !told
	})
}

// write writes the log in the form that readLog reads.
func (l actLog) write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, e := range l {
		if err := encoder.Encode(e); err != nil {
			return fmt.Errorf("writing act's log: %w", err)
		}
	}
	return nil
}

// tail is the end of the log as a person wants to read it, without the boot.
func (l actLog) tail(lines int) string {
	var b strings.Builder
	kept := slices.DeleteFunc(slices.Clone(l), func(e event) bool { return kernelLine.MatchString(e.Msg) })
	for _, e := range kept[max(0, len(kept)-lines):] {
		fmt.Fprintf(&b, "[%s] %s\n", strings.TrimSpace(e.Job), strings.TrimRight(e.Msg, "\r\n"))
	}
	return b.String()
}
