package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a disk in memory.
type memory struct {
	data []byte
	bad  int64 // reads that touch this byte fail; below 0 for none
	hold func(offset int64)

	mu    sync.Mutex
	reads int
}

func newMemory(size int) *memory {
	m := &memory{data: make([]byte, size), bad: -1}
	for i := range m.data {
		m.data[i] = byte(i*7 + i>>8 + i>>16)
	}
	return m
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) ReadAt(ctx context.Context, p []byte, offset int64) error {
	m.mu.Lock()
	m.reads++
	m.mu.Unlock()
	if m.hold != nil {
		m.hold(offset)
	}
	if m.bad >= offset && m.bad < offset+int64(len(p)) {
		return errors.New("a bad place")
	}
	copy(p, m.data[offset:])
	return ctx.Err()
}

// serve begins a session and returns the client's end of the connection.
func serve(t testing.TB, disk Disk) (conn *net.UnixConn, ended func() error) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "nbd")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ends[0], disk) }()
	ended = sync.OnceValue(func() error {
		defer cancel()
		return <-done
	})
	conn = ends[1].(*net.UnixConn)
	t.Cleanup(func() {
		cancel()
		_ = ended()
		_ = conn.Close()
	})
	return conn, ended
}

// tool runs a program of QEMU whose descriptor 3 is a connection to a disk.
func tool(t *testing.T, disk Disk, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("E2E_REQUIRED") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	conn, ended := serve(t, disk)
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	_ = f.Close()
	if err := ended(); err != nil {
		t.Errorf("the session: %v", err)
	}
	return string(out), err
}

const source = "driver=nbd,server.type=fd,server.str=3"

// TestQEMU has QEMU's own tools read the disk.
func TestQEMU(t *testing.T) {
	for _, size := range []int{9<<20 + 512, 512} {
		disk := newMemory(size)
		to := filepath.Join(t.TempDir(), "copy")
		if out, err := tool(t, disk, "qemu-img", "convert", "--image-opts", source, "-O", "raw", to); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, disk.data) {
			t.Errorf("%d bytes are not the disk's %d", len(got), size)
		}
	}
}

// TestQEMUErrors has QEMU read a place that is bad, and try to write.
func TestQEMUErrors(t *testing.T) {
	disk := newMemory(1 << 20)
	disk.bad = 100000
	out, _ := tool(t, disk, "qemu-io", "-r", "--image-opts", source, "-c", "read 0 64k", "-c", "read 64k 64k", "-c", "read 128k 64k")
	if strings.Count(out, "read 65536/65536") != 2 || !strings.Contains(out, "read failed: Input/output error") {
		t.Errorf("qemu-io says: %s", out)
	}
	out, err := tool(t, disk, "qemu-io", "--image-opts", source, "-c", "write 0 4k")
	if err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("qemu-io may write: %s", out)
	}
}

// client speaks the protocol by hand.
type client struct {
	*testing.T
	conn *net.UnixConn
}

func (c client) send(parts ...any) {
	c.Helper()
	var all bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&all, binary.BigEndian, p); err != nil {
			c.Fatal(err)
		}
	}
	// At once: the server may close the connection when it has read enough.
	if _, err := c.conn.Write(all.Bytes()); err != nil {
		c.Fatal(err)
	}
}

// expect reads exactly these values.
func (c client) expect(parts ...any) {
	c.Helper()
	var want bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&want, binary.BigEndian, p); err != nil {
			c.Fatal(err)
		}
	}
	got := make([]byte, want.Len())
	if n, err := io.ReadFull(c.conn, got); err != nil {
		c.Fatalf("%d of %d bytes: %v", n, len(got), err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		c.Fatalf("got  %x\nwant %x", got, want.Bytes())
	}
}

func (c client) hello(flags uint32) {
	c.Helper()
	c.expect(uint64(magicServer), uint64(magicOption), uint16(3))
	c.send(flags)
}

func (c client) option(option uint32, data []byte) {
	c.Helper()
	c.send(uint64(magicOption), option, uint32(len(data)), data)
}

func (c client) replied(option, kind uint32, data []byte) {
	c.Helper()
	c.expect(uint64(magicReply), option, kind, uint32(len(data)), data)
}

func (c client) request(command uint16, cookie, offset uint64, length uint32) {
	c.Helper()
	c.send(uint32(magicRequest), uint16(0), command, cookie, offset, length)
}

