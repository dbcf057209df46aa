package qemu

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// ForwardedPort asks QEMU for the port of 127.0.0.1 that leads to a guest's
// TCP port; the Spec must have it among its Forwards.
func (m *Machine) ForwardedPort(ctx context.Context, guestPort int) (int, error) {
	var text string
	command := map[string]string{"command-line": "info usernet"}
	if err := m.monitor.Execute(ctx, "human-monitor-command", command, &text); err != nil {
		return 0, fmt.Errorf("finding the port that leads to the guest's port %d: %w", guestPort, err)
	}
	port, ok := parseUsernet(text, guestPort)
	if !ok {
		return 0, fmt.Errorf("finding the port that leads to the guest's port %d: QEMU forwards none; it says %q", guestPort, text)
	}
	return port, nil
}

// parseUsernet looks for a forward in what "info usernet" prints:
//
//	Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
//	TCP[HOST_FORWARD]  12       127.0.0.1 36289       10.0.2.15    22     0     0
func parseUsernet(text string, guestPort int) (int, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[0] != "TCP[HOST_FORWARD]" || fields[5] != strconv.Itoa(guestPort) {
			continue
		}
		if port, err := strconv.ParseUint(fields[3], 10, 16); err == nil && port > 0 {
			return int(port), true
		}
	}
	return 0, false
}
