package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

// backTime bounds the way back when nobody interrupts it: a gigabyte over the
// SSH of an emulated guest would take a quarter of an hour.
const backTime = time.Hour

// bringBack fetches what the script left, whatever became of it. What goes
// wrong here is a warning: it never hides the script's own result.
func (r *run) bringBack(ctx context.Context) {
	c := &r.checkout
	globs, _ := r.artifactGlobs() // it was looked at before
	if c.fetched || !c.in && (r.client == nil || globs.empty()) {
		return
	}
	c.fetched = true
	back, stop := r.ending.context(ctx, backTime, stopReserve)
	defer stop()
	err := r.step(back, "Copy back", func(ctx context.Context) (note string, err error) {
		err = guarded(ctx, func(ctx context.Context) error {
			note, err = r.copyBack(ctx, globs)
			return err
		})
		return note, err
	})
	if err != nil {
		if cause := context.Cause(back); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		r.warn("Not all came back from the guest", err.Error())
	}
}

// warn makes an annotation and remembers it for the reports.
func (r *run) warn(title, text string) {
	text = r.mask.String(text)
	r.result.Warnings = append(r.result.Warnings, title+": "+actions.Printable(text))
	r.Log.Annotate(actions.Warning, title, text)
}

// copyBack fetches the results into the workspace, and the files of the artifact.
func (r *run) copyBack(ctx context.Context, globs artifactPaths) (note string, err error) {
	note = syncNone
	if r.checkout.in && (!r.checkout.back.None() || globs.inside != "") {
		note, err = r.fetchWorkspace(ctx, globs.inside)
	} else if globs.inside != "" {
		err = errors.New("artifact-path has patterns for the workspace, and the guest does not have it: write absolute paths of the guest")
	}
	if len(globs.outside) == 0 {
		return note, err
	}
	if stageErr := r.stage(ctx, filepath.Join(r.staging(), artifactGuest), "**", r.fetchOutside(globs.outside)); stageErr != nil {
		err = errors.Join(err, fmt.Errorf("fetching the guest's files for the artifact: %w", stageErr))
	}
	return note, err
}

// fetchWorkspace fetches all that is wanted from the workspace in the guest;
// artifact are the patterns of files that are wanted in the artifact.
func (r *run) fetchWorkspace(ctx context.Context, artifact string) (note string, err error) {
	c := &r.checkout
	fetch := r.fetchStream
	defer func() { _ = os.Remove(r.spooled()) }() // the run directory goes as a whole later
	if c.onDisk {
		defer func() { err = errors.Join(err, r.goOn(ctx)) }()
		d, err := r.openDrive(ctx)
		if err != nil {
			return "", err
		}
		defer func() { _ = d.Close() }() // it was only read
		fetch = func(ctx context.Context, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
			return fetchDrive(ctx, d, t, o)
		}
	} else if err := r.gone(); err != nil {
		return "", fmt.Errorf("it was in the guest, which is lost: %w", err)
	}
	note = syncNone
	if !c.back.None() {
		note, err = r.fetchChanges(ctx, fetch)
	}
	if artifact == "" {
		return note, err
	}
	if stageErr := r.stage(ctx, r.staging(), artifact, fetch); stageErr != nil {
		err = errors.Join(err, fmt.Errorf("fetching the files of the artifact: %w", stageErr))
	}
	return note, err
}

// gone says why the guest need not be asked for anything; nil: it may answer.
func (r *run) gone() error {
	if r.checkout.lost != nil {
		return r.checkout.lost
	}
	return r.client.Err()
}

// fetcher brings what options choose of the guest's workspace into a tree's directory.
type fetcher func(context.Context, *workspace.Tree, workspace.Options) (*workspace.Changes, workspace.Result, error)

// fetchChanges brings the results into the workspace, and tells what came.
func (r *run) fetchChanges(ctx context.Context, fetch fetcher) (string, error) {
	c := &r.checkout
	changes, result, err := fetch(ctx, c.tree, workspace.Options{Back: c.back, Delete: c.delete, Since: c.since})
	if changes == nil {
		return "", err
	}
	text := fmt.Sprintf("%s in %s", counted(result.Files, "file"), result.Bytes.Human())
	if result.Deleted > 0 {
		text += fmt.Sprintf(", %d deleted", result.Deleted)
	}
	r.result.BackFiles, r.result.BackBytes = result.Files, result.Bytes
	r.notes("note", result.Notices)
	for _, n := range []struct {
		title string
		notes workspace.Notes
	}{
		{"Not copied back", result.Refused}, {"Could not be written into the workspace", result.Failed}, {"Did not come back", result.Missing},
	} {
		if n.notes.Len() > 0 {
			r.warn(n.title, noted(n.notes))
		}
	}
	return text, err
}

// noted writes notes for one warning.
func noted(lists ...workspace.Notes) string {
	var b strings.Builder
	for _, n := range lists {
		for i, note := range n.List {
			if i == shownNotes {
				break
			}
			fmt.Fprintf(&b, "%q: %s\n", note.Path, note.Reason)
		}
		if more := n.Len() - shownNotes; more > 0 {
			fmt.Fprintf(&b, "and %d more\n", more)
		}
	}
	return strings.TrimSpace(b.String())
}

