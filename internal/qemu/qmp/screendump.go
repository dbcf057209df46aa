package qmp

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// Screendump returns the guest's screen as QEMU's command of this name makes
// it; args are the command's, without the file's name. QEMU writes it into
// anonymous memory of ours: confined as it is, it could not create a file where
// we can. The connection must be over a Unix socket.
func (c *Conn) Screendump(ctx context.Context, args map[string]any) ([]byte, error) {
	fd, err := unix.MemfdCreate("screendump", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), "screendump")
	defer func() { _ = memory.Close() }() // it has been read
	if err := c.dumpTo(ctx, memory, args); err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(memory, 0, 1<<30))
}

func (c *Conn) dumpTo(ctx context.Context, memory *os.File, args map[string]any) error {
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
	if err := c.ExecuteFile(ctx, "add-fd", nil, &set, output); err != nil {
		return err
	}
	dump := map[string]any{}
	maps.Copy(dump, args)
	dump["filename"] = fmt.Sprintf("/dev/fdset/%d", set.Set)
	err = c.Execute(ctx, "screendump", dump, nil)
	// QEMU forgets the descriptor also when the dump failed.
	if removeErr := c.Execute(ctx, "remove-fd", map[string]int{"fdset-id": set.Set}, nil); err == nil {
		err = removeErr
	}
	return err
}
