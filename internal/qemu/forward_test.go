package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseForwards(t *testing.T) {
	got, problems := ParseForwards("tcp 8080:80\n\n  # a comment\r\nUDP\t8081:80\ntcp 0.0.0.0:8443:443\ntcp 0:22\ntcp 127.0.0.2:8080:81\nudp 8080:80\n")
	want := []ForwardLine{
		{Forward{TCP, loopback(), 8080, 80}, 1},
		{Forward{UDP, loopback(), 8081, 80}, 4},
		{Forward{TCP, netip.IPv4Unspecified(), 8443, 443}, 5},
		{Forward{TCP, loopback(), 0, 22}, 6},
		{Forward{TCP, netip.MustParseAddr("127.0.0.2"), 8080, 81}, 7},
		{Forward{UDP, loopback(), 8080, 80}, 8},
	}
	if len(problems) > 0 || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, problems, want)
	}
	for i, beyond := range []bool{false, false, true, false, false, false} {
		if want[i].Beyond() != beyond {
			t.Errorf("%v: Beyond is %v", want[i].Forward, !beyond)
		}
	}
}

func TestForwardProblems(t *testing.T) {
	const text = "tcp 8080:80\nsctp 1:2\n8080:80\ntcp 8080\ntcp 70000:80\ntcp 8081:0\ntcp x:80\ntcp [::1]:80:80\ntcp ::1:80:80\n" +
		"tcp 8080:81\ntcp 0.0.0.0:8080:80\ntcp 8080:80\ntcp 0:22\ntcp 0:22\ntcp example.org:1:2\ntcp 1.2.3.4:80\ntcp 8082:-1\n"
	got, problems := ParseForwards(text)
	if len(got) != 2 {
		t.Errorf("understood: %v", got)
	}
	for i, want := range []string{
		`line 2: "sctp 1:2": "sctp" is not a protocol: write tcp or udp`,
		`line 3: "8080:80": it has 1 words: write tcp or udp`,
		`line 4: "tcp 8080": it does not name two ports`,
		`line 5: "tcp 70000:80": "70000" is not a port of the host: write a number from 0 to 65535`,
		`line 6: "tcp 8081:0": "0" is not a port of the guest: write a number from 1 to 65535`,
		`line 7: "tcp x:80": "x" is not a port of the host`,
		`line 8: "tcp [::1]:80:80": QEMU forwards ports of IPv4 addresses only`,
		`line 9: "tcp ::1:80:80": QEMU forwards ports of IPv4 addresses only`,
		`line 10: "tcp 8080:81": line 1 has the same port of the host, 8080: choose another one, or 0`,
		`line 11: "tcp 0.0.0.0:8080:80": line 1 has the same port of the host`,
		`line 12: "tcp 8080:80": it is the same as line 1: leave one of them out`,
		`line 14: "tcp 0:22": it is the same as line 13`,
		`line 15: "tcp example.org:1:2": "example.org" is not an IPv4 address`,
		`line 16: "tcp 1.2.3.4:80": "1.2.3.4" is not a port of the host`,
		`line 17: "tcp 8082:-1": "-1" is not a port of the guest`,
	} {
		if i >= len(problems) || !strings.HasPrefix(problems[i].Error(), want) {
			t.Fatalf("problem %d of %q: want %q", i, problems, want)
		}
	}
	if len(problems) != 15 {
		t.Errorf("%d problems: %q", len(problems), problems)
	}
}

// FuzzParseForwards holds that what is understood means the same when it is
// written out, that nothing in it can start another option of QEMU's, and that
// each line is either understood, reported or says nothing.
func FuzzParseForwards(f *testing.F) {
	f.Add("tcp 8080:80\nudp 0.0.0.0:0:53\n#\nnonsense\n")
	f.Add("tcp 127.0.0.1:1:2,3\ntcp 1:2\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, problems := ParseForwards(text)
		if len(got)+len(problems) > strings.Count(text, "\n")+1 {
			t.Fatalf("%q: %v and %q", text, got, problems)
		}
		var again strings.Builder
		for _, l := range got {
			if strings.ContainsAny(l.rule(), ", \n'") || l.GuestPort < 1 || !l.Address.Is4() {
				t.Fatalf("%q: %q", text, l.rule())
			}
			again.WriteString(l.String() + "\n")
		}
		second, bad := ParseForwards(again.String())
		if len(bad) > 0 || len(second) != len(got) {
			t.Fatalf("%q: written as %q: %v, %q", text, again.String(), second, bad)
		}
		for i := range got {
			if got[i].Forward != second[i].Forward {
				t.Fatalf("%q: %v became %v", text, got[i], second[i])
			}
		}
	})
}

