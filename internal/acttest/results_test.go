package acttest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// The checks of the job results. What its later steps can see, they check.

// resultsArrive wants the outputs of a script that fails after it has set them,
// a warning for each that it may not set, and one error.
func resultsArrive(_ workflow, l actLog) (found []finding) {
	step := l.of("results", "works")
	found = wantOutputs(step, map[string]string{
		"result": "script-failed", "exit-code": "7", "answer": "42", "poem": "first\n  ::error::forged\nlast",
	})
	if id := step.outputs()["artifact-id"]; id == "" || id == "0" {
		found = append(found, fmt.Sprintf("output artifact-id is %q", id))
	}
	refused := []string{`"no output at all"`, `"result"`, `"Exit-Code"`, `"NODE_OPTIONS"`}
	for _, e := range step.annotations() {
		i := slices.IndexFunc(refused, func(text string) bool { return strings.Contains(e.Arg, text) })
		switch {
		case e.Command == "warning" && e.KvPairs["title"] == "Not taken over from the script" && i >= 0:
			refused = slices.Delete(refused, i, i+1)
		case e.Command == "error" && e.KvPairs["file"] != "": // complaintsPlaced looks at it
		case e.Command == "error" && e.KvPairs["title"] == "The script failed" && strings.Contains(e.Arg, "7"):
		default:
			found = append(found, "unexpected annotation: "+e.Raw)
		}
	}
	for _, text := range refused {
		found = append(found, "no warning that "+text+" is not taken over")
	}
	for _, e := range step {
		if e.Command == "add-path" && strings.HasSuffix(e.Arg, "/results/bin") && !strings.HasPrefix(e.Arg, "/github/") {
			return found
		}
	}
	return append(found, "the directory for PATH is not that of later steps")
}

// groups are those of a step that runs a script and has an artifact.
var groups = []string{"Accelerator", "Image", "Workspace", "Boot", "Copy in", "Script", "Copy back", "Artifact"}

// groupsInOrder wants each group once, and each closed before the next begins.
func groupsInOrder(_ workflow, l actLog) (found []finding) {
	var got []string
	open := false
	for _, e := range l.of("results", "works") {
		switch e.Command {
		case "group":
			if open {
				found = append(found, fmt.Sprintf("group %q begins inside of %q", e.Arg, got[len(got)-1]))
			}
			got, open = append(got, e.Arg), true
		case "endgroup":
			open = false
		}
	}
	if !slices.Equal(got, groups) || open {
		found = append(found, fmt.Sprintf("the groups are %q (the last is open: %v), not %q", got, open, groups))
	}
	return found
}

func summaryAppears(_ workflow, l actLog) (found []finding) {
	var summaries []string
	for _, e := range l.of("results", "works") {
		if e.Command == "summary" {
			summaries = append(summaries, e.Content)
		}
	}
	if len(summaries) != 1 {
		return []finding{fmt.Sprintf("%d summaries, not one", len(summaries))}
	}
	rest := summaries[0]
	for _, text := range []string{"### Said by the guest\n", "The script failed", "exit status 7", "```mermaid\ngantt\n", "Copy back"} {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			return []finding{fmt.Sprintf("the summary lacks %q, or has it too early:\n%s", text, summaries[0])}
		}
		rest = after
	}
	return nil
}

// complaintsPlaced wants each complaint of a compiler on its file, also when the
// script began in a directory of the workspace.
func complaintsPlaced(_ workflow, l actLog) (found []finding) {
	for step, want := range map[string]string{
		"works":  "error src/x.c:3:10 'y' undeclared (first use in this function)",
		"mirror": "warning results/y.c:3: not used",
	} {
		var got []string
		for _, e := range l.of("results", step).annotations() {
			if p := e.KvPairs; p["file"] != "" {
				got = append(got, fmt.Sprintf("%s %s:%s:%s %s", e.Command, p["file"], p["line"], p["col"], e.Arg))
			}
		}
		if !slices.Equal(got, []string{want}) {
			found = append(found, fmt.Sprintf("step %s has %q, not %q", step, got, want))
		}
	}
	slices.Sort(found)
	return found
}

// token is what the workflow's script prints and nobody may see, in two forms.
func token(w workflow) []string {
	value := w.step("results", "works").Env["DEPLOY_TOKEN"]
	return []string{value, base64.StdEncoding.EncodeToString([]byte(value))}
}

// tokenHidden wants that the token is a mask before anything else is said, and
// that it is nowhere in what act was told.
func tokenHidden(w workflow, l actLog) (found []finding) {
	secrets, masked := token(w), false
	if secrets[0] == "" {
		return []finding{"the workflow has no token"}
	}
	for _, e := range l.of("results", "works") {
		if e.Command == "add-mask" {
			masked = masked || e.Arg == secrets[0]
			continue
		}
		if e.Command == "group" && !masked {
			return []finding{"the token is no mask when the run begins"}
		}
	}
	for _, e := range l {
		for _, text := range []string{e.Msg, e.Arg, e.Raw, e.Content} {
			for _, s := range secrets {
				if strings.Contains(text, s) && e.Command != "add-mask" {
					found = append(found, fmt.Sprintf("job %s, step %s: %s", e.JobID, e.step(), text))
				}
			}
		}
	}
	if !slices.Contains(l.of("results", "works").printed(), "the token is ***.") {
		found = append(found, "the log lacks the line that had the token")
	}
	return found
}
