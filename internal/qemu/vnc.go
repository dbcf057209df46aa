package qemu

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
)

// The ports that VNC clients know as displays 0 to 99.
const (
	firstVNC = "5900"
	lastVNC  = 5999
)

// vncPassword is as long as VNC's can be (RFC 6143, section 7.2.2).
const vncPassword = 8

// ShowVNC has QEMU show the guest's screen on a free display of 127.0.0.1, to
// whoever knows the password that is made for it; the machine's Spec must say
// VNC. VNC itself is not encrypted.
func (m *Machine) ShowVNC(ctx context.Context) (addr, password string, err error) {
	password = rand.Text()[:vncPassword]
	set := map[string]string{"protocol": "vnc", "password": password}
	listen := map[string]any{"type": "vnc", "addresses": []map[string]any{{"type": "inet", "host": "127.0.0.1", "port": firstVNC, "to": lastVNC}}}
	// Until the password is set nobody gets in: QEMU refuses an empty one.
	if err := m.monitor.Execute(ctx, "display-update", listen, nil); err != nil {
		return "", "", fmt.Errorf("showing the screen: %w", err)
	}
	if err := m.monitor.Execute(ctx, "set_password", set, nil); err != nil {
		return "", "", fmt.Errorf("showing the screen: setting a password: %w", err)
	}
	var at struct {
		Host    string `json:"host"`
		Service string `json:"service"`
	}
	if err := m.monitor.Execute(ctx, "query-vnc", nil, &at); err != nil {
		return "", "", fmt.Errorf("showing the screen: %w", err)
	}
	return net.JoinHostPort(at.Host, at.Service), password, nil
}
