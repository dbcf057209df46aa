package selftest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const guestFiles = "../../testdata/selftest/guest/root"

// need returns a program's path, and skips or fails the test without it.
func need(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatalf("%s is missing (apt-get install %s), and E2E_REQUIRED=1", name, debianPackage)
	}
	if err != nil {
		t.Skipf("%s is missing: apt-get install %s", name, debianPackage)
	}
	return path
}

// readCloudConfig gives what the guest's NoCloud client understands of a
// cloud-config: the files that its parser leaves, by name.
func readCloudConfig(t *testing.T, text string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(need(t, "busybox", "busybox-static"), "awk", "-v", "dir="+dir,
		"-f", filepath.Join(guestFiles, "etc/init.d/cloud-config.awk"))
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("awk: %v\n%s", err, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func TestCloudConfig(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[string]string
	}{
		{"nothing", "#cloud-config\n# to do\n---\n", map[string]string{}},
		{"keys", "ssh_authorized_keys:\n  - ssh-ed25519 AAAA a@b\n  - 'ssh-rsa BBBB it''s'\n  - \"ssh-rsa CCCC \\\"q\\\"\"\n",
			map[string]string{"keys.root": "ssh-ed25519 AAAA a@b\nssh-rsa BBBB it's\nssh-rsa CCCC \"q\"\n"}},
		{"a list as far out as its key", "ssh_authorized_keys:\n- ssh-ed25519 AAAA\nhostname: h # why\n",
			map[string]string{"keys.root": "ssh-ed25519 AAAA\n", "hostname": "h\n"}},
		{"a folded line", "ssh_authorized_keys:\n- ssh-ed25519 AAAA\n  a comment\n",
			map[string]string{"keys.root": "ssh-ed25519 AAAA a comment\n"}},
		{"users, with the name after the keys", `users:
  - default
  - name: demo
    ssh_authorized_keys: 
      - ssh-ed25519 DEMO
  - ssh_authorized_keys:
    - ssh-ed25519 ROOT
    - ssh-ed25519 ROOT2
    name: root
`, map[string]string{"keys.demo": "ssh-ed25519 DEMO\n", "keys.root": "ssh-ed25519 ROOT\nssh-ed25519 ROOT2\n", "ignored": "users: default\n"}},
		{"a host key", `ssh_keys:
  ed25519_private: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    b3Bl#c=

    x: y
    -----END OPENSSH PRIVATE KEY-----
  ed25519_public: ssh-ed25519 PUB
  rsa_private: no
hostname: after
`, map[string]string{
			"ed25519_private": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl#c=\n\nx: y\n-----END OPENSSH PRIVATE KEY-----\n",
			"ed25519_public":  "ssh-ed25519 PUB\n", "hostname": "after\n", "ignored": "ssh_keys: rsa_private\n"}},
		{"commands", "runcmd:\n- echo hello > /tmp/x\n- \"echo \\\"q\\\" # said\"\n- [ls, -l]\n- |\n  two\n  lines\n",
			map[string]string{"runcmd": "echo hello > /tmp/x\necho \"q\" # said\n",
				"ignored": "runcmd: only lists and mappings of one line per entry are understood\nruncmd: an entry that is not one line of text\n"}},
		{"what it does not know is said once", "disable_root: false\npackages:\n- a\n- b\nwrite_files:\n- path: /x\n  content: |\n    hostname: no\n",
			map[string]string{"ignored": "disable_root\npackages\nwrite_files\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, readCloudConfig(t, tc.text)); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
		})
	}
}
