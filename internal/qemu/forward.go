package qemu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The protocols that can be forwarded.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Forward leads a port of the host to one of the guest.
type Forward struct {
	Protocol  string     // TCP or UDP
	Address   netip.Addr // of the host, IPv4
	HostPort  int        // 0: a free one, that ForwardedPorts asks for
	GuestPort int
}

// Loopback leads a free TCP port of 127.0.0.1 to one of the guest.
func Loopback(guestPort int) Forward {
	return Forward{Protocol: TCP, Address: loopback(), GuestPort: guestPort}
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// String says it as the input forward does, with the address.
func (f Forward) String() string {
	return fmt.Sprintf("%s %s:%d:%d", f.Protocol, f.Address, f.HostPort, f.GuestPort)
}

// rule is the forward in the words of hostfwd, and of QEMU's complaints.
func (f Forward) rule() string {
	return fmt.Sprintf("%s:%s:%d-:%d", f.Protocol, f.Address, f.HostPort, f.GuestPort)
}

// ForwardLine is a forward and the line of the input that asks for it.
type ForwardLine struct {
	Forward
	Line int // from 1
}

// forwardForm is what a line should look like, for messages.
const forwardForm = "write tcp or udp, and then HOSTPORT:GUESTPORT, such as tcp 8080:80 (or ADDRESS:HOSTPORT:GUESTPORT)"

// ParseForwards reads lines such as "tcp 8080:80" and "udp 127.0.0.1:0:53".
// Blank lines, and those that begin with #, say nothing. Every problem is
// reported, with the number of its line; what could be understood is returned.
func ParseForwards(text string) ([]ForwardLine, []error) {
	var all []ForwardLine
	var problems []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f, err := parseForward(line)
		if err == nil {
			err = clash(all, f)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: %q: %w", n, line, err))
			continue
		}
		all = append(all, ForwardLine{f, n})
	}
	return all, problems
}

func parseForward(line string) (Forward, error) {
	f := Forward{Address: loopback()}
	words := strings.Fields(line)
	if len(words) != 2 {
		return f, fmt.Errorf("it has %d words: %s", len(words), forwardForm)
	}
	f.Protocol = strings.ToLower(words[0])
	if f.Protocol != TCP && f.Protocol != UDP {
		return f, fmt.Errorf("%q is not a protocol: %s", words[0], forwardForm)
	}
	if strings.ContainsAny(words[1], "[]") || strings.Count(words[1], ":") > 2 {
		return f, errors.New("QEMU forwards ports of IPv4 addresses only: " + forwardForm)
	}
	parts := strings.Split(words[1], ":")
	if len(parts) == 3 {
		address, err := netip.ParseAddr(parts[0])
		if err != nil {
			return f, fmt.Errorf("%q is not an IPv4 address: write one of this host's, or 0.0.0.0 for all of them", parts[0])
		}
		f.Address, parts = address, parts[1:]
	}
	if len(parts) != 2 {
		return f, errors.New("it does not name two ports: " + forwardForm)
	}
	var err error
	if f.HostPort, err = port(parts[0], "host", 0); err != nil {
		return f, err
	}
	f.GuestPort, err = port(parts[1], "guest", 1)
	return f, err
}

func port(text, whose string, least int) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || int(n) < least {
		return 0, fmt.Errorf("%q is not a port of the %s: write a number from %d to 65535", text, whose, least)
	}
	return int(n), nil
}

// clash finds a line that asks for the same port of the host.
func clash(before []ForwardLine, f Forward) error {
	for _, b := range before {
		same := b.Protocol == f.Protocol && b.HostPort == f.HostPort &&
			(b.Address == f.Address || b.Address.IsUnspecified() || f.Address.IsUnspecified())
		switch {
		case !same:
		case b.Forward == f:
			return fmt.Errorf("it is the same as line %d: leave one of them out", b.Line)
		case f.HostPort != 0:
			return fmt.Errorf("line %d has the same port of the host, %d: choose another one, or 0 for a free one", b.Line, f.HostPort)
		}
	}
	return nil
}

// Beyond tells whether others than this host can reach the forward.
func (f Forward) Beyond() bool { return !f.Address.IsLoopback() }

// Try tells why a port of the host cannot be had right now; nil if it can.
func (f Forward) Try() error {
	address := netip.AddrPortFrom(f.Address, uint16(f.HostPort))
	var err error
	if f.Protocol == UDP {
		var conn *net.UDPConn
		if conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address)); err == nil {
			err = conn.Close()
		}
	} else {
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address)); err == nil {
			err = l.Close()
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s port %d of %s is taken by another program: choose another one, or 0 for a free one", f.Protocol, f.HostPort, f.Address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this host: write one that is, or 0.0.0.0 for all of them", f.Address)
	case errors.Is(err, syscall.EACCES):
		return f.reserved()
	}
	return err
}

func (f Forward) reserved() error {
	return fmt.Errorf("port %d is reserved for privileged programs, and QEMU is not one: choose one from %d on", f.HostPort, firstUnprivileged())
}

// firstUnprivileged is the first port that everybody may take (ip-sysctl.rst).
func firstUnprivileged() int {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, convErr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && convErr == nil {
		return n
	}
	return 1024
}

// refusedRule is how QEMU 7.2 and 10.0 name a forward that they could not make
// (net/slirp.c); they do not say why.
var refusedRule = regexp.MustCompile(`Could not set up host forwarding rule '([^']*)'`)

// RefusedForward finds the forward that a QEMU could not make, from its last
// words, and tells why.
func RefusedForward(stderr string, asked []ForwardLine) (ForwardLine, error) {
	found := refusedRule.FindStringSubmatch(stderr)
	if found == nil {
		return ForwardLine{}, nil
	}
	i := slices.IndexFunc(asked, func(l ForwardLine) bool { return l.rule() == found[1] })
	if i < 0 {
		return ForwardLine{}, nil
	}
	f := asked[i]
	err := f.Try()
	switch {
	case err != nil:
	case f.HostPort > 0 && f.HostPort < firstUnprivileged():
		err = f.reserved() // for QEMU's user, if not for us
	default:
		err = errors.New("QEMU could not take the port, which is free now: run again, or write 0 for a free one")
	}
	return f, err
}
