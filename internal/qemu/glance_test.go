package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	want := Glance{"7.2.22", "paused", []Forwarded{{"127.0.0.1:46435", 22}, {"127.0.0.1:36943", 80}}}
	if err != nil || !cmp.Equal(got, want) {
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

func TestUsernetForwards(t *testing.T) {
	for text, want := range map[string][]Forwarded{
		usernet72: {{"127.0.0.1:36289", 22}},
		"":        nil,
		"TCP[HOST_FORWARD] 8 0.0.0.0 80 10.0.2.15 8080 0 0\r\n": {{"127.0.0.1:80", 8080}},
		"TCP[HOST_FORWARD] 8 * 80 10.0.2.15 8080 0 0\r\n":       {{"127.0.0.1:80", 8080}},
		"UDP[HOST_FORWARD] 8 0.0.0.0 80 10.0.2.15 8080 0 0\r\n": nil,
		"TCP[HOST_FORWARD] 8 127.0.0.1 0 10.0.2.15 22 0 0\r\n":  nil,
	} {
		if got := usernetForwards(text); !cmp.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// FuzzUsernetForwards holds that whatever is found can be connected to.
func FuzzUsernetForwards(f *testing.F) {
	f.Add(usernet72)
	f.Add(usernet10)
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range usernetForwards(text) {
			host, port, err := net.SplitHostPort(p.Host)
			if err != nil || host == "" || port == "0" || p.Guest < 1 || p.Guest > 65535 || !strings.Contains(text, "TCP[HOST_FORWARD]") {
				t.Fatalf("%+v of %q: %v", p, text, err)
			}
		}
	})
}
