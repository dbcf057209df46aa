package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/workspace"
)

// The ways of the workspace into the guest, as the input sync has them.
const (
	syncAuto = "auto"
	syncDisk = "disk"
	syncTar  = "tar"
	syncNone = "none"
)

// checkout is the workspace on its way into the guest and back.
type checkout struct {
	filter workspace.Filter
	back   workspace.CopyBack
	delete bool // what the guest deleted is deleted here

	way    string // disk, tar or none
	why    string // that one
	auto   bool   // another way may be taken instead
	tree   *workspace.Tree
	drive  string    // the file that holds it; empty: there is none
	uuid   [16]byte  // of the drive's file system
	owned  bool      // the files on the drive have their owner already
	user   string    // who runs the script; empty: who is logged in
	in     bool      // the guest has the workspace
	onDisk bool      // on the drive, rather than on its own disk
	gnu    bool      // the guest's tar is GNU's
	since  time.Time // by the guest's clock; zero: the drive is as it was made

	fetched bool  // the results are here
	stopped bool  // the machine stands still, so that the drive can be read
	lost    error // why the guest is; it need not be the connection that tells
}

// readWorkspace validates the inputs about the workspace.
func (r *run) readWorkspace() []error {
	c := &r.checkout
	var problems []error
	c.filter = workspace.NewFilter(r.config.SyncInclude, r.config.SyncExclude+"\n"+r.imagePattern())
	back := r.config.CopyBack
	if back == "mirror" {
		back, c.delete = "changed", true
	}
	var err error
	if c.back, err = workspace.ParseCopyBack(back); err != nil {
		problems = append(problems, fmt.Errorf("copy-back: %w", err))
	}
	if _, err = r.artifactGlobs(); err != nil {
		problems = append(problems, fmt.Errorf("artifact-path: %w", err))
	}
	c.way, c.auto = r.config.Sync, r.config.Sync == syncAuto
	if c.way == syncDisk && r.config.SSHUser != "root" {
		problems = append(problems, fmt.Errorf("sync: %q: only root can attach the drive in the guest, and ssh-user is %s; use sync: auto or tar", c.way, r.config.SSHUser))
	}
	if c.user = r.config.User; c.user == r.config.SSHUser {
		c.user = ""
	}
	return problems
}

// imagePattern matches the image if it is a file in the workspace: the guest
// has no use for the disk that it runs from, which may be larger than its drive.
func (r *run) imagePattern() string {
	file, err := filepath.Abs(r.config.Image)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(r.Host.Workspace, file)
	if info, statErr := os.Stat(file); err != nil || statErr != nil || !info.Mode().IsRegular() || !filepath.IsLocal(rel) {
		return ""
	}
	return "/" + strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, " ", `\ `).Replace(rel)
}

// chooseWay decides how the workspace gets into the guest.
func (r *run) chooseWay() {
	c := &r.checkout
	switch {
	case !c.auto:
		c.why = "as asked for"
	case !r.Log.Commands() && (r.Host.Workspace == "/" || r.Host.Workspace == r.Host.Home):
		c.way, c.why = syncNone, "the workspace "+r.Host.Workspace+" is more than a project; name another with --workspace, or use sync: disk"
	case r.config.SSHUser != "root":
		c.way, c.why = syncTar, "only root can attach a drive in the guest, and ssh-user is "+r.config.SSHUser
	default:
		c.way, c.why = syncDisk, "the fastest"
	}
}

// packWorkspace lists the workspace and puts it on a drive, before the machine
// that gets the drive is started.
func (r *run) packWorkspace(ctx context.Context) (string, error) {
	c := &r.checkout
	r.chooseWay()
	if c.way == syncNone {
		r.Log.Printf("The workspace does not go into the guest: %s.", c.why)
		return syncNone, nil
	}
	var err error
	if c.tree, err = workspace.Scan(ctx, r.Host.Workspace, c.filter); err != nil {
		return "", fail(InputInvalid, "The workspace cannot be read", err, "Make it readable, or leave files out with sync-exclude.")
	}
	r.notes("left out", c.tree.Skipped)
	r.Log.Printf("%s in %s; by %s: %s", counted(c.tree.Files, "file"), c.tree.Bytes.Human(), c.way, c.why)
	if c.way != syncDisk {
		return c.way, nil
	}
	return c.way, r.makeDrive(ctx)
}

