package cloudinit

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

// mark stands for the random one of a run.
const mark = "MARK"

// shown writes a plan for people: a script of ours by its name.
func shown(p Plan) string {
	var b strings.Builder
	scripts := map[string]string{
		"write.sh": writeScript, "user.sh": userScript, "sudo.sh": sudoScript, "keys.sh": keysScript,
		"hostname.sh": hostnameScript, "timezone.sh": timezoneScript, "packages.sh": packagesScript,
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s: %s\n", s.Part, s.Title)
		for name, text := range scripts {
			if rest, ok := strings.CutPrefix(s.Line, quoteAll([]string{"sh", "-c", compact(text), "user-data"})); ok {
				fmt.Fprintf(&b, "\t%s%s\n", name, rest)
			}
		}
		for line := range strings.Lines(string(s.Stdin)) {
			fmt.Fprintf(&b, "\t< %s\n", strings.TrimSuffix(line, "\n"))
		}
		for _, c := range s.Commands {
			fmt.Fprintf(&b, "\t- %s\n", c)
		}
		if s.Text != "" {
			text := strings.Replace(s.Text, compact(systemctlScript), "<systemctl.sh>\n", 1)
			fmt.Fprintf(&b, "\t%s:\n\t| %s\n", s.Shell, strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n\t| "))
		}
	}
	for _, part := range p.Ignored {
		fmt.Fprintf(&b, "ignored: %s\n", part)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			part := map[string]string{}
			for _, f := range a.Files {
				part[f.Name] = string(f.Data)
			}
			plan, err := Parse(part["user-data"], part["meta-data"], Options{User: "login", Mark: mark})
			if err != nil {
				t.Fatal(err)
			}
			got := shown(plan)
			if *update {
				a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "plan" })
				a.Files = append(a.Files, txtar.File{Name: "plan", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(part["plan"], got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

// TestNothingSecretOnCommandLines holds that what may be secret is on standard
// input only, and in no title either.
func TestNothingSecretOnCommandLines(t *testing.T) {
	plan, err := Parse(`#cloud-config
users:
  - {name: a, passwd: SECRET}
  - {name: b, hashed_passwd: SECRET}
  - {name: c, plain_text_passwd: SECRET}
write_files:
  - {path: /x, content: SECRET}
  - {path: /y, content: SECRET, append: true}
`, "", Options{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range plan.Steps {
		if strings.Contains(s.Line+s.Title+s.Part, "SECRET") || !strings.Contains(string(s.Stdin), "SECRET") {
			t.Errorf("%s: line %q, title %q, stdin %q", s.Part, s.Line, s.Title, s.Stdin)
		}
	}
	if len(plan.Steps) != 5 {
		t.Errorf("%d steps", len(plan.Steps))
	}
}

func TestProblems(t *testing.T) {
	config := func(text string) string { return "#cloud-config\n" + text }
	for name, tc := range map[string]struct{ data, want string }{
		"broken YAML":           {config("users: [\n"), "user-data: reading it as YAML: "},
		"a list at the top":     {config("- a\n"), "its top level is no mapping"},
		"users as a mapping":    {config("users: {a: b}\n"), "users: is no list"},
		"a user that is a list": {config("users: [[a]]\n"), "users[0]: is neither a name"},
		"a user without a name": {config("users: [{gecos: x}]\n"), `users[0].name: "" is no user's name`},
		"an option as a name":   {config("users: [-rf]\n"), `users[0].name: "-rf"`},
		"a name of two lines":   {config("users: [\"a\\nroot\"]\n"), "users[0].name"},
		"a colon in gecos":      {config("users: [{name: a, gecos: 'x:0:0'}]\n"), "users[0].gecos"},
		"a relative home":       {config("users: [{name: a, homedir: x}]\n"), "users[0].homedir"},
		"a shell of two fields": {config("users: [{name: a, shell: '/bin/sh:x'}]\n"), "users[0].shell"},
		"a group of two words":  {config("users: [{name: a, groups: [a b]}]\n"), "users[0].groups"},
		"a uid in words":        {config("users: [{name: a, uid: many}]\n"), "users[0].uid"},
		"two passwords":         {config("users: [{name: a, passwd: x, plain_text_passwd: y}]\n"), "users[0].plain_text_passwd: is a second password"},
		"a hash with a colon":   {config("users: [{name: a, passwd: 'x:y'}]\n"), "users[0].passwd"},
		"a flag in words":       {config("users: [{name: a, system: maybe}]\n"), `users[0].system: "maybe" is neither`},
		"a key of two lines":    {config("ssh_authorized_keys: [\"a\\nb\"]\n"), "ssh_authorized_keys[0]: has more than one line"},
		"a key that is a list":  {config("ssh_authorized_keys: [[a]]\n"), "ssh_authorized_keys[0]: is no text"},
		"a rule of two lines":   {config("users: [{name: a, sudo: \"x\\nroot ALL\"}]\n"), "users[0].sudo[0]"},
		"a file without a path": {config("write_files: [{content: x}]\n"), "write_files[0].path"},
		"a relative file":       {config("write_files: [{path: etc/x}]\n"), "write_files[0].path"},
		"a directory":           {config("write_files: [{path: /etc/}]\n"), "write_files[0].path"},
		"a file that is a text": {config("write_files: [/etc/x]\n"), "write_files[0]: is no mapping"},
		"a mode in letters":     {config("write_files: [{path: /x, permissions: u=rw}]\n"), "write_files[0].permissions"},
		"an owner with a blank": {config("write_files: [{path: /x, owner: -R root}]\n"), "write_files[0].owner"},
		"an unknown encoding":   {config("write_files: [{path: /x, encoding: rot13}]\n"), "write_files[0].content: encoding: \"rot13\" is not known"},
		"broken base64":         {config("write_files: [{path: /x, encoding: b64, content: '?'}]\n"), "decoding base64"},
		"broken gzip":           {config("write_files: [{path: /x, encoding: gz+b64, content: eHh4}]\n"), "unpacking gzip"},
		"a package as option":   {config("packages: [--purge]\n"), "packages[0]"},
		"three words":           {config("packages: [[a, b, c]]\n"), "packages[0]"},
		"a package in shell":    {config("packages: ['a; rm']\n"), "packages[0]"},
		"a host name":           {config("hostname: a_b\n"), "hostname: \"a_b\" is no host name"},
		"a zone outside":        {config("timezone: ../../etc/passwd\n"), "timezone"},
		"runcmd as a text":      {config("runcmd: echo hi\n"), "runcmd: is no list"},
		"a mapping as command":  {config("runcmd:\n- echo a: b\n"), "put the command into quotes"},
		"an empty command":      {config("runcmd: ['']\n"), "runcmd[0]: is no command"},
		"an argument as a list": {config("runcmd: [[echo, [a]]]\n"), "runcmd[0]: has an argument"},
		"no program":            {config("bootcmd: [[]]\n"), "bootcmd[0]"},
		"MIME":                  {"Content-Type: multipart/mixed; boundary=x\n\n", "a MIME message, which is carried out by cloud-init only"},
		"#include":              {"#include\nhttps://example.org\n", "a list of addresses"},
		"a template":            {"## template: jinja\n#cloud-config\n", "a Jinja template"},
		"compressed":            {"\x1f\x8b\x08", "compressed"},
		"a boothook":            {"#cloud-boothook\n", "a boothook"},
		"something else":        {"packages: [x]\n", "its first line is neither #cloud-config nor #!"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tc.data, "", Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q in it", err, tc.want)
			}
			if foreign := !strings.HasPrefix(tc.data, "#cloud-config\n"); errors.Is(err, ErrUnsupported) != foreign {
				t.Errorf("ErrUnsupported: %v, want %v", !foreign, foreign)
			}
		})
	}
	_, err := Parse("#cloud-config\nhostname: ' '\ntimezone: '*'\n", "[", Options{})
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != 3 {
		t.Errorf("%d problems, want all 3 at once: %v", n, err)
	}
}

// TestAliases holds that YAML's anchors are followed and cannot grow.
func TestAliases(t *testing.T) {
	plan, err := Parse("#cloud-config\nx: &k [ssh-ed25519 K]\nssh_authorized_keys: *k\n", "", Options{})
	if err != nil || len(plan.Steps) != 1 || string(plan.Steps[0].Stdin) != "ssh-ed25519 K\n" || !slices.Equal(plan.Ignored, []string{"x"}) {
		t.Errorf("%+v, %v", plan, err)
	}
	bomb := "#cloud-config\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	if _, err := Parse(bomb+"packages: *j\n", "", Options{}); err == nil {
		t.Error("a bomb of aliases is a list of packages")
	}
}

// FuzzParse holds that any user-data gives a plan or an error, and that every
// step of a plan can be carried out and reported in one line.
func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(a.Files[0].Data), "local-hostname: a\n")
	}
	f.Fuzz(func(t *testing.T, user, meta string) {
		plan, err := Parse(user, meta, Options{Mark: mark})
		if err != nil {
			return
		}
		for _, s := range plan.Steps {
			if (s.Line == "") == (s.Text == "") || s.Part == "" || s.Title == "" || strings.ContainsAny(s.Part+s.Title, "\n\r\x1b") || strings.ContainsRune(s.Line+s.Text, 0) && user[0] != '#' {
				t.Errorf("step %+v", s)
			}
			for _, c := range s.Commands {
				if strings.ContainsAny(c, "\n\r\x1b") {
					t.Errorf("command %q", c)
				}
			}
		}
	})
}
