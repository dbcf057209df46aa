package e2e

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// The values that must never be seen: in no log, no report, no artifact.
const (
	namedSecret  = "v3ry-s3cret-value"
	runtimeToken = "eyJ0b2tlbi1vZi10aGUtam9i"
)

// resultsScript does in the workspace what a build does, and what an attacker
// would, and fails. What it can't do ends it with another status than 7.
const resultsScript = manifestScript + `
manifest >/tmp/manifest
cmp manifest /tmp/manifest || { diff manifest /tmp/manifest; exit 90; }
test -z "$(find . ! -user "$(id -u)" -o ! -group "$(id -g)" | head -n 1)" || exit 91
test "$PWD" = /github/workspace && test "$GITHUB_WORKSPACE" = "$PWD" && test "$CI" = true || exit 92
test "$HOME" != "$WRONG_HOME" && test "$NAMED" = "two words" && test -z "$UNNAMED" || exit 93
test "$(env | grep -c "$TOKEN_START")" -eq 1 || exit 94

echo changed >>changed
rm gone
mkdir -p out/deep
echo "result of it" >'out/deep/new file.log'
echo not asked for >out/other.txt
ln -s changed out/link
ln changed out/hard

echo "answer=42" >>"$GITHUB_OUTPUT"
printf 'lines<<END\none\ntwo\nEND\nplace=%s/out\n' "$PWD" >>"$GITHUB_OUTPUT"
printf 'result=success\nexit-code=0\n' >>"$GITHUB_OUTPUT"
printf 'FROM_GUEST=here\nNODE_OPTIONS=--require=/tmp/x\n' >>"$GITHUB_ENV"
echo "$PWD/bin" >>"$GITHUB_PATH"
echo "kept=state" >>"$GITHUB_STATE"
echo "# From the guest" >>"$GITHUB_STEP_SUMMARY"
echo "The secret is $NAMED_TOKEN."
echo "The secret is $NAMED_TOKEN." >/dev/console || :
printf '::error file=changed::forged\n'
echo 'src/main.c:3:7: error: expected a semicolon'
` + escapeScript + `
exit 7
`

// escapeScript makes what must not come back, or not as it is.
const escapeScript = `
rm -r todir lead
ln -s /etc todir
echo theirs >todir/from-the-guest
mkdir lead && echo theirs >lead/evil
mkdir kept && echo theirs >kept/evil
mknod device c 1 3
echo '#!/bin/sh' >setuid && chmod 6755 setuid
echo theirs >.git/hooks/post-checkout
printf '[core]\n\tfsmonitor = ./evil\n' >>.git/config
echo ref >.git/refs/heads/new
mkdir -p .hurd && echo theirs >.hurd/evil
`

// resultsWorkspace makes the workspace for resultsScript, and a directory
// outside of it that links lead to.
func resultsWorkspace(t *testing.T, random *rand.Rand) (dir, outside string) {
	dir, outside = t.TempDir(), t.TempDir()
	oddTree(t, dir, random)
	write(t, dir, "changed", "as it was\n", "gone", "", "src/main.c", "int main\n", "todir/file", "mine", "bin/tool", "",
		".git/config", "[core]\n", ".git/HEAD", "ref: refs/heads/main\n", ".git/hooks/mine", "", ".git/refs/heads/main", "0\n")
	must(t, os.Symlink(outside, filepath.Join(dir, "lead")))
	must(t, os.Symlink(outside, filepath.Join(dir, "kept")))
	age(t, dir, random)
	return dir, outside
}

// makeManifest writes what manifestScript prints here, of what the guest gets.
func makeManifest(t *testing.T, dir string, left ...string) {
	t.Helper()
	for _, name := range left { // is not looked at
		must(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, "..", filepath.Base(dir)+name)))
	}
	cmd := exec.Command("sh", "-ec", manifestScript+"manifest")
	cmd.Dir = dir
	out, err := cmd.Output()
	must(t, err)
	for _, name := range left {
		must(t, os.Rename(filepath.Join(dir, "..", filepath.Base(dir)+name), filepath.Join(dir, name)))
	}
	must(t, os.WriteFile(filepath.Join(dir, "manifest"), out, 0o644))
}