// letGoTime bounds how long the guest may take to let go of the drive: a Hurd
// takes 3 s when nothing is to be written any more.
const letGoTime = 2 * time.Minute

// openDrive has the guest let go of the drive and opens it here. A guest that
// does not, or that is gone, has left what it had written out; the machine
// stands still while that is put in order.
func (r *run) openDrive(ctx context.Context) (*workspace.Drive, error) {
	why := r.letGo(ctx)
	d, err := workspace.OpenDrive(r.checkout.drive)
	if err != nil {
		return nil, err
	}
	clean, err := d.Clean()
	if err == nil && !clean {
		if why == nil {
			why = errors.New("it says that it has, and it has not")
		}
		err = r.repairDrive(ctx, d, why)
	}
	if err != nil {
		_ = d.Close() // it was only read
		return nil, err
	}
	return d, nil
}

// readTime is what of an interrupted run's budget is kept for reading the drive.
const readTime = 1500 * time.Millisecond

// letGoContext bounds letGo. In a run that was interrupted before, it gets most
// of what is left; a quarter is for reading what the guest has written out.
func (r *run) letGoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := r.ending.soon(); ok {
		return context.WithDeadlineCause(ctx, time.Now().Add(time.Until(deadline)*3/4), budgetError{})
	}
	return r.ending.context(ctx, letGoTime, stopReserve+readTime)
}

// letGo asks the guest to detach the drive. The error says why it did not.
func (r *run) letGo(ctx context.Context) error {
	limited, cancel := r.letGoContext(ctx)
	defer cancel()
	if err := r.gone(); err != nil {
		return err
	}
	limited, release := r.machine.Context(limited)
	defer release()
	out, err := r.inGuest(limited, workspace.Detach())
	if err != nil {
		return err
	}
	gone, err := workspace.Detached(out)
	if err == nil && !gone {
		r.Log.Printf("Something that the script left behind still uses the workspace, which it can't change any more.")
	}
	return err
}

// repairDrive mends a drive that the guest did not let go of.
func (r *run) repairDrive(ctx context.Context, d *workspace.Drive, why error) error {
	if r.machine.Err() == nil {
		if err := r.machine.Pause(ctx); err != nil && r.machine.Err() == nil {
			return fmt.Errorf("the guest did not let go of the workspace (%w), and can't be stopped: %w", why, err)
		}
		r.checkout.stopped = true
	}
	lines, err := d.Repair(ctx)
	if err != nil {
		return fmt.Errorf("the guest did not let go of the workspace: %w: %w", why, err)
	}
	text := fmt.Sprintf("what the guest had written to the disk is taken, since it did not let go of it: %v", why)
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "lost+found not found") }) // never was there
	if len(lines) > 0 {
		text += fmt.Sprintf("; e2fsck mended the file system: %s", strings.Join(lines[:min(len(lines), 5)], "; "))
	}
	r.warn("The last changes to the workspace may be missing", text)
	return nil
}

// goOn lets a machine go on that was stopped for its drive, which is not read
// any more: the guest's other files may be wanted, or its disk.
func (r *run) goOn(ctx context.Context) error {
	if r.checkout.stopped && ctx.Err() == nil && r.machine.Err() == nil {
		r.checkout.stopped = false
		if err := r.machine.Resume(ctx); err != nil {
			return fmt.Errorf("letting the guest go on: %w", err)
		}
	}
	return nil
}

// fetchDrive fetches from the drive.
func fetchDrive(ctx context.Context, d *workspace.Drive, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
	changes, err := workspace.Compare(ctx, t, d, o)
	if changes == nil {
		return nil, workspace.Result{}, err
	}
	result, applyErr := changes.Apply(ctx, d)
	return changes, result, errors.Join(err, applyErr)
}

// spoolLimit bounds what a listing of the guest's workspace may take here.
const spoolLimit = 512 << 20

