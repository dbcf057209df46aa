package acttest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/process"
)

var update = flag.Bool("update", false, "keep what TestE2EAct sees as testdata/good.jsonl")

const (
	actLimit    = 20 * time.Minute // without any cache on a slow machine
	cleanLimit  = time.Minute      // for testdata/act/run to clean up after a signal
	dockerLimit = 20 * time.Second // for one question to the engine
)

// TestE2EAct runs e2e.yml for real and puts every check to act's log.
func TestE2EAct(t *testing.T) {
	needEngine(t)
	dependOnTree(t)
	before := leftovers(t)
	w, _ := readWorkflow(t, "e2e.yml")

	artifacts := t.TempDir()
	log, progress, err := runAct(t, artifacts)
	t.Logf("testdata/act/run said:\n%s", progress)
	if err != nil {
		t.Errorf("act did not succeed: %v\nThe end of its log:\n%s", err, log.tail(60))
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.look(w, log) {
				t.Error(f)
			}
		})
	}
	t.Run("the artifact is whole", func(t *testing.T) {
		for _, f := range artifactWhole(w, artifacts) {
			t.Error(f)
		}
	})
	t.Run("nothing is left behind", func(t *testing.T) {
		for _, left := range leftovers(t) {
			if !slices.Contains(before, left) {
				t.Errorf("left behind: %s", left)
			}
		}
	})
	if *update && !t.Failed() {
		var b bytes.Buffer
		if err := log.essence().write(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goodLog, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runAct runs testdata/act/run and returns act's log and the script's own
// messages. The log is kept as an artifact of the test (go test -artifacts);
// those of the workflow are kept in the directory artifacts.
func runAct(t *testing.T, artifacts string) (actLog, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), budget(t), errors.New("act took too long (go test -timeout gives it more)"))
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := process.Command(ctx, filepath.Join(root, "testdata", "act", "run"), "--json", "--artifacts", artifacts)
	cmd.Env = os.Environ() // docker, go and git have their configuration there
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The script must live to clean up: it ends act, and then itself.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cleanLimit
	runErr := process.Run(ctx, cmd)
	path := filepath.Join(t.ArtifactDir(), "act.jsonl")
	if err := os.WriteFile(path, stdout.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := readLog(&stdout)
	if err != nil {
		t.Fatal(err)
	}
	return log, stderr.String(), runErr
}

// budget leaves room for cleaning up before go test kills this process.
func budget(t *testing.T) time.Duration {
	deadline, ok := t.Deadline()
	if !ok {
		return actLimit
	}
	return min(actLimit, time.Until(deadline)-cleanLimit-10*time.Second)
}

// needEngine skips where there is no Docker engine. E2E_REQUIRED=1 makes that a
// failure where docker is installed: then somebody expects it to work. Where it
// is not, as on a fresh machine, the test says that it was skipped and no more.
func needEngine(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs workflows in containers")
	}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("SKIPPED: docker is not installed, so the workflows are not run with act")
	}
	if _, err := docker(t, "version", "--format", "{{.Server.Version}}"); err != nil && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatalf("docker is installed, but no engine answers: %v", err)
	} else if err != nil {
		t.Skipf("SKIPPED: no Docker engine answers, so the workflows are not run with act: %v", err)
	}
}

func docker(t *testing.T, arg ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dockerLimit)
	defer cancel()
	var stdout bytes.Buffer
	cmd := process.Command(ctx, "docker", arg...)
	cmd.Env = os.Environ() // DOCKER_HOST, and HOME for contexts
	cmd.Stdout = &stdout
	err := process.Run(ctx, cmd)
	return stdout.String(), err
}

// leftovers lists what a run could leave on the engine: containers and
// unnamed images with our labels, the image of the action, act's volumes.
func leftovers(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, question := range [][]string{
		{"ps", "--all", "--filter", "label=hurd-qemu-action.act-run", "--format", "container {{.ID}} {{.Names}} {{.Status}}"},
		{"ps", "--all", "--filter", "label=hurd-qemu-action.stage", "--format", "container {{.ID}} {{.Names}} {{.Status}}"},
		{"image", "ls", "--filter", "dangling=true", "--filter", "label=hurd-qemu-action.stage", "--format", "image {{.ID}} {{.CreatedSince}}"},
		{"image", "ls", "--format", "image {{.ID}} {{.Repository}}", "act-dockeraction"},
		{"volume", "ls", "--filter", "name=act-", "--format", "volume {{.Name}}"},
	} {
		out, err := docker(t, question...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })...)
	}
	return all
}

// dependOnTree looks at every file that the test depends on, which tells go
// test that its cached result is stale once one of them has changed.
func dependOnTree(t *testing.T) {
	t.Helper()
	for _, name := range []string{"Dockerfile", ".dockerignore", "action.yml", "main.go", "go.mod", "go.sum", ".github", "internal", "testdata"} {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type().IsRegular() {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // others may be making and removing files
			t.Fatal(err)
		}
	}
}
