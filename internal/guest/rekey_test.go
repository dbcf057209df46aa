package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestRekeyRealServers replaces the host key of servers that run as a system
// starts them, in name spaces of their own, and looks at what they show.
func TestRekeyRealServers(t *testing.T) {
	for name, begin := range map[string]string{
		"openssh":  `exec_server() { "$server" -f "$1/config"; }`,
		"dropbear": `exec_server() { "$server" -r "$1/host" -p 127.0.0.1:2222 -P /run/dropbear.pid; }`,
	} {
		t.Run(name, func(t *testing.T) {
			program := map[string]string{"openssh": "sshd", "dropbear": "dropbear"}[name]
			server, keyscan, unshare := needed(t, program), needed(t, "ssh-keyscan"), privateMounts(t)
			r := &realServer{dir: t.TempDir()}
			before, after := mustKey(t, "before"), mustKey(t, "after")
			form := func(k Key) []byte { return opensshKey(t, k) }
			if name == "dropbear" {
				form = dropbearKey
			}
			r.file(t, "host", form(before))
			r.file(t, "new", form(after))
			r.file(t, "rekey.sh", []byte(rekeyScript))
			r.file(t, "config", fmt.Appendf(nil, "HostKey %s/host\nListenAddress 127.0.0.1:2222\nPidFile /run/sshd.pid\nStrictModes no\n", r.dir))
			passwd, err := os.ReadFile("/etc/passwd")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(passwd, []byte("\nsshd:")) {
				passwd = append(passwd, "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"...)
			}
			r.file(t, "passwd", passwd)
			script := `set -e
server=$2 keyscan=$3
` + begin + `
mount -t tmpfs none /run && mkdir -m 755 /run/sshd
mount --bind "$1/passwd" /etc/passwd
ip link set lo up
exec_server "$1"
shown() { "$keyscan" -T 5 -t ed25519 -p 2222 127.0.0.1 2>/dev/null | cut -d' ' -f2-; }
try=0
until test -n "$(shown)" || test $try -ge 50; do try=$((try + 1)); sleep 0.1; done
first=$(shown)
cat "$1/new" >"$1/host"
sh "$1/rekey.sh"
try=0
until k=$(shown) && test -n "$k" && test "$k" != "$first" || test $try -ge 50; do try=$((try + 1)); sleep 0.1; done
echo "before $first"
echo "after $(shown)"
`
			var out, diag bytes.Buffer
			cmd := exec.Command(unshare, "-m", "-n", "-p", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", script, "sh", r.dir, server, keyscan)
			cmd.Stdout, cmd.Stderr = &out, &diag
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s%s", err, &diag, &out)
			}
			line := func(k Key) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.Public()))) }
			for _, want := range []string{"rekeyed\n", "before " + line(before) + "\n", "after " + line(after) + "\n"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s%s", want, &out, &diag)
				}
			}
		})
	}
}

// TestRekeyFails tells a guest without a server that it knows from one whose
// server is gone.
func TestRekeyFails(t *testing.T) {
	real := rekeyScript
	t.Cleanup(func() { rekeyScript = real })
	c := dialed(t, worlds()[0].in(t).listen())
	for _, tc := range []struct {
		script, want string
		none         bool
	}{
		{"echo no server", "no file in /run", true},
		{"echo gone >&2; exit 3", "gone", false},
	} {
		rekeyScript = tc.script
		if err := c.Rekey(t.Context()); err == nil || errors.Is(err, ErrNoServer) != tc.none || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.script, err)
		}
	}
}
