package guest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stranger is a user of this host that is no person: no test makes one.
const stranger = "nobody"

// asRoot skips where nobody can become somebody else, and lets everybody into
// the server's directory for temporary files.
func asRoot(t *testing.T, s *sshServer) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	needed(t, "su")
	u, err := user.Lookup(stranger)
	if err != nil {
		t.Skipf("this host has no user %s", stranger)
	}
	dir, err := os.MkdirTemp("/tmp", "guest-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(dir + "/hurd-qemu-action.*"); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "TMPDIR="+dir)
	return u
}

// strangerCases are run as another user: one of each kind.
func strangerCases() []scriptCase {
	var cases []scriptCase
	for _, tc := range scriptCases() {
		switch tc.name {
		case "output", "stdin is empty", "quoting", "exit 7", "exit 255", "exits with 137 by itself", "exits with the status of a killed child", "signal 2", "signal 9", "signal 15":
			tc.user = stranger
			cases = append(cases, tc)
		}
	}
	return cases
}

// TestRunScriptUser runs the cases as another user: ends, signals and output
// are those of a script that one's own user runs.
func TestRunScriptUser(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			u := asRoot(t, s)
			s.hurd = true
			c := dialed(t, s.listen())
			for _, tc := range strangerCases() {
				t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
			}
			t.Run("identity", func(t *testing.T) {
				var out bytes.Buffer
				text := `echo $(id -u) $(id -g) "$HOME" "$USER" "$LOGNAME" "${SSH_CLIENT-none}" "$X" $(pwd)
stat -c '%U %a' "$0" "$D" "$D/output"
case :$PATH: in *sbin*) echo sbin ;; esac
d=$(dirname "$0"); echo forged >"$d/run.sh" || rm "$d/stop.sh" || mv "$d/status" "$d/x" || echo kept
echo a=b >"$D/output"
sed -i s/b/c/ "$D/output"`
				r, err := c.RunScript(t.Context(), Script{
					Text: text, User: stranger, Shell: "sh {0}", Dir: "/", Env: []byte(`export X=1 D="$hurd_files"`), Files: []File{{Name: "output", Collect: 100}},
				}, &out, nil)
				want := strings.Join([]string{u.Uid, u.Gid, u.HomeDir, stranger, stranger, "none 1 /"}, " ") + "\nnobody 700\nnobody 700\nnobody 600\nkept\n"
				if err != nil || r.Status != 0 || out.String() != want {
					t.Errorf("%+v, %v\ngot  %q\nwant %q", r, err, &out, want)
				}
				if diff := cmp.Diff(map[string]Collected{"output": {[]byte("a=c\n"), 4}}, r.Files); diff != "" {
					t.Error(diff)
				}
			})
			t.Run("directory", func(t *testing.T) {
				_, err := c.RunScript(t.Context(), Script{Text: "pwd", User: stranger, Dir: s.dir}, nil, nil)
				if !errors.As(err, new(*DirError)) {
					t.Errorf("in a directory of root's: %v", err)
				}
			})
			t.Run("own name", func(t *testing.T) {
				var out bytes.Buffer
				if _, err := c.RunScript(t.Context(), Script{Text: "id -u", User: "root"}, &out, nil); err != nil || out.String() != "0\n" {
					t.Errorf("%q, %v", &out, err)
				}
			})
		})
	}
}

// TestRunScriptUserStopped ends scripts of another user.
func TestRunScriptUserStopped(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			asRoot(t, s)
			dir, err := os.MkdirTemp("/tmp", "guest-user-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
			text := "cd '" + dir + "'\nexec 9>fifo\nsleep 1000 &\n(sleep 1000; sleep 1000) &\nsh -c 'trap \"\" TERM; echo started; sleep 1000; sleep 1000'"
			stoppedAs(t, dialed(t, s.listen()), dir, text, stranger)
		})
	}
}