// fetchStream fetches over SSH: a listing by GNU find tells what has changed,
// and only that travels. Without such a find everything does, and is compared here.
func (r *run) fetchStream(ctx context.Context, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
	ctx, release := r.machine.Context(ctx)
	defer release()
	list := filepath.Join(r.dir, "listing")
	defer func() { _ = os.Remove(list) }() // the run directory goes as a whole later
	if err := r.spool(ctx, list, spoolLimit, listScript, append([]string{workspace.GuestPath}, workspace.ListingArgs...)...); err != nil {
		if ctx.Err() != nil || r.client.Err() != nil {
			return nil, workspace.Result{}, err
		}
		return r.fetchAll(ctx, t, o)
	}
	f, err := os.Open(list)
	if err != nil {
		return nil, workspace.Result{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	changes, err := workspace.Compare(ctx, t, workspace.NewListing(f), o)
	if changes == nil {
		return nil, workspace.Result{}, err
	}
	var names bytes.Buffer
	if err := changes.WriteList(&names); err != nil {
		return nil, workspace.Result{}, err
	}
	if names.Len() == 0 { // at most something is to be deleted here
		result, applyErr := changes.Apply(ctx, nil)
		return changes, result, errors.Join(err, applyErr)
	}
	result, applyErr := r.receive(ctx, changes, &names)
	return changes, result, errors.Join(err, applyErr)
}

// The commands that list and send a guest's workspace; $1 is its path.
const (
	listScript = `cd "$1" && shift && exec find "$@"`
	sendScript = `cd "$1" && exec tar -c --format=gnu --sparse --null --no-recursion --files-from=- -f -`
	allScript  = `cd "$1" && exec tar -c -f - .`
)

// errUnread ends a command whose output is not wanted any more.
var errUnread = errors.New("the stream is not read any more")

// receive applies the changes from a stream of just the files that names lists.
func (r *run) receive(ctx context.Context, changes *workspace.Changes, names io.Reader) (workspace.Result, error) {
	pr, pw := io.Pipe()
	diag := &process.Tail{Limit: 1 << 10}
	sent := make(chan error, 1)
	go func() {
		status, err := r.client.Run(ctx, guest.Command{
			Script: sendScript, Args: []string{workspace.GuestPath}, Stdin: names, Stdout: pw, Stderr: diag,
		})
		if err == nil && status.Code > 1 { // 1: a file changed while it was read
			err = fmt.Errorf("sending the workspace: tar in the guest %s: %s", status, actions.Printable(strings.TrimSpace(diag.String())))
		}
		sent <- err
		_ = pw.CloseWithError(err) // never fails
	}()
	result, err := changes.Apply(ctx, workspace.NewTarSource(pr, 0))
	_ = pr.CloseWithError(errUnread) // never fails
	sendErr := <-sent
	if err != nil && (errors.Is(sendErr, errUnread) || errors.Is(err, sendErr)) {
		sendErr = nil // one is the consequence of the other
	}
	return result, errors.Join(err, sendErr)
}

// lateTime is for writing what had come of a stream that was broken off, taken
// from what is kept for ending QEMU.
const lateTime = 400 * time.Millisecond

// fetchAll fetches everything, unless that has been done, and compares it here.
// Of a stream that breaks off, what had come is taken.
func (r *run) fetchAll(ctx context.Context, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
	file := r.spooled()
	var broken error
	if _, err := os.Stat(file); err != nil {
		r.Log.Printf("The guest's find can't tell what has changed: everything is sent.")
		broken = r.spool(ctx, file, int64(r.config.WorkspaceSize), allScript, workspace.GuestPath)
	}
	if broken != nil {
		o.Delete = false                       // what did not come may still be there
		defer func() { _ = os.Remove(file) }() // the run directory goes as a whole later
	}
	if broken != nil && ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lateTime)
		defer cancel()
		ctx = late
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, workspace.Result{}, errors.Join(broken, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	changes, result, err := fetchFile(ctx, f, t, o)
	if broken != nil && changes != nil { // what the stream's end looks like from here says no more
		return changes, result, fmt.Errorf("%w; of what was sent until then, %s came back", broken, counted(result.Files, "file"))
	}
	return changes, result, errors.Join(broken, err)
}

// fetchFile fetches from a tar file of the guest, or from what there is of one.
func fetchFile(ctx context.Context, f io.ReadSeeker, t *workspace.Tree, o workspace.Options) (*workspace.Changes, workspace.Result, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, workspace.Result{}, err
	}
	changes, err := workspace.Compare(ctx, t, workspace.NewTarSource(f, 0), o)
	if changes == nil {
		return nil, workspace.Result{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, workspace.Result{}, err
	}
	result, applyErr := changes.Apply(ctx, workspace.NewTarSource(f, 0))
	return changes, result, errors.Join(err, applyErr)
}

// spooled is the file that keeps the stream of everything.
func (r *run) spooled() string { return filepath.Join(r.dir, "workspace.tar") }

// spool writes what a command in the guest prints to a file.
func (r *run) spool(ctx context.Context, file string, limit int64, script string, args ...string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	diag := &process.Tail{Limit: 1 << 10}
	status, err := r.client.Run(ctx, guest.Command{
		Script: script, Args: args, Stdout: &bounded{w: f, left: limit}, Stderr: diag,
	})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("the command in the guest %s: %s", status, actions.Printable(strings.TrimSpace(diag.String())))
	}
	return errors.Join(err, f.Close())
}

// bounded is a writer that fails when a guest sends more than it should.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errors.New("the guest sends more than it may")
	}
	b.left -= int64(len(p))
	return b.w.Write(p)
}

// spareDrive is the workspace's drive as the machine gets it.
func (r *run) spareDrive() []qemu.Disk {
	if r.checkout.drive == "" {
		return nil
	}
	return []qemu.Disk{{Image: qemu.Image{Path: r.checkout.drive, Format: "raw"}}}
}
