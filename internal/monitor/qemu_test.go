package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

var qemuFlag = flag.String("qemu", "qemu-system-x86_64", "the QEMU that the tests run")

// needQEMU skips, loudly, where no QEMU is installed; with E2E_REQUIRED it fails instead.
func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath(*qemuFlag); err == nil {
		return
	}
	if os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatal(*qemuFlag + " is not installed")
	}
	t.Skip(*qemuFlag + " is not installed")
}

// deadline is a context that no test should outlive.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// machine is a QEMU without a guest: its firmware talks on the serial line,
// and has a boot menu that keys open.
type machine struct {
	*Session
	t      *testing.T
	socket string
	serial *watched
	kept   map[string][]byte
	done   chan struct{} // closed when QEMU has ended
}

// startMachine starts one, and ends it with the test.
func startMachine(t *testing.T, args ...string) *machine {
	t.Helper()
	needQEMU(t)
	m := &machine{t: t, socket: filepath.Join(t.TempDir(), "qmp"), serial: newWatched(), kept: map[string][]byte{}, done: make(chan struct{})}
	cmd := exec.Command(*qemuFlag, append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-accel", "tcg", "-m", "32M",
		"-machine", "pc,graphics=off", "-boot", "menu=on,splash-time=20000", "-serial", "stdio",
		"-qmp", "unix:" + m.socket + ",server=on,wait=off",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = m.serial, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe() // open, so that the serial line does not end
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.done)
		_ = cmd.Wait() // how it ended is the test's to ask
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		<-m.done
	})
	var conn *qmp.Conn
	for conn == nil {
		if conn, err = Dial(deadline(t), m.socket); err != nil {
			select {
			case <-m.done:
				t.Fatal("QEMU did not start")
			case <-time.After(10 * time.Millisecond): // it makes the socket first of all
			}
			if deadline(t).Err() != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { _ = conn.Close() })
	m.Session = &Session{Conn: conn, Keep: func(name string, picture []byte) (string, error) {
		m.kept[name] = picture
		return "/kept/" + name, nil
	}}
	return m
}

// do carries out a command as it is written.
func (m *machine) do(text string) Answer {
	m.t.Helper()
	c, err := Parse(text)
	if err != nil {
		m.t.Fatalf("%s: %v", text, err)
	}
	a, err := m.Do(deadline(m.t), c)
	if err != nil {
		m.t.Fatalf("%s: %v", text, err)
	}
	return a
}

// wants carries out a command that must succeed with an answer that holds a text.
func (m *machine) wants(text, answer string) Answer {
	m.t.Helper()
	a := m.do(text)
	if a.Failed || !strings.Contains(string(a.JSON()), answer) {
		m.t.Errorf("%s: answer %s, notes %q; want %s", text, a.JSON(), a.Notes, answer)
	}
	return a
}

func hasNote(t *testing.T, a Answer, text string) {
	t.Helper()
	if !strings.Contains(strings.Join(a.Notes, "\n"), text) {
		t.Errorf("notes %q, want %q", a.Notes, text)
	}
}

func event(t *testing.T, events *qmp.Subscription, name string) {
	t.Helper()
	select {
	case e, open := <-events.Events():
		if !open || e.Name != name {
			t.Errorf("event %q, want %s", e.Name, name)
		}
	case <-deadline(t).Done():
		t.Errorf("no event %s", name)
	}
}

// asJSON are the guide's commands as it writes them.
func asJSON(name string) string { return fmt.Sprintf(`{"execute":%q}`, name) }

// TestQueries are the guide's "Query Information".
func TestQueries(t *testing.T) {
	m := startMachine(t, "-S", "-drive", "if=ide,id=disk0,driver=null-co,size=1M")
	for _, form := range []func(string) string{asJSON, func(name string) string { return name }} {
		m.wants(form("query-status"), `"status":"prelaunch"`)
		m.wants(form("query-block"), `"device":"disk0"`)
		m.wants(form("query-cpus-fast"), `"cpu-index":0`)
		hasNote(t, m.wants(form("query-cpus"), `"cpu-index":0`), "query-cpus was carried out as query-cpus-fast")
		hasNote(t, m.wants(form("query-vnc"), `"enabled":false`), "started without VNC")
	}
	if notes := m.wants("query-status", "").Notes; len(notes) > 0 {
		t.Errorf("notes without a reason: %q", notes)
	}
	m.wants(`{"execute":"query-status","id":[1,"x"]}`, `"id":[1,"x"]`)
	hasNote(t, m.wants(asJSON("qmp_capabilities"), `{"return":{}}`), "leave it out")
}

