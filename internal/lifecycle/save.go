package lifecycle

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// runPrepare runs the prepare script as a script is run, but for what only
// this run may know: it has neither the workspace nor the step's environment.
func (r *run) runPrepare(ctx context.Context) (string, error) {
	ctx, release := r.machine.Context(ctx)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.watchGuest(ctx, cancel)
	r.setClock(ctx)
	if limit := r.config.Timeout; limit > 0 { // as for the script, with a clock of its own
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, timeoutError{"timeout", limit})
		defer stop()
	}
	_, log := r.Log.Guest()
	out := r.mask.Writer(log)
	res, err := r.client.RunScript(ctx, guest.Script{Text: r.config.Prepare, Shell: r.config.Shell}, out, out)
	if err := errors.Join(err, out.Close()); err != nil {
		return "", r.scriptFailure(ctx, err)
	}
	if res.Status != 0 {
		return "", fail(InputInvalid, "The prepare script failed", fmt.Errorf("prepare: it ended with status %d after %s", res.Status, actions.Seconds(res.Duration)),
			"Look at what it printed, above. The machine was not saved.")
	}
	return "", nil
}

// settleTime is what the guest gets to end the session of a connection that was
// closed, so that it is not saved as well.
const settleTime = 100 * time.Millisecond

// saveTime bounds the saving while the guest stands still.
const saveTime = 30 * time.Second

// save keeps the machine for later runs. A machine that could not be saved goes
// on all the same; one that does not come back is lost.
func (r *run) save(ctx context.Context) (string, error) {
	w := &r.warm
	defer r.dropMemory()
	draft, err := w.store.Begin()
	if err != nil {
		r.warn("The machine was not saved", err.Error())
		return stateCold, nil
	}
	_ = r.client.Close() // it is dialled anew
	if !sleep(ctx, settleTime) {
		draft.Discard()
		return "", context.Cause(ctx)
	}
	limited, cancel := context.WithTimeoutCause(ctx, saveTime, fmt.Errorf("it took longer than %s", saveTime))
	var resumeErr error
	var stood time.Duration
	err = r.exclusively(func() error { // a command on-console must not let it go on
		still := time.Now()
		err := r.freeze(limited, draft)
		resumeErr = r.machine.Resume(ctx)
		stood = time.Since(still)
		r.commands.saved = r.commands.behind()
		return err
	})
	cancel()
	if err != nil {
		draft.Discard()
		r.warn("The machine was not saved", err.Error())
	}
	if resumeErr == nil {
		resumeErr = r.dialAgain(ctx)
	}
	if resumeErr != nil {
		draft.Discard()
		return "", r.transferFailure(ctx, "The machine did not go on after it was saved", resumeErr)
	}
	if err != nil {
		return stateCold, nil
	}
	r.beganAs(stateSaved)
	w.saving = make(chan struct{})
	go r.keepSaved(context.WithoutCancel(ctx), draft)
	return fmt.Sprintf("%s, the guest stood still for %s", stateSaved, actions.Seconds(stood)), nil
}

// sleep waits unless the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// freeze stops the machine and copies all that makes it.
func (r *run) freeze(ctx context.Context, draft *snapshot.Draft) error {
	state, err := draft.Create(snapshot.State)
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }() // Commit reads it once more
	if err := r.machine.Save(ctx, state); err != nil {
		return err
	}
	if err := draft.Copy(ctx, snapshot.RAM, r.warm.memory); err != nil {
		return err
	}
	overlay, err := os.Open(r.overlayPath)
	if err != nil {
		return err
	}
	defer func() { _ = overlay.Close() }() // it was only read
	return draft.Copy(ctx, snapshot.Disk, overlay)
}

// keepSaved makes the draft an entry while the script runs.
func (r *run) keepSaved(ctx context.Context, draft *snapshot.Draft) {
	defer close(r.warm.saving)
	defer draft.Discard()
	m, err := r.snapshotManifest()
	if err == nil {
		err = r.commit(ctx, draft, m)
	}
	r.warm.saveErr = err
}

// What the store of saved machines may hold.
const (
	unusedTime   = 30 * 24 * time.Hour
	snapshotRoom = 10 * units.GiB
)

func (r *run) commit(ctx context.Context, draft *snapshot.Draft, m snapshot.Manifest) error {
	if r.config.Snapshot == snapshotSave { // a new one was asked for
		if old, err := r.warm.store.Find(ctx, m.Key); err == nil {
			if err := r.warm.store.Evict(old, "it was saved anew"); err != nil {
				return err
			}
		}
	}
	entry, err := draft.Commit(ctx, m)
	if err != nil {
		return err
	}
	size := entry.Manifest.Data()
	if size > r.config.SnapshotMaxSize {
		return errors.Join(fmt.Errorf("it has %s, and snapshot-max-size is %s", size.Human(), r.config.SnapshotMaxSize.Human()),
			r.warm.store.Evict(entry, "it was larger than snapshot-max-size"))
	}
	r.warm.saved = size
	var shareErr error
	r.warm.shared, shareErr = r.shareSaved(ctx, entry)
	if err := entry.Close(); err != nil {
		return err
	}
	if _, err := r.warm.store.Prune(ctx, unusedTime, snapshotRoom); err != nil {
		return err
	}
	r.warm.shareErr = shareErr
	return nil
}

// saverNote is what a restored run wants to know without looking into the guest.
type saverNote struct {
	Uname    string
	Shell    string `json:",omitempty"` // of whoever is logged in
	Commands []int  `json:",omitempty"` // steps of on-console that were carried out, by their index
	UserKey  bool   `json:",omitempty"` // the run that saved had a key of the user's, whose public half the guest knows
}

func (r *run) snapshotManifest() (snapshot.Manifest, error) {
	block, err := ssh.MarshalPrivateKey(r.keys.saver.Private(), "hurd-qemu-action")
	if err != nil {
		return snapshot.Manifest{}, err
	}
	note, err := json.Marshal(saverNote{Uname: r.result.Uname, Shell: r.loginShell, Commands: r.commands.saved, UserKey: r.config.PrivateKey != nil})
	if err != nil {
		return snapshot.Manifest{}, err
	}
	m := snapshot.Manifest{
		Key: r.warm.key, Created: time.Now().UTC(), Action: r.Host.Version, Package: r.features.Package, Guest: note,
		Login: snapshot.Login{Port: r.config.SSHPort, Private: string(pem.EncodeToMemory(block))},
	}
	for _, k := range r.keys.pinned {
		m.Login.HostKeys = append(m.Login.HostKeys, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
	}
	return m, nil
}

// keepTime bounds the wait for what was saved at the end of a run.
const keepTime = 10 * time.Minute

// awaitSaved waits until what was saved is kept, and says what became of it.
func (r *run) awaitSaved(ctx context.Context) {
	if r.warm.saving == nil {
		return
	}
	ctx, stop := r.ending.context(ctx, keepTime, stopReserve)
	defer stop()
	select {
	case <-r.warm.saving:
	case <-ctx.Done():
		r.beganAs(stateCold)
		r.warn("The saved machine was not kept", context.Cause(ctx).Error())
		return
	}
	if err := r.warm.saveErr; err != nil {
		r.beganAs(stateCold)
		r.warn("The saved machine was not kept", err.Error())
		return
	}
	r.Log.Printf("The machine is saved for later runs: %s (%s)", r.warm.saved.Human(), r.warm.key)
	if r.warm.shared != "" {
		r.Log.Printf("Saved machine: %s", r.warm.shared)
	}
	if err := r.warm.shareErr; err != nil {
		r.warn("The saved machine is not in the cache", err.Error())
	}
}
