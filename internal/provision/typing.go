package provision

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/dialogue"
)

// authorize appends the keys to the user's authorized_keys.
func (s *session) authorize(ctx context.Context) error {
	commands := []string{
		"h=~" + s.User + "; d=$h/.ssh; f=$d/authorized_keys; umask 077; test -d $h",
		"mkdir -p $d",
		"echo >>$f", // the last line may have no end
	}
	for _, key := range s.Keys {
		if strings.ContainsAny(key, "\r\n\x00") {
			return errors.New("an authorized key holds a line break")
		}
		commands = append(commands, "k=")
		for _, part := range pieces(key, dialogue.MaxLine/4) {
			commands = append(commands, `k="$k"`+shellQuote(part))
		}
		commands = append(commands, `printf '%s\n' "$k" >>$f`)
	}
	commands = append(commands, "chmod 700 $d", "chmod 600 $f", "chown "+s.User+" $d $f")
	return s.runAll(ctx, commands)
}

func (s *session) runAll(ctx context.Context, commands []string) error {
	for _, c := range commands {
		if _, err := s.Session.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// pieces cuts text so that each piece, quoted, fits on a line.
func pieces(text string, size int) []string {
	var parts []string
	for len(text) > size {
		parts = append(parts, text[:size])
		text = text[size:]
	}
	return append(parts, text)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

// publicKey matches a public key in its one-line format.
var publicKey = regexp.MustCompile(`(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+=*`)

// Ways to learn the host keys, and to make one. dropbear can make its own when
// it needs one, so it comes last.
var (
	hostKeySources = []string{
		"cat /etc/ssh/ssh_host_*_key.pub",
		"for f in /etc/dropbear/*_host_key; do dropbearkey -y -f $f; done",
	}
	hostKeyMakers = []string{
		"ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key",
		"mkdir -p /etc/dropbear; dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key",
	}
)

// hostKeyAwaited waits for a key that somebody else is making: an emulated
// guest can take seconds from the prompt to the end of its first boot.
const hostKeyAwaited = "for i in 1 2 3 4 5 6 7 8 9 10; do cat /etc/ssh/ssh_host_*_key.pub && break; sleep 1; done"

// hostKeys reads the guest's host keys, or makes one.
func (s *session) hostKeys(ctx context.Context) ([]ssh.PublicKey, error) {
	for _, command := range hostKeySources {
		keys, err := s.readKeys(ctx, command)
		if len(keys) > 0 || err != nil {
			return keys, err
		}
	}
	for i, command := range hostKeyMakers {
		if _, err := s.Session.Run(ctx, command+" </dev/null"); dialogue.IsOurs(err) {
			return nil, err
		} else if err != nil {
			continue
		}
		keys, err := s.readKeys(ctx, hostKeySources[i])
		if len(keys) > 0 || err != nil {
			return keys, err
		}
	}
	// The guest may be making one itself, which is why ours could not be.
	keys, err := s.readKeys(ctx, hostKeyAwaited)
	if len(keys) > 0 || err != nil {
		return keys, err
	}
	return nil, ErrNoHostKey
}

func (s *session) readKeys(ctx context.Context, command string) ([]ssh.PublicKey, error) {
	output, err := s.Session.Run(ctx, command+" 2>/dev/null")
	if dialogue.IsOurs(err) {
		return nil, err
	}
	var keys []ssh.PublicKey
	for _, line := range publicKey.FindAllString(output, -1) {
		// A line that a kernel message was printed into is no key.
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// serverUp defines a command that tells whether an SSH server runs, by the
// first of several ways that the guest has.
const serverUp = `up() { { pidof sshd dropbear || pgrep -x 'sshd|dropbear' || { ps -e || ps ax; } | grep '[s]shd\|[d]ropbear'; } >/dev/null 2>&1; }`

// serverWait is how many seconds a server may take to be seen: the prompt can
// come before the services of a system that is still coming up.
const serverWait = 15

// serverStarters are ways to start a server, the usual first. They are started
// in the background: some stay in the foreground for as long as the server runs.
var serverStarters = []struct{ condition, command string }{
	{"[ -x /etc/init.d/ssh ]", "/etc/init.d/ssh start"},
	{"[ -x /etc/init.d/dropbear ]", "/etc/init.d/dropbear start"},
	{"systemctl cat ssh", "systemctl start ssh"},
	{"systemctl cat sshd", "systemctl start sshd"},
	{"[ -x /usr/sbin/sshd ]", "mkdir -p /run/sshd; /usr/sbin/sshd"},
	{"command -v dropbear", "dropbear"},
}

// serve waits for an SSH server to run, and starts one if none comes and a
// usual way works. It does not fail: the one who connects will find out.
func (s *session) serve(ctx context.Context) error {
	await := func(seconds int) (bool, error) {
		_, err := s.Session.Run(ctx, fmt.Sprintf("n=0; until up; do [ $n -lt %d ] || break; n=$((n+1)); sleep 1; done; up", seconds))
		if dialogue.IsOurs(err) {
			return false, err
		}
		return err == nil, nil
	}
	if _, err := s.Session.Run(ctx, serverUp); err != nil {
		return err
	}
	if up, err := await(serverWait); up || err != nil {
		return err
	}
	for _, starter := range serverStarters {
		if _, err := s.Session.Run(ctx, "{ "+starter.condition+"; } >/dev/null 2>&1"); err != nil {
			if dialogue.IsOurs(err) {
				return err
			}
			continue
		}
		if _, err := s.Session.Run(ctx, "{ { "+starter.command+"; } >/dev/null 2>&1 </dev/null & }"); dialogue.IsOurs(err) {
			return err
		}
		if up, err := await(serverWait / 3); up || err != nil {
			return err
		}
	}
	return nil
}
