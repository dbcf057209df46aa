package acttest

import (
	"fmt"
	"slices"
	"strings"
)

// finding is what is wrong with a run, in words.
type finding = string

// check is one thing that must be true of a run of e2e.yml.
type check struct {
	name string
	look func(workflow, actLog) []finding
}

// checks are all of them.
var checks = []check{
	{"every job succeeded", jobsSucceeded},
	{"the good run has no annotation", goodRunIsQuiet},
	{"every bad input is reported at once", badInputsReported},
	{"exit 7 arrives as 7", statusArrives},
	{"a timeout ends the script", timeoutEnds},
	{"no command of the guest is obeyed", guestNotObeyed},
	{"a lost guest is told with its console", lostGuestTold},
	{"a script that fails has its results", resultsArrive},
	{"the step has its groups in order", groupsInOrder},
	{"the summary is the script's and ours", summaryAppears},
	{"complaints are on the files of the workspace", complaintsPlaced},
	{"the token is in no line", tokenHidden},
}

// jobsSucceeded compares the jobs and the runs of matrices with the workflow.
func jobsSucceeded(w workflow, l actLog) (found []finding) {
	results := l.results()
	for id, job := range w.Jobs {
		for result, n := range results[id] {
			if result != "success" {
				found = append(found, fmt.Sprintf("job %s: %d × %s", id, n, result))
			}
		}
		if got, want := results[id]["success"], job.runs(); got != want {
			found = append(found, fmt.Sprintf("job %s succeeded %d times, not %d", id, got, want))
		}
	}
	slices.Sort(found)
	return found
}

func goodRunIsQuiet(_ workflow, l actLog) (found []finding) {
	step := l.of("success", "guest")
	found = wantOutputs(step, map[string]string{"result": "success", "exit-code": "0"})
	for _, e := range step.annotations() {
		found = append(found, "unexpected annotation: "+e.Raw)
	}
	for _, line := range []string{"said in the guest", "said on standard error", "the last line"} {
		if !slices.Contains(step.printed(), line) {
			found = append(found, "the log lacks the line: "+line)
		}
	}
	return found
}

// badInputsReported wants one error for each bad input of the workflow's step,
// with the input's name and value, and no other.
func badInputsReported(w workflow, l actLog) (found []finding) {
	step := l.of("failures", "inputs")
	found = wantOutputs(step, map[string]string{"result": "input-invalid", "exit-code": "125"})
	bad := w.step("failures", "inputs").With
	delete(bad, "image") // these two are good
	delete(bad, "run")
	if len(bad) < 3 {
		found = append(found, fmt.Sprintf("the workflow has only %d bad inputs", len(bad)))
	}
	errors := step.annotations()
	for name, value := range bad {
		named := slices.DeleteFunc(slices.Clone(errors), func(e event) bool {
			return e.Command != "error" || !strings.HasPrefix(e.Arg, name+":") || !strings.Contains(e.Arg, value)
		})
		if len(named) != 1 {
			found = append(found, fmt.Sprintf("%d errors name the input %s and its value %q, not one", len(named), name, value))
		}
	}
	if len(errors) != len(bad) {
		found = append(found, fmt.Sprintf("%d annotations for %d bad inputs", len(errors), len(bad)))
	}
	slices.Sort(found)
	return found
}

func statusArrives(_ workflow, l actLog) (found []finding) {
	step := l.of("failures", "seven")
	found = wantOutputs(step, map[string]string{"result": "script-failed", "exit-code": "7"})
	found = append(found, wantOneError(step, "7")...)
	if lines := step.printed(); !slices.Contains(lines, "before") || slices.Contains(lines, "after") {
		found = append(found, "the script was not run up to its exit")
	}
	return found
}

func timeoutEnds(_ workflow, l actLog) (found []finding) {
	step := l.of("failures", "slow")
	found = wantOutputs(step, map[string]string{"result": "timeout", "exit-code": "124"})
	found = append(found, wantOneError(step, "timeout")...)
	if !slices.Contains(step.printed(), "patience") {
		found = append(found, "the script did not begin")
	}
	return found
}

