package shard

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var sample = []Result{
	{Script{1, 1, "make check"}, Success, 0, 4210 * time.Millisecond, "saved", ".hurd/run-1"},
	{Script{2, 3, "./test <b> | tee `x` && exit 3"}, "script-failed", 3, 61 * time.Second, "restored", ".hurd/run-2"},
	{Script{3, 4, "kill -9 $$"}, "script-signaled", 137, time.Second, "restored", ".hurd/run-3"},
	{Script{4, 5, strings.Repeat("a_", 30)}, "image-failed", 125, 0, "", ""},
	{Script{5, 6, "true"}, NotRun, 0, 0, "", ""},
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, sample); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.String())
	broken := errors.New("broken")
	if err := Table(failing{broken}, sample); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
}

func TestMarkdown(t *testing.T) { golden(t, "table.md", Markdown(sample)) }

func TestJSON(t *testing.T) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, r := range sample {
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "results.jsonl", b.String())
}

func TestStatus(t *testing.T) {
	ok, three, lost, none := Result{Result: Success}, Result{Result: "script-failed", Status: 3}, Result{Result: "guest-lost", Status: 125}, Result{Result: NotRun}
	for _, tc := range []struct {
		name                   string
		results                []Result
		status, failed, notRun int
	}{
		{"all succeeded", []Result{ok, ok}, 0, 0, 0},
		{"the first in the list counts", []Result{ok, three, lost}, 3, 2, 0},
		{"ours is no worse than the script's", []Result{lost, three}, 125, 2, 0},
		{"what was not run has no status", []Result{none, three}, 3, 1, 1},
	} {
		if got := Status(tc.results); got != tc.status {
			t.Errorf("%s: status %d, want %d", tc.name, got, tc.status)
		}
		if failed, notRun := Failed(tc.results); failed != tc.failed || notRun != tc.notRun {
			t.Errorf("%s: %d failed, %d were not run; want %d, %d", tc.name, failed, notRun, tc.failed, tc.notRun)
		}
	}
}

func TestResultString(t *testing.T) {
	want := []string{"success", "script-failed, status 3", "script-signaled, status 137", "image-failed, status 125", "not-run"}
	for i, r := range sample {
		if r.String() != want[i] {
			t.Errorf("%q, want %q", r, want[i])
		}
	}
}