// TestQueryVNC has a QEMU with VNC, as the guide's -vnc has it.
func TestQueryVNC(t *testing.T) {
	m := startMachine(t, "-S", "-vnc", "unix:"+filepath.Join(t.TempDir(), "vnc"))
	if a := m.wants("query-vnc", `"enabled":true`); len(a.Notes) > 0 {
		t.Errorf("notes %q", a.Notes)
	}
}

// TestControl is the guide's "Control VM".
func TestControl(t *testing.T) {
	for name, form := range map[string]func(string) string{"JSON": asJSON, "short": func(name string) string { return name }} {
		t.Run(name, func(t *testing.T) {
			m := startMachine(t)
			m.serial.await(t, "Press ESC for boot menu")
			events := m.Conn.Subscribe("STOP", "RESUME", "RESET", "POWERDOWN")
			defer events.Close()
			m.wants(form("stop"), `{"return":{}}`)
			event(t, events, "STOP")
			m.wants(form("query-status"), `"status":"paused"`)
			if running, state, err := m.Status(deadline(t)); running || state != "paused" || err != nil {
				t.Errorf("Status = %v, %q, %v", running, state, err)
			}
			m.wants(form("cont"), `{"return":{}}`)
			event(t, events, "RESUME")
			m.wants(form("query-status"), `"status":"running"`)
			m.wants(form("system_reset"), `{"return":{}}`)
			event(t, events, "RESET")
			hasNote(t, m.wants(form("system_powerdown"), `{"return":{}}`), "such as the Hurd")
			event(t, events, "POWERDOWN")
			m.wants(form("quit"), `{"return":{}}`)
			<-m.done
			c := Command{Name: "query-status"}
			if _, err := m.Do(deadline(t), c); err == nil {
				t.Error("a QEMU that has ended answers")
			}
		})
	}
}

// TestKeys are the guide's "Send Keys", through the human monitor as it has
// them and as commands of our own: the firmware's boot menu shows that they arrive.
func TestKeys(t *testing.T) {
	for name, form := range map[string]string{
		"JSON":  `{"execute":"human-monitor-command","arguments":{"command-line":"sendkey %s"}}`,
		"human": "human-monitor-command \"sendkey %s\"", "hmp": "hmp sendkey %s", "own": "sendkey %s",
	} {
		t.Run(name, func(t *testing.T) {
			m := startMachine(t, "-drive", "if=ide,driver=null-co,size=1M")
			resets := m.Conn.Subscribe("RESET")
			defer resets.Close()
			again := func() {
				t.Helper()
				m.serial.reset()
				m.wants(fmt.Sprintf(form, "ctrl-alt-delete"), `"return":`)
				event(t, resets, "RESET")
			}
			// The firmware would wait for 20 s: any other key ends that.
			for _, other := range []string{"f12", "ret"} {
				m.serial.await(t, "Press ESC for boot menu")
				m.wants(fmt.Sprintf(form, other), `"return":`)
				m.serial.await(t, "Booting from Hard Disk", "No bootable device")
				again()
			}
			m.serial.await(t, "Press ESC for boot menu")
			m.wants(fmt.Sprintf(form, "esc"), `"return":`)
			m.serial.await(t, "Select boot device:")
			m.wants(fmt.Sprintf(form, "1"), `"return":`)
			m.serial.await(t, "Booting from Hard Disk")
		})
	}
}

