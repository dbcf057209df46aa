package provision

import (
	"bytes"
	"crypto/ed25519"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/units"
)

// dropbear takes its keys from files alone: those that its command line names
// with -r, else the usual ones.
func (p *preparation) dropbear() error {
	if !p.out.Guest.SSH.Dropbear {
		return nil
	}
	commands, err := p.dropbearCommands()
	if err != nil {
		return err
	}
	file, err := p.dropbearKeyFile(commands)
	if err != nil {
		return err
	}
	for _, c := range commands {
		if option := slices.IndexFunc(c.words, func(w string) bool { return w == "-w" || w == "-g" }); option >= 0 && p.User == rootUser {
			p.warn("%s starts dropbear with %s, which may refuse root", c.file, c.words[option])
		}
	}
	size := len(dropbearKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))))
	return p.hostKey(Slot{Name: SlotDropbearKey, File: file, Size: units.Bytes(size)})
}

const rootUser = "root"

// startFiles and startDirs are where a system starts its services from: a
// Hurd's own runsystem, SysV init, and what these read.
var (
	startFiles = []string{
		"/etc/default/dropbear", "/etc/inittab", "/etc/rc", "/etc/rc.local", "/etc/hurd/rc", "/libexec/rc",
		"/libexec/runsystem", "/libexec/runsystem.hurd", "/etc/hurd/runsystem", "/etc/hurd/runsystem.hurd",
	}
	startDirs = []string{"/etc/init.d", "/etc/rc.d", "/etc/rc.boot"}
)

// dropbearCommand is a line of a start file that starts dropbear, or sets its options.
type dropbearCommand struct {
	file  string
	words []string
}

// dropbearLine finds the server, not dropbearkey or a directory of its name.
var dropbearLine = regexp.MustCompile(`(?:^|[\s;&|(])(?:/\S*bin/)?dropbear(?:\s|$)|^DROPBEAR_EXTRA_ARGS=`)

// placeholderMark is how much of a file tells that it is a placeholder.
const placeholderMark = 24

// startFileLimit is more than any script that starts a service.
const startFileLimit = 256 * units.KiB

func (p *preparation) dropbearCommands() ([]dropbearCommand, error) {
	files := slices.Clone(startFiles)
	for _, dir := range startDirs {
		entries, err := p.root.ReadDir(dir)
		if err != nil {
			continue // most systems have only some of them
		}
		for _, e := range entries {
			files = append(files, path.Join(dir, e.Name))
		}
	}
	var commands []dropbearCommand
	for _, file := range files {
		info, err := p.root.Stat(file)
		if err != nil || !info.Mode.IsRegular() || info.Size > startFileLimit {
			continue
		}
		text, err := p.read(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "#") && dropbearLine.MatchString(line) {
				commands = append(commands, dropbearCommand{file, strings.FieldsFunc(line, isOptionBreak)})
			}
		}
	}
	return commands, nil
}

func isOptionBreak(r rune) bool { return strings.ContainsRune(" \t='\"", r) }

// dropbearKeyFile is the file that our key goes into: exactly one, because
// dropbear ends when two files hold keys of one type. Of the files that are
// named with -r it is the one that holds such a key already, or is called so,
// else the first: dropbear looks at what a file holds, not at its name.
func (p *preparation) dropbearKeyFile(commands []dropbearCommand) (string, error) {
	var named []string
	for _, c := range commands {
		for i, w := range c.words {
			if w == "-r" && i+1 < len(c.words) && path.IsAbs(c.words[i+1]) {
				named = append(named, path.Clean(c.words[i+1]))
			}
		}
	}
	if len(named) == 0 {
		return dropbearKeyFile, nil
	}
	for _, file := range named {
		text, err := p.read(file)
		if err != nil {
			return "", err
		}
		// The second is what an earlier preparation left there.
		if bytes.HasPrefix(text, appendString(nil, []byte(ssh.KeyAlgoED25519))) || bytes.HasPrefix(text, placeholder(placeholderMark)) {
			return file, nil
		}
	}
	if i := slices.IndexFunc(named, func(f string) bool { return strings.Contains(path.Base(f), "ed25519") }); i >= 0 {
		return named[i], nil
	}
	return named[0], nil
}
