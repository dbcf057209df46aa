package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// memoryFile makes a file in memory for a guest's memory. Anybody who gets its
// descriptor can open it, as QEMU's user must.
func memoryFile(size units.Bytes) (*os.File, error) {
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "guest-memory")
	if err := f.Truncate(int64(size)); err != nil {
		_ = f.Close() // it was never used
		return nil, err
	}
	return f, nil
}

// descriptorPath is how a file of ours is opened once more.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// saveableMemory gives the machine a memory that can be saved.
func (r *run) saveableMemory() (*qemu.RAM, error) {
	if !r.maySave() {
		return nil, nil //nolint:nilnil // no memory of its own is what QEMU has by default
	}
	r.dropMemory()
	f, err := memoryFile(r.hardware.Memory)
	if err != nil {
		return nil, err
	}
	r.warm.memory = f
	return &qemu.RAM{Path: descriptorPath(f), Shared: true}, nil
}

// dropMemory lets go of the guest's memory, which QEMU has its own hold of.
func (r *run) dropMemory() {
	if r.warm.memory != nil {
		_ = r.warm.memory.Close() // nothing is lost with it
		r.warm.memory = nil
	}
}

// savedMemory is the memory that a restored machine starts from: the entry's
// file, or a copy of it for a QEMU that could else write to what other machines
// start from.
func (r *run) savedMemory(ctx context.Context, entry *snapshot.Entry) (*qemu.RAM, error) {
	path := entry.Path(snapshot.RAM)
	if r.features.PrivateRAM {
		return &qemu.RAM{Path: path, ReadOnly: true}, nil
	}
	copies := r.Memories
	if copies == nil {
		copies = new(Memories)
	}
	hold, err := copies.take(ctx, path+"\x00"+entry.Manifest.Created.String(), func(ctx context.Context) (*os.File, error) { return copyMemory(ctx, path) })
	if err != nil {
		return nil, err
	}
	r.warm.copied = hold
	return &qemu.RAM{Path: descriptorPath(hold.file)}, nil
}

// dropCopy lets go of the copy that the guest started from, if there is one,
// when the guest is gone or never came: until then others can start from it.
func (r *run) dropCopy() {
	if r.warm.copied != nil {
		r.warm.copied.release()
		r.warm.copied = nil
	}
}

// copyMemory copies a saved memory into a sealed file in memory.
func copyMemory(ctx context.Context, path string) (*os.File, error) {
	saved, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = saved.Close() }() // it was only read
	f, err := memoryFile(0)
	if err != nil {
		return nil, err
	}
	err = snapshot.CopySparse(ctx, f, saved)
	if err == nil {
		// A private mapping can be written to all the same (fcntl(2), F_SEAL_WRITE).
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		err = os.NewSyscallError("sealing a copy of the saved memory", err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Memories has the copies of saved memories that guests of one process start
// from, where QEMU (before 8.2) would open the saved file for writing. They are
// sealed: no QEMU can change what another one starts from. The zero value is
// ready; it may be used by several runs at once.
type Memories struct {
	mu   sync.Mutex
	held map[string]*sharedMemory
}

// sharedMemory is one copy.
type sharedMemory struct {
	turn  chan struct{} // has one element; who has that makes the copy
	file  *os.File      // nil: there is no copy yet. Written by who has the turn, and never again
	users int           // for who has locked Memories
}

// memoryHold is one guest's use of a copy.
type memoryHold struct {
	file    *os.File
	release func() // to be called once
}

// take returns the copy of that name, which it makes if no other guest has one
// now. While it is being made, others that want it wait.
func (m *Memories) take(ctx context.Context, name string, copied func(context.Context) (*os.File, error)) (*memoryHold, error) {
	m.mu.Lock()
	s := m.held[name]
	if s == nil {
		s = &sharedMemory{turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		if m.held == nil {
			m.held = map[string]*sharedMemory{}
		}
		m.held[name] = s
	}
	s.users++
	m.mu.Unlock()
	release := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.users--; s.users > 0 {
			return
		}
		delete(m.held, name)
		if s.file != nil {
			_ = s.file.Close() // QEMU has its own hold of it
		}
	}
	var err error
	select {
	case <-s.turn:
		if s.file == nil {
			s.file, err = copied(ctx)
		}
		s.turn <- struct{}{}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		release()
		return nil, err
	}
	return &memoryHold{s.file, release}, nil
}
