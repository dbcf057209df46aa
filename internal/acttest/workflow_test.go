package acttest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// root is the project's directory, seen from this package's.
const root = "../.."

// workflow is what the tests look at in a file of .github/workflows.
type workflow struct {
	Permissions map[string]string `yaml:"permissions"`
	Concurrency struct {
		Group string `yaml:"group"`
	} `yaml:"concurrency"`
	Jobs map[string]job `yaml:"jobs"`
}

type job struct {
	RunsOn   string `yaml:"runs-on"`
	Timeout  int    `yaml:"timeout-minutes"`
	Strategy struct {
		Matrix struct {
			Include []map[string]string `yaml:"include"`
		} `yaml:"matrix"`
	} `yaml:"strategy"`
	Steps []step `yaml:"steps"`
}

type step struct {
	ID   string            `yaml:"id"`
	Uses string            `yaml:"uses"`
	Run  string            `yaml:"run"`
	With map[string]string `yaml:"with"`
	Env  map[string]string `yaml:"env"`
}

// runs is how often the job runs: once, or once for each entry of its matrix.
func (j job) runs() int { return max(1, len(j.Strategy.Matrix.Include)) }

// step finds a step by its id; it is empty if there is none.
func (w workflow) step(job, id string) step {
	for _, s := range w.Jobs[job].Steps {
		if s.ID == id {
			return s
		}
	}
	return step{}
}

// readWorkflow reads a workflow of this project, and its text.
func readWorkflow(t *testing.T, name string) (workflow, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".github", "workflows", name))
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(text, &w); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return w, string(text)
}

// pinned is an action of somebody else at a commit, with the version in words.
var pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)

// TestWorkflowsAreTight holds what actionlint does not: no rights beyond
// reading, a limit on every job, one run per branch, no action that can change
// under us, and nothing from an expression pasted into a shell.
func TestWorkflowsAreTight(t *testing.T) {
	for _, name := range []string{"ci.yml", "e2e.yml"} {
		w, text := readWorkflow(t, name)
		for _, problem := range loose(w, text) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

func loose(w workflow, text string) (problems []string) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
		complain("permissions are %v, not contents: read", w.Permissions)
	}
	if !strings.Contains(w.Concurrency.Group, "github.ref") {
		complain("concurrency does not go by branch")
	}
	if len(w.Jobs) == 0 {
		complain("no jobs")
	}
	for id, j := range w.Jobs {
		if j.Timeout < 1 || j.Timeout > 60 {
			complain("job %s has a limit of %d minutes", id, j.Timeout)
		}
		if j.RunsOn != "ubuntu-24.04" {
			complain("job %s runs on %q, whose content changes", id, j.RunsOn)
		}
		for _, s := range j.Steps {
			if strings.Contains(s.Run, "${{") {
				complain("job %s: an expression is part of a script: %s", id, s.Run)
			}
		}
	}
	for line := range strings.Lines(text) {
		_, uses, ok := strings.Cut(line, "uses: ")
		if ok && strings.TrimSpace(uses) != "./" && !pinned.MatchString(strings.TrimSpace(uses)) {
			complain("not pinned to a commit with its version: %s", strings.TrimSpace(uses))
		}
	}
	return problems
}

func TestLooseWorkflowIsSeen(t *testing.T) {
	good := `
permissions: {contents: read}
concurrency: {group: "x-${{ github.ref }}"}
jobs:
  a:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@0123456789012345678901234567890123456789 # v7.0.1
      - uses: ./
        with: {run: "echo ${{ matrix.x }}"}
      - run: echo hello
`
	tests := []struct{ name, old, new, want string }{
		{"good", "", "", ""},
		{"rights", "contents: read", "contents: write", "permissions are map[contents:write]"},
		{"more rights", "contents: read", "contents: read, packages: write", "permissions are map["},
		{"concurrency", "github.ref", "github.run_id", "concurrency"},
		{"no limit", "    timeout-minutes: 5\n", "", "limit of 0 minutes"},
		{"moving machine", "ubuntu-24.04", "ubuntu-latest", "whose content changes"},
		{"tag", "0123456789012345678901234567890123456789 # v7.0.1", "v7", "not pinned to a commit with its version: actions/checkout@v7"},
		{"no version", " # v7.0.1", "", "not pinned"},
		{"pasted", "run: echo hello", "run: echo ${{ github.head_ref }}", "part of a script"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.old, tt.new, 1)
			var w workflow
			if err := yaml.Unmarshal([]byte(text), &w); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(loose(w, text), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
