package lifecycle

import (
	"context"
	"errors"
	"fmt"
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
		return "", fail(GuestLost, "The guest did not come down", err, "The disk is not exported: its file system could be damaged.")
	}
	if err := r.machine.Stop(ctx); err != nil {
		return "", fail(Internal, "QEMU could not be stopped", err)
	}
	size, err := r.writeImage(ctx)
	if err != nil {
		return "", fail(Internal, "The disk could not be exported", err, "Make sure that the workspace and "+r.Host.Temp+" have space for the disk.")
	}
	r.Log.Printf("The disk is in %s, %s", r.config.ImageOutput, size.Human())
	return size.Human(), nil
}

// powerOff brings the guest down as its family needs it.
func (r *run) powerOff(ctx context.Context) error {
	family := platform.Unknown
	if g := r.disk.manifest.Guest; g != nil {
		family = g.Family
	}
	ctx, cancel := context.WithTimeoutCause(ctx, downTime, fmt.Errorf("it took longer than %s", downTime))
	defer cancel()
	return r.client.PowerOff(ctx, family, guest.Witness{Lines: r.consoleLines, Exited: r.machine.Done()})
}

// writeImage flattens the overlay, cleans the file system and packs the disk.
func (r *run) writeImage(ctx context.Context) (units.Bytes, error) {
	raw := filepath.Join(r.dir, "export.img")
	if _, err := process.Output(ctx, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", r.overlayPath, raw); err != nil {
		return 0, fmt.Errorf("flattening the overlay: %w", err)
	}
	if r.disk.manifest.Prepared != nil {
		// Preparing again removes the keys, repairs what a halt left over (a
		// deleted inode without a time), and has e2fsck prove the result.
		p, err := provision.Prepare(ctx, raw, provision.Options{User: r.config.SSHUser, Console: true})
		if err != nil {
			return 0, fmt.Errorf("cleaning the file system: %w", err)
		}
		for _, w := range p.Warnings {
			r.Log.Annotate(actions.Warning, "Exporting the disk", w)
		}
	}
	path := filepath.Join(r.Host.Workspace, r.config.ImageOutput)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // later steps of other users read it
		return 0, err
	}
	part := path + ".part"
	if _, err := process.Output(ctx, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, part); err != nil {
		return 0, errors.Join(fmt.Errorf("packing the disk: %w", err), ignoreMissing(os.Remove(part)))
	}
	if err := errors.Join(r.logs.own(part), os.Rename(part, path)); err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return units.Bytes(info.Size()), nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
