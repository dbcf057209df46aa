package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A sshServer is an SSH server in this process that runs commands on this host
// as sshd does: it reports the exit status when the process ends, and closes
// the channel when its output has ended.
type sshServer struct {
	t        *testing.T
	hostKey  Key
	client   Key
	env      []string // of the commands
	dir      string   // their home and working directory
	config   *ssh.ServerConfig
	listener net.Listener

	hurd     bool        // reports 255 for a signal, as the Hurd's sshd does
	noStatus bool        // reports nothing at all
	deaf     atomic.Bool // leaves keepalives unanswered
	// command, when set, answers an exec itself.
	command func(line string, ch sshChannel) (status uint32, handled bool)
	// accept, when set, may keep a connection (the first is number 1) for itself.
	accept func(number int, conn net.Conn) (kept bool)

	mu     sync.Mutex
	conns  []net.Conn
	count  int
	groups []int // process groups of the commands
	tasks  sync.WaitGroup
}

func newServer(t *testing.T) *sshServer {
	t.Helper()
	dir := t.TempDir()
	s := &sshServer{
		t: t, hostKey: mustKey(t, "host"), client: mustKey(t, "client"), dir: dir,
		env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C", "SHELL=/bin/sh"},
	}
	s.setHostKey(s.hostKey)
	t.Cleanup(s.stop)
	return s
}

// setHostKey changes the host key for later connections.
func (s *sshServer) setHostKey(key Key) {
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != string(s.client.Public().Marshal()) {
				return nil, errors.New("unknown key")
			}
			return nil, nil
		},
	}
	config.AddHostKey(key.Signer())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = config
}

func mustKey(t testing.TB, comment string) Key {
	t.Helper()
	k, err := GenerateKey(comment)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// listen serves on TCP; it returns the options that dial it.
func (s *sshServer) listen() Options {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.listener = l
	s.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	})
	o := s.options()
	o.Addr = l.Addr().String()
	return o
}

// options are those that fit this server, without an address.
func (s *sshServer) options() Options {
	return Options{Addr: "guest:22", Signer: s.client.Signer(), HostKeys: []ssh.PublicKey{s.hostKey.Public()}}
}

func (s *sshServer) serve(conn net.Conn) {
	s.mu.Lock()
	s.count++
	number := s.count
	s.conns = append(s.conns, conn)
	s.mu.Unlock()
	s.tasks.Go(func() {
		if s.accept != nil && s.accept(number, conn) {
			return
		}
		s.handshake(conn)
	})
}

func (s *sshServer) handshake(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	s.mu.Lock()
	config := s.config
	s.mu.Unlock()
	_, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	s.tasks.Go(func() {
		for req := range reqs {
			if req.WantReply && !s.deaf.Load() {
				_ = req.Reply(false, nil)
			}
		}
	})
	for c := range chans {
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "no")
			continue
		}
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		s.tasks.Go(func() { s.session(ch, reqs) })
	}
}

func (s *sshServer) session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	closed := make(chan struct{})
	for req := range reqs {
		if req.Type != "exec" {
			if req.WantReply {
				_ = req.Reply(false, nil)
			}
			continue
		}
		var m struct{ Line string }
		_ = ssh.Unmarshal(req.Payload, &m)
		_ = req.Reply(true, nil)
		s.tasks.Go(func() {
			if s.command != nil {
				if status, handled := s.command(m.Line, ch); handled {
					s.report(ch, status)
					_ = ch.Close()
					return
				}
			}
			s.exec(ch, m.Line, closed)
		})
	}
	close(closed)
}

func (s *sshServer) report(ch ssh.Channel, status uint32) {
	if !s.noStatus {
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	}
}

// exec runs a command; closed says that the client has closed the channel.
func (s *sshServer) exec(ch ssh.Channel, line string, closed <-chan struct{}) {
	defer func() { _ = ch.Close() }()
	cmd := exec.Command("sh", "-c", line)
	for _, e := range s.env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			cmd.Path = filepath.Join(strings.Split(path, ":")[0], "sh")
			if _, err := os.Stat(cmd.Path); err != nil {
				cmd.Path = "/bin/sh"
			}
			cmd.Err = nil
		}
	}
	cmd.Env, cmd.Dir = s.env, s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	cmd.Stdout, cmd.Stderr = outW, errW
	stdin, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil {
		s.t.Errorf("the test server can't run commands: %v", err)
		return
	}
	s.mu.Lock()
	s.groups = append(s.groups, cmd.Process.Pid)
	s.mu.Unlock()
	_, _ = outW.Close(), errW.Close()
	s.tasks.Go(func() {
		_, _ = io.Copy(stdin, ch)
		_ = stdin.Close()
	})
	var output sync.WaitGroup
	output.Go(func() { _, _ = io.Copy(ch, outR) })
	output.Go(func() { _, _ = io.Copy(ch.Stderr(), errR) })
	s.status(ch, cmd.Wait())
	drained := make(chan struct{})
	s.tasks.Go(func() { output.Wait(); close(drained) })
	select {
	case <-drained:
	case <-closed: // something holds the output open; the client has had enough
	}
	_, _ = outR.Close(), errR.Close()
	<-drained
}

func (s *sshServer) status(ch ssh.Channel, err error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		s.report(ch, 0)
		return
	}
	ws, _ := exit.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled() && s.hurd:
		s.report(ch, 255)
	case ws.Signaled():
		name := map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM"}[ws.Signal()]
		_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name      string
			Core      bool
			Text, Tag string
		}{name, false, "", ""}))
	default:
		s.report(ch, uint32(ws.ExitStatus()))
	}
}

// idle waits until no process of a command lives.
func (s *sshServer) idle() {
	s.t.Helper()
	s.mu.Lock()
	groups := s.groups
	s.mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		alive := slices.ContainsFunc(groups, func(pid int) bool { return syscall.Kill(-pid, 0) == nil })
		if !alive {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("a command still runs")
		}
	}
}

// connections is how many there were.
func (s *sshServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// drop ends every connection.
func (s *sshServer) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *sshServer) stop() {
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.drop()
	s.mu.Lock()
	for _, pid := range s.groups {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // what a command left behind
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.tasks.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		s.t.Error("the test server does not end: a command still runs")
	}
}

// dialed is a client of a server that listens.
func dialed(t *testing.T, o Options) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	c.drainQuiet = 300 * time.Millisecond
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type sshChannel = ssh.Channel
