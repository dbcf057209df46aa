package cli

import (
	"bytes"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
)

// bareQEMU starts a QEMU without a guest, as one that runs in a directory for
// temporary files: its run directory, and a channel that closes when it has ended.
func bareQEMU(t *testing.T) (temp, dir string, ended <-chan struct{}) {
	t.Helper()
	const program = "qemu-system-x86_64"
	if _, err := exec.LookPath(program); err != nil && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	temp = t.TempDir()
	dir = filepath.Join(temp, "hurd-qemu-action-123")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := lifecycle.MonitorSocket(dir)
	cmd := exec.Command(program, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-accel", "tcg", "-m", "32M",
		"-qmp", "unix:"+socket+",server=on,wait=off")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended does not matter
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // nothing tells when QEMU listens
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return temp, dir, done
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("QEMU does not listen")
		}
	}
}

// call is one call of the program with an input.
func call(temp, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, diag bytes.Buffer
	c := Command{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &diag, Args: append([]string{"qmp"}, args...), Environ: []string{"RUNNER_TEMP=" + temp}}
	status = c.Main()
	return status, out.String(), diag.String()
}

func wantCall(t *testing.T, status int, want, got, diag string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(diag, text) {
			t.Errorf("stderr %q, want %q", diag, text)
		}
	}
	if want != got {
		t.Errorf("status %d, stdout %q, want %q; stderr %q", status, got, want, diag)
	}
}

// TestQMP calls the command as people do: with a command as words or as JSON,
// and piped, as the guide's helper is used.
func TestQMP(t *testing.T) {
	temp, dir, ended := bareQEMU(t)
	is := func(status, want int, got string) {
		t.Helper()
		if status != want {
			t.Errorf("status %d, want %d; stdout %q", status, want, got)
		}
	}
	for name, args := range map[string][]string{
		"the only guest": {"query-status"}, "JSON": {`{"execute":"query-status"}`}, "after --": {"--", "query-status"},
		"by its end": {"--guest", "123", "query-status"}, "by its directory": {"--guest", dir, "query-status"}, "by its socket": {"--socket", lifecycle.MonitorSocket(dir), "query-status"},
	} {
		status, out, diag := call(temp, "", args...)
		is(status, 0, out)
		if !strings.Contains(out, `"status":"running"`) || strings.Count(out, "\n") != 1 || diag != "" {
			t.Errorf("%s: stdout %q, stderr %q", name, out, diag)
		}
	}
	// One answer line for each command line; the last line need not end.
	status, out, diag := call(temp, "# a comment\n\n{\"execute\":\"stop\",\"id\":1}\n{\"execute\":\n\"cont\"}\nhmp info status\nquery-statu\nnot a command\nqmp_capabilities")
	is(status, 1, out)
	wantCall(t, status, `{"return":{},"id":1}
{"return":{}}
{"return":"VM status: running\r\n"}
{"error":{"class":"CommandNotFound","desc":"The command query-statu has not been found"}}
{"error":{"class":"GenericError","desc":"\"a\" is not key=value: arguments are written as in query-block, device_del id=disk1"}}
{"return":{}}
`, out, diag, "did you mean query-stats or query-status?", "leave it out")
	// Events are there when they are wanted, before the answer that they came before.
	status, out, diag = call(temp, "stop\ncont\n", "--events")
	is(status, 0, out)
	lines := strings.Split(out, "\n")
	if len(lines) != 5 || !strings.Contains(lines[0], `"event":"STOP"`) || lines[1] != `{"return":{}}` || !strings.Contains(lines[2], `"event":"RESUME"`) || lines[3] != `{"return":{}}` {
		t.Errorf("stdout %q, stderr %q", out, diag)
	}
	status, _, diag = call(temp, `{"execute":`)
	is(status, 1, diag)

	picture := filepath.Join(t.TempDir(), "a b.png")
	status, out, diag = call(temp, "", "screendump", picture)
	is(status, 0, out+diag)
	data, err := os.ReadFile(picture)
	if c, err2 := png.DecodeConfig(bytes.NewReader(data)); err != nil || err2 != nil || c.Width < 300 {
		t.Errorf("%v, %v, %+v", err, err2, c)
	}
	status, out, _ = call(temp, "", "screendump", "/nowhere/a.png")
	is(status, 1, out)

	status, out, diag = call(temp, "", "--guest", "456", "query-status")
	is(status, 125, out)
	wantCall(t, status, "", out, diag, `no guest is called "456"`)

	status, out, diag = call(temp, "quit\n", "--events")
	is(status, 0, out+diag)
	<-ended
	status, out, diag = call(temp, "", "query-status")
	is(status, 125, out)
	wantCall(t, status, "", out, diag, "no guest of hurd-qemu-action runs here")
}

// TestQMPEndsWithQEMU holds that nobody waits for input when QEMU has gone.
func TestQMPEndsWithQEMU(t *testing.T) {
	temp, _, _ := bareQEMU(t)
	input, write := io.Pipe()
	defer func() { _ = write.Close() }()
	var out, diag bytes.Buffer
	c := Command{Stdin: input, Stdout: &out, Stderr: &diag, Args: []string{"qmp"}, Environ: []string{"RUNNER_TEMP=" + temp}}
	done := make(chan int, 1)
	go func() { done <- c.Main() }()
	go func() { _, _ = io.WriteString(write, "hmp quit\n") }() // nobody reads it when the command fails
	select {
	case status := <-done:
		_ = input.Close()
		if status != 125 || !strings.Contains(diag.String(), "QEMU closed the monitor") {
			t.Errorf("status %d, stderr %q", status, diag.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for ever")
	}
}
