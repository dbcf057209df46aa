package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// monitorAt serves one client at a time, as QEMU does.
func monitorAt(t *testing.T, answers map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
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
			fmt.Fprintln(conn, `{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22},"package":""},"capabilities":["oob"]}}`)
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				var request struct {
					Execute string
					ID      json.RawMessage
				}
				if json.Unmarshal(lines.Bytes(), &request) != nil {
					break
				}
				answer, ok := answers[request.Execute]
				if !ok {
					answer = `"return":{}`
				}
				fmt.Fprintf(conn, `{%s,"id":%s}`+"\n", answer, request.ID)
			}
			_ = conn.Close()
		}
	}()
	return path
}

func TestGlanceAt(t *testing.T) {
	usernet, err := json.Marshal(usernet10)
	if err != nil {
		t.Fatal(err)
	}
	path := monitorAt(t, map[string]string{"query-status": `"return":{"status":"paused","running":false}`, "human-monitor-command": `"return":` + string(usernet)})
	got, err := GlanceAt(t.Context(), path)
	if err != nil || got.Version != "7.2.22" || got.Status != "paused" || !slices.Equal(got.Forwards, parseUsernet(usernet10)) || len(got.Forwards) == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := GlanceAt(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	other, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := bufio.NewReader(other).ReadString('\n'); err != nil { // it is served
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := GlanceAt(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another client is connected: %v", err)
	}
	refusing := monitorAt(t, map[string]string{"query-status": `"error":{"class":"GenericError","desc":"no"}`})
	if _, err := GlanceAt(t.Context(), refusing); err == nil {
		t.Error("a refusal is no error")
	}
}
