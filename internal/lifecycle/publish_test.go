package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
)

// published gives a run of a runner that has ended, and its summary's file.
func published(t *testing.T) (r *run, summary string) {
	t.Helper()
	summary = filepath.Join(t.TempDir(), "summary")
	r = makeRun(Request{
		Log: actions.New(actions.Options{Stdout: &bytes.Buffer{}, Commands: true, Getenv: func(name string) string {
			if name == "GITHUB_STEP_SUMMARY" {
				return summary
			}
			return ""
		}}),
		Host: Host{Workspace: t.TempDir()},
	})
	r.dir = t.TempDir()
	var err error
	if r.logs, err = newLogs(r.Host.Workspace); err != nil {
		t.Fatal(err)
	}
	return r, summary
}

// TestPublish: the report, the timings and the summary are there, also in the
// artifact, and none of them tells a secret.
func TestPublish(t *testing.T) {
	const secret = "s3cret-value"
	r, summary := published(t)
	r.mask.Mask(secret)
	r.Inputs = config.Inputs{Run: "echo " + secret, Token: "another-token", Env: "A=" + secret}
	r.config.ArtifactName = "logs"
	r.result = Result{Kind: GuestLost, ExitCode: 125, Uname: "GNU " + secret}
	r.phase("Boot", r.began, "note "+secret, nil)
	r.phase("Script", r.began, "", errors.New("x"))
	r.warn("Title", "warning "+secret)
	r.publish(t.Context(), fail(GuestLost, "Title "+secret, errors.New("cause "+secret)))
	text, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	all := files(t, r.result.Artifact.Path)
	all["summary"] = string(text)
	for name, text := range all {
		if strings.Contains(text, secret) || strings.Contains(text, "another-token") {
			t.Errorf("%s tells a secret", name)
		}
	}
	if !strings.Contains(all["summary"], "Title ***") || !strings.Contains(all["hurd/report.html"], "cause ***") {
		t.Errorf("a report does not tell the cause:\n%s", all["summary"])
	}
	var timings []timing
	if err := json.Unmarshal([]byte(all["hurd/timings.json"]), &timings); err != nil || len(timings) != 2 {
		t.Fatalf("timings %+v: %v", timings, err)
	}
	if timings[0].Phase != "Boot" || timings[0].Note != "note ***" || timings[0].Failed || !timings[1].Failed {
		t.Errorf("timings %+v", timings)
	}
}

// TestPublishBeforeTheRun: wrong inputs leave nothing behind.
func TestPublishBeforeTheRun(t *testing.T) {
	r, summary := published(t)
	r.logs = nil
	r.publish(t.Context(), fail(InputInvalid, "Invalid input", errors.New("x")))
	if _, err := os.Stat(summary); err == nil {
		t.Error("there is a summary")
	}
}

// TestNoArtifact: an artifact that can't be made is a warning that says where
// the logs are.
func TestNoArtifact(t *testing.T) {
	r, _ := published(t)
	r.config.ArtifactName = "logs"
	r.Host.ResultsURL = "http://127.0.0.1:1/"
	r.publish(t.Context(), nil)
	if text := strings.Join(r.result.Warnings, "\n"); !strings.Contains(text, "No artifact") || !strings.Contains(text, ".hurd/run-1") {
		t.Errorf("warnings: %s", text)
	}
}

// TestCopiesInReport: only what was copied is in the report.
func TestCopiesInReport(t *testing.T) {
	r, _ := published(t)
	r.checkout.fetched = true // files of the guest outside the workspace
	r.result.Kind = Success
	if rep := r.makeReport(nil); rep.CopyIn != nil || rep.CopyBack != nil || rep.Script == nil {
		t.Errorf("%+v, %+v, %+v", rep.CopyIn, rep.CopyBack, rep.Script)
	}
}

// TestStepAfterTheEnd: no step begins when its time is over, and the cause is told.
func TestStepAfterTheEnd(t *testing.T) {
	r, _ := newRun()
	r.ending.interrupted(time.Now().Add(-time.Hour))
	ctx, stop := r.ending.context(ended(t), time.Minute, 0)
	defer stop()
	<-ctx.Done()
	err := r.step(ctx, "Title", nil)
	if !errors.As(err, new(budgetError)) || len(r.result.Phases) != 0 {
		t.Errorf("err = %v, phases %+v", err, r.result.Phases)
	}
}

// ended is a context that has ended.
func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
