package qemu

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Screendump returns the guest's screen as a PNG image. QEMU writes it into
// anonymous memory of ours: it could not create a file where we can.
func (m *Machine) Screendump(ctx context.Context) ([]byte, error) {
	fd, err := unix.MemfdCreate("screendump", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("dumping the screen: %w", os.NewSyscallError("memfd_create", err))
	}
	memory := os.NewFile(uintptr(fd), "screendump")
	defer func() { _ = memory.Close() }() // it has been read
	if err := m.dumpTo(ctx, memory); err != nil {
		return nil, fmt.Errorf("dumping the screen: %w", err)
	}
	image, err := io.ReadAll(io.NewSectionReader(memory, 0, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("dumping the screen: %w", err)
	}
	return image, nil
}

func (m *Machine) dumpTo(ctx context.Context, memory *os.File) error {
	// QEMU looks for a descriptor that may only be written to.
	path := fmt.Sprintf("/proc/self/fd/%d", memory.Fd())
	output, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }() // QEMU's own copy is the one that is written
	var set struct {
		Set int `json:"fdset-id"`
	}
	if err := m.monitor.ExecuteFile(ctx, "add-fd", nil, &set, output); err != nil {
		return err
	}
	dump := map[string]any{"filename": fmt.Sprintf("/dev/fdset/%d", set.Set), "format": "png"}
	err = m.monitor.Execute(ctx, "screendump", dump, nil)
	// QEMU forgets the descriptor also when the dump failed.
	if removeErr := m.monitor.Execute(ctx, "remove-fd", map[string]int{"fdset-id": set.Set}, nil); err == nil {
		err = removeErr
	}
	return err
}
