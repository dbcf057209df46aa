package acttest

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// goodLog is the essence of a run of e2e.yml that TestE2EAct passed (-update).
const goodLog = "testdata/good.jsonl"

func readGoodLog(t *testing.T) actLog {
	t.Helper()
	text, err := os.ReadFile(goodLog)
	if err != nil {
		t.Fatal(err)
	}
	log, err := readLog(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestChecksPassGoodLog holds that the recorded run still satisfies the checks
// with the workflow as it is now.
func TestChecksPassGoodLog(t *testing.T) {
	w, _ := readWorkflow(t, "e2e.yml")
	log := readGoodLog(t)
	for _, c := range checks {
		for _, f := range c.look(w, log) {
			t.Errorf("%s: %s", c.name, f)
		}
	}
}

// TestChecksFail holds that each check can fail: a change of the good log that
// a defect would make is found, by that check.
func TestChecksFail(t *testing.T) {
	at := func(job, step string) func(event) bool {
		return func(e event) bool { return e.JobID == job && e.step() == step }
	}
	change := func(pick func(event) bool, edit func(*event)) func(actLog) actLog {
		return func(l actLog) actLog {
			for i := range l {
				if pick(l[i]) {
					edit(&l[i])
				}
			}
			return l
		}
	}
	drop := func(pick func(event) bool) func(actLog) actLog {
		return func(l actLog) actLog { return slices.DeleteFunc(l, pick) }
	}
	add := func(e event) func(actLog) actLog {
		return func(l actLog) actLog { return append(l, e) }
	}
	tests := []struct {
		name, check, want string
		edit              func(actLog) actLog
	}{
		{"job failed", "every job succeeded", "job sizes: 1 × failure",
			add(event{JobID: "sizes", JobResult: "failure"})},
		{"job missing", "every job succeeded", "job hostile succeeded 0 times, not 1",
			drop(func(e event) bool { return e.JobID == "hostile" })},
		{"half a matrix", "every job succeeded", "job sizes succeeded 3 times, not 2",
			add(event{JobID: "sizes", JobResult: "success"})},
		{"empty log", "every job succeeded", "job success succeeded 0 times",
			drop(func(event) bool { return true })},
		{"warning in the good run", "the good run has no annotation", "unexpected annotation: ::warning::slow",
			add(event{JobID: "success", StepID: []string{"guest"}, Command: "warning", Raw: "::warning::slow"})},
		{"lost line", "the good run has no annotation", "lacks the line: said on standard error",
			drop(func(e event) bool { return strings.HasPrefix(e.Msg, "said on standard error") })},
		{"one input forgotten", "every bad input is reported at once", "0 errors name the input memory",
			drop(func(e event) bool { return e.Command == "error" && strings.HasPrefix(e.Arg, "memory:") })},
		{"value not quoted", "every bad input is reported at once", `0 errors name the input accel and its value "warp"`,
			change(at("failures", "inputs"), func(e *event) { e.Arg = strings.ReplaceAll(e.Arg, "warp", "it") })},
		{"one error too many", "every bad input is reported at once", "9 annotations for 8 bad inputs",
			add(event{JobID: "failures", StepID: []string{"inputs"}, Command: "error", Arg: "run: none"})},
		{"status lost", "exit 7 arrives as 7", `output exit-code is "1", not "7"`,
			change(at("failures", "seven"), func(e *event) { e.Arg = strings.Replace(e.Arg, "7", "1", 1) })},
		{"script went on", "exit 7 arrives as 7", "not run up to its exit",
			add(event{JobID: "failures", StepID: []string{"seven"}, RawOutput: true, Msg: "after\n"})},
		{"no error told", "exit 7 arrives as 7", "not one error with",
			drop(func(e event) bool { return e.Command == "error" && e.step() == "seven" })},
		{"no timeout", "a timeout ends the script", "the step did not run",
			drop(at("failures", "slow"))},
		{"obeyed error", "no command of the guest is obeyed", "act obeyed ::error::forged",
			change(at("hostile", "prints"), func(e *event) {
				if e.Raw == "::error::forged\n" {
					e.Command, e.Arg = "error", "forged"
				}
			})},
		{"obeyed output", "no command of the guest is obeyed", "act obeyed ::set-output",
			add(event{JobID: "hostile", StepID: []string{"lost"}, Command: "set-output", Name: "result", Arg: "forged", Raw: "::set-output"})},
		{"obeyed property", "no command of the guest is obeyed", "act obeyed ::warning file=forged",
			add(event{JobID: "hostile", StepID: []string{"prints"}, Command: "warning", KvPairs: map[string]string{"file": "forged"}, Raw: "::warning file=forged::x"})},
		{"obeyed mask", "no command of the guest is obeyed", "act obeyed ***",
			add(event{JobID: "hostile", StepID: []string{"prints"}, Command: "add-mask", Arg: "***", Raw: "***"})},
		{"masked", "no command of the guest is obeyed", "still in plain sight (masked?)",
			change(at("hostile", "prints"), func(e *event) { e.Msg = strings.ReplaceAll(e.Msg, "in plain sight", "***") })},
		{"nothing printed", "no command of the guest is obeyed", "only 0 lines",
			change(at("hostile", "prints"), func(e *event) { e.Msg = strings.ReplaceAll(e.Msg, "forged", "harmless") })},
		{"console not quoted", "a lost guest is told with its console", "the console is not quoted",
			change(at("hostile", "lost"), func(e *event) { e.Msg = strings.ReplaceAll(e.Msg, "::error::forged", "") })},
		{"the workspace forgotten", "a lost guest is told with its console", "no warning: The last changes to the workspace may be missing",
			drop(func(e event) bool { return e.Command == "warning" && e.step() == "lost" })},
		{"output lost", "a script that fails has its results", `output answer is "", not "42"`,
			drop(func(e event) bool { return e.Command == "set-output" && e.Name == "answer" })},
		{"no artifact", "a script that fails has its results", `output artifact-id is ""`,
			drop(func(e event) bool { return e.Name == "artifact-id" })},
		{"refusal not told", "a script that fails has its results", `no warning that "result" is not taken over`,
			drop(func(e event) bool { return strings.Contains(e.Arg, `"result"`) })},
		{"copy-back warned", "a script that fails has its results", "unexpected annotation: ::warning::lost",
			add(event{JobID: "results", StepID: []string{"works"}, Command: "warning", Raw: "::warning::lost"})},
		{"a path of the container", "a script that fails has its results", "not that of later steps",
			change(func(e event) bool { return e.Command == "add-path" }, func(e *event) { e.Arg = "/github/workspace/results/bin" })},
		{"a group is missing", "the step has its groups in order", `"Script" "Artifact"] (the last is open: false)`,
			drop(func(e event) bool { return e.Command == "group" && e.Arg == "Copy back" })},
		{"a group stays open", "the step has its groups in order", `group "Image" begins inside of "Accelerator"`,
			drop(func(e event) bool { return e.Command == "endgroup" })},
		{"no summary", "the summary is the script's and ours", "0 summaries, not one",
			drop(func(e event) bool { return e.Command == "summary" })},
		{"only our summary", "the summary is the script's and ours", `the summary lacks "### Said by the guest\n"`,
			change(func(e event) bool { return e.Command == "summary" }, func(e *event) { e.Content = strings.ReplaceAll(e.Content, "Said by", "") })},
		{"the directory forgotten", "complaints are on the files of the workspace", `step mirror has ["warning y.c:3: not used"]`,
			change(at("results", "mirror"), func(e *event) {
				if e.KvPairs["file"] != "" {
					e.KvPairs["file"] = "y.c"
				}
			})},
		{"the guest's words obeyed", "complaints are on the files of the workspace", "step works has",
			add(event{JobID: "results", StepID: []string{"works"}, Command: "error", KvPairs: map[string]string{"file": "forged"}})},
		{"the token printed", "the token is in no line", "step works: the token is not-a-secret-but",
			change(at("results", "works"), func(e *event) { e.Msg = strings.ReplaceAll(e.Msg, "***", "not-a-secret-but-called-one") })},
		{"the token in the summary", "the token is in no line", "not-a-secret-but",
			add(event{JobID: "results", StepID: []string{"works"}, Command: "summary", Content: "bm90LWEtc2VjcmV0LWJ1dC1jYWxsZWQtb25l not-a-secret-but-called-one"})},
		{"the token no mask", "the token is in no line", "no mask when the run begins",
			drop(func(e event) bool { return e.Command == "add-mask" })},
		{"the token's line lost", "the token is in no line", "lacks the line that had the token",
			drop(func(e event) bool { return strings.HasPrefix(e.Msg, "the token is") })},
		{"log not quoted", "a lost guest is told with its console", "QEMU's log is not quoted",
			change(at("hostile", "lost"), func(e *event) { e.Msg = strings.ReplaceAll(e.Msg, "qemu.log", "") })},
	}
	w, _ := readWorkflow(t, "e2e.yml")
	failed := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := tt.edit(readGoodLog(t))
			i := slices.IndexFunc(checks, func(c check) bool { return c.name == tt.check })
			got := strings.Join(checks[i].look(w, log), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("%s found %q, want %q", tt.check, got, tt.want)
			}
			failed[tt.check] = true
		})
	}
	for _, c := range checks {
		if !failed[c.name] {
			t.Errorf("no test shows that the check %q can fail", c.name)
		}
	}
}

