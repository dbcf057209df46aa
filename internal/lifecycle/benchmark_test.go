package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// discard has the guest read something.
func discard(ctx context.Context, c *guest.Client, in io.Reader) error {
	status, err := c.Run(ctx, guest.Command{Line: "cat >/dev/null", Stdin: in})
	if err == nil && status.Code != 0 {
		err = errors.New(status.String())
	}
	return err
}

// benchmarked gives a run of a runner that repeats a script in a fake guest, which
// has a directory $D of its own for each test. Its log and its outputs are read
// by the functions.
func benchmarked(t *testing.T, n int, script string) (r *run, log func() string, outputs func() string) {
	t.Helper()
	r, _, _ = newGuest(t, config.Inputs{})
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "outputs")
	r.Log = actions.New(actions.Options{Stdout: &out, Commands: true, Getenv: func(name string) string {
		if name == "GITHUB_OUTPUT" {
			return file
		}
		return ""
	}})
	var err error
	if r.logs, err = newLogs(r.Host.Workspace); err != nil {
		t.Fatal(err)
	}
	r.config.Benchmark, r.config.Shell = n, "sh -e {0}"
	r.config.Script = "D='" + t.TempDir() + "'; cd \"$D\"; n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n >n\n" + script
	r.config.WorkingDirectory = "/"
	return r, out.String, func() string {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
}

