package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/ext2"
)

// userData asks a guest without cloud-init for one thing of each kind that can
// be had without a network. The last commands show what the others left.
const userData = `#cloud-config
hostname: configured
users:
  - name: ci
    gecos: CI User
    sudo: ALL=(ALL) NOPASSWD:ALL
    groups: [builders]
    lock_passwd: false
    passwd: $6$salt$hash
    ssh_authorized_keys:
      - ssh-ed25519 FOR-CI ci@runner
  - name: demo
    groups: builders
ssh_authorized_keys:
  - ssh-ed25519 FOR-ROOT
write_files:
  - path: /opt/tool/greet
    encoding: b64
    content: IyEvYmluL3NoCmVjaG8gImhlbGxvIGZyb20gJChpZCAtdW4pIgo=
    permissions: '0755'
  - path: /opt/tool/owned
    content: mine
    owner: ci
    permissions: '0400'
    defer: true
runcmd:
  - exec 2>&1
  - cd /opt/tool
  - [printf, '%s|', "it's", $HOME]
  - pwd
ntp: {enabled: true}
`

// TestE2EUserData carries user-data out for a guest without cloud-init, before
// the script runs.
func TestE2EUserData(t *testing.T) {
	needGuest(t)
	p := start(t, setup{args: []string{"run", "--image=selftest", "--accel=tcg", "--memory=512", "--user-data", userData, "--", "sh", "-ec", `
hostname
su ci -c '/opt/tool/greet; id -nG; cat /opt/tool/owned; echo; cat ~/.ssh/authorized_keys'
stat -c '%a %U:%G' /home/ci /home/ci/.ssh /home/ci/.ssh/authorized_keys /opt/tool/greet /opt/tool/owned /etc/sudoers.d/90-cloud-init-users
cat /etc/sudoers.d/90-cloud-init-users
id -nG demo
grep -E '^(ci|demo):' /etc/shadow | cut -d: -f1,2
grep -c FOR-ROOT /root/.ssh/authorized_keys
ls -d /tmp/hurd-qemu-action.* | wc -l`}})
	if status := p.wait(); status != 0 {
		t.Errorf("exit status = %d", status)
	}
	want := `configured
hello from ci
ci builders
mine
ssh-ed25519 FOR-CI ci@runner
755 ci:ci
700 ci:ci
600 ci:ci
755 root:root
400 ci:root
440 root:root
ci ALL=(ALL) NOPASSWD:ALL
demo builders
demo:*
ci:$6$salt$hash
1
1
`
	if p.stdout.String() != want {
		t.Errorf("stdout = %q, want %q", p.stdout, want)
	}
	has(t, "stderr", p.stderr.String(), "it's|$HOME|\n", "\n/opt/tool\n", "No cloud-init in the guest: user-data is carried out over SSH", "Parts of user-data are not used", "ntp",
		"write_files[0]: /opt/tool/greet, ", "users[0]: user ci in builders: done after", "ssh_authorized_keys: 1 key for root: done after",
		"hostname: host name configured: done after", "runcmd[1]: cd /opt/tool: done after", "User data: ")
}

// TestE2EUserDataFails runs all commands, and then no script: what was asked
// for is not there. The advice is for the kind of guest.
func TestE2EUserDataFails(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		name, data string
		says       []string
		not        string
		env        []string
	}{
		{"commands", "#cloud-config\nruncmd:\n- echo first\n- systemctl start nosuch\n- 'false'\n- echo last\n", []string{
			"first\n", "last\n", "runcmd[1]: systemctl start nosuch: exit status 5", "runcmd[2]: false: exit status 1", "no /etc/init.d/nosuch", "no systemd",
		}, "THE SCRIPT", nil},
		{"a shell that ends", "#cloud-config\nruncmd: [exit 3, echo NEVER]\n", []string{"it ended the shell of all commands, with status 3; 1 more were not run"}, "NEVER\n", nil},
		{"packages", "#cloud-config\npackages: [hello]\nruncmd: [echo NEVER]\n", []string{"package_update: package lists", "the guest has no apt-get"}, "NEVER\n", nil},
		{"a script", "#!/bin/sh -e\necho ran\nfalse\n", []string{"ran\n", "user-data: the script ended with status 1"}, "THE SCRIPT", nil},
		{"a kind of cloud-init's own", "#include\nhttps://example.org/x\n", []string{"a list of addresses (#include), which is carried out by cloud-init only"}, "QEMU runs as", nil},
		{"a user who is not root", "#cloud-config\nhostname: x\n", []string{"demo is not root in the guest and may not use sudo without a password"}, "THE SCRIPT", []string{"INPUT_SSH-USER=demo"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, setup{action: true, env: append([]string{
				"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_USER-DATA=" + tc.data, "INPUT_RUN=echo THE SCRIPT",
			}, tc.env...)})
			if status := p.wait(); status != 125 {
				t.Errorf("exit status = %d, want 125", status)
			}
			if got := p.outputs()["result"]; got != "input-invalid" {
				t.Errorf("result = %q", got)
			}
			log := p.stdout.String()
			has(t, "the log", log, append(tc.says, "::error title=")...)
			if strings.Contains(log, tc.not) {
				t.Errorf("the log holds %q", tc.not)
			}
		})
	}
}

// cloudInitDisk is the selftest guest with a stand-in for cloud-init's program.
func cloudInitDisk(t *testing.T, program string) string {
	t.Helper()
	raw := selftestDisk(t)
	editDisk(t, raw, func(_ *ext2.FS, batch *ext2.Batch) error {
		return batch.WriteFile("/usr/bin/cloud-init", []byte(program), ext2.Attr{Mode: 0o755})
	})
	return raw
}

// TestE2ECloudInit gives a guest with cloud-init its user-data on a seed disk,
// on which the guest's own client finds it, and waits until that is done.
func TestE2ECloudInit(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		exit, status   int
		result, stdout string
		says           []string
	}{
		{0, 0, "success", "seeded\n/tmp/waited\n", nil},
		{1, 125, "input-invalid", "", []string{"cloud-init in the guest reports an error", "cloud-init-output.log"}},
		{2, 0, "success", "seeded\n/tmp/waited\n", []string{"::warning title=user-data was carried out with errors"}},
	} {
		t.Run(fmt.Sprint("exit ", tc.exit), func(t *testing.T) {
			t.Parallel()
			disk := cloudInitDisk(t, fmt.Sprintf("#!/bin/sh\ntest \"$*\" = 'status --wait' && sleep 1 && >/tmp/waited\nexit %d\n", tc.exit))
			p := start(t, setup{action: true, env: []string{
				"INPUT_IMAGE=" + disk, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_USER-DATA=#cloud-config\nhostname: seeded\n", "INPUT_RUN=hostname; ls /tmp/waited",
			}})
			if status := p.wait(); status != tc.status {
				t.Errorf("exit status = %d, want %d", status, tc.status)
			}
			log := p.stdout.String()
			if got := p.outputs()["result"]; got != tc.result || !strings.Contains(log, tc.stdout) {
				t.Errorf("result = %q, want %q; and %q in\n%s", got, tc.result, tc.stdout, log)
			}
			has(t, "the log", log, append(tc.says, "user-data reaches its cloud-init on a seed disk")...)
		})
	}
}