// TestRunScriptUserLink: what root collects for a user is only what the user has.
func TestRunScriptUserLink(t *testing.T) {
	s := newServer(t)
	asRoot(t, s)
	c := dialed(t, s.listen())
	secret := filepath.Join(s.dir, "root-only")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := c.RunScript(t.Context(), Script{
		Text: "rm \"$F\" && ln -s " + secret + " \"$F\"", User: stranger, Env: []byte(`export F="$hurd_files/output"`), Files: []File{{Name: "output", Collect: 100}},
	}, nil, nil)
	if err != nil || r.Status != 0 || len(r.Files) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestRunScriptUserRefused checks the words of what can't be done.
func TestRunScriptUserRefused(t *testing.T) {
	for name, tc := range map[string]struct{ user, programs, why string }{
		"no such user": {"no-such-user", "", "there is no such user"},
		"no root":      {stranger, `id) case $1 in -un) echo alice ;; *) echo 1000 ;; esac ;;`, "only root can run it as another user, and the login is alice"},
		"su fails":     {stranger, `su) echo "su: no" >&2; exit 4 ;;`, "su ended with status 4 and has not started it"},
		"no name":      {"-x", "", "that is no name of a user: letters, digits, _, - and dots, beginning with a letter or _, 32 at most"},
		"two words":    {"a b", "", "that is no name of a user: letters, digits, _, - and dots, beginning with a letter or _, 32 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			fakePrograms(t, s, tc.programs)
			c := dialed(t, s.listen())
			if os.Getuid() != 0 && !strings.Contains(tc.programs, "id)") && tc.user[0] != '-' && !strings.Contains(tc.user, " ") {
				t.Skip("only root gets as far as this")
			}
			_, err := c.RunScript(t.Context(), Script{Text: "exit 0", User: tc.user}, nil, nil)
			var refused *UserError
			if !errors.As(err, &refused) || refused.Why != tc.why || refused.User != tc.user {
				t.Fatalf("err = %v", err)
			}
		})
	}
	err := &UserError{User: "x", Why: "there is no such user"}
	want := `the script can't run as user "x": there is no such user (log in as root, who can make and become any user, or as that user itself, or have the user made in the image)`
	if err.Error() != want {
		t.Errorf("err = %v", err)
	}
}

// fakePrograms puts programs before those of a server, each a branch of a shell
// case: what the guest does is decided there and nothing happens to this host.
func fakePrograms(t *testing.T, s *sshServer, branches string) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"id", "su", "useradd", "adduser", "getent"} {
		if strings.Contains(branches, name+")") {
			writeProgram(t, filepath.Join(bin, name), "#!/bin/sh\nexec 2>&1\ncase ${0##*/} in\n"+branches+"\nesac\n")
		}
	}
	link(t, needed(t, "dash"), filepath.Join(bin, "sh"))
	s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
}

// users is a guest with a file of users; what makes users there is given.
func users(dir, uid, make string) string {
	return `id)
	case $1$2 in
	-u) echo ` + uid + ` ;;
	-un) echo me ;;
	*) grep -q "^$2:" ` + dir + `/passwd || exit 1; echo 1234 ;;
	esac ;;
getent) grep "^$2:" ` + dir + `/passwd ;;
` + strings.ReplaceAll(make, "MAKE", `for u; do :; done; echo "$u:x:1234:1234::/home/$u:/bin/bash" >>`+dir+`/passwd`)
}

func TestEnsureUser(t *testing.T) {
	for _, tc := range []struct {
		name, passwd, uid, make string
		want                    User
		why                     string
	}{
		{name: "there already", passwd: "builder:x:1234:1234:a,b:/srv/the builder:/bin/sh\n", uid: "1000", want: User{"builder", 1234, 1234, "/srv/the builder", false}},
		{name: "another one is there", passwd: "builderx:x:1:1::/:/bin/sh\n", uid: "0", make: "useradd) MAKE ;;", want: User{"builder", 1234, 1234, "/home/builder", true}},
		{name: "useradd", uid: "0", make: `useradd) test "$1 $2" = "-m -s" || exit 2; MAKE ;;`, want: User{"builder", 1234, 1234, "/home/builder", true}},
		{name: "useradd fails", uid: "0", make: `useradd) echo "useradd: cannot lock /etc/passwd;"; echo "try again later."; exit 1 ;;`, why: "it could not be made: useradd: cannot lock /etc/passwd; try again later."},
		{name: "useradd says yes and does not", uid: "0", make: `useradd) exit 0 ;;`, why: "it could not be made: "},
		{name: "not root", uid: "1000", make: "useradd) MAKE ;;", why: "there is no such user, and me can't make one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			if err := os.WriteFile(filepath.Join(s.dir, "passwd"), []byte(tc.passwd), 0o600); err != nil {
				t.Fatal(err)
			}
			fakePrograms(t, s, users(s.dir, tc.uid, tc.make))
			checkEnsureUser(t, dialed(t, s.listen()), tc.want, tc.why)
		})
	}
}

