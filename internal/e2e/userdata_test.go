package e2e

import (
	"strings"
	"testing"
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
	}{
		{"commands", "#cloud-config\nruncmd:\n- echo first\n- systemctl start nosuch\n- 'false'\n- echo last\n", []string{
			"first\n", "last\n", "runcmd[1]: systemctl start nosuch: exit status 5", "runcmd[2]: false: exit status 1", "no /etc/init.d/nosuch", "no systemd",
		}, "THE SCRIPT"},
		{"a shell that ends", "#cloud-config\nruncmd: [exit 3, echo NEVER]\n", []string{"it ended the shell of all commands, with status 3; 1 more were not run"}, "NEVER\n"},
		{"packages", "#cloud-config\npackages: [hello]\nruncmd: [echo NEVER]\n", []string{"package_update: package lists", "the guest has no apt-get"}, "NEVER\n"},
		{"a script", "#!/bin/sh -e\necho ran\nfalse\n", []string{"ran\n", "user-data: the script ended with status 1"}, "THE SCRIPT"},
		{"a kind of cloud-init's own", "#include\nhttps://example.org/x\n", []string{"a list of addresses (#include), which is carried out by cloud-init only"}, "QEMU runs as"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, setup{action: true, env: []string{
				"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_USER-DATA=" + tc.data, "INPUT_RUN=echo THE SCRIPT",
			}})
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
