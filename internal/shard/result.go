package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// NotRun is the result of a script that was never started: the fan-out was
// interrupted, or no guest could be had.
const NotRun = "not-run"

// Success is the result of a script that ended with 0.
const Success = "success"

// Result is what became of one script.
type Result struct {
	Script   Script
	Result   string // as the output result of a run has it, or NotRun
	Status   int    // exit status, as that of a run; of no meaning for NotRun
	Took     time.Duration
	Snapshot string // as the output snapshot; empty: it never came to that
	Log      string // directory of the logs, relative to the workspace; empty: there is none
}

// String says it in a few words.
func (r Result) String() string {
	text := r.Result
	if r.Result != NotRun && r.Status != 0 {
		text += fmt.Sprintf(", status %d", r.Status)
	}
	return text
}

// MarshalJSON writes the object that --json prints; seconds are of wall clock.
func (r Result) MarshalJSON() ([]byte, error) {
	var status *int
	if r.Result != NotRun {
		status = &r.Status
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // commands are full of < and &
	err := enc.Encode(struct {
		Shard    int     `json:"shard"`
		Command  string  `json:"command"`
		Result   string  `json:"result"`
		Status   *int    `json:"exit-code"` // null: it was not run
		Seconds  float64 `json:"seconds"`
		Snapshot string  `json:"snapshot"`
		Log      string  `json:"log"`
	}{r.Script.Number, r.Script.Text, r.Result, status, float64(r.Took.Milliseconds()) / 1000, r.Snapshot, r.Log})
	return b.Bytes(), err
}

// Status is the exit status of a fan-out: 0 when every script succeeded, else
// that of the first in the list that did not. For one that was not run there is
// always an earlier one, or an interrupt, which is for the caller to see.
func Status(results []Result) int {
	for _, r := range results {
		if r.Result != Success && r.Result != NotRun {
			return r.Status
		}
	}
	return 0
}

// Failed counts the scripts that were run and did not succeed, and those that
// were not run.
func Failed(results []Result) (failed, notRun int) {
	for _, r := range results {
		switch r.Result {
		case Success:
		case NotRun:
			notRun++
		default:
			failed++
		}
	}
	return failed, notRun
}

var columns = []string{"shard", "result", "status", "seconds", "snapshot", "logs", "command"}

func (r Result) cells() []string {
	status := "-"
	if r.Result != NotRun {
		status = fmt.Sprint(r.Status)
	}
	cells := []string{fmt.Sprint(r.Script.Number), r.Result, status, fmt.Sprintf("%.2f", r.Took.Seconds()), r.Snapshot, r.Log, r.Script.Name()}
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	return cells
}

// Table writes the results for people, a line each.
func Table(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := [][]string{columns}
	for _, r := range results {
		rows = append(rows, r.cells())
	}
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// Markdown is the table for the summary of a job.
func Markdown(results []Result) string {
	var b strings.Builder
	b.WriteString("| " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat(" --- |", len(columns)) + "\n")
	for _, r := range results {
		cells := r.cells()
		for i := range cells {
			cells[i] = escape(cells[i])
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}

// escape keeps Markdown and HTML from finding anything in a text but text.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 && (unicode.IsPunct(r) || unicode.IsSymbol(r)) && r != '-' && r != '.' {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