// taken gives a port of 127.0.0.1 that somebody has.
func taken(t *testing.T, protocol string) int {
	t.Helper()
	if protocol == UDP {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestTry(t *testing.T) {
	for _, protocol := range []string{TCP, UDP} {
		if err := (Forward{protocol, loopback(), 0, 80}).Try(); err != nil {
			t.Errorf("%s, a free port: %v", protocol, err)
		}
		port := taken(t, protocol)
		want := fmt.Sprintf("%s port %d of 127.0.0.1 is taken by another program", protocol, port)
		if err := (Forward{protocol, loopback(), port, 80}).Try(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("err = %v; want %s", err, want)
		}
		// TEST-NET-1 (RFC 5737) is nobody's.
		if err := (Forward{protocol, netip.MustParseAddr("192.0.2.1"), 0, 80}).Try(); err == nil || !strings.HasPrefix(err.Error(), "192.0.2.1 is not an address of this host") {
			t.Errorf("%s, a foreign address: %v", protocol, err)
		}
	}
}

// TestE2EForwards has a QEMU forward ports, one of them free, one on all
// addresses, and refuse a port that is taken.
func TestE2EForwards(t *testing.T) {
	spec, options := realSpec(t, firmware("", idle))
	asked := []Forward{Loopback(22), {UDP, loopback(), 0, 53}, {TCP, netip.IPv4Unspecified(), 0, 22}, {TCP, loopback(), 0, 80}}
	spec.Forwards, spec.Isolated = asked, true
	m := startReal(t, spec, options)
	got, err := m.ForwardedPorts(deadline(t, 20*time.Second), asked)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, f := range got {
		want := asked[i]
		want.HostPort = f.HostPort
		if f != want || f.HostPort == 0 || seen[f.Protocol+strconv.Itoa(f.HostPort)] {
			t.Errorf("forward %d: %v of %v; want %v", i, f, got, want)
		}
		seen[f.Protocol+strconv.Itoa(f.HostPort)] = true
		if err := (Forward{f.Protocol, f.Address, f.HostPort, 1}).Try(); err == nil || !strings.Contains(err.Error(), "is taken") {
			t.Errorf("QEMU has not taken %v: %v", f, err)
		}
	}

	for _, protocol := range []string{TCP, UDP} {
		refused := []ForwardLine{{Forward{protocol, loopback(), 0, 81}, 3}, {Forward{protocol, loopback(), taken(t, protocol), 80}, 7}}
		spec.Forwards = []Forward{refused[0].Forward, refused[1].Forward}
		options.RunDir = t.TempDir()
		_, err = Start(deadline(t, 20*time.Second), spec, options)
		var exit *ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%s: err = %v", protocol, err)
		}
		f, why := RefusedForward(exit.Stderr, refused)
		if why == nil || f.Line != 7 || !strings.Contains(why.Error(), "is taken by another program") {
			t.Errorf("%s: line %d, %v, of %q", protocol, f.Line, why, exit.Stderr)
		}
	}
}

func TestRefusedForward(t *testing.T) {
	privileged := ForwardLine{Forward{TCP, loopback(), 1, 80}, 2}
	stderr := "qemu-system-x86_64: -netdev user,id=net,hostfwd=" + privileged.rule() + ": Could not set up host forwarding rule '" + privileged.rule() + "'"
	want := "port 1 is reserved for privileged programs"
	if firstUnprivileged() <= 1 {
		want = "QEMU could not take the port, which is free now"
	}
	if f, why := RefusedForward(stderr, []ForwardLine{privileged}); f != privileged || why == nil || !strings.Contains(why.Error(), want) {
		t.Errorf("%v: %v; want %s", f, why, want)
	}
	for _, other := range []string{"", "Could not set up host forwarding rule 'tcp:127.0.0.1:0-:22'", "something else"} {
		if f, why := RefusedForward(other, []ForwardLine{privileged}); why != nil {
			t.Errorf("%q: %v, %v", other, f, why)
		}
	}
}

// TestE2ENoNIC holds that a machine without a network has neither a card nor
// a port of the host.
func TestE2ENoNIC(t *testing.T) {
	spec, options := realSpec(t, firmware("", idle))
	var log bytes.Buffer
	spec.NIC, options.Log = NoNIC, &log
	m := startReal(t, spec, options)
	var text string
	for command, bad := range map[string]string{"info network": "net", "info usernet": "HOST_FORWARD", "info pci": "Ethernet"} {
		if err := m.Monitor().Execute(deadline(t, 20*time.Second), "human-monitor-command", map[string]string{"command-line": command}, &text); err != nil || strings.Contains(text, bad) {
			t.Errorf("%s: %q, %v", command, text, err)
		}
	}
	if strings.Contains(log.String(), "-netdev") {
		t.Errorf("the command line has a network: %s", log.String())
	}
}