// makeDrive puts the workspace on a drive of its own.
func (r *run) makeDrive(ctx context.Context) error {
	c := &r.checkout
	if _, err := io.ReadFull(rand.Reader, c.uuid[:]); err != nil {
		return fail(Internal, "No drive could be made", err)
	}
	o := workspace.DriveOptions{Size: r.config.WorkspaceSize, UUID: c.uuid}
	name := r.config.SSHUser
	if c.user != "" {
		name = c.user
	}
	if g := r.disk.manifest.Guest; g != nil {
		o.Linux = g.Family == platform.Linux
		if u, err := g.User(name); err == nil {
			o.Owner, c.owned = workspace.Owner{UID: u.UID, GID: u.GID}, true
		}
	}
	c.owned = c.owned || name == "root"
	skipped := c.tree.Skipped.Len()
	file := filepath.Join(r.dir, "workspace.img")
	err := workspace.MakeDrive(ctx, file, c.tree, o)
	var size *workspace.DriveSizeError
	switch {
	case errors.As(err, &size):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("workspace-size: %q: %w", r.config.WorkspaceSize, size),
			"Raise workspace-size (only what is written takes room), or leave files out with sync-exclude.")
	case err != nil:
		return fail(Internal, "The workspace could not be put on a drive", err, "Make sure that "+r.Host.Temp+" has space, or use sync: tar.")
	}
	if c.tree.Skipped.Len() > skipped {
		r.notes("left out", c.tree.Skipped)
	}
	c.drive = file
	return nil
}

// attachTime bounds the attaching of the drive, which a Hurd takes 1.3 s for.
const attachTime = time.Minute

// streamTime bounds the workspace's way in over SSH, which is as slow as the way back.
const streamTime = backTime

// bringIn gives the guest the workspace.
func (r *run) bringIn(ctx context.Context) (string, error) {
	ctx, release := r.machine.Context(ctx)
	defer release()
	r.setClock(ctx) // before the first file gets a time of the guest's
	c := &r.checkout
	owner := workspace.Owner{}
	if c.user != "" {
		u, err := r.client.EnsureUser(ctx, c.user)
		if err != nil {
			return "", r.transferFailure(ctx, "The user could not be made", err)
		}
		if u.Created {
			r.Log.Printf("User %s was made in the guest.", c.user)
		}
		owner = workspace.Owner{UID: uint32(u.UID), GID: uint32(u.GID)}
	}
	if c.way == syncNone {
		return syncNone, nil
	}
	if c.drive != "" {
		err := r.attachDrive(ctx)
		if err == nil {
			return syncDisk, nil
		}
		if !c.auto || ctx.Err() != nil || errors.Is(err, guest.ErrLost) {
			return "", r.transferFailure(ctx, "The workspace's drive could not be attached", err, "Use sync: tar, which needs nothing but tar in the guest.")
		}
		if r.overConsole() {
			r.warn("The workspace is not in the guest", "its drive could not be attached, and there is no SSH to send it over: "+err.Error())
			c.way, c.why = syncNone, err.Error()
			return syncNone, nil
		}
		r.Log.Annotate(actions.Warning, "The workspace goes over SSH", "which is slow: its drive could not be attached: "+err.Error())
		c.way, c.why = syncTar, err.Error()
	}
	limited, cancel := context.WithTimeoutCause(ctx, streamTime, fmt.Errorf("the guest took longer than %s; leave files out with sync-exclude, or use sync: disk", streamTime))
	defer cancel()
	if err := r.streamIn(limited, owner); err != nil {
		advice := "Look at what the guest's tar said; sync: none leaves the workspace out."
		if r.config.SSHUser != "root" {
			advice = "Make " + workspace.GuestPath + " in the image and give it to " + r.config.SSHUser + ", or log in as root and name the script's user with the input user."
		}
		return "", r.transferFailure(ctx, "The workspace did not get into the guest", err, advice)
	}
	return syncTar, nil
}

// transferFailure explains why something could not be carried into the guest.
func (r *run) transferFailure(ctx context.Context, title string, err error, advice ...string) error {
	cause := context.Cause(ctx)
	var user *guest.UserError
	switch {
	case errors.As(cause, new(Interrupt)):
		return fail(Canceled, "Canceled", cause)
	case errors.As(err, &user):
		return fail(InputInvalid, "Invalid input", fmt.Errorf("user: %w", err))
	case cause != nil:
		return r.guestLost(ctx, cause)
	case errors.Is(err, guest.ErrLost):
		return r.guestLost(ctx, err)
	}
	return fail(Internal, title, err, advice...)
}

// inGuest runs one of our scripts in the guest and returns the end of what it printed.
func (r *run) inGuest(ctx context.Context, s workspace.GuestScript) (string, error) {
	out, diag := &process.Tail{Limit: 4 << 10}, &process.Tail{Limit: 1 << 10}
	status, err := r.client.Run(ctx, guest.Command{Script: s.Text, Args: s.Args, Stdout: out, Stderr: diag})
	if err != nil {
		return "", err
	}
	if status.Code != 0 {
		text := strings.TrimSpace(diag.String())
		if text == "" {
			text = "the script for it " + status.String()
		}
		return out.String(), errors.New(actions.Printable(text))
	}
	return out.String(), nil
}

