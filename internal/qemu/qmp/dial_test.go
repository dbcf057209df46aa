package qmp

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialWaitsInLine has a socket whose queue is full, as QEMU's is when two
// clients have come: the third waits until there is room, or until its patience ends.
func TestDialWaitsInLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qmp.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	first, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	short, cancel := context.WithTimeout(t.Context(), 5*dialEvery)
	defer cancel()
	if conn, err := connect(short, path); err == nil || short.Err() == nil {
		t.Errorf("with a full queue: %v, %v", conn, err)
	}
	limit, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() {
		conn, err := connect(limit, path)
		if err == nil {
			_ = conn.Close()
		}
		done <- err
	}()
	accepted, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(accepted) }()
	if err := <-done; err != nil {
		t.Errorf("when there is room: %v", err)
	}
}
