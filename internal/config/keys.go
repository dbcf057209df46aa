package config

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// textOrFile returns the text itself, or the content of the file that a single
// line without white space, a colon or a # names. cloud-init's data always has one of those.
func (p *parser) textOrFile(input, text string) string {
	name := strings.TrimSpace(text)
	if name == "" || strings.ContainsAny(name, "\n:# \t") {
		return text
	}
	content, err := p.read(name)
	if err != nil {
		p.add(input, text, fmt.Sprintf("names a file that cannot be read (%v)", err), "write the text itself, or the path of a file that holds it")
	}
	return string(content)
}

const pemBegin = "-----BEGIN"

func (p *parser) privateKey(input, text string) ssh.Signer {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	pem := []byte(text)
	if !strings.Contains(text, pemBegin) {
		content, err := p.read(strings.TrimSpace(text))
		if err != nil {
			// The value is not quoted: it may be a mangled secret.
			p.add(input, "", "is neither a private key nor a file that can be read", "give the key's text (it begins with "+pemBegin+") or the path of its file")
			return nil
		}
		pem = content
	}
	signer, err := ssh.ParsePrivateKey(append([]byte(strings.TrimSpace(string(pem))), '\n'))
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		p.add(input, "", "is protected by a passphrase", "give a key without one: nobody is there to type it")
	case err != nil:
		p.add(input, "", "is not a private key that can be read", "give an OpenSSH or PEM private key, line ends intact")
	}
	return signer
}

func (p *parser) publicKeys(input, text string) []ssh.PublicKey {
	var keys []ssh.PublicKey
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil { // a line of known_hosts, then
			_, _, key, _, _, err = ssh.ParseKnownHosts([]byte(line))
		}
		if err != nil {
			p.add(input, line, "is not a public key", "write one per line, as in a .pub or known_hosts file, such as ssh-ed25519 AAAA...")
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// together checks what only makes sense of several inputs.
func (p *parser) together(c Config) {
	if c.Provision == "none" && c.Transport != "serial" {
		if strings.TrimSpace(p.in.SSHPrivateKey) == "" {
			p.add("ssh-private-key", "", "is missing", "provision: none puts no key into the guest, so give the one that the guest accepts")
		}
		if strings.TrimSpace(p.in.SSHHostKey) == "" {
			p.add("ssh-host-key", "", "is missing", "provision: none puts no host key into the guest, so give the one that the guest has: no host key is trusted unseen")
		}
	}
	if c.Provision != "none" && len(c.HostKeys) > 0 && p.in.SSHHostKey != "" {
		p.add("ssh-host-key", "", "is given, but provision: "+c.Provision+" puts a new host key into the guest", "leave it out, or use provision: none")
	}
	noCard := c.Network == "none" || c.NIC == "none"
	if c.Network == "none" && c.Transport != "serial" {
		p.add("network", c.Network, "leaves no way for SSH", "needs transport: serial as well, or use restricted, which forwards SSH and nothing else")
	}
	if c.NIC == "none" && c.Transport != "serial" {
		p.add("nic", c.NIC, "leaves no way for SSH", "needs transport: serial as well, or leave it out")
	}
	if noCard && strings.TrimSpace(c.Forward) != "" {
		p.add("forward", c.Forward, "forwards to a guest without a network card", "leave it out, or use network: restricted")
	}
	for _, name := range []string{"debug-tunnel-key", "debug-tunnel-host-key"} {
		if given := map[string]string{"debug-tunnel-key": p.in.DebugTunnelKey, "debug-tunnel-host-key": p.in.DebugTunnelHostKey}[name]; strings.TrimSpace(given) != "" && c.DebugTunnel.Addr == "" {
			p.add(name, "", "is given without debug-tunnel", "name the server as well")
		}
	}
	if c.Debug == "off" && (len(c.DebugKeys) > 0 || c.DebugTunnel.Addr != "") {
		p.add("debug", c.Debug, "keeps no guest that debug-key and debug-tunnel could be for", "write debug: on-failure, or leave them out")
	}
	if c.Transport == "serial" && c.DebugTunnel.Addr != "" {
		p.add("debug-tunnel", p.in.DebugTunnel, "leads to the guest's SSH server, and transport: serial is for guests without one", "leave it out")
	} else if c.Transport == "serial" && len(c.DebugKeys) > 0 {
		p.add("debug-key", p.in.DebugKey, "is for the guest's SSH server, and transport: serial is for guests without one", "leave it out")
	}
	if c.SnapshotFrom != "" && (c.Snapshot == "save" || c.Snapshot == "off") {
		p.add("snapshot-from", c.SnapshotFrom, "is not looked at with snapshot: "+c.Snapshot, "leave one of them out")
	}
	// QEMU refuses it as well, but only when the image has been fetched.
	if c.DiskAIO == "native" && c.DiskCache != "none" {
		p.add("disk-aio", c.DiskAIO, "bypasses the host's cache, which disk-cache: "+c.DiskCache+" uses", "write disk-cache: none as well, or leave disk-aio at threads")
	}
}
