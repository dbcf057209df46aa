package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/units"
)

// downTime bounds how long a guest may take to come down: a Hurd takes 8 s.
const downTime = 2 * time.Minute

// export brings the guest down and writes its disk to a file in the workspace:
// the file system clean, the keys of this run removed.
func (r *run) export(ctx context.Context) (string, error) {
	if err := r.powerOff(ctx); err != nil {
		if e := diskFault(GuestLost, err); e != nil {
			return "", e
		}
		return "", fail(GuestLost, "The guest did not come down", err, "The disk is not exported: its file system could be damaged.")
	}
	if err := r.machine.Stop(ctx); err != nil {
		return "", fail(Internal, "QEMU could not be stopped", err)
	}
	size, err := r.writeImage(ctx)
	if err != nil {
		return "", exportFailure(err, r.Host.Temp)
	}
	r.Log.Printf("The disk is in %s, %s", r.config.ImageOutput, size.Human())
	return size.Human(), nil
}

// exportFailure explains why the disk was not written.
func exportFailure(err error, temp string) error {
	if e := cacheFault(Service, err); e != nil {
		return e
	}
	return fail(Internal, "The disk could not be exported", err, "Make sure that the workspace and "+temp+" have space for the disk.")
}

// powerOff brings the guest down as its family needs it.
func (r *run) powerOff(ctx context.Context) error {
	family := platform.Unknown
	if g := r.disk.manifest.Guest; g != nil {
		family = g.Family
	}
	// What the console said before is no proof that the guest has come down.
	for len(r.consoleLines) > 0 {
		<-r.consoleLines
	}
	if r.shell != nil {
		r.shell.Farewell() // else its files would be on the disk that is exported
	}
	ctx, cancel := context.WithTimeoutCause(ctx, downTime, fmt.Errorf("it took longer than %s", downTime))
	defer cancel()
	ctx, release := r.unlessFaulted(ctx)
	defer release()
	return r.client.PowerOff(ctx, family, guest.Witness{Lines: r.consoleLines, Exited: r.machine.Done()})
}

// unlessFaulted gives a context that ends when the machine stands still because
// of a file of ours; that the machine ends is what is waited for.
func (r *run) unlessFaulted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched, release := r.machine.Context(ctx)
	context.AfterFunc(watched, func() {
		if fault := r.machine.Faulted(); fault != nil {
			cancel(fault)
		}
	})
	return ctx, func() {
		cancel(nil)
		release()
	}
}

// writeImage flattens the overlay, cleans the file system and packs the disk.
func (r *run) writeImage(ctx context.Context) (units.Bytes, error) {
	raw := filepath.Join(r.dir, "export.img")
	chain, err := r.chain(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := process.Output(ctx, "qemu-img", "convert", "-O", "raw", chain, raw); err != nil {
		return 0, fmt.Errorf("flattening the overlay: %w", err)
	}
	if prepared := r.disk.manifest.Prepared; prepared != nil {
		// Preparing again removes the keys, repairs what a halt left over (a
		// deleted inode without a time), and has e2fsck prove the result.
		p, err := provision.Prepare(ctx, raw, provision.Options{
			User: r.config.SSHUser, Console: true, Hints: provision.Hints{Partition: prepared.Guest.Root.Number},
		})
		if err != nil {
			return 0, fmt.Errorf("cleaning the file system: %w", err)
		}
		for _, w := range p.Warnings {
			r.Log.Annotate(actions.Warning, "Exporting the disk", w)
		}
	}
	packed := filepath.Join(r.dir, "export.qcow2")
	if _, err := process.Output(ctx, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, packed); err != nil {
		return 0, fmt.Errorf("packing the disk: %w", err)
	}
	return r.deliver(packed, r.config.ImageOutput)
}

// node is a disk image with what lies below it, as QEMU's tools take it.
type node struct {
	Driver  string `json:"driver"`
	File    any    `json:"file"`
	Backing *node  `json:"backing,omitempty"`
}

func nodeOf(format, path string, below *node) *node {
	return &node{format, map[string]string{"driver": "file", "filename": path}, below}
}

// chain names the disk of the machine and all that lies below it: the names in
// the images' headers may be those of another host.
func (r *run) chain(ctx context.Context) (string, error) {
	if d := r.remote.disk; d != nil {
		if err := d.Ensure(ctx, 0, d.Size()); ctx.Err() != nil {
			return "", context.Cause(ctx)
		} else if err != nil {
			return "", r.remote.failed(err)
		}
	}
	n := nodeOf(string(r.disk.base.Format), r.disk.base.Path, nil)
	if r.savedOverlay != "" {
		n = nodeOf("qcow2", r.savedOverlay, n)
	}
	text, err := json.Marshal(nodeOf("qcow2", r.overlayPath, n))
	return "json:" + string(text), err
}

// deliver copies a file into the workspace. The workspace is opened as a root:
// a link in it leads nowhere else, whatever the checkout holds.
func (r *run) deliver(from, to string) (units.Bytes, error) {
	root, err := os.OpenRoot(r.Host.Workspace)
	if err != nil {
		return 0, err
	}
	defer func() { _ = root.Close() }() // it was only looked up in
	if err := root.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := root.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return 0, errors.Join(err, root.Remove(to))
	}
	if r.logs.uid >= 0 {
		err = root.Lchown(to, r.logs.uid, r.logs.gid)
	}
	return units.Bytes(n), err
}