func (c client) answered(errno uint32, cookie uint64, data []byte) {
	c.Helper()
	c.expect(uint32(magicSimple), errno, cookie, data)
}

func (c client) eof() {
	c.Helper()
	if n, err := c.conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		c.Errorf("%d bytes, %v", n, err)
	}
}

func begin(t *testing.T, disk Disk) (client, func() error) {
	conn, ended := serve(t, disk)
	return client{t, conn}, ended
}

// TestHandshake goes through all options, good and bad.
func TestHandshake(t *testing.T) {
	disk := newMemory(10000)
	c, ended := begin(t, disk)
	c.hello(3)
	c.option(8, nil) // structured replies
	c.replied(8, repErrUnsup, nil)
	c.option(optList, nil)
	c.replied(optList, repServer, make([]byte, 4))
	c.replied(optList, repAck, nil)
	c.option(99, make([]byte, maxOption+1))
	c.replied(99, repErrTooBig, nil)
	c.option(optInfo, []byte{0, 0, 0, 9, 0, 0})
	c.replied(optInfo, repErrInvalid, nil)
	c.option(optGo, []byte{1})
	c.replied(optGo, repErrInvalid, nil)
	for _, option := range []uint32{optInfo, optGo} {
		c.option(option, []byte{0, 0, 0, 1, 'x', 0, 0})
		c.replied(option, repInfo, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0x27, 0x10, 0, 3})
		c.replied(option, repInfo, []byte{0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0x20, 0, 0})
		c.replied(option, repAck, nil)
	}
	c.request(cmdRead, 7, 9990, 10)
	c.answered(0, 7, disk.data[9990:])
	c.request(cmdDisconnect, 8, 0, 0)
	c.eof()
	if err := ended(); err != nil {
		t.Error(err)
	}
}

func TestHandshakeEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		do  func(client)
		bad bool
	}{
		"abort": {func(c client) {
			c.hello(3)
			c.option(optAbort, nil)
			c.replied(optAbort, repAck, nil)
		}, false},
		"export name": {func(c client) {
			c.hello(1)
			c.option(optExportName, nil)
			c.expect(uint64(10000), uint16(3), make([]byte, 124))
			c.request(cmdDisconnect, 0, 0, 0)
		}, false},
		"export name, short": {func(c client) {
			c.hello(3)
			c.option(optExportName, []byte("disk"))
			c.expect(uint64(10000), uint16(3))
			c.request(cmdDisconnect, 0, 0, 0)
		}, false},
		"long export name": {func(c client) {
			c.hello(3)
			c.send(uint64(magicOption), uint32(optExportName), uint32(maxOption+1))
		}, true},
		"unknown flag": {func(c client) { c.hello(7) }, true},
		"old style":    {func(c client) { c.hello(0) }, true},
		"bad option": {func(c client) {
			c.hello(3)
			c.send(uint64(1), uint32(optGo), uint32(0))
		}, true},
		"closed": {func(c client) {
			c.hello(3)
			_ = c.conn.CloseWrite()
		}, false},
		"cut": {func(c client) {
			c.hello(3)
			c.send(uint32(1))
			_ = c.conn.CloseWrite()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, ended := begin(t, newMemory(10000))
			tc.do(c)
			c.eof()
			err := ended()
			if (err != nil) != tc.bad {
				t.Errorf("the session: %v", err)
			}
			if name != "cut" && tc.bad && !errors.Is(err, ErrProtocol) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// ready is a client in the transmission.
func ready(t *testing.T, disk Disk) (client, func() error) {
	c, ended := begin(t, disk)
	c.hello(3)
	c.option(optExportName, nil)
	c.expect(uint64(disk.Size()), uint16(3))
	return c, ended
}

func TestRequests(t *testing.T) {
	disk := newMemory(10000)
	disk.bad = 5000
	c, ended := ready(t, disk)
	for i, r := range []struct {
		offset uint64
		length uint32
	}{{9999, 2}, {10000, 1}, {0, 0}, {1 << 63, 1}, {1<<64 - 1, 2}, {0, maxRead + 1}, {0, 1<<32 - 1}} {
		c.request(cmdRead, uint64(i), r.offset, r.length)
		c.answered(errnoInvalid, uint64(i), nil)
	}
	if disk.reads > 0 {
		t.Error("the disk was asked for what it does not have")
	}
	c.request(cmdRead, 20, 4999, 2)
	c.answered(errnoIO, 20, nil)
	c.request(cmdWrite, 21, 0, 100)
	c.send(make([]byte, 100))
	c.answered(errnoPerm, 21, nil)
	c.request(cmdFlush, 22, 0, 0)
	c.answered(0, 22, nil)
	c.request(4, 23, 0, 100) // trim
	c.answered(errnoInvalid, 23, nil)
	c.request(cmdRead, 24, 0, 10)
	c.answered(0, 24, disk.data[:10])
	c.send(make([]byte, 28))
	if err := ended(); !errors.Is(err, ErrProtocol) {
		t.Errorf("error %v", err)
	}
}

// TestSlowRead holds that a read which takes its time does not hold up the next
// one, and that it is still answered before the end that the client asks for.
func TestSlowRead(t *testing.T) {
	disk := newMemory(10000)
	slow := make(chan struct{})
	disk.hold = func(offset int64) {
		if offset == 0 {
			<-slow
		}
	}
	c, ended := ready(t, disk)
	c.request(cmdRead, 1, 0, 1)
	c.request(cmdRead, 2, 1, 1)
	c.answered(0, 2, disk.data[1:2])
	c.request(cmdDisconnect, 3, 0, 0)
	close(slow)
	c.answered(0, 1, disk.data[:1])
	c.eof()
	if err := ended(); err != nil {
		t.Error(err)
	}
}

// TestMemory holds that a client which asks for much and reads nothing does not
// make the server hold it all.
func TestMemory(t *testing.T) {
	disk := newMemory(maxRead)
	begun, slow := make(chan struct{}, 100), make(chan struct{})
	disk.hold = func(int64) {
		begun <- struct{}{}
		<-slow
	}
	c, _ := ready(t, disk)
	const n = 3 * maxHeld / maxRead
	for i := range n {
		c.request(cmdRead, uint64(i), 0, maxRead)
	}
	for range maxHeld / maxRead {
		<-begun
	}
	if disk.mu.Lock(); disk.reads > maxHeld/maxRead {
		t.Errorf("%d reads of %d at once", disk.reads, maxRead)
	}
	disk.mu.Unlock()
	close(slow)
	for range n {
		var head [16]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c.conn, maxRead); err != nil {
			t.Fatal(err)
		}
	}
}

// waiting is a disk whose reads end with their context only.
type waiting struct{ begun chan struct{} }

func (waiting) Size() int64 { return 1000 }

func (w waiting) ReadAt(ctx context.Context, _ []byte, _ int64) error {
	close(w.begun)
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestClientGone holds that a read for a client that is gone ends.
func TestClientGone(t *testing.T) {
	w := waiting{make(chan struct{})}
	c, ended := ready(t, w)
	c.request(cmdRead, 1, 0, 1)
	<-w.begun
	_ = c.conn.Close()
	if err := ended(); err != nil {
		t.Error(err)
	}
}

// FuzzServe holds that whatever a client says, the session ends, and that no
// read leaves the disk.
func FuzzServe(f *testing.F) {
	b := func(parts ...any) []byte {
		var out bytes.Buffer
		for _, p := range parts {
			_ = binary.Write(&out, binary.BigEndian, p) // fixed sizes only
		}
		return out.Bytes()
	}
	f.Add(b(uint32(3), uint64(magicOption), uint32(optGo), uint32(6), make([]byte, 6), uint32(magicRequest), uint16(0), uint16(cmdRead), uint64(1), uint64(2), uint32(3)))
	f.Add(b(uint32(1), uint64(magicOption), uint32(optExportName), uint32(0), uint32(magicRequest), uint16(0), uint16(cmdWrite), uint64(1), uint64(2), uint32(3), []byte("abc")))
	f.Add(b(uint32(3), uint64(magicOption), uint32(optInfo), uint32(2), uint16(0), uint64(magicOption), uint32(optAbort), uint32(0)))
	f.Fuzz(func(t *testing.T, said []byte) {
		disk := newMemory(10000)
		disk.hold = func(offset int64) {
			if offset < 0 || offset >= disk.Size() {
				t.Errorf("a read at %d", offset)
			}
		}
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write(said) // the server may have had enough before
			_ = theirs.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_ = Serve(t.Context(), ours, disk) // that it returns counts
	})
}
