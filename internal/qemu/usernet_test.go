package qemu

import (
	"fmt"
	"strings"
	"testing"
)

// What QEMU 7.2 and 10.0 print; the ports are those of one day.
const (
	usernet72 = "Hub -1 (net):\r\n" +
		"  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[ESTABLISHED]   11       127.0.0.1 36111       10.0.2.15    22     0     0\r\n" +
		"  TCP[HOST_FORWARD]   8       127.0.0.1 36289       10.0.2.15    22     0     0\r\n" +
		"  UDP[236 sec]       13       10.0.2.15 40000        10.0.2.3    53     0     0\r\n"
	usernet10 = "Hub -1 (net):\r\n" +
		"  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]   8       127.0.0.1 46435       10.0.2.15    22     0     0\r\n" +
		"  TCP[HOST_FORWARD]   3       127.0.0.1 36943       10.0.2.15    80     0     0\r\n"
)

func TestParseUsernet(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		guest      int
		want       int
	}{
		{"7.2", usernet72, 22, 36289},
		{"10.0", usernet10, 22, 46435},
		{"10.0, the other", usernet10, 80, 36943},
		{"not forwarded", usernet10, 8080, 0},
		{"nothing", "", 22, 0},
		{"no user network", "Hub 0\r\n", 22, 0},
		{"another column", "TCP[HOST_FORWARD] 8 127.0.0.1 22 10.0.2.15 2222 0 0\r\n", 22, 0},
		{"no port", "TCP[HOST_FORWARD] 8 127.0.0.1 0 10.0.2.15 22 0 0\r\n", 22, 0},
		{"not a port", "TCP[HOST_FORWARD] 8 127.0.0.1 70000 10.0.2.15 22 0 0\r\n", 22, 0},
		{"cut off", "TCP[HOST_FORWARD] 8 127.0.0.1 36289\r\n", 22, 0},
	} {
		got, ok := parseUsernet(tc.text, tc.guest)
		if got != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: %d, %v; want %d", tc.name, got, ok, tc.want)
		}
	}
}

// FuzzParseUsernet holds that a port is only ever found in a line that names
// it as a forward to the guest's port, wherever that line is.
func FuzzParseUsernet(f *testing.F) {
	f.Add(usernet72, 22, uint16(40000))
	f.Add(usernet10, 80, uint16(1))
	f.Fuzz(func(t *testing.T, noise string, guest int, port uint16) {
		if got, ok := parseUsernet(noise, guest); ok {
			if got < 1 || got > 65535 || !strings.Contains(noise, "TCP[HOST_FORWARD]") {
				t.Fatalf("found port %d in %q", got, noise)
			}
			return
		}
		if port == 0 {
			return
		}
		text := noise + fmt.Sprintf("\n TCP[HOST_FORWARD] 8 127.0.0.1 %d 10.0.2.15 %d 0 0\r\n", port, guest)
		if got, ok := parseUsernet(text, guest); !ok || got != int(port) {
			t.Fatalf("found %d, %v in %q; want %d", got, ok, text, port)
		}
	})
}
