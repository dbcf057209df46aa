package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// keys makes room for this run's key in the user's authorized_keys. Servers
// refuse the file when others could write to it or to a directory above it.
func (p *preparation) keys() error {
	u := p.out.User
	owner := ext2.Attr{Mode: 0o700, UID: u.UID, GID: u.GID}
	if err := p.privateDir(u.Home, owner); err != nil {
		return err
	}
	dir := path.Join(u.Home, ".ssh")
	if err := p.exactDir(dir, owner); err != nil {
		return err
	}
	name := path.Join(dir, "authorized_keys")
	old, err := p.read(name)
	if err != nil {
		return err
	}
	room, err := slack(nil)
	if err != nil {
		return err
	}
	owner.Mode = 0o600
	did, err := p.file(name, append(room, withoutSlack(old)...), owner, true)
	if did {
		p.changed("made room for a key at the beginning of %s", name)
	}
	p.out.Slots = append(p.out.Slots, Slot{Name: SlotAuthorizedKeys, File: name, Size: slackSize})
	return err
}

// privateDir makes a home directory, or takes away what makes SSH servers
// distrust one that exists.
func (p *preparation) privateDir(dir string, owner ext2.Attr) error {
	info, err := p.root.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.changed("made %s", dir)
		return p.batch.MkdirAll(dir, owner)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is the home directory of %s, but it is no directory", dir, p.User)
	}
	attr := ext2.Attr{Mode: info.Mode &^ 0o022, UID: info.UID, GID: info.GID}
	if attr.UID != owner.UID && attr.UID != 0 {
		attr.UID, attr.GID = owner.UID, owner.GID
	}
	if attr.Mode == info.Mode && attr.UID == info.UID {
		return nil
	}
	p.changed("took from others the right to write to %s: sshd would refuse the key", dir)
	return p.batch.SetAttr(dir, attr)
}

func (p *preparation) exactDir(dir string, attr ext2.Attr) error {
	info, err := p.root.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p.batch.MkdirAll(dir, attr)
	}
	if err != nil || info.Mode.Perm() == attr.Mode && info.UID == attr.UID && info.GID == attr.GID {
		return err
	}
	return p.batch.SetAttr(dir, attr)
}

func (p *preparation) sshd() error {
	ssh := p.out.Guest.SSH
	if !ssh.Any() {
		p.warn("no SSH server was found in the image: installed somewhere unusual?")
	}
	if !ssh.OpenSSH {
		return nil
	}
	size, err := hostKeySize()
	if err != nil {
		return err
	}
	key := hostKeyFile
	if ssh.Config == "" {
		key = plainHostKeyFile
		p.warn("%s does not exist: the server's configuration could not be changed, only %s was", sshdConfig, key)
	} else if err := p.sshdConfig(); err != nil {
		return err
	}
	if ok, err := p.root.Exists("/etc/ssh/sshd_not_to_be_run"); err != nil {
		return err
	} else if ok {
		p.warn("/etc/ssh/sshd_not_to_be_run exists: Debian's sshd will not start")
	}
	return p.hostKey(Slot{Name: SlotOpenSSHKey, File: key, Size: units.Bytes(size)})
}

func (p *preparation) hostKey(slot Slot) error {
	if err := p.batch.MkdirAll(path.Dir(slot.File), ext2.Attr{Mode: 0o755}); err != nil {
		return err
	}
	did, err := p.file(slot.File, placeholder(int(slot.Size)), ext2.Attr{Mode: 0o600}, true)
	if did {
		p.changed("made room for a host key in %s", slot.File)
	}
	p.out.Slots = append(p.out.Slots, slot)
	return err
}

func (p *preparation) sshdConfig() error {
	ssh := p.out.Guest.SSH
	main, err := p.root.ReadFile(ssh.Config)
	if err != nil {
		return err
	}
	for _, w := range sshdWarnings(main, ssh.Config, p.User) {
		p.warn("%s", w)
	}
	if !ssh.DropIns {
		did, err := p.file(ssh.Config, editSSHDConfig(main, p.User), ext2.Attr{}, false)
		if did {
			p.changed("put our settings at the beginning of %s", ssh.Config)
		}
		return err
	}
	if err := p.batch.MkdirAll(dropInDir, ext2.Attr{Mode: 0o755}); err != nil {
		return err
	}
	entries, err := p.root.ReadDir(dropInDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".conf") && e.Name < path.Base(dropInFile) {
			p.warn("sshd reads %s/%s before our settings, and keeps the first value of each", dropInDir, e.Name)
		}
	}
	did, err := p.file(dropInFile, []byte(dropInHeader+sshdSettings(p.User, main)), ext2.Attr{Mode: 0o644}, true)
	if did {
		p.changed("wrote %s", dropInFile)
	}
	return err
}

// demoUser is the account of Debian's Hurd images that has no password.
const demoUser = "demo"

// accounts locks the account without a password that Debian's Hurd images
// have, unless it is the one to be used, and warns of a locked one.
func (p *preparation) accounts() error {
	const shadow = "/etc/shadow"
	old, err := p.read(shadow)
	if err != nil || old == nil {
		return err
	}
	var edited strings.Builder
	locked := false
	for line := range strings.Lines(string(old)) {
		name, rest, _ := strings.Cut(line, ":")
		password, _, _ := strings.Cut(rest, ":")
		switch {
		case name == demoUser && p.User != demoUser && password == "" && p.out.Guest.Family == platform.Hurd:
			line, locked = name+":!"+rest, true
		case name == p.User && strings.HasPrefix(password, "!"):
			p.warn("the password of %s is locked: an sshd without PAM refuses such users, even with a key", name)
		}
		edited.WriteString(line)
	}
	if !locked {
		return nil
	}
	p.changed("locked the user %s, which had no password", demoUser)
	_, err = p.file(shadow, []byte(edited.String()), ext2.Attr{}, false)
	return err
}

func (p *preparation) console() error {
	g := p.out.Guest
	switch {
	case !p.Console:
		return nil
	case g.Bootloader == NoBootloader:
		p.warn("no boot configuration was found in the root file system: the serial console may stay silent")
		return nil
	case g.Bootloader != GRUB:
		p.warn("%s belongs to %s, which is not edited: the serial console may stay silent", g.BootConfig, g.Bootloader)
		return nil
	}
	cfg, err := p.root.ReadFile(g.BootConfig)
	if err != nil {
		return err
	}
	env, err := p.read(grubEnvOf(g.BootConfig))
	if err != nil {
		return err
	}
	edited, changes, err := EditGrub(cfg, GrubOptions{Family: g.Family, Env: env, Menu: p.Menu})
	if errors.Is(err, ErrNoKernel) {
		p.warn("%s: %v: the serial console may stay silent", g.BootConfig, err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Line == 0 {
			p.changed("%s: put before the first line: %s", g.BootConfig, strings.ReplaceAll(c.After, "\n", "; "))
		} else {
			p.changed("%s line %d: %s", g.BootConfig, c.Line, strings.TrimSpace(c.After))
		}
	}
	_, err = p.file(g.BootConfig, edited, ext2.Attr{}, false)
	return err
}
