package qemu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeOptions say how the fake QEMU plays its part. They come as the Spec's
// last extra argument, in JSON.
type fakeOptions struct {
	Stderr     string            // written at once
	Exit       *int              // exit with this status at once
	Hang       bool              // never use the monitor
	IgnoreQuit bool              // answer quit and stay
	IgnoreAll  bool              // answer nothing after the handshake
	IgnoreTerm bool              // survive SIGTERM
	Serial     string            // written to the serial line just before the end
	Status     string            // what query-status says; "" is running
	On         map[string]string // command -> what to send before its reply; "exit" as the last line ends the fake
	Usernet    string            // what "info usernet" prints
	Answers    map[string]string // command -> what it returns
}

// fakeArg marks a Spec for the fake.
func (o fakeOptions) spec() Spec {
	data, _ := json.Marshal(o)
	return Spec{Hardware: Hardware{Machine: "pc", CPUModel: "qemu64", CPUs: 1, Memory: 64 << 20, DiskBus: BusIDE}, Accel: AccelTCG, Extra: []string{string(data)}}
}

// fakeBinary is this test program, where every user can run it.
func fakeBinary(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	path := filepath.Join(dir, "fake-qemu")
	if err := os.Link(self, path); err == nil {
		return path
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// publicDir is a temporary directory that other users can enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qemu-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fakeQEMU is the main program of the fake.
func fakeQEMU(args []string) int {
	var o fakeOptions
	if err := json.Unmarshal([]byte(args[len(args)-1]), &o); err != nil {
		fmt.Fprintln(os.Stderr, "fake: bad options:", err)
		return 99
	}
	fmt.Fprint(os.Stderr, o.Stderr)
	if o.Exit != nil {
		return *o.Exit
	}
	if o.IgnoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	if o.Hang {
		time.Sleep(time.Hour) // until it is killed
	}
	status := o.monitor(channel(args, "monitor"))
	if o.Serial != "" {
		_, _ = channel(args, "serial").Write([]byte(o.Serial))
	}
	return status
}

// channel finds the socket that the command line names for a purpose.
func channel(args []string, id string) net.Conn {
	prefix := "socket,id=" + id + ",fd="
	for _, arg := range args {
		if text, ok := strings.CutPrefix(arg, prefix); ok {
			fd, err := strconv.Atoi(text)
			if err != nil {
				break
			}
			conn, err := net.FileConn(os.NewFile(uintptr(fd), id))
			if err == nil {
				return conn
			}
		}
	}
	fmt.Fprintln(os.Stderr, "fake: no channel", id)
	os.Exit(98)
	return nil
}

func (o fakeOptions) monitor(conn net.Conn) int {
	in := bufio.NewReader(conn)
	fmt.Fprintln(conn, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 99}, "package": "fake"}, "capabilities": []}}`)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return 97 // our side is gone
		}
		var r struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return 96
		}
		if o.IgnoreAll && r.Execute != "qmp_capabilities" && r.Execute != "query-status" {
			continue
		}
		before, exit := strings.CutSuffix(o.On[r.Execute], "exit")
		fmt.Fprint(conn, before)
		fmt.Fprintf(conn, `{"return": %s, "id": %s}`+"\n", o.answer(r.Execute), r.ID)
		if exit || r.Execute == "quit" && !o.IgnoreQuit {
			return 0
		}
	}
}

func (o fakeOptions) answer(command string) string {
	if answer := o.Answers[command]; answer != "" {
		return answer
	}
	switch command {
	case "query-cpus-fast":
		return fmt.Sprintf(`[{"cpu-index": 0, "thread-id": %d}]`, os.Getpid()) // the first thread's number
	case "query-status":
		if o.Status != "" {
			return `{"status": "` + o.Status + `"}`
		}
		return `{"status": "running"}`
	case "human-monitor-command":
		text, _ := json.Marshal(o.Usernet)
		return string(text)
	}
	return "{}"
}
