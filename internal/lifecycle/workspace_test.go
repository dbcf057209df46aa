package lifecycle

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/environment"
	"github.com/org/hurd-qemu-action/internal/guest"
)

// TestSources: a compiler's complaint is about a file of the workspace, wherever
// the script began.
func TestSources(t *testing.T) {
	for _, tc := range []struct {
		name, dir, text, want string
		in                    bool
	}{
		{"in the workspace", "", "src/x.c:3:5: error: no y", "::error col=5,file=src/x.c,line=3::no y\n", true},
		{"in a directory of it", "src", "x.c:3:5: error: no y", "::error col=5,file=src/x.c,line=3::no y\n", true},
		{"elsewhere", "/tmp", "x.c:3:5: error: no y", "::error::no y\n", true},
		{"elsewhere, of the workspace", "/tmp", "/github/workspace/x.c:3:5: error: no y", "::error col=5,file=x.c,line=3::no y\n", true},
		{"the guest has no workspace", "", "src/x.c:3:5: error: no y", "::error::no y\n", false},
	} {
		var out bytes.Buffer
		r := makeRun(Request{Log: actions.New(actions.Options{Stdout: &out, Commands: true})})
		r.config.WorkingDirectory, r.checkout.in = tc.dir, tc.in
		_, stderr, end := r.output()
		_, _ = stderr.Write([]byte(tc.text + "\n")) // never fails
		end()
		out.Reset()
		r.annotateOutput()
		if _, got, _ := strings.Cut(out.String(), "::\n"); got != tc.want { // after the fence
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestMergeFiles: what a script wrote to its files is what later steps see.
func TestMergeFilesOfAJob(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	getenv := func(name string) string { return filepath.Join(dir, name) }
	r := makeRun(Request{Log: actions.New(actions.Options{Stdout: &out, Commands: true, Getenv: getenv})})
	r.Host = Host{Workspace: "/github/workspace", Repository: "o/r", Environ: []string{"RUNNER_WORKSPACE=/work/r"}}
	r.checkout.way = syncDisk
	r.mergeFiles(map[string]guest.Collected{
		environment.Output:  {Content: []byte("answer=42\nresult=forged\nArtifact-ID=1\n")},
		environment.Env:     {Content: []byte("DIR=/github/workspace/x\n")},
		environment.Path:    {Content: []byte("/github/workspace/bin\n/usr/games\n")},
		environment.Summary: {Content: []byte("said")},
	})
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if diff := cmp.Diff("/work/r/r/bin\n/usr/games\n", strings.TrimLeft(read("GITHUB_PATH"), "\n")); diff != "" {
		t.Errorf("GITHUB_PATH (-want +got):\n%s", diff)
	}
	if got := read("GITHUB_ENV"); !strings.Contains(got, "\n/work/r/r/x\n") {
		t.Errorf("GITHUB_ENV: %q", got)
	}
	if got := read("GITHUB_STEP_SUMMARY"); !strings.Contains(got, "said\n") {
		t.Errorf("GITHUB_STEP_SUMMARY: %q", got)
	}
	if got := read("GITHUB_OUTPUT"); !strings.Contains(got, "\n42\n") || strings.Contains(got, "forged") || strings.Contains(got, "Artifact-ID") {
		t.Errorf("GITHUB_OUTPUT: %q", got)
	}
	if got := strings.Count(out.String(), "::warning title=Not taken over from the script::"); got != 2 {
		t.Errorf("%d refusals were told, not 2:\n%s", got, &out)
	}
}
