package guest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// TestRealServers runs the scripts through the SSH servers that guests have.
func TestRealServers(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, r *realServer) []string{
		"openssh": openSSH, "dropbear": dropbear,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealServer(t, start)
			c := dialed(t, r.options)
			t.Logf("%s; %s", c.ServerVersion(), c.Uname())
			for _, tc := range scriptCases() {
				t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
			}
			t.Run("another user", func(t *testing.T) {
				if os.Getuid() != 0 {
					t.Skip("only root can become another user")
				}
				for _, tc := range strangerCases() {
					t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
				}
			})
			t.Run("held", func(t *testing.T) {
				for _, tc := range scriptCases() {
					c := holding(t, r.options)
					t.Run(tc.name, func(t *testing.T) { tc.check(t, c) })
					_ = c.Close()
				}
			})
			t.Run("files", func(t *testing.T) {
				s, want := collectedFiles()
				s.Text += "exit 3"
				res, err := c.RunScript(t.Context(), s, nil, nil)
				if diff := cmp.Diff(want, res.Files); diff != "" || err != nil || res.Status != 3 {
					t.Errorf("%+v, %v\n%s", res, err, diff)
				}
			})
			t.Run("large", func(t *testing.T) {
				var count counter
				status, err := c.Run(t.Context(), Command{Line: "yes | head -c 5000000; exit 9", Stdout: &count})
				if err != nil || status.Code != 9 || count.n != 5000000 || count.bad != 0 {
					t.Errorf("%+v, %v, %d bytes", status, err, count.n)
				}
			})
			t.Run("detached", func(t *testing.T) {
				var out bytes.Buffer
				res, err := c.RunScript(t.Context(), Script{Text: "sleep 4 &\necho done\nexit 3"}, &out, nil)
				if err != nil || res.Status != 3 || out.String() != "done\n" {
					t.Errorf("%+v, %v, %q", res, err, &out)
				}
			})
			t.Run("stopped", func(t *testing.T) {
				s := &sshServer{dir: t.TempDir()}
				stoppedIn(t, c, s.dir, "cd '"+s.dir+"'\nexec 9>fifo\nsleep 1000 &\nsh -c 'trap \"\" TERM; echo started; sleep 1000; sleep 1000'")
			})
			t.Run("alive", func(t *testing.T) {
				if err := c.Alive(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestRealServersRefuse checks that the typed errors fit what real servers do.
func TestRealServersRefuse(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, r *realServer) []string{
		"openssh": openSSH, "dropbear": dropbear,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealServer(t, start)
			quick := func(o Options) error {
				o, err := o.withDefaults()
				if err != nil {
					t.Fatal(err)
				}
				d := &dialer{options: o, timing: defaultTiming()}
				d.timing.refused, d.timing.repeats = 0, 2
				c, err := d.dial(t.Context())
				if c != nil {
					_ = c.Close()
				}
				return err
			}
			o := r.options
			o.Signer = mustKey(t, "stranger").Signer()
			var auth *AuthError
			if err := quick(o); !errors.As(err, &auth) {
				t.Errorf("with another key: %v", err)
			}
			o = r.options
			o.HostKeys = []ssh.PublicKey{mustKey(t, "other").Public()}
			var host *HostKeyError
			if err := quick(o); !errors.As(err, &host) || host.Got == nil {
				t.Errorf("with another host key: %v", err)
			}
		})
	}
}

// A realServer runs an SSH server program for every connection, as inetd does.
type realServer struct {
	dir     string
	host    Key
	client  Key
	options Options
}

func newRealServer(t *testing.T, start func(*testing.T, *realServer) []string) *realServer {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	r := &realServer{dir: t.TempDir(), host: mustKey(t, "host"), client: mustKey(t, "client")}
	argv := start(t, r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	log, err := os.OpenFile(r.file(t, "log", nil), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f, err := conn.(*net.TCPConn).File()
			_ = conn.Close()
			if err != nil {
				t.Errorf("accepting: %v", err)
				return
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Errorf("starting %s: %v", argv[0], err)
			}
			_ = f.Close()
			tasks.Go(func() { _ = cmd.Wait() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		tasks.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s said:\n%s", argv[0], text)
		}
		_ = log.Close()
	})
	r.options = Options{
		Addr: l.Addr().String(), User: me.Username, Signer: r.client.Signer(), HostKeys: []ssh.PublicKey{r.host.Public()},
	}
	return r
}

func (r *realServer) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// home is an empty home directory that knows the client's key.
func (r *realServer) home(t *testing.T) string {
	return filepath.Dir(filepath.Dir(r.file(t, "home/.ssh/authorized_keys", r.client.AuthorizedKey())))
}

// homeDir is the home directory in the password file.
func homeDir(t *testing.T) string {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return me.HomeDir
}

func openSSH(t *testing.T, r *realServer) []string {
	sshd := needed(t, "sshd")
	private := opensshKey(t, r.host)
	config := r.file(t, "sshd_config", []byte(strings.Join([]string{
		"HostKey " + r.file(t, "host", private),
		"AuthorizedKeysFile " + r.file(t, "keys", r.client.AuthorizedKey()),
		"StrictModes no", "UsePAM no", "PidFile none", "PermitRootLogin yes", "PasswordAuthentication no", "",
	}, "\n")))
	if os.Getuid() != 0 {
		return []string{sshd, "-i", "-e", "-f", config}
	}
	// Started by root it wants a user and a directory of its own, which an
	// installed package makes; here they exist in a name space only.
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	accounts := r.file(t, "passwd", append(passwd, "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"...))
	return []string{privateMounts(t), "-m", "sh", "-c",
		`mount --bind "$1" /etc/passwd && mount --bind "$2" "$3" && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$4" -i -e -f "$5"`,
		"sh", accounts, r.home(t), homeDir(t), sshd, config}
}

// dropbear looks for authorized_keys in the home directory that the password
// file names, so it gets a name space in which that is another directory.
func dropbear(t *testing.T, r *realServer) []string {
	program := needed(t, "dropbear")
	return []string{privateMounts(t), "-m", "sh", "-c", `mount --bind "$1" "$2" && exec "$3" -i -r "$4"`, "sh",
		r.home(t), homeDir(t), program, r.file(t, "host", dropbearKey(r.host))}
}

// privateMounts is the program that makes a mount name space.
func privateMounts(t *testing.T) string {
	unshare := needed(t, "unshare")
	if err := exec.Command(unshare, "-m", "true").Run(); err != nil {
		t.Skipf("this test needs a mount name space of its own: unshare -m: %v", err)
	}
	return unshare
}