// TestEnsureUserWithoutUseradd has adduser only, busybox's or Debian's.
func TestEnsureUserWithoutUseradd(t *testing.T) {
	made := User{"builder", 1234, 1234, "/home/builder", true}
	for _, tc := range []struct {
		name, make string
		want       User
		why        string
	}{
		{name: "busybox", make: `adduser) test "$1" = -D || exit 1; MAKE ;;`, want: made},
		{name: "debian", make: `adduser) test "$1" = --disabled-password || exit 1; MAKE ;;`, want: made},
		{name: "another option", make: `adduser) echo "adduser: $1?"; exit 1 ;;`, why: "it could not be made: adduser: --disabled-password?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			fakePrograms(t, s, users(s.dir, "0", tc.make))
			bin := strings.Split(strings.TrimPrefix(s.env[0], "PATH="), ":")[0]
			link(t, needed(t, "grep"), filepath.Join(bin, "grep"))
			s.env[0] = "PATH=" + bin
			if err := os.WriteFile(filepath.Join(s.dir, "passwd"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			checkEnsureUser(t, dialedBare(t, s), tc.want, tc.why)
		})
	}
}

// TestEnsureUserReally makes users, with useradd and without, in a copy of /etc
// that only the commands of the server see.
func TestEnsureUserReally(t *testing.T) {
	for _, tool := range []string{"useradd", "no tool"} {
		t.Run(tool, func(t *testing.T) {
			s := newServer(t)
			asRoot(t, s)
			unshare := privateMounts(t)
			copied := t.TempDir()
			for _, dir := range []string{"etc", "home"} {
				if err := os.Mkdir(filepath.Join(copied, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("cp", "-a", "/etc/.", filepath.Join(copied, "etc")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			path := "/usr/sbin:/usr/bin:/sbin:/bin"
			if tool == "useradd" {
				needed(t, "useradd")
			} else {
				path = withoutSetsid(t)
			}
			bin := t.TempDir()
			writeProgram(t, bin+"/sh", "#!/bin/sh\nexec "+unshare+` -m /bin/sh -c 'mount --bind "$0/etc" /etc && mount --bind "$0/home" /home && PATH=`+path+
				` && export PATH && exec /bin/sh "$@"' '`+copied+`' "$@"`+"\n")
			s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
			c := dialed(t, s.listen())
			u, err := c.EnsureUser(t.Context(), "hqa-builder")
			if err != nil || !u.Created || u.Home != "/home/hqa-builder" || u.UID < 1000 {
				t.Fatalf("%+v, %v", u, err)
			}
			again, err := c.EnsureUser(t.Context(), "hqa-builder")
			if u.Created = false; err != nil || again != u {
				t.Errorf("asked again: %+v, %v", again, err)
			}
			var out bytes.Buffer
			text := "id -un; id -gn; pwd; touch here; echo $SHELL"
			if _, err := c.RunScript(t.Context(), Script{Text: text, User: u.Name}, &out, nil); err != nil || !strings.HasPrefix(out.String(), "hqa-builder\nhqa-builder\n/home/hqa-builder\n/") {
				t.Errorf("%q, %v", &out, err)
			}
			if _, err := user.Lookup("hqa-builder"); err == nil {
				t.Fatal("this host has the user now")
			}
		})
	}
}

// dialedBare dials a server whose commands have no uname.
func dialedBare(t *testing.T, s *sshServer) *Client {
	s.hello("uname bare\ntmp " + s.dir + "\n")
	return dialed(t, s.listen())
}

func checkEnsureUser(t *testing.T, c *Client, want User, why string) {
	t.Helper()
	u, err := c.EnsureUser(t.Context(), "builder")
	var refused *UserError
	if why == "" && err != nil || why != "" && (!errors.As(err, &refused) || !strings.HasPrefix(refused.Why, why)) {
		t.Errorf("err = %v, want %q", err, why)
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
}

func TestEnsureUserHostile(t *testing.T) {
	s := newServer(t)
	answer := ""
	s.command = func(line string, ch sshChannel) (uint32, bool) {
		if !strings.Contains(line, "useradd") {
			return 0, false
		}
		_, _ = ch.Write([]byte(answer))
		return 0, true
	}
	c := dialed(t, s.listen())
	for _, answer = range []string{"", "user\n", "user 1 2\n", "user -1 2 created /\n", "user 1 2 created home\n", "user x 2 created /\n", "user 99999999999999999999 2 created /x\n", strings.Repeat("x", 1<<20)} {
		if u, err := c.EnsureUser(t.Context(), "builder"); err == nil || len(err.Error()) > 12<<10 {
			t.Errorf("%.40q: %+v", answer, u)
		}
	}
	for _, name := range []string{"", "-x", "a b", "a;b", "$(x)", "1000", strings.Repeat("x", 33)} {
		if _, err := c.EnsureUser(t.Context(), name); !errors.As(err, new(*UserError)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
