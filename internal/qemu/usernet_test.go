package qemu

import (
	"fmt"
	"net/netip"
	"slices"
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
	tcp := func(from, to int) Forward { return Forward{TCP, loopback(), from, to} }
	for _, tc := range []struct {
		name, text string
		want       []Forward
	}{
		{"7.2", usernet72, []Forward{tcp(36289, 22)}},
		{"10.0", usernet10, []Forward{tcp(46435, 22), tcp(36943, 80)}},
		{"all addresses, and UDP", "TCP[HOST_FORWARD]   8               * 36635       10.0.2.15    80     0     0\r\n" +
			"UDP[HOST_FORWARD]   3       127.0.0.1 37199       10.0.2.15    53     0     0\r\n",
			[]Forward{{TCP, netip.IPv4Unspecified(), 36635, 80}, {UDP, loopback(), 37199, 53}}},
		{"nothing", "", nil},
		{"no user network", "Hub 0\r\n", nil},
		{"no port", "TCP[HOST_FORWARD] 8 127.0.0.1 0 10.0.2.15 22 0 0\r\n", nil},
		{"not a port", "TCP[HOST_FORWARD] 8 127.0.0.1 70000 10.0.2.15 22 0 0\r\n", nil},
		{"not an address", "TCP[HOST_FORWARD] 8 localhost 7000 10.0.2.15 22 0 0\r\n", nil},
		{"another protocol", "ICMP[HOST_FORWARD] 8 127.0.0.1 7000 10.0.2.15 22 0 0\r\n", nil},
		{"cut off", "TCP[HOST_FORWARD] 8 127.0.0.1 36289\r\n", nil},
	} {
		if got := parseUsernet(tc.text); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v; want %v", tc.name, got, tc.want)
		}
	}
}

func TestAssign(t *testing.T) {
	free := func(to int) Forward { return Loopback(to) }
	fixed := Forward{TCP, loopback(), 2222, 22}
	everywhere := Forward{TCP, netip.IPv4Unspecified(), 2223, 22}
	dns := Forward{UDP, loopback(), 0, 53}
	table := []Forward{fixed, everywhere, {TCP, loopback(), 40001, 22}, {TCP, loopback(), 40002, 53}, {UDP, loopback(), 40003, 53}}
	for _, tc := range []struct {
		name        string
		asked, want []Forward
	}{
		{"none", nil, nil},
		{"SSH does not take the port that another forward names", []Forward{free(22), fixed}, []Forward{{TCP, loopback(), 40001, 22}, fixed}},
		{"two free ones get one each", []Forward{free(22), free(22)}, []Forward{fixed, {TCP, loopback(), 40001, 22}}},
		{"the address counts", []Forward{everywhere}, []Forward{everywhere}},
		{"the protocol counts", []Forward{dns}, []Forward{{UDP, loopback(), 40003, 53}}},
	} {
		got, missing := assign(table, tc.asked)
		if missing != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, missing %v; want %v", tc.name, got, missing, tc.want)
		}
	}
	for _, f := range []Forward{free(80), {UDP, loopback(), 0, 22}, {TCP, loopback(), 9, 22}, {TCP, netip.IPv4Unspecified(), 0, 53}} {
		if got, missing := assign(table, []Forward{free(22), f}); missing == nil || *missing != f {
			t.Errorf("%v: got %v, missing %v", f, got, missing)
		}
	}
}

// FuzzParseUsernet holds that a forward is only ever found in a line that says
// so, and wherever that line is.
func FuzzParseUsernet(f *testing.F) {
	f.Add(usernet72, uint16(22), uint16(40000), false)
	f.Add(usernet10, uint16(80), uint16(1), true)
	f.Fuzz(func(t *testing.T, noise string, guest, port uint16, udp bool) {
		before := parseUsernet(noise)
		if len(before) > strings.Count(noise, "[HOST_FORWARD]") {
			t.Fatalf("found %v in %q", before, noise)
		}
		if port == 0 || guest == 0 {
			return
		}
		want := Forward{TCP, loopback(), int(port), int(guest)}
		if udp {
			want.Protocol = UDP
		}
		text := noise + fmt.Sprintf("\n %s[HOST_FORWARD] 8 127.0.0.1 %d 10.0.2.15 %d 0 0\r\n", strings.ToUpper(want.Protocol), port, guest)
		if got := parseUsernet(text); !slices.Equal(got, append(before, want)) {
			t.Fatalf("found %v in %q; want also %v", got, text, want)
		}
	})
}
