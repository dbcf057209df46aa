package qemu

import (
	"context"
	"crypto/des"
	"io"
	"math/bits"
	"net"
	"strings"
	"testing"
	"time"
)

// TestShowVNC logs in as a viewer does (RFC 6143, section 7): with the password
// that was made, with another, and finds none who listens before.
func TestShowVNC(t *testing.T) {
	spec, options := realSpec(t, firmware("up\r\n", echo))
	spec.VNC = true
	m := startReal(t, spec, options)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var before struct{ Enabled bool }
	if err := m.Monitor().Execute(ctx, "query-vnc", nil, &before); err != nil || before.Enabled {
		t.Errorf("somebody listens before: %+v, %v", before, err)
	}
	addr, password, err := m.ShowVNC(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(addr, "127.0.0.1:59") || len(password) != vncPassword {
		t.Errorf("at %q with a password of %d characters", addr, len(password))
	}
	if status := viewer(t, addr, password); status != 0 {
		t.Errorf("the password was refused with %d", status)
	}
	if status := viewer(t, addr, "abcdefgh"); status != 1 {
		t.Errorf("another password: %d", status)
	}
}

// viewer makes the first steps of a VNC client and returns SecurityResult.
func viewer(t *testing.T, addr, password string) byte {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(b []byte) {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(read(12)) // the version
	if types := read(int(read(1)[0])); len(types) != 1 || types[0] != 2 {
		t.Fatalf("it offers security types %v, want VNC authentication alone", types)
	}
	write([]byte{2})
	key := make([]byte, des.BlockSize)
	for i := range key {
		key[i] = bits.Reverse8(password[i])
	}
	block, err := des.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	challenge := read(16)
	answer := make([]byte, len(challenge))
	for at := 0; at < len(challenge); at += des.BlockSize {
		block.Encrypt(answer[at:], challenge[at:])
	}
	write(answer)
	return read(4)[3]
}
