package actions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// world is a runner's directory of files.
func world(t *testing.T) (FileCommand, func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	l, _ := newLog(t, map[string]string{
		"GITHUB_OUTPUT": dir + "/output", "GITHUB_ENV": dir + "/env", "GITHUB_PATH": dir + "/path",
		"GITHUB_STEP_SUMMARY": dir + "/summary", "GITHUB_STATE": dir + "/state",
	})
	return l.Files(), func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
}

func written(text string) Written { return Written{Text: []byte(text)} }

func refusedTexts(m Merged) []string {
	var texts []string
	for _, r := range m.Refused {
		texts = append(texts, r.Error())
	}
	return texts
}

func TestMerge(t *testing.T) {
	files, read := world(t)
	if err := files.SetOutput("result", "success"); err != nil {
		t.Fatal(err)
	}
	m, err := files.Merge(CommandFiles{
		Output:  written("out=/github/workspace/x\nResult=failure\nexit-code<<E\n0\nE\nodd name=1\n"),
		Env:     written("node_options=--x\nDIR=/github/workspace\nMULTI<<E\n1\n2\nE\nBIG=" + strings.Repeat("x", variableLimit-4) + "\nFITS=" + strings.Repeat("x", variableLimit-6) + "\n"),
		Path:    written("/github/workspace/bin\n/usr/games\n"),
		State:   written("pid=/github/workspace/pid\n"),
		Summary: written("# Hello\n\nworld"),
	}, MergeOptions{
		Reserved: []string{"result", "exit-code"},
		Translate: func(s string) string {
			if rest, ok := strings.CutPrefix(s, "/github/workspace"); ok {
				return "/home/runner/work/r/r" + rest
			}
			return s
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`GITHUB_OUTPUT, line 2, "Result": this output is set by the action itself: choose another name`,
		`GITHUB_OUTPUT, line 3, "exit-code": this output is set by the action itself: choose another name`,
		`GITHUB_ENV, line 1, "node_options": no step may set NODE_OPTIONS for later ones`,
		`GITHUB_ENV, line 7, "BIG": the value is 131068 bytes long: Linux starts no program with a variable over 128 KiB`,
	}
	if diff := cmp.Diff(want, refusedTexts(m)); diff != "" {
		t.Error(diff)
	}
	for file, want := range map[string][]Pair{
		"output": {{"result", "success", 0}, {"out", "/home/runner/work/r/r/x", 0}, {"odd name", "1", 0}},
		"env":    {{"DIR", "/home/runner/work/r/r", 0}, {"MULTI", "1\n2", 0}, {"FITS", strings.Repeat("x", variableLimit-6), 0}},
		"state":  {{"pid", "/github/workspace/pid", 0}},
	} {
		got, err := runnerPairs(read(file))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", file, err, diff)
		}
	}
	if got := read("path"); got != "/home/runner/work/r/r/bin\n/usr/games\n" {
		t.Errorf("path = %q", got)
	}
	if got := read("summary"); got != "# Hello\n\nworld\n" || m.Summary != len("# Hello\n\nworld") {
		t.Errorf("summary = %q, %d bytes", got, m.Summary)
	}
}

// TestMergeLater: what others have written before is never continued.
func TestMergeLater(t *testing.T) {
	files, read := world(t)
	for _, file := range []string{"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
		if err := os.WriteFile(files.getenv(file), []byte("a=unfinished"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := files.Merge(CommandFiles{Output: written("b=2"), Summary: written("more")}, MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := runnerPairs(read("output"))
	if diff := cmp.Diff([]Pair{{"a", "unfinished", 0}, {"b", "2", 0}}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got := read("summary"); got != "a=unfinished\nmore\n" {
		t.Errorf("summary = %q", got)
	}
}

func TestMergeOversize(t *testing.T) {
	files, read := world(t)
	m, err := files.Merge(CommandFiles{
		Output: Written{Text: []byte("a=b\n"), Size: 5 << 20},
		Env:    written(strings.Repeat("A=b\n", FileLimit/4) + "\n"),
		Path:   Written{Text: make([]byte, FileLimit+1)},
		State:  written(strings.Repeat("a=b\n", FileLimit/4)),
	}, MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const rest = "; of more than 1048576 nothing is taken over: put what is large into a file of the workspace"
	want := []string{
		"GITHUB_OUTPUT: it is 5242880 bytes long" + rest, "GITHUB_ENV: it is 1048577 bytes long" + rest, "GITHUB_PATH: it is 1048577 bytes long" + rest,
	}
	if diff := cmp.Diff(want, refusedTexts(m), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error(diff)
	}
	if read("output") != "" || read("env") != "" || len(m.State) != FileLimit/4 {
		t.Errorf("output %d bytes, env %d bytes, %d states", len(read("output")), len(read("env")), len(m.State))
	}
}

func TestMergeSummaryLimit(t *testing.T) {
	line := strings.Repeat("x", 999) + "\n"
	for _, tc := range []struct {
		name            string
		before, reserve int
		w               Written
		lines           int
		refused         bool
	}{
		{name: "fits", w: written(strings.Repeat(line, 1000)), lines: 1000},
		{name: "too long", w: written(strings.Repeat(line, 1100)), lines: 1048, refused: true},
		{name: "read in part", w: Written{Text: []byte(line + "cut"), Size: 1 << 30}, lines: 1, refused: true},
		{name: "with a reserve", reserve: 500000, w: written(strings.Repeat(line, 1000)), lines: 548, refused: true},
		{name: "after others", before: 1000000, w: written(strings.Repeat(line, 1000)), lines: 48, refused: true},
		{name: "no room", before: SummaryLimit, w: written(line), refused: true},
		{name: "more than no room", before: SummaryLimit, reserve: 1000, w: written(line), refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files, read := world(t)
			if err := os.WriteFile(files.getenv("GITHUB_STEP_SUMMARY"), []byte(strings.Repeat("b", tc.before)), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := files.Merge(CommandFiles{Summary: tc.w}, MergeOptions{SummaryReserve: tc.reserve})
			if err != nil {
				t.Fatal(err)
			}
			got := read("summary")
			if n := strings.Count(got, line); n != tc.lines || len(m.Refused) == 1 != tc.refused || m.Summary != tc.lines*len(line) {
				t.Errorf("%d lines, %d bytes noted, %v", n, m.Summary, m.Refused)
			}
			if len(got)+tc.reserve > SummaryLimit && tc.lines > 0 {
				t.Errorf("the summary has %d bytes now", len(got))
			}
		})
	}
}

// TestMergeWithoutARunner checks and tells, and writes nothing.
func TestMergeWithoutARunner(t *testing.T) {
	files := New(Options{Stdout: failing{t}, Stderr: failing{t}}).Files()
	m, err := files.Merge(CommandFiles{Output: written("a=b\nc"), Path: written("/x"), Summary: written("s\n")}, MergeOptions{})
	if err != nil || len(m.Outputs) != 1 || len(m.Paths) != 1 || len(m.Refused) != 1 || m.Summary != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestMergeGoesOn: one of the runner's files can't be written, the others are.
func TestMergeGoesOn(t *testing.T) {
	dir := t.TempDir()
	l, _ := newLog(t, map[string]string{"GITHUB_OUTPUT": dir, "GITHUB_ENV": dir + "/env"})
	_, err := l.Files().Merge(CommandFiles{Output: written("a=b"), Env: written("c=d")}, MergeOptions{})
	if err == nil || !strings.Contains(err.Error(), "writing GITHUB_OUTPUT: ") {
		t.Errorf("err = %v", err)
	}
	if text, err := os.ReadFile(dir + "/env"); err != nil || !strings.HasPrefix(string(text), "c<<hurd_") {
		t.Errorf("%q, %v", text, err)
	}
}

// FuzzMerge: whatever a script writes, the runner accepts the files as we leave
// them, sees what Merged says, and no reserved output but ours.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("a=b\nRESULT=x\n"))
	f.Add([]byte("a<<E\n1\nE\nresult<<E\nE\n"))
	f.Add([]byte("\ufeffre\u017fult=x\n"))
	dir := f.TempDir()
	env := map[string]string{"GITHUB_OUTPUT": dir + "/output", "GITHUB_ENV": dir + "/env"}
	files := New(Options{Getenv: func(k string) string { return env[k] }}).Files()
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, file := range env {
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
		}
		m, err := files.Merge(CommandFiles{Output: Written{Text: text}, Env: Written{Text: text}}, MergeOptions{Reserved: []string{"result"}})
		if err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string][]Pair{"GITHUB_OUTPUT": m.Outputs, "GITHUB_ENV": m.Env} {
			content, err := os.ReadFile(env[file])
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			got, err := runnerPairs(string(content))
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Pair{}, "Line"), cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Fatalf("%s: %v\n%s", file, err, diff)
			}
			for _, p := range got {
				if strings.EqualFold(p.Name, "result") && file == "GITHUB_OUTPUT" || strings.EqualFold(p.Name, "NODE_OPTIONS") && file == "GITHUB_ENV" {
					t.Fatalf("%s: %q got through", file, p.Name)
				}
			}
		}
	})
}
