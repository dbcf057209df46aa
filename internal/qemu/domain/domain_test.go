package domain

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	goqmp "github.com/digitalocean/go-qemu/qmp"
	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// schemaSize is that of QEMU 10's reply to query-qmp-schema.
const schemaSize = 237588

// serve answers commands like a small QEMU, until the connection ends.
func serve(t *testing.T, conn net.Conn) {
	in := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}`+"\n")
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Errorf("a bad command %q: %v", line, err)
			return
		}
		id := ""
		if r.ID != nil {
			id = `, "id": ` + string(r.ID)
		}
		var reply string
		switch r.Execute {
		case "qmp_capabilities":
			reply = `{"return": {}` + id + `}`
		case "query-status":
			reply = `{"return": {"running": true, "singlestep": false, "status": "running"}` + id + `}`
		case "query-version":
			reply = `{"return": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}` + id + `}`
		case "query-qmp-schema":
			reply = `{"return": "` + strings.Repeat("x", schemaSize) + `"` + id + `}`
		case "stop":
			reply = `{"timestamp": {"seconds": 7, "microseconds": 9}, "event": "STOP", "data": {"why": "asked"}}` + "\n" + `{"return": {}` + id + `}`
		case "hang":
			continue
		default:
			reply = fmt.Sprintf(`{"error": {"class": "CommandNotFound", "desc": "The command %s has not been found"}%s}`, r.Execute, id)
		}
		if _, err := io.WriteString(conn, reply+"\n"); err != nil {
			return
		}
	}
}

// listen starts the small QEMU on a Unix socket.
func listen(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		serve(t, conn)
		_ = conn.Close()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return path
}

func dial(t *testing.T) *qmp.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := qmp.Dial(ctx, listen(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestDomain(t *testing.T) {
	conn := dial(t)
	d, err := New(conn, Options{Name: "guest"})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := d.Status(); err != nil || status != qemu.StatusRunning {
		t.Errorf("Status = %v, %v", status, err)
	}
	if version, err := d.Version(); err != nil || version != "7.2.22" {
		t.Errorf("Version = %v, %v", version, err)
	}
	if name, err := d.PackageVersion(); err != nil || name != "Debian" {
		t.Errorf("PackageVersion = %v, %v", name, err)
	}
	err = d.SystemReset()
	var refusal *qmp.Error
	if !errors.As(err, &refusal) || refusal.Class != "CommandNotFound" {
		t.Errorf("err = %v; want QEMU's refusal with its class", err)
	}
	events, done, err := d.Events()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Run(goqmp.Command{Execute: "stop"}); err != nil {
		t.Error(err)
	}
	e := <-events
	if e.Event != "STOP" || e.Data["why"] != "asked" || e.Timestamp.Seconds != 7 || e.Timestamp.Microseconds != 9 {
		t.Errorf("event = %+v", e)
	}
	done <- struct{}{}
	if _, open := <-events; open {
		t.Error("an event came after the end of the events")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if conn.Err() != nil {
		t.Errorf("closing the domain ended the connection: %v", conn.Err())
	}
}

// TestLargeReplies shows what is wrong with go-qemu's transport, and right
// with ours: the first reply above 64 KiB ends it for good.
func TestLargeReplies(t *testing.T) {
	command := []byte(`{"execute": "query-qmp-schema"}`)
	own, err := goqmp.NewSocketMonitor("unix", listen(t), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := own.Run(append(command, '\n')); err == nil {
		t.Error("go-qemu's monitor takes large replies now: our transport may be needed no more")
	}
	if err := own.Disconnect(); err != nil {
		t.Error(err)
	}
	reply, err := NewMonitor(dial(t), 0).Run(command)
	if err != nil || len(reply) < schemaSize {
		t.Errorf("our monitor got %d bytes, %v", len(reply), err)
	}
}

func TestMonitorLimits(t *testing.T) {
	conn := dial(t)
	m := NewMonitor(conn, time.Millisecond)
	if _, err := m.Run([]byte(`{"execute": "hang"}`)); err == nil || !strings.Contains(err.Error(), "executing hang: no reply: QEMU took too long") {
		t.Errorf("err = %v; want a deadline", err)
	}
	if _, err := m.Run([]byte("quit")); err == nil || !strings.Contains(err.Error(), "decoding a command") {
		t.Errorf("err = %v", err)
	}
	if err := m.Connect(); err != nil {
		t.Errorf("Connect: %v", err)
	}
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := m.Connect(); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("Connect = %v on a closed connection", err)
	}
	if _, open := <-events; open {
		t.Error("events outlive the connection")
	}
}
