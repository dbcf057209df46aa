package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/nbd"
)

// brokenDisk can't be read.
type brokenDisk struct{ asked chan int64 }

func (brokenDisk) Size() int64 { return 1 << 20 }

func (d brokenDisk) ReadAt(_ context.Context, _ []byte, offset int64) error {
	select {
	case d.asked <- offset:
	default:
	}
	return errors.New("broken")
}

// TestE2EServedDisk has a real machine boot from a disk that a server of ours
// has: what can't be read stops the machine, and the guest is not told.
func TestE2EServedDisk(t *testing.T) {
	before := openFiles(t)
	spec, options := realSpec(t, Blob{})
	overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", overlay, "1M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk, served := brokenDisk{make(chan int64, 1)}, make(chan error, 1)
	connect := func() (*os.File, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fds[0]), "server")
		conn, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		go func() { served <- nbd.Serve(context.Background(), conn, disk) }()
		return os.NewFile(uintptr(fds[1]), "client"), nil
	}
	spec.Disks = []Disk{{Image: Image{Path: overlay, Format: "qcow2", Base: &Image{Format: "raw", Connect: connect}}}}
	m, err := Start(deadline(t, 60*time.Second), spec, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := m.Context(deadline(t, 60*time.Second))
	defer cancel()
	<-ctx.Done()
	var fault *FaultError
	if !errors.As(context.Cause(ctx), &fault) || fault.Operation != "read" || <-disk.asked != 0 {
		t.Errorf("cause = %v", context.Cause(ctx))
	}
	if err := m.WaitPhase(deadline(t, 20*time.Second), PhasePaused); err != nil && !errors.As(err, &fault) {
		t.Errorf("the machine runs on: %v", err)
	}
	if err := m.Stop(deadline(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("the server: %v", err)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors were left open", after-before)
	}
}