// TestTyped types every character of the US keyboard, and reads from the
// machine's memory what its firmware has understood: its ring of 16 keys, the
// character in the low byte, lies at 0x41e, with head and tail before it.
func TestTyped(t *testing.T) {
	m := startMachine(t, "-drive", "if=ide,driver=null-co,size=1M")
	var all []rune
	for c := ' '; c <= '~'; c++ {
		all = append(all, c)
	}
	all = append(all, '\t', '\b', 0x1b)
	for len(all) > 0 {
		n := min(len(all), 14)
		text := string(all[:n])
		all = all[n:]
		m.serial.await(t, "Press ESC for boot menu")
		m.wants("sendkey f12", "") // to a machine that does nothing but take keys
		m.serial.await(t, "No bootable device")
		began := time.Now()
		m.wants(fmt.Sprintf("sendkey %s hold-time=5", encode(text)), `{"return":{}}`)
		if took, least := time.Since(began), time.Duration(n)*2*5*time.Millisecond; took < least {
			t.Errorf("%d keys took %v: they were not waited for", n, took)
		}
		if got := m.understood(); got != text {
			t.Errorf("%q arrived as %q", text, got)
		}
		m.serial.reset()
		m.wants("sendkey ctrl-alt-delete", "")
	}
}

// understood reads the firmware's ring of keys.
func (m *machine) understood() string {
	m.t.Helper()
	words := m.memory(0x41a, 18)
	head, tail, ring := words[0], words[1], words[2:]
	var text []rune
	for at := (head - 0x1e) / 2; at != (tail-0x1e)/2; at = (at + 1) % 16 {
		text = append(text, rune(ring[at]&0xff))
	}
	return string(text)
}

// memory reads 16-bit words.
func (m *machine) memory(address, count int) []int {
	m.t.Helper()
	var dump string
	if err := json.Unmarshal(m.wants(fmt.Sprintf("hmp xp /%dhx %#x", count, address), "").Return, &dump); err != nil {
		m.t.Fatal(err)
	}
	var words []int
	for _, field := range strings.Fields(dump) {
		if n, err := strconv.ParseInt(field, 0, 32); err == nil {
			words = append(words, int(n))
		}
	}
	if len(words) != count {
		m.t.Fatalf("memory: %q", dump)
	}
	return words
}

