package lifecycle

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/results"
)

func TestArtifactGlobs(t *testing.T) {
	for _, tc := range []struct {
		text, way string
		want      artifactPaths
		problem   string
	}{
		{text: ""},
		{text: "# no\n\n"},
		{text: "a/**\r\n!a/b\n", want: artifactPaths{inside: "a/**\n!a/b\n"}},
		{text: "/var/log/*\n/github/workspace/x\nhost", want: artifactPaths{inside: "x\nhost\n", outside: []string{"/var/log/*"}}},
		{text: "/src/project/x", want: artifactPaths{inside: "x\n"}},
		{text: "/github/workspace/x", way: syncNone, want: artifactPaths{inside: "x\n"}},
		{text: "../x", want: artifactPaths{inside: "../x\n"}, problem: "leads out"},
	} {
		r, _ := newRun()
		r.Host.Workspace, r.config.ArtifactPath, r.checkout.way = "/src/project", tc.text, tc.way
		got, err := r.artifactGlobs()
		if (err == nil) != (tc.problem == "") || err != nil && !strings.Contains(err.Error(), tc.problem) {
			t.Errorf("%q: %v", tc.text, err)
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(artifactPaths{})); diff != "" {
			t.Errorf("%q: %s", tc.text, diff)
		}
	}
}

// TestArtifact makes an artifact of files of the guest's workspace that do not
// come back, of files elsewhere in the guest, and of the logs.
func TestArtifact(t *testing.T) {
	other := t.TempDir()
	put(t, other, map[string]string{"log/a b.log": "A", "log/c.log": "C", "log/d.txt": "D"})
	r, g, _ := newGuest(t, config.Inputs{
		Sync: syncTar, CopyBack: "none", ArtifactName: "x", ArtifactPath: "out/**\nin\n.git/config\n" + other + "/log/*.log\n/nowhere/*\n",
	})
	put(t, r.Host.Workspace, map[string]string{"in": "1"})
	bring(t, r)
	put(t, g.dir, map[string]string{"out/r.xml": "R", "not": "N", ".git/config": "G"})
	if err := os.Symlink("/etc/passwd", filepath.Join(g.dir, "out", "link")); err != nil {
		t.Fatal(err)
	}
	r.bringBack(t.Context())
	if diff := cmp.Diff(map[string]string{"in": "1"}, files(t, r.Host.Workspace)); diff != "" {
		t.Error(diff)
	}
	if text := strings.Join(r.result.Warnings, "\n"); !strings.Contains(text, ".git/config") {
		t.Errorf("nothing says that a file is not in the artifact: %s", text)
	}
	logs, err := newLogs(r.Host.Workspace)
	if err != nil {
		t.Fatal(err)
	}
	r.logs = logs
	if err := r.keep("serial.log", []byte("S")); err != nil {
		t.Fatal(err)
	}
	r.upload(t.Context())
	want := map[string]string{
		"in": "1", "out/r.xml": "R", "hurd/serial.log": "S",
		"guest" + other + "/log/a b.log": "A", "guest" + other + "/log/c.log": "C",
	}
	if diff := cmp.Diff(want, files(t, r.result.Artifact.Path)); diff != "" {
		t.Error(diff)
	}
}

// TestArtifactWithoutWorkspace: files elsewhere in the guest are fetched also
// when the workspace is not in it, and what can't be had is named.
func TestArtifactWithoutWorkspace(t *testing.T) {
	other := t.TempDir()
	put(t, other, map[string]string{"log": "L"})
	r, _, _ := newGuest(t, config.Inputs{Sync: syncNone, ArtifactName: "x", ArtifactPath: "out/**\n" + other + "/log"})
	bring(t, r)
	r.bringBack(t.Context())
	if diff := cmp.Diff(map[string]string{"guest" + other + "/log": "L"}, files(t, r.staging())); diff != "" {
		t.Error(diff)
	}
	if text := strings.Join(r.result.Warnings, "\n"); !strings.Contains(text, "patterns for the workspace") {
		t.Errorf("warnings: %s", text)
	}
}

// TestArtifactHasNone says so when there is no such file.
func TestArtifactHasNone(t *testing.T) {
	r, _, _ := newGuest(t, config.Inputs{Sync: syncTar, ArtifactName: "x", ArtifactPath: "typo/*.xml\n/nowhere/*"})
	bring(t, r)
	r.bringBack(t.Context())
	text := strings.Join(r.result.Warnings, "\n")
	for _, want := range []string{"no file that artifact-path asks for: typo/*.xml", "/nowhere/*: the guest has no such file"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in: %s", want, text)
		}
	}
}

// TestArtifactNameTaken: what a first job of a matrix took, a second one gets with a number.
func TestArtifactNameTaken(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for n := range artifactTries + 1 {
		r, _ := newRun()
		r.Host.Workspace, r.config.ArtifactName = dir, "logs"
		var b results.Bundle
		b.AddBytes("x", r.began, []byte("x"))
		a, err := r.uploadAs(context.Background(), &b)
		if (err != nil) != (n == artifactTries) {
			t.Errorf("upload %d: %v", n, err)
		}
		names = append(names, a.Name)
	}
	if want := []string{"logs", "logs-2", "logs-3", "logs-4", "logs-5", ""}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

func TestArtifactURL(t *testing.T) {
	r, _ := newRun()
	r.Host.Environ = []string{"GITHUB_SERVER_URL=https://git.example/"}
	r.Host.Repository, r.Host.RunID = "o/r", 7
	if got := r.artifactURL(); got != "" {
		t.Errorf("there is no artifact, and it is at %s", got)
	}
	r.result.Artifact.ID = 9
	if got, want := r.artifactURL(), "https://git.example/o/r/actions/runs/7/artifacts/9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
