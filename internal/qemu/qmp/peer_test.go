package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const greetingLine = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}` + "\r\n"

// peer plays QEMU's side of a connection.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// request is a command as the peer sees it.
type request struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        json.RawMessage `json:"id"`
}

// newPeer makes both ends of a connection.
func newPeer(t *testing.T) (*peer, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	return &peer{t, theirs, bufio.NewReader(theirs)}, ours
}

func (p *peer) send(text string) {
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Errorf("the peer could not send %.40q: %v", text, err)
	}
}

// next reads one command.
func (p *peer) next() (request, error) {
	var r request
	line, err := p.in.ReadBytes('\n')
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}

// expect reads one command and insists on its name.
func (p *peer) expect(name string) request {
	r, err := p.next()
	if err != nil || r.Execute != name {
		p.t.Errorf("the peer got %q, %v; want %q", r.Execute, err, name)
	}
	return r
}

func (p *peer) reply(r request, value string) {
	p.send(fmt.Sprintf(`{"return": %s, "id": %s}`+"\r\n", value, r.ID))
}

func (p *peer) event(name string) {
	p.send(fmt.Sprintf(`{"timestamp": {"seconds": 1795444694, "microseconds": 47803}, "event": %q}`+"\r\n", name))
}

// handshake greets and accepts the end of the negotiation.
func (p *peer) handshake() {
	p.send(greetingLine)
	p.reply(p.expect("qmp_capabilities"), "{}")
}

// play runs the peer's part and waits for its end when the test is over.
func (p *peer) play(script func(*peer)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		script(p)
	}()
	p.t.Cleanup(func() {
		_ = p.conn.Close()
		<-done
	})
}

// connected is a connection whose peer goes on with a script.
func connected(t *testing.T, script func(*peer)) *Conn {
	t.Helper()
	p, ours := newPeer(t)
	p.play(func(p *peer) {
		p.handshake()
		script(p)
	})
	c, err := New(deadline(t), ours)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// deadline is a context that no test should outlive.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// wantError checks an error's text, which a person will have to live with.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("err = %v; want one that says %q", err, text)
	}
}

// fileConn makes a connection of a socket's descriptor.
func fileConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	defer func() { _ = file.Close() }() // the connection has its own
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn)
}