// finished ends the run as Run does, and reads its benchmark.json.
func finished(t *testing.T, r *run, err error) (doc metrics.Benchmark) {
	t.Helper()
	r.conclude(err)
	r.publish(t.Context(), err)
	r.report(err)
	data, readErr := os.ReadFile(filepath.Join(r.Host.Workspace, r.result.Benchmark))
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestRepeat: each repetition is one run in the same guest, in a group of its
// own, with empty files; those of the last become the step's.
func TestRepeat(t *testing.T) {
	r, log, outputs := benchmarked(t, 3, `echo "said $n"; echo "mine=$n" >>"$GITHUB_OUTPUT"; echo "only$n=x" >>"$GITHUB_OUTPUT"`)
	asked := 0
	r.meter.ask = func(context.Context) (qemu.Usage, error) {
		asked++
		return qemu.Usage{GuestCPU: time.Duration(asked*asked) * time.Second}, nil
	}
	doc := finished(t, r, r.repeat(t.Context()))
	if r.result.Kind != Success || r.result.ExitCode != 0 || doc.Result != "success" {
		t.Errorf("%+v", r.result)
	}
	if doc.Wanted != 3 || len(doc.Times) != 3 || doc.Summary == nil || doc.Summary.Count != 3 || doc.Resolution == nil || *doc.Resolution <= 0 || len(doc.Script) != 64 {
		t.Errorf("%+v", doc)
	}
	sum := time.Duration(0)
	for i, m := range doc.Times {
		if m.Took <= 0 || m.Failed || m.ExitCode == nil || *m.ExitCode != 0 || m.GuestCPU == nil || *m.GuestCPU != metrics.Seconds((4*i+3)*int(time.Second)) {
			t.Errorf("repetition %d: %+v", i+1, m)
		}
		sum += time.Duration(m.Took)
	}
	if d := sum - r.result.Script; d.Abs() > 10*time.Microsecond || r.bench.median() != time.Duration(doc.Summary.Median) && (r.bench.median()-time.Duration(doc.Summary.Median)).Abs() > time.Microsecond {
		t.Errorf("the script took %v, the repetitions together %v", r.result.Script, sum)
	}
	text := log()
	for i := 1; i <= 3; i++ {
		_, group, ok := strings.Cut(text, fmt.Sprintf("::group::Repetition %d of 3\n", i))
		group, _, closed := strings.Cut(group, "::endgroup::")
		if !ok || !closed || strings.Count(group, "said ") != 1 || !strings.Contains(group, fmt.Sprintf("said %d\n", i)) {
			t.Errorf("the group of repetition %d:\n%s", i, text)
		}
	}
	if !strings.Contains(text, "\nBenchmark: median ") || !strings.Contains(text, "The script succeeded after") {
		t.Errorf("the log:\n%s", text)
	}
	out := outputs()
	if !strings.Contains(out, "\n3\n") || strings.Contains(out, "\n1\n") || strings.Contains(out, "only1") || !strings.Contains(out, "only3") || !strings.Contains(out, ".hurd/run-1/benchmark.json") {
		t.Errorf("the outputs:\n%s", out)
	}
	if len(r.result.Phases) != 1 || r.result.Phases[0].Title != "Script" || r.result.Phases[0].Failed {
		t.Errorf("phases %+v", r.result.Phases)
	}
}

// TestRepeatStopsAtAFailure: the first repetition that fails is the last, its
// status is the run's, and what it printed at the end is not only in a group
// that is folded. What was measured before is kept.
func TestRepeatStopsAtAFailure(t *testing.T) {
	r, log, outputs := benchmarked(t, 5, `echo "said $n"; echo "mine=$n" >>"$GITHUB_OUTPUT"; if test $n = 3; then echo "it broke: s3cret-value" >&2; exit 4; fi`)
	r.mask.Mask("s3cret-value")
	doc := finished(t, r, r.repeat(t.Context()))
	if r.result.Kind != ScriptFailed || r.result.ExitCode != 4 || doc.Result != "script-failed" {
		t.Errorf("%+v", r.result)
	}
	if len(doc.Times) != 3 || doc.Summary.Count != 2 || doc.Times[1].Failed || !doc.Times[2].Failed || *doc.Times[2].ExitCode != 4 {
		t.Errorf("%+v", doc)
	}
	text := log()
	tail := text[strings.LastIndex(text, "::endgroup::"):]
	for _, want := range []string{"Repetition 3 of 5 ended with:", "    said 3\n", "    it broke: ***\n", "::error title=The script failed::repetition 3 of 5: exit status 4 after ", "Repetition 3 failed after"} {
		if !strings.Contains(tail, want) {
			t.Errorf("after the groups there is no %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "s3cret-value") || strings.Contains(text, "Repetition 4") {
		t.Errorf("the log:\n%s", text)
	}
	if out := outputs(); !strings.Contains(out, "\n3\n") {
		t.Errorf("the outputs:\n%s", out)
	}
}

// TestRepeatTimesOut: the limits are for each repetition, whose time goes on
// from one to the next; one that is too slow ends the run.
func TestRepeatTimesOut(t *testing.T) {
	r, log, _ := benchmarked(t, 4, `echo "said $n"; test $n -lt 4 || sleep 60; sleep 0.5`)
	r.config.Timeout = 1200 * time.Millisecond
	err := r.repeat(t.Context())
	doc := finished(t, r, err)
	if r.result.Kind != Timeout || r.result.ExitCode != 124 || r.result.Script < 2*time.Second {
		t.Errorf("%+v, %v", r.result, err)
	}
	if len(doc.Times) != 4 || doc.Summary.Count != 3 || !doc.Times[3].Failed || doc.Times[3].ExitCode != nil || time.Duration(doc.Times[3].Took) < time.Second {
		t.Errorf("%+v", doc)
	}
	if text := log(); !strings.Contains(text, "::error title=Timeout::repetition 4 of 4: the script ran longer than 1.2s (timeout)") {
		t.Errorf("the log:\n%s", text)
	}
}

// TestRepeatIsInterrupted: what was measured before an interrupt is kept, and
// the repetition that it ended does not count.
func TestRepeatIsInterrupted(t *testing.T) {
	r, _, _ := benchmarked(t, 3, `true`)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	asked := 0
	r.meter.ask = func(context.Context) (qemu.Usage, error) {
		if asked++; asked == 3 { // when the second repetition is about to start
			cancel(Interrupt{syscall.SIGINT})
		}
		return qemu.Usage{}, errors.New("busy")
	}
	doc := finished(t, r, r.repeat(ctx))
	if r.result.Kind != Canceled || r.result.ExitCode != 130 || doc.Result != "canceled" {
		t.Errorf("%+v", r.result)
	}
	if len(doc.Times) != 2 || doc.Times[0].Failed || doc.Times[0].GuestCPU != nil || !doc.Times[1].Failed || doc.Summary.Count != 1 {
		t.Errorf("%+v", doc)
	}
}

// TestResolutionOfADeafGuest: it is left out when it can't be measured, and so
// is a median without a repetition that succeeded.
func TestResolutionOfADeafGuest(t *testing.T) {
	r, _, _ := benchmarked(t, 3, `true`)
	_ = r.client.Close()
	r.bench = &bench{document: metrics.Benchmark{Wanted: 3, Resolution: metrics.Known(r.resolution(t.Context())), Times: []metrics.Measured{{Failed: true}}}}
	doc := finished(t, r, fail(GuestLost, "T", errors.New("x")))
	if doc.Resolution != nil || doc.Summary != nil || r.bench.median() != 0 || doc.Result != "guest-lost" {
		t.Errorf("%+v", doc)
	}
}