// guestNotObeyed looks for commands that came from the guest: its script marks
// each with the word "forged" and asks to mask "in plain sight".
func guestNotObeyed(_ workflow, l actLog) (found []finding) {
	seen := 0
	for _, e := range l {
		if e.JobID != "hostile" && e.JobID != "results" {
			continue
		}
		if strings.Contains(e.Msg, "forged") && e.step() == "prints" {
			seen++
		}
		if e.Command != "" && e.Command != "ignored" && forged(e) {
			found = append(found, fmt.Sprintf("step %s: act obeyed %s", e.step(), e.Raw))
		}
	}
	// 19 commands on each of two streams; the script itself is printed, too.
	if seen < 2*19 {
		found = append(found, fmt.Sprintf("only %d lines of the guest's commands are in the log", seen))
	}
	if !slices.Contains(l.of("hostile", "prints").printed(), "still in plain sight") {
		found = append(found, "the log lacks the line: still in plain sight (masked?)")
	}
	return found
}

// forged says whether a command carries the guest's mark. A message of ours
// that quotes the guest later in its text does not count.
func forged(e event) bool {
	for _, text := range []string{e.Arg, e.Name} {
		text = strings.TrimPrefix(text, "/")
		if strings.HasPrefix(text, "forged") || text == "in plain sight" || e.Command == "add-mask" && text == "***" {
			return true
		}
	}
	for key, value := range e.KvPairs {
		if strings.EqualFold(key, "forged") || strings.EqualFold(value, "forged") {
			return true
		}
	}
	return false
}

// lostTitles are the warnings about what a lost guest can't give any more.
var lostTitles = []string{"The last changes to the workspace may be missing", "The script's outputs are lost"}

// lostGuestTold wants one error, the end of the console, and a warning for each
// thing that went with the guest.
func lostGuestTold(_ workflow, l actLog) (found []finding) {
	step := l.of("hostile", "lost")
	found = wantOutputs(step, map[string]string{"result": "guest-lost", "exit-code": "125"})
	var rest actLog
	for _, title := range lostTitles {
		if !slices.ContainsFunc(step, func(e event) bool { return e.Command == "warning" && e.KvPairs["title"] == title }) {
			found = append(found, "no warning: "+title)
		}
	}
	for _, e := range step {
		if e.Command != "warning" || !slices.Contains(lostTitles, e.KvPairs["title"]) {
			rest = append(rest, e)
		}
	}
	found = append(found, wantOneError(rest, "")...)
	quoted := slices.ContainsFunc(step, func(e event) bool {
		line := strings.TrimSpace(e.Msg)
		// On the line of the prompt, unless the kernel has said something there.
		return strings.TrimPrefix(line, "selftest login: ") == "::error::forged"
	})
	if !quoted {
		found = append(found, "the console is not quoted")
	}
	if !slices.ContainsFunc(step.printed(), func(line string) bool { return strings.Contains(line, "qemu.log") }) {
		found = append(found, "QEMU's log is not quoted")
	}
	return found
}

// wantOutputs wants that a step ran and set these outputs.
func wantOutputs(step actLog, want map[string]string) (found []finding) {
	if !step.ran() {
		return []finding{"the step did not run"}
	}
	got := step.outputs()
	for name, value := range want {
		if got[name] != value {
			found = append(found, fmt.Sprintf("output %s is %q, not %q", name, got[name], value))
		}
	}
	slices.Sort(found)
	return found
}

// wantOneError wants exactly one annotation, an error with this text.
func wantOneError(step actLog, text string) []finding {
	all := step.annotations()
	if len(all) == 1 && all[0].Command == "error" && strings.Contains(all[0].Arg, text) {
		return nil
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, e.Raw)
	}
	return []finding{fmt.Sprintf("not one error with %q, but %q", text, lines)}
}
