// Package tunneltest has a real OpenSSH server for the tests of tunnels.
package tunneltest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Key makes a key pair; the second form is a PEM file's.
func Key(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// Bastion is a real OpenSSH server on loopback, which lets our key in.
type Bastion struct {
	Addr      string
	User      string // who may log in
	Host      ssh.PublicKey
	Client    ssh.Signer
	ClientPEM []byte
}

// New starts one that ends with the test. The options are lines of sshd_config.
func New(t *testing.T, options string) Bastion {
	t.Helper()
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Fatal("sshd is not installed (make packages)")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" { // its privilege separation wants the directory
		if err := os.MkdirAll("/run/sshd", 0o750); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	host, hostPEM := Key(t)
	client, clientPEM := Key(t)
	write := func(name string, data []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	config := write("config", fmt.Appendf(nil, "HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPidFile none\nLogLevel ERROR\nPermitRootLogin yes\n%s\n",
		write("host", hostPEM), write("authorized", ssh.MarshalAuthorizedKey(client.PublicKey())), options))
	// Each connection gets a server of its own, as inetd does it: no port is chosen blindly.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	t.Cleanup(func() { _ = file.Close() })
	listener, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	b := Bastion{Addr: listener.Addr().String(), User: me.Username, Host: host.PublicKey(), Client: client, ClientPEM: clientPEM}
	servers := make(chan *exec.Cmd, 16)
	done := make(chan struct{})
	ctx := t.Context()
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f, err := conn.(*net.TCPConn).File()
			_ = conn.Close()
			if err != nil {
				return
			}
			cmd := exec.CommandContext(ctx, sshd, "-i", "-e", "-f", config)
			cmd.Stdin, cmd.Stdout = f, f
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if cmd.Start() == nil {
				servers <- cmd
			}
			_ = f.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		close(servers)
		for cmd := range servers {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return b
}
