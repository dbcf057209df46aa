package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// disk is what is known of the guest's disk before it boots.
type disk struct {
	base     image.Base
	manifest manifest
}

// manifest is kept with a prepared disk: everything that was found out about
// the image, so that later runs need not look again.
type manifest struct {
	Guest    *provision.Guest `json:",omitempty"` // nil: no root file system was found
	Why      string           // why not, then
	Method   provision.Method
	Reason   string
	Prepared *provision.Prepared `json:",omitempty"` // nil unless Method is ext2

	// Content is a digest of the prepared disk, on which a saved machine relies
	// byte by byte; empty unless Method is ext2.
	Content string `json:",omitempty"`
}

// obtainImage gets the image, finds out what is in it and prepares it. Where the
// disk that was prepared from it is at hand, the image itself is not needed.
func (r *run) obtainImage(ctx context.Context) (string, error) {
	store := NewStore(r.storeDir(), r.progress())
	note, ok, err := r.findDisk(ctx, store)
	if err == nil && !ok {
		err = r.makeDisk(ctx, store)
	}
	if err != nil {
		return "", err
	}
	if err := r.planMachine(r.disk.base); err != nil {
		return "", err
	}
	if err := r.makeKeys(); err != nil {
		return "", err
	}
	return note, r.makeSeed()
}

// makeDisk prepares the disk from the image, which is fetched if need be.
func (r *run) makeDisk(ctx context.Context, store *image.Store) error {
	base, err := store.Obtain(ctx, r.source, r.want())
	if err != nil {
		return fail(ImageFailed, "No image", err)
	}
	r.cleanup.push("releasing the image", func(context.Context) error { return base.Close() })
	r.Log.Printf("%s: %s, %s, %s", base.Origin, base.Format, base.VirtualSize.Human(), base.Verified)
	prepared, err := store.Prepare(ctx, base, r.prepareKey(), func(ctx context.Context, raw string) ([]byte, error) {
		m, err := r.prepareDisk(ctx, raw, r.hints(base.Preset))
		if err != nil {
			return nil, err
		}
		return json.Marshal(m)
	})
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case err != nil:
		return fail(ImageFailed, "The image cannot be prepared", err)
	}
	return r.useDisk(prepared)
}

// useDisk takes a disk of the store, and closes it in the end.
func (r *run) useDisk(prepared image.Prepared) error {
	r.cleanup.push("releasing the prepared disk", func(context.Context) error { return prepared.Close() })
	m, err := readManifest(prepared)
	if err != nil {
		return fail(Internal, "The image store is damaged", err, "Remove "+r.storeDir()+" and run again.")
	}
	r.remote.local = prepared
	if err := r.useBase(prepared, m); err != nil {
		return err
	}
	if prepared.Reused {
		r.Log.Printf("The prepared disk was made by an earlier run.")
	}
	return nil
}

// readManifest reads what was found out when a disk was prepared.
func readManifest(prepared image.Prepared) (m manifest, err error) {
	if err := json.Unmarshal(prepared.Manifest, &m); err != nil {
		return m, fmt.Errorf("reading the manifest of %s: %w", prepared.Path, err)
	}
	return m, nil
}

// useBase makes a prepared disk the one that the machine runs from.
func (r *run) useBase(prepared image.Prepared, m manifest) error {
	r.disk.base, r.disk.manifest = prepared.Base, m
	r.result.ImageDigest = prepared.Digest
	if err := r.needsEditing(m); err != nil {
		return err
	}
	if m.Guest != nil {
		r.Log.Printf("Guest: %s", m.Guest)
	} else {
		r.Log.Printf("Guest: unknown (%s)", m.Why)
	}
	r.Log.Printf("Login: %s (%s)", m.Method, m.Reason)
	if m.Prepared != nil {
		r.loginShell = cmp.Or(m.Prepared.User.Shell, "/bin/sh") // passwd(5)
		for _, w := range m.Prepared.Warnings {
			r.Log.Annotate(actions.Warning, "Preparing the image", w)
		}
	}
	return nil
}

// prepareKey stands for all that the edits depend on beside the image.
func (r *run) prepareKey() string {
	c := r.config
	key := fmt.Sprintf("provision=%d digest=%d method=%s user=%s cloud=%t size=%d apt=%s root=%d",
		provision.Version, image.PackedFormat, c.Provision, c.SSHUser, c.UserData+c.MetaData != "", c.DiskSize, c.AptSnapshot, c.RootPartition)
	if r.wantsMenu() {
		key += " menu"
	}
	if r.overConsole() {
		key += " console"
	}
	return key
}

// hints say where to look for the root file system, and which of several it is
// in an image that we know.
func (r *run) hints(p *image.Preset) provision.Hints {
	h := provision.Hints{Partition: r.config.RootPartition}
	if p != nil {
		h.Prefer = p.Root.Partition
	}
	return h
}

// renamed is an error about a copy of the image, whose path says nothing to a user.
type renamed struct {
	error
	text string
}

func (e renamed) Error() string { return e.text }
func (e renamed) Unwrap() error { return e.error }

