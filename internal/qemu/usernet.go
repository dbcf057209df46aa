package qemu

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ForwardedPort asks QEMU for the port of 127.0.0.1 that leads to a guest's
// TCP port; the Spec must have Loopback of it among its Forwards.
func (m *Machine) ForwardedPort(ctx context.Context, guestPort int) (int, error) {
	found, err := m.ForwardedPorts(ctx, []Forward{Loopback(guestPort)})
	if err != nil {
		return 0, err
	}
	return found[0].HostPort, nil
}

// ForwardedPorts asks QEMU which ports of the host it took for forwards of the
// Spec, and returns them with these.
func (m *Machine) ForwardedPorts(ctx context.Context, asked []Forward) ([]Forward, error) {
	var text string
	command := map[string]string{"command-line": "info usernet"}
	if err := m.monitor.Execute(ctx, "human-monitor-command", command, &text); err != nil {
		return nil, fmt.Errorf("finding the forwarded ports: %w", err)
	}
	found, missing := assign(parseUsernet(text), asked)
	if missing != nil {
		return nil, fmt.Errorf("finding the port that leads to the guest's %s port %d: QEMU forwards none; it says %q", missing.Protocol, missing.GuestPort, text)
	}
	return found, nil
}

// assign finds each forward in QEMU's table. The second result is one that is
// not there.
func assign(table, asked []Forward) ([]Forward, *Forward) {
	fits := func(f Forward) func(Forward) bool {
		return func(t Forward) bool {
			return t.Protocol == f.Protocol && t.Address == f.Address && t.GuestPort == f.GuestPort && (f.HostPort == 0 || t.HostPort == f.HostPort)
		}
	}
	left := slices.Clone(table)
	found := slices.Clone(asked)
	// Those that name their port take it first; the others share the rest.
	for _, named := range []bool{true, false} {
		for i, f := range asked {
			if (f.HostPort != 0) != named {
				continue
			}
			at := slices.IndexFunc(left, fits(f))
			if at < 0 {
				return nil, &f
			}
			found[i] = left[at]
			left = slices.Delete(left, at, at+1)
		}
	}
	return found, nil
}

// parseUsernet reads the forwards in what "info usernet" prints:
//
//	Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
//	TCP[HOST_FORWARD]  12       127.0.0.1 36289       10.0.2.15    22     0     0
//	UDP[HOST_FORWARD]   3               * 37199       10.0.2.15    53     0     0
func parseUsernet(text string) []Forward {
	var all []Forward
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		protocol, ok := strings.CutSuffix(fields[0], "[HOST_FORWARD]")
		if !ok || protocol != "TCP" && protocol != "UDP" {
			continue
		}
		address, err := netip.ParseAddr(fields[2])
		if fields[2] == "*" {
			address, err = netip.IPv4Unspecified(), nil
		}
		from, fromErr := strconv.ParseUint(fields[3], 10, 16)
		to, toErr := strconv.ParseUint(fields[5], 10, 16)
		if err == nil && fromErr == nil && toErr == nil && from > 0 && to > 0 {
			all = append(all, Forward{strings.ToLower(protocol), address, int(from), int(to)})
		}
	}
	return all
}
