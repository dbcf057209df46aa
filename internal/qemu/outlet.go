package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// outlet is a pipe that QEMU takes for a file of its own: what it writes there
// is read here, and nothing is left of it when QEMU has ended.
type outlet struct {
	from *os.File
	done chan struct{} // closed when all has been read
}

// outletRoom is how much QEMU can write before it would have to wait for us.
const outletRoom = 1 << 20

// newOutlet makes the pipe, has read take what comes out of it, and returns its
// descriptor in QEMU. What read leaves is read and dropped: QEMU would wait for
// room in the pipe.
func newOutlet(files *inheritance, read func(io.Reader)) (*outlet, int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	// QEMU opens it once more by its name in /proc, as a user that is not ours.
	// Only who may look into QEMU itself can do that.
	if err := w.Chmod(0o622); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("letting QEMU write: %w", err), r.Close(), w.Close())
	}
	// Less room is only less time until QEMU waits for a reader that is late.
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, outletRoom)
	o := &outlet{from: r, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		read(r)
		_, _ = io.Copy(io.Discard, r) // it ends with QEMU
	}()
	return o, files.add(w), nil
}

// await waits until all that an ended QEMU wrote has been read.
func (o *outlet) await(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

// close ends the reading.
func (o *outlet) close() {
	_ = o.from.Close() // nothing was written through it
	<-o.done
}
