package lifecycle

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// TestConsoleSocket serves the console: what was said, without what is
// concealed, and typing only while nobody else speaks.
func TestConsoleSocket(t *testing.T) {
	r, guest, _ := talking(t)
	r.Host.Workspace, r.Host.Temp = t.TempDir(), t.TempDir()
	if err := errors.Join(r.begin(), r.openLines(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.attachLines(&qemu.Machine{})
	defer func() { _ = r.cleanup.run(context.WithoutCancel(t.Context())) }()
	print(t, guest, "before\r\n")
	if _, err := r.console.WaitLine(t.Context(), regexp.MustCompile("^before$")); err != nil {
		t.Fatal(err)
	}
	reveal := r.console.Conceal("a secret")
	print(t, guest, "a secret\r\n")
	if _, err := r.console.Expect(t.Context(), regexp.MustCompile("a secret\n")); err != nil {
		t.Fatal(err)
	}
	reveal()
	conn, err := net.Dial("unix", filepath.Join(r.dir, ConsoleSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, len(want))
		if n, err := io.ReadFull(conn, buf); err != nil || string(buf) != want {
			t.Fatalf("heard %q, want %q: %v", buf[:n], want, err)
		}
	}
	hear("before\r\n")
	print(t, guest, "login: ")
	hear("login: ")
	end := r.speak("somebody speaks")
	print(t, conn, "root\n")
	hear("\r\n[hurd-qemu-action: not typed: somebody speaks]\r\n")
	again := r.letType() // a person may look into a guest that is kept
	print(t, conn, "id\n")
	typed := make([]byte, 3)
	if _, err := io.ReadFull(guest, typed); err != nil || string(typed) != "id\n" {
		t.Errorf("typed %q, %v", typed, err)
	}
	again()
	if r.refuseTyping() != "somebody speaks" {
		t.Error("the one who spoke before does not any more")
	}
	end()
	if r.refuseTyping() != "" {
		t.Error("nobody speaks, and yet nobody may type")
	}
}

// TestSerialPortTaken is the user's mistake, and names the port.
func TestSerialPortTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r, _ := newRun()
	r.Host.Workspace, r.Host.Temp = t.TempDir(), t.TempDir()
	r.config.SerialPort = config.SerialPort{Set: true, Port: l.Addr().(*net.TCPAddr).Port}
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.cleanup.run(context.WithoutCancel(t.Context())) }()
	err = r.openLines(t.Context())
	if !isKind(err, InputInvalid) || !strings.HasPrefix(err.Error(), "serial-port: ") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("err = %v", err)
	}
}

// TestLineLog: a log that is full, or can't be written, does not end the line,
// and says so once.
func TestLineLog(t *testing.T) {
	var kept strings.Builder
	for name, tc := range map[string]struct {
		to        io.Writer
		kept      string
		complaint string
	}{
		"full":   {&kept, "one\nt\n[the rest of this line is not kept: the log has reached its limit]\n", "limit of 64 MiB"},
		"broken": {brokenWriter{}, "", "no space left"},
	} {
		kept.Reset()
		var warned []string
		var line strings.Builder
		l := &lineLog{tc.to, 5, func(text string) { warned = append(warned, text) }}
		for _, text := range []string{"one\n", "two\n", "three\n"} {
			if _, err := io.Copy(io.MultiWriter(&line, l), strings.NewReader(text)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if kept.String() != tc.kept || line.String() != "one\ntwo\nthree\n" || len(warned) != 1 || !strings.Contains(warned[0], tc.complaint) {
			t.Errorf("%s: kept %q, line %q, warned %q", name, kept.String(), line.String(), warned)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
