package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
)

// restore begins from a saved machine if there is one that works. It tells
// whether the guest is there; if not, the machine is to be booted.
func (r *run) restore(ctx context.Context) (bool, error) {
	if !r.mayRestore() {
		return false, nil
	}
	entry, err := r.findSaved(ctx)
	switch {
	case errors.Is(err, snapshot.ErrMiss):
		return false, nil
	case err != nil:
		r.result.Snapshot = stateFailed
		if errors.Is(err, snapshot.ErrDamaged) {
			r.warm.spoil()
		}
		r.warn("The saved machine can't be used", err.Error()+"; the machine is booted")
		return false, ctx.Err()
	}
	r.cleanup.push("letting go of the saved memory", func(context.Context) error {
		r.dropCopy()
		return nil
	})
	err = r.step(ctx, "Restore", func(ctx context.Context) (string, error) { return r.restoreFrom(ctx, entry) })
	if err == nil {
		r.cleanup.push("releasing the saved machine", func(context.Context) error { return entry.Close() })
		return true, nil
	}
	if refused := (*commandError)(nil); errors.As(err, &refused) && !isKind(err, InputInvalid) {
		err = refused.failure()
	}
	if why := r.otherFault(err); why != "" && ctx.Err() == nil {
		r.result.Snapshot = stateFailed
		r.warn("The saved machine did not come back", errors.Join(err, entry.Close()).Error()+"; "+why+": the machine is booted, and the saved one is kept")
		return false, nil
	}
	if ctx.Err() != nil || isKind(err, InputInvalid) { // which has nothing to do with the saved machine
		return false, errors.Join(err, entry.Close())
	}
	r.result.Snapshot = stateFailed
	r.warm.spoil()
	text := err.Error() + "; the machine is booted, and the saved one is removed"
	if evictErr := r.warm.store.Evict(entry, err.Error()); evictErr != nil {
		text = fmt.Sprintf("%v; the machine is booted (removing the saved one: %v)", err, evictErr)
	}
	r.warn("The saved machine did not come back", text)
	return false, nil
}

// hostError is why this host could not start a saved machine.
type hostError struct{ error }

func (e *hostError) Unwrap() error { return e.error }

// otherFault says what else has kept a saved machine, which may be sound, from
// coming back; empty: nothing has.
func (r *run) otherFault(err error) string {
	var late *lateError
	switch {
	case errors.Is(err, snapshot.ErrDamaged):
		return ""
	case errors.As(err, new(*hostError)):
		return "this host is at fault"
	case r.remoteBroken():
		return "its disk, from the job's cache, is at fault"
	case errors.As(err, &late) && late.slowCache():
		return "its disk comes too slowly from the job's cache"
	}
	return ""
}

// findSaved looks for a saved machine in the store of this host, in the job's
// cache, and among those that others have published.
func (r *run) findSaved(ctx context.Context) (*snapshot.Entry, error) {
	entry, err := r.warm.store.Find(ctx, r.warm.key.Usable()...)
	if errors.Is(err, snapshot.ErrMiss) {
		entry, err = r.fetchSaved(ctx)
	}
	if errors.Is(err, snapshot.ErrMiss) {
		entry, err = r.pullPublished(ctx)
	}
	return entry, err
}

// restoreFrom starts a machine from an entry. When it fails, the machine is gone.
func (r *run) restoreFrom(ctx context.Context, entry *snapshot.Entry) (note string, err error) {
	allowed := restoreAllowance(r.restoreLimit())
	allowed.waited = r.remote.waited
	ctx, cancel := allowed.context(ctx)
	defer cancel()
	defer func() {
		if err != nil {
			r.dropCopy()
		}
	}()
	sound := make(chan error, 1)
	go func() { sound <- entry.Verify(ctx) }()
	login, err := readLogin(entry.Manifest.Login)
	if err != nil {
		return "", errors.Join(err, <-sound)
	}
	var saver saverNote
	_ = json.Unmarshal(entry.Manifest.Guest, &saver) // a machine saved by an earlier version has less to tell
	r.commands.past = saver.Commands
	if saver.Shell != "" {
		r.loginShell = saver.Shell
	}
	m, err := r.startSaved(ctx, entry)
	allowed.machine.Store(m)
	if err := errors.Join(<-sound, err); err != nil {
		return "", errors.Join(caused(ctx, err), r.dismiss(ctx, m))
	}
	if err := r.resume(ctx, m, entry, login); err != nil {
		return "", errors.Join(caused(ctx, err), r.dismiss(ctx, m))
	}
	r.result.Snapshot, r.result.Attempts, r.result.Uname = stateRestored, 1, snapshot.Printable(saver.Uname)
	r.meter.restored = entry.Manifest.Data()
	return fmt.Sprintf("SSH after %s, saved %s", actions.Seconds(r.result.Boot), entry.Manifest.Created.Format(time.RFC3339)), nil
}