// prepareDisk is run once for an image: it looks at a raw copy of it, decides
// how to log in, and edits the copy.
func (r *run) prepareDisk(ctx context.Context, raw string, hints provision.Hints) (manifest, error) {
	var m manifest
	g, err := provision.Inspect(ctx, raw, hints)
	if err == nil {
		m.Guest = &g
	} else {
		if ctx.Err() != nil {
			return m, context.Cause(ctx)
		}
		err = renamed{err, strings.ReplaceAll(err.Error(), raw, "the image")}
		m.Why = err.Error()
	}
	facts := provision.Facts{Guest: g, InspectErr: err, HasUserData: r.config.UserData+r.config.MetaData != ""}
	m.Method, m.Reason, err = provision.Choose(provision.Method(r.config.Provision), facts)
	if err != nil {
		return m, fail(InputInvalid, "The image cannot be provisioned", err)
	}
	if r.overConsole() && m.Guest != nil && r.config.Provision == string(provision.MethodAuto) {
		m.Method, m.Reason = provision.MethodExt2, "its boot entry is to use the serial console"
	}
	if m.Method != provision.MethodExt2 {
		return m, nil
	}
	p, err := provision.Prepare(ctx, raw, provision.Options{
		User: r.config.SSHUser, Hints: hints, Console: true, Menu: r.wantsMenu(), DiskSize: r.config.DiskSize, AptSnapshot: r.config.AptSnapshot,
	})
	if err != nil {
		err = renamed{err, strings.ReplaceAll(err.Error(), raw, "the image")}
		var user *provision.NoUserError
		if errors.As(err, &user) {
			return m, fail(InputInvalid, "Invalid input", fmt.Errorf("ssh-user: %w", err))
		}
		return m, fail(ImageFailed, "The image cannot be prepared", err)
	}
	for _, c := range p.Changes {
		r.Log.Printf("Prepared: %s", c)
	}
	m.Prepared = &p
	m.Content, err = image.DigestOf(ctx, raw)
	return m, err
}

// needsEditing refuses inputs that ask for edits of a disk that is not edited.
// (image-output removes the keys of the run by an edit.)
func (r *run) needsEditing(m manifest) error {
	if m.Method == provision.MethodExt2 {
		return nil
	}
	var problems []error
	for _, in := range []struct {
		name  string
		given bool
	}{{"disk-size", r.config.DiskSize != 0}, {"apt-snapshot", r.config.AptSnapshot != ""}, {"image-output", r.config.ImageOutput != ""}} {
		if in.given {
			problems = append(problems, fmt.Errorf("%s: needs provision: ext2, and this image is provisioned by %s (%s)", in.name, m.Method, m.Reason))
		}
	}
	if len(problems) > 0 {
		return fail(InputInvalid, "Invalid input", errors.Join(problems...))
	}
	return nil
}

// planMachine chooses the hardware and refuses what is known not to work.
func (r *run) planMachine(base image.Base) error {
	g := qemu.Guest{Family: platform.Unknown, Arch: r.config.Arch}
	if found := r.disk.manifest.Guest; found != nil {
		g.Family, g.Drivers = found.Family, found.Drivers
		if found.NetDDE {
			g.Drivers = platform.UserDrivers
		}
		if g.Arch == "" {
			g.Arch = found.Arch
		}
		if found.Arch != "" && found.Arch != g.Arch {
			return fail(InputInvalid, "Invalid input", fmt.Errorf("arch: %q: the image %s holds an %s system", g.Arch, base.Origin, found.Arch),
				"Leave arch out, or name an image of that architecture.")
		}
	}
	if g.Arch == "" {
		g.Arch = platform.AMD64
	}
	c := r.config
	nic := c.NIC
	if c.Network == networkNone {
		nic = qemu.NoNIC
	}
	r.hardware = qemu.Plan(g, qemu.Overrides{
		Machine: c.Machine, CPUModel: c.CPUModel, DiskBus: c.DiskBus, NIC: nic, CPUs: c.CPUs, Memory: c.Memory,
	}, r.features)
	host, err := qemu.HostMemory(os.DirFS("/"))
	if err != nil {
		r.Log.Printf("The memory of this host is not known: %v", err) // the check is left out
	}
	if c.HugePages {
		host = qemu.Memory{} // which does not count what is set aside for them
	}
	warnings, err := qemu.Check(qemu.Request{Guest: g, Hardware: r.hardware, Accel: r.accel.Accel, Features: r.features, Host: host})
	for _, w := range warnings {
		r.Log.Annotate(actions.Warning, "Machine", w.String())
	}
	if p := base.Preset; p != nil && r.hardware.Memory < p.MinMemory {
		err = errors.Join(err, fmt.Errorf("memory: %q: %s needs at least %s to boot", c.Memory, p.Name, p.MinMemory))
	}
	if err != nil {
		return fail(InputInvalid, "Invalid input", err)
	}
	h := r.hardware
	r.Log.Printf("Machine: %s, %s, %d CPU, %s memory, disk on %s, network card %s", h.Machine, h.CPUModel, h.CPUs, h.Memory.Human(), h.DiskBus, h.NIC)
	return nil
}

// overlay makes the throwaway disk of one boot attempt and puts the keys into it.
func (r *run) overlay(ctx context.Context, attempt int) (string, error) {
	path, err := r.emptyOverlay(strconv.Itoa(attempt), r.disk.base)
	if err != nil {
		return "", err
	}
	if p := r.disk.manifest.Prepared; p != nil {
		if err := r.fetchSlots(ctx, p); err != nil {
			return "", err
		}
		authorized := []string{r.keys.login}
		if r.keys.saver != nil {
			authorized = append(authorized, strings.TrimSpace(string(r.keys.saver.AuthorizedKey())))
		}
		if err := provision.Fill(ctx, path, *p, provision.Keys{Authorized: authorized, Host: r.keys.host}); err != nil {
			return "", fail(Internal, "The keys could not be put into the disk", err)
		}
	}
	return path, nil
}

// emptyOverlay makes the throwaway disk of one machine.
func (r *run) emptyOverlay(name string, base image.Base) (string, error) {
	path := filepath.Join(r.dir, "overlay-"+name+".qcow2")
	if err := image.CreateOverlay(base, path, 0); err != nil {
		return "", fail(Internal, "No overlay could be made", err)
	}
	return path, nil
}
