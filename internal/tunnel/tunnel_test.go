package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/tunnel/tunneltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(b tunneltest.Bastion, target string) Options {
	return Options{User: b.User, Addr: b.Addr, Signer: b.Client, HostKeys: []ssh.PublicKey{b.Host}, Target: target}
}

// echo is a service that answers each line, and ends when its client does.
func echo(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// TestTunnel goes through a real OpenSSH server, several connections at once.
func TestTunnel(t *testing.T) {
	b := tunneltest.New(t, "")
	tunnel, err := Open(t.Context(), options(b, echo(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tunnel.Close() }()
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	results := make(chan error, 3)
	for range cap(results) {
		go func() { results <- roundTrip(tunnel.Port(), data) }()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if tunnel.Err() != nil {
		t.Errorf("the tunnel ended: %v", tunnel.Err())
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tunnel.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "x\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := tunnel.Close(); err != nil {
		t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a connection outlives its tunnel: %v", err)
	}
}

func roundTrip(port int, data []byte) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	go func() {
		_, _ = conn.Write(data)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d bytes came back of %d, or others", len(got), len(data))
	}
	return err
}

func TestRefused(t *testing.T) {
	other, _ := tunneltest.Key(t)
	for _, tc := range []struct {
		name    string
		options string
		change  func(*Options)
		want    string
	}{
		{"another host key", "", func(o *Options) { o.HostKeys = []ssh.PublicKey{other.PublicKey()} }, "not the one that was given"},
		{"another user key", "", func(o *Options) { o.Signer = other }, "unable to authenticate"},
		{"no forwarding", "AllowTcpForwarding no", func(*Options) {}, "AllowTcpForwarding"},
		{"nobody there", "", func(o *Options) { o.Addr = "127.0.0.1:1" }, "127.0.0.1:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := options(tunneltest.New(t, tc.options), "127.0.0.1:1")
			tc.change(&o)
			tunnel, err := Open(t.Context(), o)
			if err == nil {
				_ = tunnel.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

// relayed is an address behind which one connection leads to the server. back
// copies what that sends; the connection is told, so that it can be cut.
func relayed(t *testing.T, b tunneltest.Bastion, back func(here, there net.Conn)) (addr string, conns <-chan net.Conn) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		here, err := l.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial("tcp", b.Addr)
		if err != nil {
			return
		}
		accepted <- here
		go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
		back(here, there)
	}()
	return l.Addr().String(), accepted
}

// TestEndsWithServer: whoever waits for the tunnel hears that it is gone.
func TestEndsWithServer(t *testing.T) {
	b := tunneltest.New(t, "")
	addr, conns := relayed(t, b, func(here, there net.Conn) { _, _ = io.Copy(here, there) })
	o := options(b, "127.0.0.1:1")
	o.Addr = addr
	tunnel, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tunnel.Close() }()
	_ = (<-conns).Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-tunnel.Done():
		if tunnel.Err() == nil {
			t.Error("it ended for no reason")
		}
	case <-ctx.Done():
		t.Error("nobody said that the server is gone")
	}
}

// TestSilentServer: a connection that swallows all ends the tunnel, too.
func TestSilentServer(t *testing.T) {
	b := tunneltest.New(t, "")
	var silent atomic.Bool
	addr, _ := relayed(t, b, func(here, there net.Conn) {
		buffer := make([]byte, 64<<10)
		for {
			n, err := there.Read(buffer)
			if !silent.Load() {
				_, _ = here.Write(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	})
	o := options(b, "127.0.0.1:1")
	o.Addr, o.Alive = addr, 200*time.Millisecond
	tunnel, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tunnel.Close() }()
	silent.Store(true)
	select {
	case <-tunnel.Done():
		if err := tunnel.Err(); err == nil || !strings.Contains(err.Error(), "has not answered") {
			t.Errorf("it ended: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody noticed that the server is silent")
	}
}
