package provision

import (
	"bytes"
	"fmt"
	"path"
	"strings"
)

// Where things of OpenSSH's server and of dropbear are in the guest.
const (
	dropInDir  = "/etc/ssh/sshd_config.d"
	dropInFile = dropInDir + "/00-hurd-qemu-action.conf"
	// hostKeyFile is not one of the server's usual names: first-boot scripts
	// remove or remake those.
	hostKeyFile = "/etc/ssh/hurd_qemu_action_ed25519_key"
	// plainHostKeyFile is where sshd looks when its configuration can't be
	// edited, as in a Guix system that keeps it in its store.
	plainHostKeyFile = "/etc/ssh/ssh_host_ed25519_key"
	// dropbearKeyFile is used by dropbear unless options say otherwise. Keys of
	// other types may stay: a client that wants ssh-ed25519 gets this one.
	dropbearKeyFile = "/etc/dropbear/dropbear_ed25519_host_key"
)

// sshdSettings is what the server must do for us. sshd keeps the first value
// that it reads of each keyword, and all HostKey lines.
func sshdSettings(user string, main []byte) string {
	var b strings.Builder
	b.WriteString("HostKey " + hostKeyFile + "\n")
	if user == "root" {
		b.WriteString("PermitRootLogin prohibit-password\n")
	}
	b.WriteString("PubkeyAuthentication yes\nPasswordAuthentication no\nUseDNS no\n")
	if files := sshdValue(main, "AuthorizedKeysFile"); files != "" && !containsOwnKeys(files) {
		if files == "none" {
			files = ""
		}
		b.WriteString(strings.TrimSpace("AuthorizedKeysFile .ssh/authorized_keys "+files) + "\n")
	}
	return b.String()
}

// containsOwnKeys tells whether an AuthorizedKeysFile value covers
// ~/.ssh/authorized_keys.
func containsOwnKeys(files string) bool {
	for _, f := range strings.Fields(files) {
		if f == ".ssh/authorized_keys" || f == "%h/.ssh/authorized_keys" {
			return true
		}
	}
	return false
}

const (
	dropInHeader = "# hurd-qemu-action: sshd keeps the first value of each keyword that it reads.\n"
	blockBegin   = "# hurd-qemu-action begin: sshd keeps the first value of each keyword that it reads."
	blockEnd     = "# hurd-qemu-action end"
)

// editSSHDConfig puts our settings before everything else in an sshd_config
// that includes no drop-ins, in place of those that an earlier run put there.
func editSSHDConfig(cfg []byte, user string) []byte {
	cfg = cutBlock(cfg)
	block := blockBegin + "\n" + sshdSettings(user, cfg) + blockEnd + "\n"
	return append([]byte(block), cfg...)
}

// cutBlock removes our block from a file.
func cutBlock(cfg []byte) []byte {
	begin := bytes.Index(cfg, []byte(blockBegin+"\n"))
	if begin < 0 || begin > 0 && cfg[begin-1] != '\n' {
		return cfg
	}
	length := bytes.Index(cfg[begin:], []byte("\n"+blockEnd+"\n"))
	if length < 0 {
		return cfg
	}
	return append(cfg[:begin:begin], cfg[begin+length+len(blockEnd)+2:]...)
}

// sshdDirectives yields keyword and value of each directive; sshd_config(5):
// keywords are case-insensitive, and a value may follow a '='.
func sshdDirectives(cfg []byte, yield func(keyword, value string) bool) {
	for line := range strings.Lines(string(cfg)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		keyword, value := line, ""
		if i := strings.IndexAny(line, " \t="); i >= 0 {
			keyword, value = line[:i], strings.TrimLeft(line[i:], " \t=")
		}
		if !yield(strings.ToLower(keyword), strings.Trim(value, `" `)) {
			return
		}
	}
}

// sshdValue is the first value of a keyword outside of Match blocks.
func sshdValue(cfg []byte, keyword string) string {
	found := ""
	sshdDirectives(cfg, func(k, v string) bool {
		if k == strings.ToLower(keyword) {
			found = v
		}
		return found == "" && k != "match"
	})
	return found
}

// includesDropIns tells whether an sshd_config reads the drop-ins before it
// sets anything that they are about.
func includesDropIns(cfg []byte) bool {
	included := false
	sshdDirectives(cfg, func(k, v string) bool {
		if k == "include" {
			for _, pattern := range strings.Fields(v) {
				if !path.IsAbs(pattern) {
					pattern = path.Join("/etc/ssh", pattern)
				}
				ok, err := path.Match(pattern, dropInFile)
				included = included || ok && err == nil
			}
			return !included
		}
		switch k {
		case "hostkey", "permitrootlogin", "pubkeyauthentication", "passwordauthentication", "usedns",
			"authorizedkeysfile", "match":
			return false
		}
		return true
	})
	return included
}

// sshdWarnings names settings of an sshd_config that may keep the user out.
func sshdWarnings(cfg []byte, name, user string) []string {
	var warnings []string
	sshdDirectives(cfg, func(k, v string) bool {
		switch k {
		case "allowusers", "allowgroups", "denyusers", "denygroups":
			warnings = append(warnings, fmt.Sprintf("%s has %q: it may keep %s from logging in", name, k+" "+v, user))
		case "port":
			if v != "22" {
				warnings = append(warnings, fmt.Sprintf("%s says Port %s: set ssh-port accordingly", name, v))
			}
		}
		return k != "match"
	})
	return warnings
}
