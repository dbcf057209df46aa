package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// savedFile is a saved memory, with zeros at its end.
func savedFile(t *testing.T) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ram")
	want := append(bytes.Repeat([]byte("guest"), 3000), make([]byte, 1<<20)...)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, want
}

// copier makes copies of a file, and counts them.
func copier(path string, n *int) func(context.Context) (*os.File, error) {
	return func(ctx context.Context) (*os.File, error) {
		*n++
		return copyMemory(ctx, path)
	}
}

// TestMemoriesShared: guests of one saved machine start from one copy, while
// there is one.
func TestMemoriesShared(t *testing.T) {
	path, want := savedFile(t)
	var all Memories
	made := 0
	take := func(name string) *memoryHold {
		t.Helper()
		hold, err := all.take(t.Context(), name, copier(path, &made))
		if err != nil {
			t.Fatal(err)
		}
		return hold
	}
	first, second, other := take("a"), take("a"), take("b")
	if first.file != second.file || first.file == other.file || made != 2 {
		t.Errorf("%d copies were made; shared: %v; the other's: %v", made, first.file == second.file, first.file == other.file)
	}
	first.release()
	got := make([]byte, len(want)+1)
	if n, _ := second.file.ReadAt(got, 0); !bytes.Equal(got[:n], want) {
		t.Errorf("the copy has %d bytes, want %d", n, len(want))
	}
	second.release()
	other.release()
	if _, err := second.file.ReadAt(got, 0); !errors.Is(err, os.ErrClosed) || len(all.held) != 0 {
		t.Errorf("the last guest is gone: %v, %d held", err, len(all.held))
	}
	again := take("a")
	defer again.release()
	if made != 3 {
		t.Errorf("%d copies were made", made)
	}
}

// TestMemoriesSealed: a guest writes to its own mapping, and to nothing else.
func TestMemoriesSealed(t *testing.T) {
	path, want := savedFile(t)
	f, err := copyMemory(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	again, err := os.OpenFile(descriptorPath(f), os.O_RDWR, 0) // as a machine is started
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if _, err := again.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: %v", err)
	}
	for _, size := range []int64{0, 1 << 30} {
		if err := again.Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("changing the size to %d: %v", size, err)
		}
	}
	if _, err := unix.Mmap(int(again.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("mapping it shared: %v", err)
	}
	guest, err := unix.Mmap(int(again.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(guest) }()
	guest[0] = 'x'
	got := make([]byte, 5)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "guest" {
		t.Errorf("the copy begins with %q, %v", got, err)
	}
}

// TestMemoriesFailed: a copy that failed, or was given up, is nobody else's
// failure.
func TestMemoriesFailed(t *testing.T) {
	path, _ := savedFile(t)
	var all Memories
	full := errors.New("no space")
	copying, fail := make(chan struct{}), make(chan struct{})
	failed := make(chan error)
	go func() {
		_, err := all.take(t.Context(), "a", func(context.Context) (*os.File, error) {
			close(copying)
			<-fail
			return nil, full
		})
		failed <- err
	}()
	<-copying
	gone, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if _, err := all.take(gone, "a", copier(path, new(int))); !errors.Is(err, interrupted) {
		t.Errorf("who is interrupted while another one copies: %v", err)
	}
	waits := make(chan error)
	go func() {
		hold, err := all.take(t.Context(), "a", copier(path, new(int)))
		if err == nil {
			hold.release()
		}
		waits <- err
	}()
	for users := 0; users < 2; runtime.Gosched() { // it waits too
		all.mu.Lock()
		users = all.held["a"].users
		all.mu.Unlock()
	}
	close(fail)
	if err := <-failed; !errors.Is(err, full) {
		t.Errorf("whose copy failed: %v", err)
	}
	if err := <-waits; err != nil {
		t.Errorf("who has waited: %v", err)
	}
	if len(all.held) != 0 {
		t.Errorf("%d are held by nobody", len(all.held))
	}
}

// TestSavedMemory: a QEMU that can't open the saved file for reading alone gets
// a copy, until the run lets go of it.
func TestSavedMemory(t *testing.T) {
	entry := smallEntry(t, &snapshot.Store{Dir: t.TempDir()})
	defer func() { _ = entry.Close() }() // it was only read
	r := &run{features: new(qemu.Features)}
	r.Memories = new(Memories)
	r.features.PrivateRAM = true
	ram, err := r.savedMemory(t.Context(), entry)
	if err != nil || ram.Path != entry.Path(snapshot.RAM) || !ram.ReadOnly || ram.Shared || r.warm.copied != nil {
		t.Errorf("%+v, %v", ram, err)
	}
	r.features.PrivateRAM = false
	ram, err = r.savedMemory(t.Context(), entry)
	if err != nil || ram.Path == entry.Path(snapshot.RAM) || ram.ReadOnly || ram.Shared || len(r.Memories.held) != 1 {
		t.Fatalf("%+v, %v, %d held", ram, err, len(r.Memories.held))
	}
	if info, err := os.Stat(ram.Path); err != nil || info.Size() != 1<<20 {
		t.Errorf("%v, %v", info, err)
	}
	r.dropCopy()
	r.dropCopy() // does no harm
	if len(r.Memories.held) != 0 {
		t.Errorf("%d held", len(r.Memories.held))
	}
}

// TestHostAtFault: a host that could not write what a machine starts from says
// nothing of the machine, unless that is damaged as well.
func TestHostAtFault(t *testing.T) {
	r, err := &run{}, fmt.Errorf("restoring: %w", &hostError{unix.ENOSPC})
	if why := r.otherFault(err); why != "this host is at fault" || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%q of %v", why, err)
	}
	if why := r.otherFault(errors.Join(err, snapshot.ErrDamaged)); why != "" {
		t.Errorf("%q of what is damaged", why)
	}
}
