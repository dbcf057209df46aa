package lifecycle

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

func TestChooseWay(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		sync, user, dir, home string
		runner                bool
		want, why             string
	}{
		{name: "auto", sync: syncAuto, user: "root", dir: "/src/p", home: "/home/me", want: syncDisk, why: "the fastest"},
		{name: "no root", sync: syncAuto, user: "demo", dir: "/src/p", want: syncTar, why: "ssh-user is demo"},
		{name: "at home", sync: syncAuto, user: "root", dir: "/home/me", home: "/home/me", want: syncNone, why: "more than a project"},
		{name: "everything", sync: syncAuto, user: "root", dir: "/", want: syncNone, why: "more than a project"},
		{name: "a runner's home", sync: syncAuto, user: "root", dir: "/home/me", home: "/home/me", runner: true, want: syncDisk, why: "the fastest"},
		{name: "asked for", sync: syncDisk, user: "root", dir: "/home/me", home: "/home/me", want: syncDisk, why: "as asked for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, out := newRun()
			r.Log = actions.New(actions.Options{Stdout: out, Stderr: out, Commands: tc.runner})
			r.config = config.Config{Sync: tc.sync, SSHUser: tc.user, CopyBack: "changed"}
			r.Host.Workspace, r.Host.Home = tc.dir, tc.home
			if problems := r.readWorkspace(); len(problems) > 0 {
				t.Fatal(problems)
			}
			r.chooseWay()
			if c := r.checkout; c.way != tc.want || !strings.Contains(c.why, tc.why) {
				t.Errorf("%s, %q; want %s, %q", c.way, c.why, tc.want, tc.why)
			}
		})
	}
}

// TestWorkspaceProblems reports everything that is wrong at once.
func TestWorkspaceProblems(t *testing.T) {
	r, _ := newRun()
	r.config = config.Config{Sync: syncDisk, SSHUser: "demo", CopyBack: "/etc/*", ArtifactPath: "../x"}
	text := errors.Join(r.readWorkspace()...).Error()
	for _, want := range []string{"copy-back: ", "artifact-path: ", "sync: "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

// TestStreamIn: what the guest gets is dated before the time from which on a
// file counts as changed, and what the script then does is not.
func TestStreamIn(t *testing.T) {
	r, g, _ := newGuest(t, config.Inputs{Sync: syncTar})
	put(t, r.Host.Workspace, map[string]string{"a": "1", ".hurd/run-1/serial.log": "not this"})
	bring(t, r)
	if _, err := os.Stat(filepath.Join(g.dir, ".hurd")); err == nil {
		t.Error("the logs are in the guest")
	}
	if c := r.checkout; !c.in || c.onDisk || c.since.IsZero() || c.since.After(time.Now()) {
		t.Errorf("%+v", c)
	}
	put(t, g.dir, map[string]string{"a": "2"}) // the same size, a second later at least
	if err := os.Chtimes(filepath.Join(g.dir, "a"), time.Time{}, r.checkout.tree.Entries[1].ModTime); err != nil {
		t.Fatal(err)
	}
	r.bringBack(t.Context())
	if got := files(t, r.Host.Workspace)["a"]; got != "2" {
		t.Errorf("a file whose time was set back holds %q", got)
	}
}

// TestStreamInFails: the reader learns what the guest said, and what to do.
func TestStreamInFails(t *testing.T) {
	for login, advice := range map[string]string{"root": "sync: none", "demo": "log in as root"} {
		t.Run(login, func(t *testing.T) {
			r, g, _ := newGuest(t, config.Inputs{Sync: syncTar, SSHUser: login})
			put(t, r.Host.Workspace, map[string]string{"a": strings.Repeat("x", 4<<20)}) // more than any buffer
			g.without(t, "tar", "echo 'no room' >&2; exit 2")
			if _, err := r.packWorkspace(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := r.bringIn(t.Context())
			var e *Error
			if !errors.As(err, &e) || e.Kind != Internal || !strings.Contains(e.Error(), "no room") || !strings.Contains(strings.Join(e.Advice, ""), advice) {
				t.Errorf("%v, %+v", err, e)
			}
			if r.checkout.in {
				t.Error("half a workspace would come back")
			}
		})
	}
}

// TestOwn: giving the files away changes their time of change, which is no change.
func TestOwn(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	r, g, _ := newGuest(t, config.Inputs{})
	put(t, g.dir, map[string]string{"a": "1"})
	r.checkout.user = me.Username
	if err := r.own(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(g.dir, "a"))
	if err != nil || !info.ModTime().Before(r.checkout.since) {
		t.Errorf("made at %v, sent at %v: %v", info.ModTime(), r.checkout.since, err)
	}
	r.checkout.user = "no-such-user"
	if err := r.own(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("err = %v", err)
	}
}

func TestScriptDir(t *testing.T) {
	for _, tc := range []struct {
		dir  string
		in   bool
		want string
	}{
		{"", true, workspace.GuestPath}, {"", false, ""}, {"sub", true, workspace.GuestPath + "/sub"}, {"sub", false, "sub"},
		{"/tmp", true, "/tmp"}, {"/src/p/sub", true, workspace.GuestPath + "/sub"}, {"/src/project", true, "/src/project"},
	} {
		r, _ := newRun()
		r.Host.Workspace, r.config.WorkingDirectory, r.checkout.in = "/src/p", tc.dir, tc.in
		if got := r.scriptDir(); got != tc.want {
			t.Errorf("%q, in the guest: %v: %q, want %q", tc.dir, tc.in, got, tc.want)
		}
	}
}

// TestImageStaysBehind: the disk that the guest runs from is no part of its
// workspace, whatever its name is; another file of that name is.
func TestImageStaysBehind(t *testing.T) {
	for _, name := range []string{"disk.img", "a disk [1]*?.img", `back\slash `} {
		r, _ := newRun()
		dir := t.TempDir()
		put(t, dir, map[string]string{name: "image", filepath.Join("sub", name): "none", "other": "none"})
		r.Host.Workspace, r.config.Image = dir, filepath.Join(dir, name)
		if problems := r.readWorkspace(); len(problems) > 0 {
			t.Fatal(problems)
		}
		if r.checkout.filter.Match(name, false) || !r.checkout.filter.Match("sub/"+name, false) || !r.checkout.filter.Match("other", false) {
			t.Errorf("%q: the pattern is %q", name, r.imagePattern())
		}
	}
	for _, image := range []string{"debian", "/etc/passwd", "https://example.org/x"} {
		r, _ := newRun()
		r.Host.Workspace, r.config.Image = t.TempDir(), image
		if got := r.imagePattern(); got != "" {
			t.Errorf("%s: %q", image, got)
		}
	}
}
