package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/provision"
)

// TestUserDataWay holds who takes user-data: cloud-init from a seed disk, or we.
func TestUserDataWay(t *testing.T) {
	with, without := &provision.Guest{CloudInit: true}, &provision.Guest{}
	for name, tc := range map[string]struct {
		method provision.Method
		guest  *provision.Guest
		data   string
		seed   bool
		steps  int
	}{
		"cloud-init, our keys in the disk": {provision.MethodExt2, with, "#cloud-config\nhostname: a\n", true, 0},
		"no cloud-init":                    {provision.MethodExt2, without, "#cloud-config\nhostname: a\n", false, 1},
		"console":                          {provision.MethodConsole, without, "#cloud-config\nhostname: a\n", false, 1},
		"console, nothing known":           {provision.MethodConsole, nil, "#cloud-config\nhostname: a\n", false, 1},
		"keys given, with cloud-init":      {provision.MethodNone, with, "#cloud-config\nhostname: a\n", false, 1},
		"a seed, whatever is there":        {provision.MethodNoCloud, without, "#cloud-config\nhostname: a\n", true, 0},
		"a seed for the keys alone":        {provision.MethodNoCloud, nil, "", true, 0},
		"nothing to do":                    {provision.MethodExt2, with, "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newRun()
			r.dir = t.TempDir()
			r.config.UserData, r.config.SSHUser = tc.data, "root"
			r.disk.manifest.Method, r.disk.manifest.Guest = tc.method, tc.guest
			host, err := newKey("host")
			if err != nil {
				t.Fatal(err)
			}
			r.keys.host, r.keys.login = host.Private(), "ssh-ed25519 AAAA x"
			if err := r.makeSeed(); err != nil {
				t.Fatal(err)
			}
			_, err = os.Stat(filepath.Join(r.dir, "seed.iso"))
			if got := err == nil && r.seed != ""; got != tc.seed || len(r.userData.plan.Steps) != tc.steps {
				t.Errorf("seed %t, want %t; %d steps, want %d", got, tc.seed, len(r.userData.plan.Steps), tc.steps)
			}
		})
	}
}

// TestUserDataInput holds that all mistakes are found before the boot, and that
// what is not done is said.
func TestUserDataInput(t *testing.T) {
	r, out := newRun()
	r.config.UserData = "#cloud-config\ntimezone: '*'\npackages: [';']\n"
	var e *Error
	if err := r.planUserData(); !errors.As(err, &e) || e.Kind != InputInvalid || len(separate(e.Err)) != 2 {
		t.Errorf("error %v", err)
	}
	for _, p := range separate(e.Err) {
		if !strings.HasPrefix(p.Error(), "user-data: ") {
			t.Errorf("problem %q", p)
		}
	}
	r.config.UserData = "#include\n"
	if err := r.planUserData(); !errors.As(err, &e) || strings.Count(e.Error(), "user-data: ") != 1 {
		t.Errorf("error %v", err)
	}
	r.config.UserData, r.config.MetaData = "#cloud-config\nhostname: a\nntp: {}\n", "x: y\n"
	if err := r.planUserData(); err != nil || !strings.Contains(out.String(), "ntp, x (") || !strings.Contains(out.String(), "over SSH, before the script") {
		t.Errorf("%v, log %q", err, out)
	}
}
