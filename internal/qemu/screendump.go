package qemu

import (
	"context"
	"fmt"
)

// Screendump returns the guest's screen as a PNG image.
func (m *Machine) Screendump(ctx context.Context) ([]byte, error) {
	image, err := m.monitor.Screendump(ctx, map[string]any{"format": "png"})
	if err != nil {
		return nil, fmt.Errorf("dumping the screen: %w", err)
	}
	return image, nil
}