// TestE2EResults fails in the guest with everything in the runner's hands
// afterwards, by each way of the workspace.
func TestE2EResults(t *testing.T) {
	needGuest(t)
	t.Parallel()
	for i, tc := range []struct {
		sync, copyBack string
		find           bool // the guest gets a find that can list changes
		user           string
		says           string
	}{
		{"disk", "all", false, "builder", "User builder was made in the guest"},
		{"tar", "changed", false, "demo", "everything is sent"},
		{"tar", "all", true, "", "by tar: as asked for"},
	} {
		t.Run(tc.sync+" "+tc.copyBack, func(t *testing.T) {
			t.Parallel()
			r := runResults(t, rand.New(rand.NewPCG(uint64(i), 4)), tc.sync, tc.copyBack, tc.user, tc.find)
			r.checkFiles()
			r.checkCommandFiles()
			r.checkArtifact()
			r.checkSecrets()
			has(t, "the log", r.stdout.String(), tc.says)
			if tc.find && strings.Contains(r.stdout.String(), "everything is sent") {
				t.Error("GNU find was not used")
			}
		})
	}
}

// resultsRun is a run of resultsScript.
type resultsRun struct {
	*program
	before   map[string]string // the workspace
	outside  string
	files    map[string]string // of the runner, by their variables
	uid, gid int
	user     string
	sync     string
}

func runResults(t *testing.T, random *rand.Rand, sync, copyBack, user string, find bool) *resultsRun {
	t.Helper()
	dir, outside := resultsWorkspace(t, random)
	r := &resultsRun{outside: outside, files: map[string]string{}, user: user, sync: sync}
	script := resultsScript
	env := []string{
		"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_SYNC=" + sync, "INPUT_COPY-BACK=" + copyBack, "INPUT_USER=" + user,
		"INPUT_SYNC-EXCLUDE=/kept", "INPUT_ARTIFACT-NAME=results", "INPUT_ARTIFACT-PATH=out/**/*.log\n/etc/hostname",
		"INPUT_ENV=NAMED=two words\nNAMED_TOKEN\nWRONG_HOME=" + dir + "\nTOKEN_START=" + runtimeToken[:12],
		"NAMED_TOKEN=" + namedSecret, "ACTIONS_RUNTIME_TOKEN=" + runtimeToken, "UNNAMED=1", "CI=true", "GITHUB_REPOSITORY=octo/cat",
	}
	if find {
		giveFind(t, dir)
		script = "cd ..\n" + findScript + strings.ReplaceAll(script, "'src/main.c:", "'main.c:")
		env = append(env, "INPUT_WORKING-DIRECTORY=src")
	}
	if user != "" { // who can neither make devices nor write to the console
		script = strings.NewReplacer("mknod device c 1 3\n", "", "echo theirs >todir/from-the-guest\n", "", ">/dev/console", ">/dev/null").Replace(script)
	}
	env = append(env, "INPUT_RUN="+script)
	for _, name := range []string{"GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY"} {
		r.files[name] = filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(r.files[name], nil, 0o600))
		env = append(env, name+"="+r.files[name])
	}
	makeManifest(t, dir, "kept")
	r.uid, r.gid = give(t, dir, 1234, 2345)
	r.before = picture(t, dir)
	r.program = start(t, setup{action: true, workspace: dir, env: env})
	if status := r.wait(); status != 7 {
		t.Errorf("exit status = %d, want 7", status)
	}
	return r
}

// findScript has the guest use giveFind's program.
const findScript = `
cp libm.so.6 /lib/x86_64-linux-gnu/
rm /bin/find
cp gnufind /bin/find
`

// giveFind puts GNU find and its library into a workspace. The guest is made of
// the same packages as this machine.
func giveFind(t *testing.T, dir string) {
	t.Helper()
	for name, file := range map[string]string{"gnufind": "/usr/bin/find", "libm.so.6": "/lib/x86_64-linux-gnu/libm.so.6"} {
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o755))
	}
}

