package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// typed collects what clients type.
type typed struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	fresh chan struct{}
}

func (w *typed) send(_ context.Context, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	select {
	case w.fresh <- struct{}{}:
	default:
	}
	return nil
}

func (w *typed) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		w.mu.Lock()
		got := w.buf.String()
		w.mu.Unlock()
		if strings.HasSuffix(got, text) {
			return
		}
		select {
		case <-w.fresh:
		case <-late:
			t.Fatalf("typed %q, want %q", got, text)
		}
	}
}

func newHub(t *testing.T, o Options) (*Hub, *typed) {
	t.Helper()
	h, w := NewHub(o), &typed{fresh: make(chan struct{}, 1)}
	h.Attach(w.send)
	t.Cleanup(func() { _ = h.Close() })
	return h, w
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func listen(t *testing.T, h *Hub, telnet bool) string {
	t.Helper()
	address, err := h.ListenTCP(t.Context(), 0, telnet)
	if err != nil || !strings.HasPrefix(address, "127.0.0.1:") {
		t.Fatalf("%s, %v", address, err)
	}
	return address
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("heard %q, want %q: %v", buf[:n], want, err)
	}
}

// TestHub: clients share a line, and what nobody was there for waits for one.
func TestHub(t *testing.T) {
	h, w := newHub(t, Options{})
	address := listen(t, h, false)
	say(t, h, "early ")
	first := dial(t, "tcp", address)
	hear(t, first, "early ")
	say(t, first, "ls\n")
	w.await(t, "ls\n")
	second := dial(t, "tcp", address)
	say(t, second, "id\n")
	w.await(t, "ls\nid\n")
	say(t, h, "both\r\n\xff")
	hear(t, first, "both\r\n\xff")
	hear(t, second, "both\r\n\xff")
	// It was heard, so it is not kept.
	third := dial(t, "tcp", address)
	say(t, third, "x")
	w.await(t, "x")
	say(t, h, "new")
	hear(t, third, "new")
}

// TestHubOneShot is `echo ls | socat - TCP:...` and another socat that reads.
func TestHubOneShot(t *testing.T) {
	h, w := newHub(t, Options{LingerQuiet: 50 * time.Millisecond})
	address := listen(t, h, false)
	c := dial(t, "tcp", address)
	say(t, c, "ls\n")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	w.await(t, "ls\n")
	for !h.halfClosed() {
		time.Sleep(time.Millisecond)
	}
	say(t, h, "files\r\n")
	// It gets its answer, and an end when the guest is quiet.
	if text, err := io.ReadAll(c); err != nil || string(text) != "files\r\n" {
		t.Errorf("%q, %v", text, err)
	}
	hear(t, dial(t, "tcp", address), "files\r\n")
}

func (h *Hub) halfClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		if c.half {
			return true
		}
	}
	return false
}

// TestHubBounds: neither what is kept nor a client that does not read grow
// without end, and the guest is not held up.
func TestHubBounds(t *testing.T) {
	h, _ := newHub(t, Options{})
	address := listen(t, h, false)
	say(t, h, strings.Repeat("x", keptMost)+"the last words")
	slow := dial(t, "tcp", address)
	hear(t, slow, strings.Repeat("x", keptMost-len("the last words"))+"the last words")
	block := strings.Repeat("y", 64<<10)
	for range 200 {
		say(t, h, block)
	}
	if n, err := io.Copy(io.Discard, slow); err == nil && n >= int64(200*len(block)) {
		t.Errorf("a client that did not read got all %d bytes", n)
	}
	var conns []net.Conn
	for range clientsMost + 1 {
		conns = append(conns, dial(t, "tcp", address))
	}
	if _, err := conns[clientsMost].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one client too many: %v", err)
	}
}

// TestHubReplay: the console's socket shows what came last to everybody, and is
// this user's alone.
func TestHubReplay(t *testing.T) {
	why := "somebody else types"
	h, w := newHub(t, Options{Replay: true, Refuse: func() string { return why }})
	path := filepath.Join(t.TempDir(), "console.sock")
	if err := h.ListenUnix(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	say(t, h, "login: ")
	for range 2 {
		c := dial(t, "unix", path)
		hear(t, c, "login: ")
		say(t, c, "root\n")
		hear(t, c, "\r\n[hurd-qemu-action: not typed: somebody else types]\r\n")
	}
	why = ""
	c := dial(t, "unix", path)
	hear(t, c, "login: ")
	say(t, c, "me\n")
	w.await(t, "me\n")
	if w.buf.String() != "me\n" {
		t.Errorf("typed %q", w.buf.String())
	}
	_ = h.Close()
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the end: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := h.ListenUnix(t.Context(), path); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed hub listens: %v", err)
	}
}

// TestHubTelnet: a telnet client is greeted, and its line ends are the guest's.
func TestHubTelnet(t *testing.T) {
	h, w := newHub(t, Options{})
	c := dial(t, "tcp", listen(t, h, true))
	hear(t, c, string((&Telnet{}).Greeting()))
	say(t, c, "\xff\xfd\x01root\r\x00\xff\xfd\x20")
	w.await(t, "root\r")
	hear(t, c, "\xff\xfc\x20")
	say(t, h, "\xff\r\n")
	hear(t, c, "\xff\xff\r\n")
}

// TestHubPortTaken names the port.
func TestHubPortTaken(t *testing.T) {
	h, _ := newHub(t, Options{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = h.ListenTCP(t.Context(), l.Addr().(*net.TCPAddr).Port, false)
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()+": bind: address already in use") {
		t.Errorf("err = %v", err)
	}
}
