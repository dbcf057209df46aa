package qemu

import (
	"bufio"
	"slices"
	"strings"
	"testing"
	"time"
)

// firmware is a guest of a few bytes of 16-bit code, for tests of what is
// around a guest: it writes a text to its serial line, then does one thing.
func firmware(text string, then []byte) Blob {
	code := []byte{0xfa, 0xba, 0xf8, 0x03} // cli; mov dx, 0x3f8
	for _, c := range []byte(text) {
		code = append(code, 0xb0, c, 0xee) // mov al, c; out dx, al
	}
	code = append(code, then...)
	image := slices.Repeat([]byte{0xf4}, firmwareSize)
	copy(image[0xf000:], code)
	copy(image[firmwareSize-16:], []byte{0xe9, 0x0d, 0xf0}) // jmp 0xf000, from 0xfff3
	return Blob{Data: image}
}

// What a guest can do in the end.
var (
	idle  = []byte{0xf4, 0xeb, 0xfd}             // hlt; jmp to it
	reset = []byte{0xb0, 0xfe, 0xe6, 0x64, 0xf4} // mov al, 0xfe; out 0x64, al; hlt
	// echo sends back what it gets: poll the line status until a byte is
	// there, read it, write it, and again.
	echo = []byte{
		0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       // in al, dx
		0xa8, 0x01, // test al, 1
		0x74, 0xfb, // jz to the in
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xec,       // in al, dx
		0xee,       // out dx, al
		0xeb, 0xf1, // jmp to the start
	}
)

// realSpec is a small machine for the QEMU of this host.
func realSpec(t *testing.T, firmware Blob) (Spec, StartOptions) {
	t.Helper()
	needQEMU(t)
	f, err := Probe(deadline(t, 30*time.Second), *qemuFlag, "")
	if err != nil {
		t.Fatal(err)
	}
	h := Plan(linux64, Overrides{Machine: "pc"}, f)
	h.Memory = 64 << 20
	return Spec{Name: "test", Hardware: h, Accel: AccelTCG, Firmware: firmware, Forwards: []Forward{Loopback(22)}},
		StartOptions{Binary: *qemuFlag, Features: f, RunDir: t.TempDir()}
}

// startReal starts a machine and stops it at the end of the test.
func startReal(t *testing.T, s Spec, o StartOptions) *Machine {
	t.Helper()
	m, err := Start(deadline(t, 60*time.Second), s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(deadlineAfter(t)); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
	return m
}

// waitFor reads the console up to a line that contains a text.
func waitFor(t *testing.T, m *Machine, text string, limit time.Duration) {
	t.Helper()
	if err := m.Console().SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	for lines := bufio.NewReader(m.Console()); ; {
		line, err := lines.ReadString('\n')
		seen.WriteString(line)
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("no %q on the console: %v; it has:\n%s", text, err, seen.String())
		}
	}
}