// checkFiles holds the workspace against what the script has done to it.
func (r *resultsRun) checkFiles() {
	t := r.t
	t.Helper()
	after := picture(t, r.workspace)
	want := maps.Clone(r.before)
	owner := strings.Fields(want["changed"])[1]
	for name, text := range map[string]string{
		"changed": "as it was\nchanged\n", "out/hard": "as it was\nchanged\n", "out/deep/new file.log": "result of it\n",
		"out/other.txt": "not asked for\n", "lead/evil": "theirs\n", ".git/refs/heads/new": "ref\n",
	} {
		if got, err := os.ReadFile(filepath.Join(r.workspace, name)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		want[name] = after[name]
	}
	for name, line := range map[string]string{
		"out": "drwxr-xr-x " + owner, "out/deep": "drwxr-xr-x " + owner, "lead": "drwxr-xr-x " + owner, "out/link": "Lrwxrwxrwx " + owner + " -> changed",
	} {
		want[name] = line
	}
	want["setuid"] = after["setuid"]
	if !strings.HasPrefix(after["setuid"], "-rwxr-xr-x "+owner) {
		t.Errorf("setuid: %s", after["setuid"])
	}
	same(t, after, want) // all else is as it was: gone, todir and kept, and what git would run
	for name, line := range after {
		if !strings.Contains(line, " "+owner) {
			t.Errorf("%q has the wrong owner: %s", name, line)
		}
	}
	if left, err := os.ReadDir(r.outside); err != nil || len(left) > 0 {
		t.Errorf("outside of the workspace: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(r.workspace, ".hurd/evil")); err == nil {
		t.Error("the guest wrote among the logs")
	}
	log := r.stdout.String()
	has(t, "the log", log, `"todir": a directory that is not empty is in its place`, `"kept": the host has its own`,
		`".git/config": git would run`, `".git/hooks/post-checkout": git would run`, "::error col=7,file=src/main.c,line=3::expected a semicolon")
	if r.user == "" {
		has(t, "the log", log, `"device": files of this type`)
	}
}

// checkCommandFiles holds the runner's files against what the script wrote.
func (r *resultsRun) checkCommandFiles() {
	t := r.t
	t.Helper()
	for file, want := range map[string]map[string]string{
		r.output:                {"result": "script-failed", "exit-code": "7", "answer": "42", "lines": "one\ntwo", "place": r.workspace + "/out"},
		r.files["GITHUB_ENV"]:   {"FROM_GUEST": "here"},
		r.files["GITHUB_STATE"]: {"kept": "state"},
	} {
		got := commandFile(t, file)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s in %s = %q, want %q", name, filepath.Base(file), got[name], value)
			}
		}
		if got["NODE_OPTIONS"] != "" {
			t.Error("the guest has set NODE_OPTIONS")
		}
	}
	if text, err := os.ReadFile(r.files["GITHUB_PATH"]); err != nil || string(text) != r.workspace+"/bin\n" {
		t.Errorf("GITHUB_PATH holds %q, %v", text, err)
	}
	text, err := os.ReadFile(r.files["GITHUB_STEP_SUMMARY"])
	must(t, err)
	has(t, "the summary", string(text), "# From the guest\n", "status 7", "gantt")
	has(t, "the log", r.stdout.String(), "result", "NODE_OPTIONS", "Not taken over from the script")
}

// checkArtifact looks for all that belongs into the artifact.
func (r *resultsRun) checkArtifact() {
	t := r.t
	t.Helper()
	dir := filepath.Join(r.workspace, ".hurd/artifacts/results")
	for name, text := range map[string]string{
		"out/deep/new file.log": "result of it\n", "guest/etc/hostname": "selftest\n", "hurd/serial.log": "login:",
		"hurd/qemu.log": "-nodefaults", "hurd/timings.json": `"Copy back"`, "hurd/report.html": "exit status 7",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(got), text) {
			t.Errorf("the artifact's %s: %v, %.300q", name, err, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out/other.txt")); err == nil {
		t.Error("the artifact has what was not asked for")
	}
	f, err := os.Open(filepath.Join(r.workspace, ".hurd/run-1/report.html"))
	must(t, err)
	defer func() { _ = f.Close() }()
	page, err := html.Parse(f)
	must(t, err)
	found := map[string]bool{}
	for n := range page.Descendants() {
		for _, word := range []string{"exit status 7", "Copy back", "Copy in", "Script"} {
			if n.Type == html.TextNode && n.Parent.Data != "script" && strings.Contains(n.Data, word) {
				found[word] = true
			}
		}
	}
	if len(found) != 4 {
		t.Errorf("of all words the report has only %v", found)
	}
}

// checkSecrets looks for the secrets in all that is kept and shown.
func (r *resultsRun) checkSecrets() {
	t := r.t
	t.Helper()
	has(t, "the log", r.stdout.String(), "The secret is ***.")
	look := func(what, text string) {
		for _, secret := range []string{namedSecret, runtimeToken} {
			// add-mask tells the runner what it must not show.
			if text = strings.ReplaceAll(text, "::add-mask::"+secret, ""); strings.Contains(text, secret) {
				t.Errorf("%s holds %s", what, secret)
			}
		}
	}
	look("the log", r.stdout.String()+r.stderr.String())
	count := 0
	must(t, filepath.WalkDir(filepath.Join(r.workspace, ".hurd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		count++
		text, err := os.ReadFile(path)
		look(path, string(text))
		return err
	}))
	if count < 8 {
		t.Errorf("only %d files were kept", count)
	}
	for _, file := range r.files {
		text, err := os.ReadFile(file)
		must(t, err)
		look(file, string(text))
	}
}
