package qemu

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// Glance is what a machine of another process tells of itself.
type Glance struct {
	Version  string
	Status   string // "running", "paused", ... (QAPI, RunState)
	Forwards []Forwarded
}

// Forwarded is a TCP port of the host that leads into the guest.
type Forwarded struct {
	Host  string // address and port
	Guest int    // port
}

// GlanceAt asks the machine whose monitor for tools listens at a socket. The
// monitor serves one client at a time: when it has another one, the connection
// succeeds and the context's end is the error.
func GlanceAt(ctx context.Context, socket string) (Glance, error) {
	conn, err := qmp.Dial(ctx, socket)
	if err != nil {
		return Glance{}, err
	}
	defer func() { _ = conn.Close() }() // everything was said
	g := Glance{Version: conn.Version().String()}
	var status struct {
		Status string `json:"status"`
	}
	if err := conn.Execute(ctx, "query-status", nil, &status); err != nil {
		return Glance{}, err
	}
	g.Status = status.Status
	var text string
	if err := conn.Execute(ctx, "human-monitor-command", map[string]string{"command-line": "info usernet"}, &text); err != nil {
		return Glance{}, fmt.Errorf("asking for the ports: %w", err)
	}
	g.Forwards = usernetForwards(text)
	return g, nil
}

// usernetForwards lists the TCP forwards in what "info usernet" prints; see parseUsernet.
func usernetForwards(text string) []Forwarded {
	var all []Forwarded
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[0] != "TCP[HOST_FORWARD]" {
			continue
		}
		port, err := strconv.ParseUint(fields[3], 10, 16)
		guest, guestErr := strconv.ParseUint(fields[5], 10, 16)
		host := fields[2]
		if host == "0.0.0.0" || host == "*" {
			host = "127.0.0.1" // it listens there as well
		}
		if err != nil || guestErr != nil || port == 0 || guest == 0 || net.ParseIP(host) == nil {
			continue
		}
		all = append(all, Forwarded{net.JoinHostPort(host, strconv.FormatUint(port, 10)), int(guest)})
	}
	return all
}
