package environment

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func hostPaths() Paths {
	return Paths{{"/github/workspace", "/github/workspace"}, {"/home/runner/work/r/r", "/github/workspace"}, {"/home/runner/work/r/r/sub", "/elsewhere"}}
}

func TestPaths(t *testing.T) {
	p := hostPaths()
	for value, want := range map[string]string{
		"": "", "text": "text", "/github/workspace": "/github/workspace", "/home/runner/work/r/r": "/github/workspace",
		"/home/runner/work/r/r/": "/github/workspace/", "/home/runner/work/r/r/a/../b": "/github/workspace/a/../b",
		"/home/runner/work/r/r2": "/home/runner/work/r/r2", "/home/runner/work/r/r/sub/x": "/elsewhere/x", "/home/runner/work/r/r/subx": "/github/workspace/subx",
		"A=/home/runner/work/r/r": "A=/home/runner/work/r/r", "/x:/home/runner/work/r/r": "/x:/home/runner/work/r/r",
	} {
		if got := p.ToGuest(value); got != want {
			t.Errorf("ToGuest(%q) = %q, want %q", value, got, want)
		}
	}
	local := Paths{{"/src/project/", "/github/workspace"}}
	for value, want := range map[string]string{
		"/github/workspace/out": "/src/project/out", "/github/workspace": "/src/project", "/github/workspaces": "/github/workspaces", "/usr/bin": "/usr/bin", "": "",
	} {
		if got := local.ToHost(value); got != want {
			t.Errorf("ToHost(%q) = %q, want %q", value, got, want)
		}
	}
	if got := (Paths{{"/", "/github/workspace"}, {"", "/y"}}).ToGuest("/etc"); got != "/etc" {
		t.Errorf("a root directory became %q", got)
	}
}

func TestNew(t *testing.T) {
	host := Host{
		Environ: []string{
			"CI=true", "CIX=1", "PATH=/bin", "HOME=/github/home", "LANG=C", "GITHUB_REF=refs/heads/it's", "GITHUB_WORKSPACE=/github/workspace",
			"GITHUB_OUTPUT=/github/file_commands/set_output_1", "GITHUB_EVENT_PATH=/github/workflow/event.json", "GITHUB_TOKEN=ghs_x",
			"GITHUB_ACTION_PATH=/home/runner/work/_actions/x", "GITHUB_ODD-NAME=1", "GITHUB_EMPTY=", "GITHUB_ARTIFACTS=/github/runner_temp/a",
			"RUNNER_OS=Linux", "RUNNER_TEMP=/github/runner_temp", "RUNNER_TOOL_CACHE=/opt/hostedtoolcache", "RUNNER_WORKSPACE=/home/runner/work/r",
			"GITHUB_CUSTOM=/home/runner/work/r/r/x", "ACTIONS_RUNTIME_TOKEN=secret", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=secret", "INPUT_RUN=make", "INPUT_TOKEN=x", "broken",
		},
		Paths: hostPaths(), Workspace: "/github/workspace", Event: []byte("{}"),
	}
	e := New(host, []Variable{{Name: "MINE", Value: "/home/runner/work/r/r/y"}, {Name: "GITHUB_REF", Value: "mine"}})
	want := []Variable{
		{Name: "CI", Value: "true"},
		{Name: "GITHUB_CUSTOM", Value: "/github/workspace/x"},
		{Name: "GITHUB_EMPTY"},
		{Name: "GITHUB_ENV", File: "env"},
		{Name: "GITHUB_EVENT_PATH", File: "event.json"},
		{Name: "GITHUB_OUTPUT", File: "output"},
		{Name: "GITHUB_PATH", File: "path"},
		{Name: "GITHUB_REF", Value: "mine"},
		{Name: "GITHUB_STATE", File: "state"},
		{Name: "GITHUB_STEP_SUMMARY", File: "summary"},
		{Name: "GITHUB_WORKSPACE", Value: "/github/workspace"},
		{Name: "MINE", Value: "/github/workspace/y"},
		{Name: "RUNNER_OS", Value: "Linux"},
		{Name: "RUNNER_TEMP", File: "temp/"},
		{Name: "RUNNER_WORKSPACE", Value: "/github"},
	}
	if diff := cmp.Diff(want, e.Variables); diff != "" {
		t.Error(diff)
	}
	skips := []Skipped{
		{"GITHUB_ACTION_PATH", "the path /home/runner/work/_actions/x is not in the guest"},
		{"GITHUB_ARTIFACTS", "the path /github/runner_temp/a is not in the guest"},
		{"GITHUB_ODD-NAME", "a shell can't set a variable of this name"},
		{"GITHUB_TOKEN", "a token goes into the guest only when env names it"},
		{"RUNNER_TOOL_CACHE", "the path /opt/hostedtoolcache is not in the guest"},
	}
	if diff := cmp.Diff(skips, e.Skipped); diff != "" {
		t.Error(diff)
	}
	files := []File{
		{Name: "output", Written: true}, {Name: "env", Written: true}, {Name: "path", Written: true}, {Name: "state", Written: true},
		{Name: "summary", Written: true}, {Name: "temp/"}, {Name: "event.json", Content: []byte("{}")},
	}
	if diff := cmp.Diff(files, e.Files); diff != "" {
		t.Error(diff)
	}
	named := New(host, []Variable{{Name: "GITHUB_TOKEN", Value: "ghs_x"}})
	for _, s := range named.Skipped {
		if s.Name == "GITHUB_TOKEN" {
			t.Error("a token that env names is left out")
		}
	}
}