// attachDrive has the guest use the drive in place.
func (r *run) attachDrive(ctx context.Context) error {
	c := &r.checkout
	limited, cancel := context.WithTimeoutCause(ctx, attachTime, fmt.Errorf("the guest took longer than %s", attachTime))
	defer cancel()
	out, err := r.inGuest(limited, workspace.Attach(c.uuid))
	if err != nil {
		return err
	}
	device, err := workspace.Device(out)
	if err != nil {
		return err
	}
	r.Log.Printf("%s in the guest is %s, with %s", workspace.GuestPath, device, r.config.WorkspaceSize.Human())
	if !c.owned {
		if err := r.own(ctx); err != nil {
			return err
		}
	}
	c.in, c.onDisk = true, true // else a stream may go there, and come back as one
	return nil
}

// own gives the workspace to the script's user, whose number only the guest knows.
func (r *run) own(ctx context.Context) error {
	name := r.config.SSHUser
	if r.checkout.user != "" {
		name = r.checkout.user
	}
	out, err := r.inGuest(ctx, workspace.GuestScript{Text: ownScript, Args: []string{name, workspace.GuestPath}})
	if err == nil {
		err = r.sentAt(out)
	}
	if err != nil {
		return fmt.Errorf("giving the workspace to %s: %w", name, err)
	}
	return nil
}

// sentAt takes the guest's time from when on a file counts as changed.
func (r *run) sentAt(out string) error {
	seconds, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("reading the guest's clock: %w", err)
	}
	r.checkout.since = time.Unix(seconds, 0)
	return nil
}

// Both scripts print the time after, a whole second later: what was made in the
// second that is printed would pass for changed since.
const (
	// ownScript gives a tree to a user, which changes every file's time of change.
	ownScript = `chown -R "$1:$(id -g "$1")" "$2" || exit
sleep 1
date +%s`

	// unpackScript makes the workspace of a tar stream.
	unpackScript = `mkdir -p "$1" && cd "$1" || exit
if test "$2" = gnu; then tar -x -p --numeric-owner --warning=no-timestamp -f -; else tar -x -p -f -; fi || exit
sleep 1
date +%s`
)

// streamIn sends the workspace as a tar stream over SSH.
func (r *run) streamIn(ctx context.Context, owner workspace.Owner) error {
	c := &r.checkout
	c.gnu = r.hasGNUTar(ctx)
	dialect, name := workspace.AnyTar, "any"
	if c.gnu {
		dialect, name = workspace.GNUTar, "gnu"
	}
	if c.user == "" && r.config.SSHUser != "root" {
		owner = r.loginOwner(ctx)
	}
	pr, pw := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		w := workspace.NewTarWriter(pw, dialect)
		err := c.tree.CopyTo(ctx, w, owner)
		if err == nil {
			err = w.Close()
		}
		copied <- err
		_ = pw.CloseWithError(err) // never fails
	}()
	out, diag := &process.Tail{Limit: 1 << 10}, &process.Tail{Limit: 1 << 10}
	status, err := r.client.Run(ctx, guest.Command{
		Script: unpackScript, Args: []string{workspace.GuestPath, name}, Stdin: pr, Stdout: out, Stderr: diag,
	})
	_ = pr.CloseWithError(errors.New("the guest's tar has ended")) // never fails
	copyErr := <-copied
	switch {
	case err != nil:
		return err
	case status.Code != 0:
		return fmt.Errorf("unpacking it in the guest: the command %s: %s", status, actions.Printable(strings.TrimSpace(diag.String())))
	case copyErr != nil:
		return copyErr
	}
	if err := r.sentAt(out.String()); err != nil {
		return err
	}
	c.in = true
	return nil
}

func (r *run) hasGNUTar(ctx context.Context) bool {
	status, err := r.client.Run(ctx, guest.Command{Script: `case $(tar --version 2>/dev/null) in *GNU*) ;; *) exit 1 ;; esac`})
	return err == nil && status.Code == 0
}

// loginOwner asks who is logged in, so that the stream's owners are no surprise
// to the guest; what goes wrong here shows when it is unpacked.
func (r *run) loginOwner(ctx context.Context) workspace.Owner {
	var uid, gid uint32
	out := &process.Tail{Limit: 256}
	if _, err := r.client.Run(ctx, guest.Command{Line: "echo; id -u; id -g", Stdout: out}); err == nil {
		_, _ = fmt.Sscan(out.String(), &uid, &gid)
	}
	return workspace.Owner{UID: uid, GID: gid}
}

// scriptDir is where the script runs.
func (r *run) scriptDir() string {
	dir := r.paths().ToGuest(r.config.WorkingDirectory)
	if r.checkout.in && !path.IsAbs(dir) && !strings.HasPrefix(dir, "~") {
		return path.Join(workspace.GuestPath, dir)
	}
	return dir
}

// counted writes a number with its noun: 1 file, 2 files.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// shownNotes is how many notes about paths the log gets.
const shownNotes = 10

// notes prints what there is to say about single paths.
func (r *run) notes(what string, n workspace.Notes) {
	for i, note := range n.List {
		if i == shownNotes {
			break
		}
		r.Log.Printf("%s: %q: %s", what, note.Path, note.Reason)
	}
	if more := n.Len() - shownNotes; more > 0 {
		r.Log.Printf("%s: and %d more", what, more)
	}
}
