package qemu

import (
	"context"
	"fmt"

	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
)

// Glance is what a machine of another process tells of itself.
type Glance struct {
	Version  string
	Status   string // "running", "paused", ... (QAPI, RunState)
	Forwards []Forward
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
	g.Forwards = parseUsernet(text)
	return g, nil
}