// dismiss ends a machine that did not come back.
func (r *run) dismiss(ctx context.Context, m *qemu.Machine) error {
	if m == nil {
		return nil
	}
	r.stopSamples()
	r.stopSamples = func() {}
	// Nothing of it is of use: it is killed at once, and not asked to end.
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	r.ready.Store(false)
	r.client = nil // of a guest that is gone, like the next
	r.result.Boot, r.result.SSH, r.result.Uname = 0, 0, ""
	return m.Stop(stop)
}

// startSaved starts a QEMU that waits for the entry's state, on a fresh overlay
// and with a workspace of its own.
func (r *run) startSaved(ctx context.Context, entry *snapshot.Entry) (*qemu.Machine, error) {
	var ram *qemu.RAM
	copied := make(chan error, 1)
	go func() {
		var err error
		ram, err = r.savedMemory(ctx, entry)
		copied <- err
	}()
	overlay, err := r.emptyOverlay("restored", image.Base{Path: entry.Path(snapshot.Disk), Format: "qcow2", VirtualSize: r.disk.base.VirtualSize})
	if err := errors.Join(err, <-copied); err != nil {
		return nil, &hostError{err}
	}
	r.overlayPath, r.savedOverlay = overlay, entry.Path(snapshot.Disk)
	s := r.spec(qemu.Image{Path: overlay, Format: "qcow2", Base: &qemu.Image{Path: entry.Path(snapshot.Disk), Format: "qcow2", Base: r.baseImage()}})
	s.Incoming = "defer"
	s.RAM = ram
	return r.launch(ctx, s)
}

// resume loads the state, lets the guest go on and makes it this run's own.
// When it fails, the run has the keys that it had.
func (r *run) resume(ctx context.Context, m *qemu.Machine, entry *snapshot.Entry, login login) (err error) {
	state, err := os.Open(entry.Path(snapshot.State))
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }() // it was only read
	if err := r.beforeBoot(ctx); err != nil {
		return err
	}
	if err := m.Load(ctx, state); err != nil {
		return err
	}
	if err := m.Resume(ctx); err != nil {
		return err
	}
	ctx, release := m.Context(ctx)
	defer release()
	fresh := r.keys
	defer func() {
		if err != nil { // a machine that is booted knows no others
			r.keys = fresh
		}
	}()
	// The keys of the saved machine, which others may know, are replaced before
	// anything else is done in the guest.
	contents, err := provision.Contents(*r.disk.manifest.Prepared, provision.Keys{Authorized: []string{fresh.login}, Host: fresh.host})
	if err != nil {
		return err
	}
	files := make([]guest.Beginning, len(contents))
	for i, c := range contents {
		files[i] = guest.Beginning{File: c.File, Data: c.Data}
	}
	r.keys.signer, r.keys.pinned = login.signer, login.pinned
	if err := r.dial(ctx, m, r.keys.pinned, guest.Greeting{Renew: files, Hold: true}); err != nil {
		return err
	}
	r.keys, r.rekeying.need = fresh, true
	return nil
}

// login is how a saved guest is reached.
type login struct {
	signer ssh.Signer
	pinned []ssh.PublicKey
}

func readLogin(l snapshot.Login) (login, error) {
	signer, err := ssh.ParsePrivateKey([]byte(l.Private))
	if err != nil {
		return login{}, fmt.Errorf("reading the login of the saved machine: %w", err)
	}
	out := login{signer: signer}
	for _, line := range l.HostKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return login{}, fmt.Errorf("reading the login of the saved machine: %w", err)
		}
		out.pinned = append(out.pinned, key)
	}
	return out, nil
}