func TestReadLog(t *testing.T) {
	text := `{"jobID":"a","job":"w/a ","stepID":["x"],"stage":"Main","raw_output":true,"msg":"hello\n"}
Error: Job 'a' failed
{"jobID":"a","stepID":["x"],"command":"set-output","name":"k","arg":"v","msg":"set"}
{"jobID":"a","job":"w/a ","stepID":["x"],"msg":"[    0.000000] Linux version\n","raw_output":true}
{"jobID":"a","job":"w/a ","msg":"docker create"}
{"jobID":"a","stepID":["x"],"stepResult":"skipped","msg":"-"}
`
	log, err := readLog(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	x := log.of("a", "x")
	if got := x.printed(); !slices.Equal(got, []string{"hello", "[    0.000000] Linux version"}) {
		t.Errorf("printed %q", got)
	}
	if got := x.outputs()["k"]; got != "v" {
		t.Errorf("output k is %q", got)
	}
	if x.ran() {
		t.Error("a skipped step counts as run")
	}
	if got, want := log.tail(3), "[] set\n[w/a] docker create\n[] -\n"; got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
	if got := log.tail(100); !strings.Contains(got, "Error: Job 'a' failed") || strings.Contains(got, "Linux version") {
		t.Errorf("tail %q", got)
	}
	var b bytes.Buffer
	if err := log.essence().write(&b); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "\n"); got != 3 {
		t.Errorf("the essence has %d lines, want 3:\n%s", got, &b)
	}
}

// TestGoodLogIsEssence keeps paths of the recording machine out of the file.
func TestGoodLogIsEssence(t *testing.T) {
	log := readGoodLog(t)
	if got := log.essence(); len(got) != len(log) {
		t.Errorf("%d of %d lines are not essential", len(log)-len(got), len(log))
	}
	for _, e := range log {
		if text, err := json.Marshal(e); err != nil || bytes.Contains(text, []byte("docker cp")) {
			t.Errorf("act's own progress is recorded: %s (%v)", text, err)
		}
	}
}
