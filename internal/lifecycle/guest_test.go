package lifecycle

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

// A fakeGuest is an SSH server that runs commands on this host, with a directory
// of its own in the place of the guest's workspace.
type fakeGuest struct {
	dir  string // the workspace in the guest
	path string // of its commands
}

// newGuest gives a run that has a guest, and an empty workspace on the host.
func newGuest(t *testing.T, in config.Inputs) (*run, *fakeGuest, *strings.Builder) {
	t.Helper()
	t.Parallel()
	g := &fakeGuest{dir: filepath.Join(t.TempDir(), "guest"), path: os.Getenv("PATH")}
	// The clock of this host is not the guest's to set.
	g.without(t, "date", `case " $* " in *" -s "*) exit ;; esac; PATH='`+g.path+`' exec date "$@"`)
	r, log := newRunLog()
	r.Inputs, r.Host.Workspace, r.dir = in, t.TempDir(), t.TempDir()
	if in.SSHUser == "" {
		in.SSHUser = "root"
	}
	r.config = config.Config{
		Sync: in.Sync, CopyBack: in.CopyBack, User: in.User, SSHUser: in.SSHUser, WorkspaceSize: 64 * units.MiB,
		ArtifactName: in.ArtifactName, ArtifactPath: in.ArtifactPath,
	}
	if problems := r.readWorkspace(); len(problems) > 0 {
		t.Fatal(problems)
	}
	r.machine = &qemu.Machine{} // one that neither ends nor fails
	r.client = g.dial(t)
	return r, g, log
}

// put makes files, each of the line that it is to hold.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// files are the regular files below a directory, with what they hold.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(full string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(full)
		all[strings.TrimPrefix(full, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (g *fakeGuest) dial(t *testing.T) *guest.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, host := sshKey(t), sshKey(t)
	server := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	server.AddHostKey(host)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { g.serve(conn, server) })
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := guest.Dial(ctx, guest.Options{Addr: l.Addr().String(), User: "root", Signer: client, HostKeys: []ssh.PublicKey{host.PublicKey()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), l.Close(); tasks.Wait() })
	return c
}

func sshKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (g *fakeGuest) serve(conn net.Conn, server *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, server)
	if err != nil {
		return
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		for r := range requests {
			_ = r.Reply(false, nil)
		}
	})
	for c := range channels {
		ch, requests, err := c.Accept()
		if err != nil {
			return
		}
		tasks.Go(func() {
			for r := range requests {
				_ = r.Reply(r.Type == "exec", nil)
				if r.Type == "exec" {
					var m struct{ Line string }
					_ = ssh.Unmarshal(r.Payload, &m)
					tasks.Go(func() { g.exec(ch, m.Line) })
				}
			}
		})
	}
}

func (g *fakeGuest) exec(ch ssh.Channel, line string) {
	defer func() { _ = ch.Close() }()
	cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(line, workspace.GuestPath, g.dir))
	cmd.Env = []string{"PATH=" + g.path, "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	in, err := cmd.StdinPipe()
	if err == nil {
		go func() { _, _ = io.Copy(in, ch); _ = in.Close() }()
		err = cmd.Run()
	}
	status := uint32(0)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status = uint32(exit.ExitCode())
	} else if err != nil {
		status = 255
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// without makes the guest's find or tar one that ends with a status, after a
// shell command.
func (g *fakeGuest) without(t *testing.T, program, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	g.path = dir + ":" + g.path
}

// bring does what a run does between the boot and the script.
func bring(t *testing.T, r *run) {
	t.Helper()
	if _, err := r.packWorkspace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.bringIn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// newRunLog gives a run with a log that can be read while it is written.
func newRunLog() (*run, *strings.Builder) {
	var out strings.Builder
	return makeRun(Request{Log: actions.New(actions.Options{Stdout: &out, Stderr: &out})}), &out
}