func TestScreendump(t *testing.T) {
	m := startMachine(t)
	m.serial.await(t, "Press ESC for boot menu")
	for _, text := range []string{
		"screendump screen.png", `screendump filename=screen.png format=png`, `{"execute":"screendump","arguments":{"filename":"screen.png"}}`,
	} {
		m.kept = map[string][]byte{}
		m.wants(text, `{"return":{"file":"/kept/screen.png","size":`)
		if c, err := png.DecodeConfig(bytes.NewReader(m.kept["screen.png"])); err != nil || c.Width < 300 {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	// As the guide has it.
	m.wants(`{"execute":"screendump","arguments":{"filename":"/tmp/screen.ppm"}}`, `"file":"/kept//tmp/screen.ppm"`)
	if !bytes.HasPrefix(m.kept["/tmp/screen.ppm"], []byte("P6")) {
		t.Error("the picture is no PPM")
	}
	var sets []struct{ FDs []any }
	if err := json.Unmarshal(m.wants("query-fdsets", "").Return, &sets); err != nil {
		t.Error(err)
	}
	for _, s := range sets {
		if len(s.FDs) > 0 {
			t.Errorf("QEMU keeps a descriptor: %v", s.FDs)
		}
	}
}

// TestRefusals holds what is said about commands that QEMU refuses.
func TestRefusals(t *testing.T) {
	m := startMachine(t, "-S")
	for _, tc := range []struct{ text, answer, note string }{
		{"query-statsu", `"class":"CommandNotFound"`, "did you mean query-stats or query-status?"},
		{"sendkeys a=b", `"class":"CommandNotFound"`, "did you mean sendkey"},
		{"frobnicate", `"class":"CommandNotFound"`, "query-commands lists all"},
		{"mirror", `"class":"CommandNotFound"`, "there are blockdev-mirror"},
		{"boot_set a=b", `"class":"CommandNotFound"`, "human monitor: write hmp boot_set"},
		{"c", `"class":"CommandNotFound"`, "human monitor: write hmp c"},
		{"guest-ping", `"class":"CommandNotFound"`, "the guest agent"},
		{"change device=vnc target=x", `"class":"CommandNotFound"`, "blockdev-change-medium"},
		{"eject id=nothing", `"class":"DeviceNotFound"`, ""},
		{"eject id=12", `"class":"GenericError"`, `write key="1234"`},
		{"hmp frob", `"return":"unknown command: 'frob'`, ""},
		{"hmp sendkey nokey", `"return":"invalid parameter: nokey`, ""},
		{"hmp eject", `Try \"help eject\"`, ""},
		{"hmp device_add warp-drive", `"return":"Error: `, ""},
		{`blockdev-add driver=file node-name=a filename=/nowhere/disk`, `No such file`, "may open no file"},
		{"query-status a=1", `"class":"GenericError"`, ""},
		{"sendkey lang1 a f24", `"error":`, ""},
	} {
		a := m.do(tc.text)
		if !a.Failed || !strings.Contains(string(a.JSON()), tc.answer) {
			t.Errorf("%s: failed %v: %s; want %s", tc.text, a.Failed, a.JSON(), tc.answer)
		}
		hasNote(t, a, tc.note)
	}
	for _, text := range []string{"hmp info status", "info status", `human-monitor-command command-line="info status"`} {
		m.wants(text, `"return":"VM status: paused`)
	}
	hasNote(t, m.wants("migrate_set_speed value=1048576", `{"return":{}}`), "carried out as migrate-set-parameters")
	m.wants("query-migrate-parameters", `"max-bandwidth":1048576`)
}

// TestEveryKeyIsQEMUs holds the table of keys against the QEMU that is there.
func TestEveryKeyIsQEMUs(t *testing.T) {
	m := startMachine(t, "-S")
	for name := range strings.FieldsSeq(keyNames) {
		if len(name) == 3 && name[0] == 'f' && name[1:] >= "13" && name[1:] <= "24" {
			continue // which QEMU 7.2 does not have
		}
		c := Command{Name: "send-key", Arguments: Chord{name}.arguments(1)}
		if a, err := m.Do(deadline(t), c); err != nil || a.Failed {
			t.Errorf("%s: %s, %v", name, a.JSON(), err)
		}
	}
	m.wants("sendkey 0x1c", `{"return":{}}`)
}

func TestDialErrors(t *testing.T) {
	needQEMU(t)
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	_, err := Dial(deadline(t), missing)
	wantDialError(t, err, "no such file", "check the path")

	left := filepath.Join(dir, "left")
	leave(t, left)
	_, err = Dial(deadline(t), left)
	wantDialError(t, err, "connection refused", "its QEMU has ended")

	m := startMachine(t, "-S")
	_, err = dial(deadline(t), m.socket, 200*time.Millisecond) // the session of m holds it
	wantDialError(t, err, "nobody answers", "one at a time")

	// QEMU lets few wait: the others are not even connected.
	for range 3 {
		if conn, err := net.Dial("unix", m.socket); err == nil {
			defer func() { _ = conn.Close() }()
		}
	}
	_, err = dial(deadline(t), m.socket, 200*time.Millisecond)
	wantDialError(t, err, "nobody answers", "one at a time")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, m.socket); err == nil || strings.Contains(err.Error(), "one at a time") {
		t.Errorf("a canceled context: %v", err)
	}
}

func wantDialError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("err = %v, want %q", err, text)
		}
	}
}

// leave makes a socket that nobody listens on.
func leave(t *testing.T, path string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(fd)
}

// watched is a buffer that can be waited upon.
type watched struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newWatched() *watched { return &watched{changed: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
	return w.buf.Write(p)
}

// reset forgets what was written.
func (w *watched) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Reset()
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// await returns when all of the texts have been written.
func (w *watched) await(t *testing.T, texts ...string) {
	t.Helper()
	ctx := deadline(t)
	for {
		w.mu.Lock()
		all, changed := w.buf.String(), w.changed
		w.mu.Unlock()
		missing := ""
		for _, text := range texts {
			if !strings.Contains(all, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("no %q on the serial line:\n%s", missing, all)
		}
	}
}