// TestNewLocally: without a runner a script still has its files.
func TestNewLocally(t *testing.T) {
	e := New(Host{Environ: []string{"PATH=/bin", "HOME=/root"}}, nil)
	var names []string
	for _, v := range e.Variables {
		names = append(names, v.Name)
	}
	if got := strings.Join(names, " "); got != "GITHUB_ENV GITHUB_OUTPUT GITHUB_PATH GITHUB_STATE GITHUB_STEP_SUMMARY RUNNER_TEMP" {
		t.Errorf("the script gets %s", got)
	}
	large := New(Host{Event: make([]byte, eventLimit+1)}, nil)
	if diff := cmp.Diff([]Skipped{{"GITHUB_EVENT_PATH", "the event is longer than 1 MiB"}}, large.Skipped); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	lookup := func(name string) (string, bool) {
		value, ok := map[string]string{"SET": "host's", "EMPTY": "", "NUL": "a\x00", "PATH": "/bin", "LD_PRELOAD": "x"}[name]
		return value, ok
	}
	for _, tc := range []struct {
		name, input string
		want        []Variable
		problems    []string
	}{
		{name: "nothing"},
		{name: "blank", input: "\n  \n# SET\n\t# x\n"},
		{name: "bare", input: "SET\n  EMPTY  \n", want: []Variable{{Name: "SET", Value: "host's"}, {Name: "EMPTY"}}},
		{
			name: "values are verbatim", input: "  A= b \"c\" 'd' $e # f \nB=\nC=x=y<<z\n",
			want: []Variable{{Name: "A", Value: " b \"c\" 'd' $e # f "}, {Name: "B"}, {Name: "C", Value: "x=y<<z"}},
		},
		{name: "several lines", input: "A<<EOF\n1\n\n # 2\nEOF\nB<<END\nEND\nSET", want: []Variable{{Name: "A", Value: "1\n\n # 2"}, {Name: "B"}, {Name: "SET", Value: "host's"}}},
		{name: "LD_ with a value", input: "LD_LIBRARY_PATH=/usr/local/lib\nTMPDIR=/x", want: []Variable{{Name: "LD_LIBRARY_PATH", Value: "/usr/local/lib"}, {Name: "TMPDIR", Value: "/x"}}},
		{
			name: "all problems", input: "UNSET\nA-B=1\n1A=\n=x\nPATH\nHOME=/x\nSET\nSET=2\nNUL\nLD_PRELOAD\nINPUT_RUN\nGITHUB_OUTPUT\nACTIONS_RUNTIME_TOKEN\nUID=1\nTWO WORDS\nX<<\n",
			want: []Variable{{Name: "SET", Value: "host's"}},
			problems: []string{
				"line 1: UNSET is not set: set it with env: of the step or the job, or write UNSET=VALUE",
				`line 2: "A-B" is no name of a variable: letters, digits and _, no digit first`,
				`line 3: "1A" is no name of a variable: letters, digits and _, no digit first`,
				`line 4: "" is no name of a variable: letters, digits and _, no digit first`,
				"line 5: PATH is the guest's own: set it in the script",
				"line 6: HOME is the guest's own: set it in the script",
				"line 8: SET is in line 7 already",
				"line 9: the value of NUL holds a NUL",
				"line 10: LD_PRELOAD of this host means nothing in the guest: write LD_PRELOAD=VALUE",
				"line 11: INPUT_RUN is an input of this action, not the script's",
				"line 12: GITHUB_OUTPUT has a value of its own in the guest: remove the line",
				"line 13: ACTIONS_RUNTIME_TOKEN is a token of the runner that never goes into a guest",
				"line 14: UID belongs to the shells of the guest: set it in the script",
				`line 15: "TWO WORDS" is no name of a variable: letters, digits and _, no digit first`,
				"line 16: there is nothing after << that could end the value",
			},
		},
		{name: "no end", input: "A<<EOF\nSET\n EOF\n", problems: []string{`line 1: no line that is "EOF" ends the value of "A"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vs, problems := Parse(tc.input, lookup)
			if diff := cmp.Diff(tc.want, vs); diff != "" {
				t.Error(diff)
			}
			var texts []string
			for _, p := range problems {
				texts = append(texts, p.Error())
			}
			if diff := cmp.Diff(tc.problems, texts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzParse: every line is a variable, a problem, part of a value or nothing;
// what is accepted is accepted again when written out.
func FuzzParse(f *testing.F) {
	f.Add("A=b\nC<<E\nd\nE\nSET\n# x\n")
	f.Add("A<<B=C\nB=C\n=\n<<\n")
	lookup := func(name string) (string, bool) { return "v", !strings.HasPrefix(name, "UN") }
	f.Fuzz(func(t *testing.T, input string) {
		vs, problems := Parse(input, lookup)
		for _, p := range problems {
			if p.Line < 1 || p.Line > strings.Count(input, "\n")+1 || p.Text == "" {
				t.Fatalf("problem %+v", p)
			}
		}
		var b strings.Builder
		for _, v := range vs {
			if !shellName(v.Name) || forbidden[v.Name] != "" || strings.Contains(v.Value, "\x00") {
				t.Fatalf("%+v was accepted", v)
			}
			end := "END"
			for strings.Contains(v.Value, end) {
				end += "D"
			}
			b.WriteString(v.Name + "<<" + end + "\n")
			if v.Value != "" {
				b.WriteString(v.Value + "\n")
			}
			b.WriteString(end + "\n")
		}
		again, problems := Parse(b.String(), lookup)
		if diff := cmp.Diff(vs, again); diff != "" || len(problems) > 0 {
			t.Fatalf("written as %q: %s %v", b.String(), diff, problems)
		}
	})
}

// shells are those that a guest may have as sh.
func shells(t testing.TB) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for name, argv := range map[string][]string{"dash": {"dash"}, "bash": {"bash", "--posix"}, "busybox": {"busybox", "sh"}} {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			if os.Getenv("E2E_REQUIRED") == "1" {
				t.Fatalf("%s is not installed, and E2E_REQUIRED=1", argv[0])
			}
			t.Logf("%s is not installed", argv[0])
			continue
		}
		all[name] = append([]string{path}, argv[1:]...)
	}
	return all
}

// exported runs the environment's program in a shell and returns what a program
// started from there finds.
func exported(t *testing.T, argv []string, dir string, e Environment) map[string]string {
	t.Helper()
	file := filepath.Join(dir, "env.sh")
	if err := os.WriteFile(file, e.Shell("files"), 0o600); err != nil {
		t.Fatal(err)
	}
	env, err := exec.LookPath("env")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], append(argv[1:], "-c", `files="$1"; . "$2"; unset files; exec "$3" -0`, "sh", "/the dir", file, env)...)
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		got[name] = value
	}
	return got
}

func TestShell(t *testing.T) {
	var every strings.Builder
	for c := 1; c < 256; c++ {
		every.WriteByte(byte(c))
	}
	e := Environment{Variables: []Variable{
		{Name: "A", Value: "it's \"$x\" `y` $(z) \\ \n\n end\n\n"}, {Name: "EVERY", Value: every.String()}, {Name: "EMPTY"},
		{Name: "QUOTES", Value: "'''"}, {Name: "LONG", Value: strings.Repeat("'x\n", 20000)}, {Name: "GITHUB_OUTPUT", File: "output"}, {Name: "RUNNER_TEMP", File: "temp/"},
	}}
	for name, argv := range shells(t) {
		t.Run(name, func(t *testing.T) {
			got := exported(t, argv, t.TempDir(), e)
			for _, v := range e.Variables {
				want := v.Value
				if v.File != "" {
					want = "/the dir/" + strings.TrimSuffix(v.File, "/")
				}
				if got[v.Name] != want {
					t.Errorf("%s = %q, want %q", v.Name, got[v.Name], want)
				}
			}
			if _, ok := got["files"]; ok {
				t.Error("the helper variable was exported")
			}
		})
	}
}

// FuzzShell: a value comes through every shell as it is.
func FuzzShell(f *testing.F) {
	for _, seed := range []string{"a", "'", "\\'\n", "\x01\x7f\x81\x88\xff", "$(x)`y`", "\r\n"} {
		f.Add(seed)
	}
	all, dir := shells(f), f.TempDir()
	f.Fuzz(func(t *testing.T, value string) {
		if strings.Contains(value, "\x00") || len(value) > 100000 {
			t.Skip("no variable can hold this")
		}
		for name, argv := range all {
			if got := exported(t, argv, dir, Environment{Variables: []Variable{{Name: "V", Value: value}}}); got["V"] != value {
				t.Fatalf("%s: %q came as %q", name, value, got["V"])
			}
		}
	})
}
