package provision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIncludesDropIns(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  string
		want bool
	}{
		"debian":             {"# a comment\n\nInclude /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin no\n", true},
		"after others":       {"Port 22\nX11Forwarding yes\ninclude \"/etc/ssh/sshd_config.d/*.conf\"\r\n", true},
		"relative":           {"Include sshd_config.d/*.conf", true},
		"two patterns":       {"Include /etc/ssh/a.conf /etc/ssh/sshd_config.d/*", true},
		"second include":     {"Include /etc/ssh/a.conf\nInclude=/etc/ssh/sshd_config.d/*.conf", true},
		"none":               {"Port 22\n", false},
		"commented out":      {"#Include /etc/ssh/sshd_config.d/*.conf\n", false},
		"elsewhere":          {"Include /usr/etc/ssh/sshd_config.d/*.conf\n", false},
		"one file":           {"Include /etc/ssh/sshd_config.d/50-x.conf\n", false},
		"too late":           {"PermitRootLogin no\nInclude /etc/ssh/sshd_config.d/*.conf\n", false},
		"too late, lower":    {"usedns yes\nInclude /etc/ssh/sshd_config.d/*.conf\n", false},
		"for some":           {"Match User x\nInclude /etc/ssh/sshd_config.d/*.conf\n", false},
		"a bad pattern":      {"Include /etc/ssh/sshd_config.d/[\n", false},
		"another's host key": {"HostKey=/x\nInclude /etc/ssh/sshd_config.d/*.conf\n", false},
		"empty":              {"", false},
	} {
		if got := includesDropIns([]byte(tc.cfg)); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSSHDSettings(t *testing.T) {
	const others = "PubkeyAuthentication yes\nPasswordAuthentication no\nUseDNS no\n"
	for name, tc := range map[string]struct{ user, main, want string }{
		"root":              {"root", "", "HostKey " + hostKeyFile + "\nPermitRootLogin prohibit-password\n" + others},
		"another":           {"demo", "", "HostKey " + hostKeyFile + "\n" + others},
		"usual keys":        {"demo", "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2", "HostKey " + hostKeyFile + "\n" + others},
		"usual, long":       {"demo", "AuthorizedKeysFile %h/.ssh/authorized_keys", "HostKey " + hostKeyFile + "\n" + others},
		"keys elsewhere":    {"demo", "authorizedkeysfile /etc/keys/%u", "HostKey " + hostKeyFile + "\n" + others + "AuthorizedKeysFile .ssh/authorized_keys /etc/keys/%u\n"},
		"no keys":           {"demo", "AuthorizedKeysFile none", "HostKey " + hostKeyFile + "\n" + others + "AuthorizedKeysFile .ssh/authorized_keys\n"},
		"keys of the match": {"demo", "Match User x\nAuthorizedKeysFile none", "HostKey " + hostKeyFile + "\n" + others},
	} {
		if diff := cmp.Diff(tc.want, sshdSettings(tc.user, []byte(tc.main))); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestEditSSHDConfig(t *testing.T) {
	const original = "# theirs\nPermitRootLogin no\nMatch User x\n  X11Forwarding no\n"
	once := editSSHDConfig([]byte(original), "root")
	if !strings.HasPrefix(string(once), blockBegin+"\nHostKey ") || !strings.HasSuffix(string(once), "\n"+blockEnd+"\n"+original) {
		t.Errorf("%s", once)
	}
	if twice := editSSHDConfig(once, "root"); string(twice) != string(once) {
		t.Errorf("again:\n%s", twice)
	}
	other := string(editSSHDConfig(once, "demo"))
	if strings.Contains(other, "prohibit-password") || strings.Count(other, blockBegin) != 1 || !strings.HasSuffix(other, original) {
		t.Errorf("for another user:\n%s", other)
	}
	for _, odd := range []string{"x" + blockBegin + "\n" + blockEnd + "\n", blockBegin + "\nno end", blockBegin} {
		if got := cutBlock([]byte(odd)); string(got) != odd {
			t.Errorf("%q became %q", odd, got)
		}
	}
}

func TestSSHDWarnings(t *testing.T) {
	got := sshdWarnings([]byte("Port 22\nport 2222\nAllowUsers a b\nDenyGroups=wheel\nMatch all\nAllowGroups c\n"), "/cfg", "root")
	want := []string{
		"/cfg says Port 2222: set ssh-port accordingly",
		`/cfg has "allowusers a b": it may keep root from logging in`,
		`/cfg has "denygroups wheel": it may keep root from logging in`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
