package lifecycle

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/environment"
	"github.com/org/hurd-qemu-action/internal/guest"
)

func TestOutside(t *testing.T) {
	for _, tc := range []struct{ workspace, repository, parent, want string }{
		{"/github/workspace", "o/repo", "/home/runner/work/repo", "/home/runner/work/repo/repo"},
		{"/github/workspace", "o/repo", "", ""},
		{"/github/workspace", "o/repo", "/github/x", ""},
		{"/github/workspace", "", "/home/runner/work/repo", ""},
		{"/src/p", "o/repo", "/home/runner/work/repo", ""}, // no container
	} {
		h := Host{Workspace: tc.workspace, Repository: tc.repository, Environ: []string{"RUNNER_WORKSPACE=" + tc.parent}}
		if got := h.outside(); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

func TestLookup(t *testing.T) {
	h := Host{Environ: []string{"A=1", "AB=2", "A=3", "E="}}
	for name, want := range map[string]string{"A": "3", "AB": "2", "E": "", "B": ""} {
		if got := h.getenv(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, set := h.lookup("B"); set {
		t.Error("B is set")
	}
}

// TestSecrets are masked before anything is printed: secret inputs, the
// runner's tokens, and what the names of variables say.
func TestSecrets(t *testing.T) {
	r, _ := newRun()
	r.Inputs.Token, r.Inputs.SSHPrivateKey = "input-token", "first-line-of-key\nsecond-line-of-key\n"
	r.config.Env = "MY_PASSWORD=pass-word-1\nHARMLESS=plain\nGH_TOKEN\n"
	r.Host.Environ = []string{"ACTIONS_RUNTIME_TOKEN=runtime-token", "GITHUB_TOKEN=github-token", "GH_TOKEN=named-token"}
	if problems := r.readEnvironment(); len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, secret := range []string{"input-token", "second-line-of-key", "pass-word-1", "runtime-token", "github-token", "named-token"} {
		if got := r.mask.String("x " + secret + " y"); got != "x *** y" {
			t.Error(got)
		}
	}
	if got := r.mask.String("plain"); got != "plain" {
		t.Error(got)
	}
	r.config.Env = "UNSET\nA-B=1"
	text := errors.Join(r.readEnvironment()...).Error()
	if !strings.Contains(text, "env: line 1: UNSET is not set") || !strings.Contains(text, "env: line 2: ") {
		t.Error(text)
	}
}

// merging gives a run of a runner with a file for outputs, and its log.
func merging(t *testing.T) (r *run, outputs string, log *bytes.Buffer) {
	t.Helper()
	outputs = filepath.Join(t.TempDir(), "outputs")
	log = &bytes.Buffer{}
	r = makeRun(Request{
		Log: actions.New(actions.Options{Stdout: log, Commands: true, Getenv: func(name string) string {
			if name == "GITHUB_OUTPUT" {
				return outputs
			}
			return ""
		}}),
		Host: Host{Workspace: "/src/p"},
	})
	return r, outputs, log
}

// TestMergeFiles: the script's outputs become the step's, with paths of the
// host; it can't set ours, of which the last word is ours as well.
func TestMergeFiles(t *testing.T) {
	r, outputs, _ := merging(t)
	r.result.Script = time.Second
	r.mergeFiles(map[string]guest.Collected{
		environment.Output: {Content: []byte("mine=/github/workspace/out\nResult=success\nexit-code=0\nbroken line\n")},
	})
	r.result.Kind, r.result.ExitCode = ScriptFailed, 7
	if err := r.setOutputs(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(outputs)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if !strings.Contains(text, "mine<<") || !strings.Contains(text, "\n/src/p/out\n") || strings.Contains(text, "\nsuccess\n") || strings.Contains(text, "\n0\n") {
		t.Errorf("outputs:\n%s", text)
	}
	if strings.Count(text, "exit-code<<") != 1 || !strings.Contains(text, "\n7\n") {
		t.Errorf("outputs:\n%s", text)
	}
	if len(r.result.Warnings) != 3 {
		t.Errorf("warnings %q", r.result.Warnings)
	}
}

// TestLostFiles: outputs that can't be had any more are not lost without a word,
// and a script that never ran has lost none.
func TestLostFiles(t *testing.T) {
	for ran, want := range map[time.Duration]int{0: 0, time.Second: 1} {
		r, _, log := merging(t)
		r.result.Script = ran
		r.mergeFiles(nil)
		if got := strings.Count(log.String(), "outputs are lost"); got != want {
			t.Errorf("ran for %s: %d warnings\n%s", ran, got, log)
		}
	}
}

func TestScriptEnvironment(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	put(t, filepath.Dir(event), map[string]string{"event.json": "{}"})
	r, _ := newRun()
	r.Host = Host{Workspace: "/src/p", Environ: []string{"CI=true", "PATH=/bin", "GITHUB_EVENT_PATH=" + event, "GITHUB_TOKEN=t"}}
	r.config.Env, r.checkout.in = "X=/src/p/y", true
	if problems := r.readEnvironment(); len(problems) > 0 {
		t.Fatal(problems)
	}
	shell, files := r.scriptEnvironment()
	for _, want := range []string{"export X='/github/workspace/y'\n", "export GITHUB_WORKSPACE='/github/workspace'\n", "export CI='true'\n", `export GITHUB_OUTPUT="$` + guest.FilesVariable + `/output"`} {
		if !strings.Contains(string(shell), want) {
			t.Errorf("no %q in\n%s", want, shell)
		}
	}
	if text := string(shell); strings.Contains(text, "PATH='/bin'") || strings.Contains(text, "GITHUB_TOKEN") {
		t.Errorf("too much in\n%s", text)
	}
	collected := 0
	for _, f := range files {
		if f.Collect > 0 {
			collected++
		}
		if f.Name == "event.json" && string(f.Content) != "{}" {
			t.Errorf("the event is %q", f.Content)
		}
	}
	if collected != 5 {
		t.Errorf("%d files come back, want the runner's 5", collected)
	}
}
