package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHandshake(t *testing.T) {
	c := connected(t, func(*peer) {})
	if v := c.Version(); v.String() != "7.2.22" || v.Package != "Debian 1:7.2" {
		t.Errorf("Version = %+v", v)
	}
}

// TestEventBetweenGreetingAndReply pins that only a reply is taken for one.
func TestEventBetweenGreetingAndReply(t *testing.T) {
	p, ours := newPeer(t)
	p.play(func(p *peer) {
		p.send(greetingLine)
		r := p.expect("qmp_capabilities")
		p.event("RESUME")
		p.send(`{"return": {"stale": true}, "id": 77}`)
		p.reply(r, "{}")
	})
	c, err := New(deadline(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestHandshakeFailures(t *testing.T) {
	for _, tc := range []struct {
		name, greeting, text string
		is                   error
	}{
		{"hangs up", "", "waiting for the monitor's greeting: QEMU closed the monitor", io.EOF},
		{"half a greeting", `{"QMP": {"ver`, "QEMU closed the monitor", io.ErrUnexpectedEOF},
		{"not QMP", "SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak QMP", ErrProtocol},
		{"other JSON", `{"hello": 1}`, "neither greeting, reply nor event", ErrProtocol},
		{"wrong types", `{"QMP": 3}`, "the peer does not speak QMP", ErrProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, ours := newPeer(t)
			p.play(func(p *peer) {
				_, _ = io.WriteString(p.conn, tc.greeting) // the other side may hang up first
				_ = p.conn.Close()
			})
			_, err := New(deadline(t), ours)
			wantError(t, err, tc.text)
			if !errors.Is(err, tc.is) {
				t.Errorf("err = %v; want it to be %v", err, tc.is)
			}
		})
	}
}

func TestSilentPeer(t *testing.T) {
	_, ours := newPeer(t)
	impatient := errors.New("the step was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(impatient)
	_, err := New(ctx, ours)
	wantError(t, err, "waiting for the monitor's greeting: the step was cancelled")
	if !errors.Is(err, impatient) {
		t.Errorf("err = %v; want the context's cause in it", err)
	}
}

func TestRefusedCapabilities(t *testing.T) {
	p, ours := newPeer(t)
	p.play(func(p *peer) {
		p.send(greetingLine)
		r := p.expect("qmp_capabilities")
		p.send(fmt.Sprintf(`{"error": {"class": "CommandNotFound", "desc": "no"}, "id": %s}`, r.ID))
	})
	_, err := New(deadline(t), ours)
	wantError(t, err, "executing qmp_capabilities: CommandNotFound: no")
}

func TestExecute(t *testing.T) {
	c := connected(t, func(p *peer) {
		r := p.expect("query-status")
		if r.Arguments != nil {
			t.Errorf("arguments %s were sent for none", r.Arguments)
		}
		p.reply(r, `{"status": "running"}`)
		r = p.expect("eject")
		if string(r.Arguments) != `{"id":"cd"}` {
			t.Errorf("arguments = %s", r.Arguments)
		}
		p.reply(r, "{}")
		p.reply(p.expect("query-name"), "null")
		p.reply(p.expect("query-cpus"), `"three"`)
	})
	var status struct{ Status string }
	if err := c.Execute(deadline(t), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("query-status = %+v, %v", status, err)
	}
	if err := c.Execute(deadline(t), "eject", map[string]string{"id": "cd"}, nil); err != nil {
		t.Error(err)
	}
	var raw json.RawMessage
	if err := c.Execute(deadline(t), "query-name", nil, &raw); err != nil || string(raw) != "null" {
		t.Errorf("query-name = %s, %v", raw, err)
	}
	var number int
	wantError(t, c.Execute(deadline(t), "query-cpus", nil, &number), "executing query-cpus: decoding its reply: ")
}

func TestUnencodableArguments(t *testing.T) {
	c := connected(t, func(*peer) {})
	wantError(t, c.Execute(deadline(t), "eject", func() {}, nil), "executing eject: encoding its arguments: ")
}

func TestRefusal(t *testing.T) {
	c := connected(t, func(p *peer) {
		for _, class := range []string{"DeviceNotFound", "GenericError"} {
			r := p.expect("eject")
			p.send(fmt.Sprintf(`{"error": {"class": %q, "desc": "Device 'cd' not found"}, "id": %s}`, class, r.ID))
		}
	})
	err := c.Execute(deadline(t), "eject", nil, nil)
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Class != "DeviceNotFound" || refusal.Desc != "Device 'cd' not found" {
		t.Errorf("err = %#v; want *Error with class and text", err)
	}
	wantError(t, err, "executing eject: DeviceNotFound: Device 'cd' not found")
	err = c.Execute(deadline(t), "eject", nil, nil)
	if got := err.Error(); got != "executing eject: Device 'cd' not found" {
		t.Errorf("err = %q; a generic error needs no class", got)
	}
}

// TestLargeReply has a reply as large as query-qmp-schema's, on one line.
func TestLargeReply(t *testing.T) {
	const size = 237588
	c := connected(t, func(p *peer) {
		p.reply(p.expect("query-qmp-schema"), `"`+strings.Repeat("x", size)+`"`)
		p.reply(p.expect("query-status"), `"fine"`)
	})
	var schema, status string
	if err := c.Execute(deadline(t), "query-qmp-schema", nil, &schema); err != nil || len(schema) != size {
		t.Errorf("got %d bytes, %v; want %d", len(schema), err, size)
	}
	if err := c.Execute(deadline(t), "query-status", nil, &status); err != nil {
		t.Errorf("after a large reply: %v", err)
	}
}

// TestManyInFlight answers commands in the reverse of their order.
func TestManyInFlight(t *testing.T) {
	const calls = 20
	c := connected(t, func(p *peer) {
		var requests []request
		for range calls {
			requests = append(requests, p.expect("echo"))
		}
		for i := range requests {
			r := requests[calls-1-i]
			p.reply(r, string(r.Arguments))
		}
	})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			var got int
			if err := c.Execute(deadline(t), "echo", i, &got); err != nil || got != i {
				t.Errorf("call %d got the reply of %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

// TestImpatientCaller gives up on one command; its late reply disturbs no one.
func TestImpatientCaller(t *testing.T) {
	received := make(chan struct{})
	gone := make(chan struct{})
	c := connected(t, func(p *peer) {
		late := p.expect("slow")
		close(received)
		<-gone
		p.reply(late, `"late"`)
		p.reply(p.expect("quick"), `"quick"`)
	})
	tooSlow := errors.New("5 s are enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-received
		cancel(tooSlow)
	}()
	err := c.Execute(ctx, "slow", nil, nil)
	close(gone)
	wantError(t, err, "executing slow: no reply: 5 s are enough")
	if !errors.Is(err, tooSlow) {
		t.Errorf("err = %v; want the context's cause", err)
	}
	var got string
	if err := c.Execute(deadline(t), "quick", nil, &got); err != nil || got != "quick" {
		t.Errorf("the next command got %q, %v", got, err)
	}
}

// TestDeafPeer has a peer that reads nothing: callers still come back.
func TestDeafPeer(t *testing.T) {
	hold := make(chan struct{})
	c := connected(t, func(*peer) { <-hold })
	defer close(hold)
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error)
	for range 2 { // one has its command taken by the blocked writer, the other not even that
		go func() { errs <- c.Execute(ctx, "query-status", nil, nil) }()
	}
	cancel(errors.New("cancelled"))
	for range 2 {
		wantError(t, <-errs, "cancelled")
	}
}

func TestPeerGoesAway(t *testing.T) {
	c := connected(t, func(p *peer) {
		p.expect("query-status")
		_ = p.conn.Close()
	})
	err := c.Execute(deadline(t), "query-status", nil, nil)
	wantError(t, err, "executing query-status: QEMU closed the monitor")
	if !errors.Is(err, ErrHangup) || !errors.Is(err, io.EOF) {
		t.Errorf("err = %v; want ErrHangup in it", err)
	}
	<-c.Done()
	if !errors.Is(c.Err(), ErrHangup) {
		t.Errorf("Err = %v", c.Err())
	}
	wantError(t, c.Execute(deadline(t), "query-name", nil, nil), "executing query-name: QEMU closed the monitor")
}

// TestReplyThenEnd is what quit does: the reply counts, not the end.
func TestReplyThenEnd(t *testing.T) {
	for range 50 {
		c := connected(t, func(p *peer) {
			p.reply(p.expect("quit"), "{}")
			_ = p.conn.Close()
		})
		if err := c.Execute(deadline(t), "quit", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedStreams(t *testing.T) {
	for _, tc := range []struct{ name, stream, text string }{
		{"garbage", "}}}", "does not speak QMP"},
		{"a parse error of the peer's", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`, "a reply has no id of ours: JSON parse error"},
		{"a foreign id", `{"return": {}, "id": "libvirt-1"}`, "a reply has no id of ours"},
		{"deep nesting", strings.Repeat(`[`, 20000), "does not speak QMP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := connected(t, func(p *peer) {
				p.expect("query-status")
				_, _ = io.WriteString(p.conn, tc.stream+"\r\n") // the other side may hang up first
			})
			err := c.Execute(deadline(t), "query-status", nil, nil)
			wantError(t, err, tc.text)
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("err = %v; want ErrProtocol", err)
			}
		})
	}
}

func TestTooLargeMessage(t *testing.T) {
	c := connected(t, func(p *peer) {
		p.expect("query-status")
		piece := strings.Repeat("x", 1<<20)
		_, _ = io.WriteString(p.conn, `{"return": "`)
		for range maxMessage>>20 + 1 {
			if _, err := io.WriteString(p.conn, piece); err != nil {
				return // the other side has seen enough
			}
		}
	})
	wantError(t, c.Execute(deadline(t), "query-status", nil, nil), "a message is larger than 16 MiB")
}

func TestClose(t *testing.T) {
	received := make(chan struct{})
	c := connected(t, func(p *peer) {
		p.expect("query-status")
		close(received)
	})
	pending := make(chan error)
	go func() { pending <- c.Execute(deadline(t), "query-status", nil, nil) }()
	<-received
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for _, err := range []error{<-pending, c.Err(), c.Execute(deadline(t), "query-name", nil, nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("err = %v; want ErrClosed", err)
		}
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qmp.sock")
	_, err := Dial(deadline(t), path)
	wantError(t, err, "dialing monitor: dial unix "+path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		p := &peer{t: t, conn: conn}
		p.in = bufio.NewReader(conn)
		p.handshake()
		_ = conn.Close()
	}()
	c, err := Dial(deadline(t), path)
	if err != nil {
		t.Fatal(err)
	}
	<-served
	_ = c.Close()
	_ = listener.Close()
}

// TestReset has a peer that goes away with a command unread: the kernel then
// resets the connection, which is no other end than any.
func TestReset(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := fileConn(t, fds[0]), fileConn(t, fds[1])
	p := &peer{t: t, conn: theirs, in: bufio.NewReader(theirs)}
	p.play((*peer).handshake)
	c, err := New(deadline(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error)
	go func() { sent <- c.Execute(deadline(t), "query-status", nil, nil) }()
	if _, _, _, _, err := theirs.ReadMsgUnix(make([]byte, 1), nil); err != nil { // the command has begun to arrive
		t.Error(err)
	}
	_ = theirs.Close()
	if err := <-sent; !errors.Is(err, ErrHangup) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("err = %v; want ErrHangup by a reset", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestExecuteFile passes a file over a real Unix socket.
func TestExecuteFile(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := fileConn(t, fds[0]), fileConn(t, fds[1])
	p := &peer{t: t, conn: theirs, in: bufio.NewReader(theirs)}
	p.play(func(p *peer) {
		p.handshake()
		data, oob := make([]byte, 1024), make([]byte, 128)
		n, oobn, _, _, err := theirs.ReadMsgUnix(data, oob)
		if err != nil {
			t.Error(err)
			return
		}
		var r request
		if err := json.Unmarshal(data[:n], &r); err != nil {
			t.Errorf("decoding %q: %v", data[:n], err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Errorf("control messages: %v, %v", messages, err)
			return
		}
		rights, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(rights) != 1 {
			t.Errorf("rights: %v, %v", rights, err)
			return
		}
		file := os.NewFile(uintptr(rights[0]), "passed")
		_, _ = file.WriteString("hello")
		_ = file.Close()
		p.reply(r, `{"fdset-id": 3}`)
	})
	c, err := New(deadline(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		ID int `json:"fdset-id"`
	}
	if err := c.ExecuteFile(deadline(t), "add-fd", nil, &set, file); err != nil || set.ID != 3 {
		t.Errorf("add-fd = %+v, %v", set, err)
	}
	if data, err := os.ReadFile(file.Name()); err != nil || string(data) != "hello" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	_ = file.Close()
	wantError(t, c.ExecuteFile(deadline(t), "add-fd", nil, nil, file), "executing add-fd: duplicating ")
	_ = c.Close()
}

func TestExecuteFileNeedsUnixSocket(t *testing.T) {
	c := connected(t, func(*peer) {})
	wantError(t, c.ExecuteFile(deadline(t), "add-fd", nil, nil, os.Stdin), "executing add-fd: a file can only go over a Unix socket")
}
