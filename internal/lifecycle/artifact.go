package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/results"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

// artifactPaths is what the input artifact-path asks for.
type artifactPaths struct {
	inside  string   // patterns of paths in the workspace, one per line
	outside []string // patterns of absolute paths in the guest
}

func (a artifactPaths) empty() bool { return a.inside == "" && len(a.outside) == 0 }

// artifactGlobs sorts the lines of artifact-path.
func (r *run) artifactGlobs() (artifactPaths, error) {
	var a artifactPaths
	for line := range strings.Lines(r.config.ArtifactPath) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		inside := r.paths().ToGuest(line)
		if rest, ok := strings.CutPrefix(inside, workspace.GuestPath+"/"); ok {
			line = rest
		}
		if strings.HasPrefix(line, "/") {
			a.outside = append(a.outside, line)
			continue
		}
		a.inside += line + "\n"
	}
	if a.inside == "" {
		return a, nil
	}
	_, err := workspace.ParseGlobs(a.inside)
	return a, err
}

// The directories in the artifact.
const (
	artifactLogs  = "hurd"  // what the action says of the run
	artifactGuest = "guest" // files of the guest outside the workspace
)

// staging is where the files of the artifact wait for it.
func (r *run) staging() string { return filepath.Join(r.dir, "artifact") }

// stage fetches files of the artifact aside, into a directory of our own: what
// does not come back into the workspace may be wanted in the artifact.
func (r *run) stage(ctx context.Context, dir, globs string, fetch fetcher) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	empty, err := workspace.Scan(ctx, dir, workspace.NewFilter("", artifactGuest+"/"))
	if err != nil {
		return err
	}
	back, err := workspace.ParseCopyBack(globs)
	if err != nil {
		return err
	}
	_, result, err := fetch(ctx, empty, workspace.Options{Back: back})
	left := noted(result.Refused, result.Failed, result.Missing)
	if left == "" && result.Files == 0 && err == nil {
		left = "the guest has no file that artifact-path asks for: " + strings.Join(strings.Fields(globs), " ")
	}
	if left != "" {
		r.warn("Not in the artifact", left)
	}
	return err
}

// outsideScript sends what patterns choose, which a shell expands.
const outsideScript = `IFS=
n=$#
for p; do
	for f in $p; do test ! -e "$f" || set -- "$@" ".$f"; done
done
shift $n
test $# -gt 0 || exit 66
cd / && exec tar -c -f - "$@"`

// fetchOutside fetches files of the guest that are not in the workspace.
func (r *run) fetchOutside(patterns []string) fetcher {
	return func(ctx context.Context, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
		ctx, release := r.machine.Context(ctx)
		defer release()
		if err := r.gone(); err != nil {
			return nil, workspace.Result{}, err
		}
		file := filepath.Join(r.dir, "outside.tar")
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, workspace.Result{}, err
		}
		defer func() { _ = errors.Join(f.Close(), os.Remove(file)) }() // the run directory goes as a whole later
		diag := &process.Tail{Limit: 1 << 10}
		status, err := r.client.Run(ctx, guest.Command{
			Script: outsideScript, Args: patterns, Stdout: &bounded{w: f, left: int64(r.config.WorkspaceSize)}, Stderr: diag,
		})
		if err == nil && status.Code > 1 {
			err = fmt.Errorf("%s: the command in the guest %s: %s", strings.Join(patterns, " "), status, actions.Printable(strings.TrimSpace(diag.String())))
			if status.Code == 66 {
				err = fmt.Errorf("%s: the guest has no such file", strings.Join(patterns, " "))
			}
		}
		if err != nil {
			return nil, workspace.Result{}, err
		}
		return fetchFile(ctx, f, t, o)
	}
}

// uploadTime bounds the upload of an artifact that nobody interrupts.
const uploadTime = 30 * time.Minute

// uploadReserve is what an interrupted upload leaves for the rest.
const uploadReserve = 300 * time.Millisecond

// uploader keeps an artifact: the job's service, or a directory.
type uploader interface {
	Upload(context.Context, results.Upload) (results.Artifact, error)
}

// upload makes the artifact of the logs, the report and the files that were
// asked for.
func (r *run) upload(ctx context.Context) {
	if r.config.ArtifactName == "" || r.logs == nil {
		return
	}
	ctx, stop := r.ending.context(ctx, uploadTime, uploadReserve)
	defer stop()
	if err := r.step(ctx, "Artifact", r.uploadArtifact); err != nil {
		r.warn("No artifact", fmt.Sprintf("%v (the logs are in %s of the workspace)", err, r.logs.relative))
	}
}

func (r *run) uploadArtifact(ctx context.Context) (string, error) {
	var bundle results.Bundle
	logs, err := os.OpenRoot(r.logs.dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = logs.Close() }() // it was only read
	if err := bundle.Add(logs, ".", artifactLogs); err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.staging(), 0o700); err != nil {
		return "", err
	}
	staged, err := os.OpenRoot(r.staging())
	if err != nil {
		return "", err
	}
	defer func() { _ = staged.Close() }() // as above
	if err := bundle.Add(staged, ".", ""); err != nil {
		return "", err
	}
	a, err := r.uploadAs(ctx, &bundle)
	for _, note := range bundle.Notes() {
		r.Log.Printf("Artifact: %s", note)
	}
	if err != nil {
		return "", err
	}
	r.result.Artifact = a
	if a.Path != "" {
		if err := r.logs.ownAll(filepath.Dir(a.Path)); err != nil {
			return "", err
		}
		r.Log.Printf("The artifact is in %s", a.Path)
	}
	return fmt.Sprintf("%s, %s", counted(bundle.Len(), "file"), sizeText(a.Size)), nil
}

// artifactTries is how many names are tried when one is taken: two jobs of a
// matrix may well ask for the same.
const artifactTries = 5

func (r *run) uploadAs(ctx context.Context, bundle *results.Bundle) (results.Artifact, error) {
	up := r.uploader()
	name := r.config.ArtifactName
	for n := 2; ; n++ {
		a, err := up.Upload(ctx, results.Upload{Name: name, Bundle: bundle, Days: r.config.RetentionDays})
		if !errors.Is(err, results.ErrExists) || n > artifactTries {
			return a, err
		}
		next := r.config.ArtifactName + "-" + strconv.Itoa(n)
		r.Log.Printf("There is an artifact %q already; trying %q.", name, next)
		name = next
	}
}

func (r *run) uploader() uploader {
	if r.Host.ResultsURL == "" {
		return results.Directory{Path: filepath.Join(r.Host.Workspace, logsName, "artifacts")}
	}
	s := &results.Service{URL: r.Host.ResultsURL, Token: r.Host.getenv("ACTIONS_RUNTIME_TOKEN"), Notify: func(note string) { r.Log.Printf("Artifact: %s", note) }}
	days, _ := strconv.Atoi(r.Host.getenv("GITHUB_RETENTION_DAYS")) // 0: not known
	return &results.Artifacts{Service: s, TempDir: r.dir, MaxDays: days}
}

// artifactURL is where people find the artifact; empty where there is no such page.
func (r *run) artifactURL() string {
	server := r.Host.getenv("GITHUB_SERVER_URL")
	if r.result.Artifact.ID == 0 || server == "" || r.Host.Repository == "" || r.Host.RunID == 0 {
		return ""
	}
	return fmt.Sprintf("%s/%s", strings.TrimSuffix(server, "/"), path.Join(r.Host.Repository, "actions/runs", strconv.FormatInt(r.Host.RunID, 10), "artifacts", strconv.FormatInt(r.result.Artifact.ID, 10)))
}
