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
	"testing/synctest"
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

func hear(t *testing.T, c io.Reader, want string) {
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

// twoWays is a connection of which one direction can end before the other, in a
// bubble of package synctest.
type twoWays struct {
	net.Conn // of what is not used: addresses and deadlines
	*io.PipeReader
	*io.PipeWriter
}

func (c twoWays) Read(p []byte) (int, error)  { return c.PipeReader.Read(p) }
func (c twoWays) Write(p []byte) (int, error) { return c.PipeWriter.Write(p) }
func (c twoWays) SetDeadline(time.Time) error { return nil }
func (c twoWays) Close() error                { return errors.Join(c.PipeReader.Close(), c.PipeWriter.Close()) }

// connect has the hub accept one.
func connect(h *Hub) (from *io.PipeReader, to *io.PipeWriter) {
	theirIn, to := io.Pipe()
	from, theirOut := io.Pipe()
	h.accept(twoWays{nil, theirIn, theirOut}, false)
	return from, to
}

// TestHubOneShot is `echo ls | socat - TCP:...` and another socat that reads.
func TestHubOneShot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w := newHub(t, Options{})
		from, to := connect(h)
		say(t, to, "ls\n")
		_ = to.Close() // never fails
		w.await(t, "ls\n")
		time.Sleep(lingerQuiet - time.Nanosecond)
		say(t, h, "files\r\n")
		answered := time.Now()
		// It gets its answer, and an end when the guest is quiet.
		if text, err := io.ReadAll(from); err != nil || string(text) != "files\r\n" {
			t.Errorf("%q, %v", text, err)
		}
		if quiet := time.Since(answered); quiet != lingerQuiet {
			t.Errorf("it ends when the guest is quiet for %v", quiet)
		}
		from, to = connect(h)
		hear(t, from, "files\r\n")
		_ = to.Close() // never fails
		if text, err := io.ReadAll(from); err != nil || len(text) > 0 {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// TestHubBounds: neither what is kept nor the clients are without end.
func TestHubBounds(t *testing.T) {
	h, _ := newHub(t, Options{})
	address := listen(t, h, false)
	say(t, h, strings.Repeat("x", keptMost)+"the last words")
	hear(t, dial(t, "tcp", address), strings.Repeat("x", keptMost-len("the last words"))+"the last words")
	var conns []net.Conn
	for range clientsMost {
		conns = append(conns, dial(t, "tcp", address))
	}
	last := len(conns) - 1
	if _, err := conns[last].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one client too many: %v", err)
	}
	say(t, h, "for all")
	for _, c := range conns[:last] {
		hear(t, c, "for all")
	}
}

// TestHubSlowClient: one that does not read is let go, and the guest is not held up.
func TestHubSlowClient(t *testing.T) {
	h, _ := newHub(t, Options{})
	ours, theirs := net.Pipe() // which holds nothing itself
	defer func() { _ = ours.Close() }()
	h.accept(theirs, false)
	var c *client
	for c = range h.clients {
	}
	waits := func() (queued int, gone bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(c.queue), c.gone
	}
	block := strings.Repeat("y", 64<<10)
	// As much as is queued may be on its way besides.
	for range 2*queueMost/len(block) + 1 {
		say(t, h, block)
		if n, _ := waits(); n > queueMost {
			t.Fatalf("%d bytes wait for a client that does not read", n)
		}
	}
	if _, gone := waits(); !gone {
		t.Error("a client that does not read is not let go")
	}
	if _, err := ours.Write([]byte("x")); err == nil {
		t.Error("its connection is open")
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
