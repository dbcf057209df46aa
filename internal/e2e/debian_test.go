package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/cloudinit"
)

// prepareDebian makes an archive with one package, and a service, in a Debian
// without a network.
const prepareDebian = `set -e
mkdir -p /repo/tree/DEBIAN /repo/tree/usr/bin
printf 'Package: greeter\nVersion: 1.2\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a test\n' >/repo/tree/DEBIAN/control
printf '#!/bin/sh\necho greetings\n' >/repo/tree/usr/bin/greet
chmod 755 /repo/tree/usr/bin/greet
cd /repo
dpkg-deb --root-owner-group -b tree greeter.deb >/dev/null
{ cat tree/DEBIAN/control; echo "Filename: ./greeter.deb"; echo "Size: $(stat -c %s greeter.deb)"; echo "SHA256: $(sha256sum greeter.deb | cut -d ' ' -f 1)"; echo; } >Packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
mkdir -p /etc/init.d
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: demo\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop:\n### END INIT INFO\necho "demo $1" >>/var/log/demo\n' >/etc/init.d/demo
chmod 755 /etc/init.d/demo
`

// debianUserData is the guide's example, with a package and a service of the
// archive above, and some things more.
const debianUserData = `#cloud-config
users:
  - name: ci
    gecos: CI User
    sudo: ALL=(ALL) NOPASSWD:ALL
    groups: [sudo, builders]
    lock_passwd: false
    passwd: $6$rounds=4096$saltsalt$hashedpassword
    shell: /bin/bash
    ssh_authorized_keys:
      - ssh-ed25519 AAAAC3... ci@github-runner
  - name: robot
    uid: 4321
    system: true
    homedir: /srv/robot
    no_user_group: true
    primary_group: builders
  - name: me
    plain_text_passwd: "it's: me"
    lock_passwd: false
package_update: true
package_upgrade: true
packages:
  - greeter
  - [greeter, "1.2"]
timezone: UTC
write_files:
  - {path: /home/ci/todo, content: x, owner: "ci:ci", permissions: "0600", defer: true}
runcmd:
  - systemctl enable demo.service
  - systemctl start demo
  - systemctl disable --now demo
  - echo "Setup complete" > /var/log/cloud-init-done
`

// TestE2EUserDataDebian carries user-data out in a container with Debian's own
// programs, which the selftest guest lacks and a Debian GNU/Hurd has.
func TestE2EUserDataDebian(t *testing.T) {
	image := runtimeImage(t)
	out, err := exec.Command("docker", "run", "--detach", "--rm", "--network", "none", "--entrypoint", "sleep", image, "300").Output()
	if err != nil {
		t.Fatal(err)
	}
	container := strings.TrimSpace(string(out))
	defer func() {
		if out, err := exec.Command("docker", "rm", "--force", container).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	do := func(line string, stdin []byte) (string, error) {
		cmd := exec.Command("docker", "exec", "--interactive", container, "sh", "-c", line)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := do(prepareDebian, nil); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	plan, err := cloudinit.Parse(debianUserData, "", cloudinit.Options{Mark: "MARK"})
	if err != nil || len(plan.Ignored) > 0 {
		t.Fatal(plan.Ignored, err)
	}
	for range 2 { // the second time nothing is new
		for _, s := range plan.Steps {
			line, stdin := s.Line, s.Stdin
			if s.Text != "" {
				line, stdin = "cat >/tmp/script && cd / && sh /tmp/script", []byte(s.Text)
			}
			out, err := do(line, stdin)
			if err != nil {
				t.Errorf("%s: %s: %v: %s", s.Part, s.Title, err, out)
			}
			if n := strings.Count(out, "MARK 0\n"); n != len(s.Commands) {
				t.Errorf("%d of %d commands succeeded: %s", n, len(s.Commands), out)
			}
		}
	}
	for _, tc := range []struct{ line, want string }{
		{"getent passwd ci robot me | cut -d : -f 1,3,5-", "ci:1000:CI User:/home/ci:/bin/bash\nrobot:4321::/srv/robot:/bin/sh\nme:4322::/home/me:/bin/sh\n"},
		{"id -nG ci; id -nG robot", "ci sudo builders\nbuilders\n"},
		{"getent shadow ci robot | cut -d : -f 1,2; getent shadow me | cut -c 1-6", "ci:$6$rounds=4096$saltsalt$hashedpassword\nrobot:*\nme:$y$\n"},
		{"cat /etc/sudoers.d/90-cloud-init-users; stat -c %a /etc/sudoers.d/90-cloud-init-users", "ci ALL=(ALL) NOPASSWD:ALL\n440\n"},
		{"cat ~ci/.ssh/authorized_keys; stat -c '%a %U:%G' ~ci ~ci/.ssh ~ci/.ssh/authorized_keys ~ci/todo", "ssh-ed25519 AAAAC3... ci@github-runner\n700 ci:ci\n700 ci:ci\n600 ci:ci\n600 ci:ci\n"},
		{"ls -A ~ci | grep -c bashrc; test -e /srv/robot || echo no home", "1\nno home\n"},
		{"greet; cat /var/log/cloud-init-done; cat /var/log/demo", "greetings\nSetup complete\ndemo start\ndemo stop\ndemo start\ndemo stop\n"},
		{"ls /etc/rc3.d", "K01demo\n"},
	} {
		if out, err := do(tc.line, nil); err != nil || out != tc.want {
			t.Errorf("%s: %v: %q, want %q", tc.line, err, out, tc.want)
		}
	}
}
