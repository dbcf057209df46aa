package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/registry"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// publishedTime bounds what a first run spends on fetching a published machine.
// One is some ten MiB, and a boot under TCG takes a minute and more.
const publishedTime = 5 * time.Minute

// published lists the saved machines that others have made for this run: the one
// that was asked for, or those of the preset.
func (r *run) published() []string {
	if r.config.SnapshotFrom != "" {
		return []string{r.config.SnapshotFrom}
	}
	if p := r.disk.base.Preset; p != nil {
		return p.Snapshots
	}
	return nil
}

// checkPublished finds out whether snapshot-from can be one.
func (r *run) checkPublished() error {
	if r.config.SnapshotFrom == "" {
		return nil
	}
	if _, err := parsePinned(r.config.SnapshotFrom); err != nil {
		return fmt.Errorf("snapshot-from: %w", err)
	}
	return nil
}

// parsePinned reads a reference that says what is behind it.
func parsePinned(text string) (registry.Reference, error) {
	ref, err := registry.Parse(text)
	if err == nil && ref.Digest == "" {
		err = fmt.Errorf("%q: %w: anything could be behind it; write it as snapshot push has printed it, with @sha256: at its end", ref, registry.ErrUnpinned)
	}
	return ref, err
}

// pullPublished brings a published machine that fits this run into the store.
// That there is none that fits is snapshot.ErrMiss; what can't be had is an
// error only when no other one is there.
func (r *run) pullPublished(ctx context.Context) (*snapshot.Entry, error) {
	var failed error
	for _, text := range r.published() {
		var entry *snapshot.Entry
		err := r.step(ctx, "Pull saved machine", func(ctx context.Context) (note string, err error) {
			entry, note, err = r.pull(ctx, text)
			return note, err
		})
		switch {
		case err == nil:
			if failed != nil {
				r.Log.Printf("Passed over: %v", failed)
			}
			return entry, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, snapshot.ErrIncompatible) && r.config.SnapshotFrom != "":
			r.warn("The published machine is not for this run", err.Error()+"; the machine is booted")
		case errors.Is(err, snapshot.ErrIncompatible):
			r.Log.Printf("%v", err)
		default:
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, snapshot.ErrMiss
}

func (r *run) pull(ctx context.Context, text string) (*snapshot.Entry, string, error) {
	ref, err := parsePinned(text)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, publishedTime, fmt.Errorf("it took longer than %s", publishedTime))
	defer cancel()
	p := Pull{
		Store: r.warm.store, Client: r.registry(), Progress: r.progress(),
		Admission: snapshot.Admission{Wanted: r.warm.key.Usable(), MaxData: r.config.SnapshotMaxSize},
	}
	began := time.Now()
	pulled, err := p.Do(ctx, ref)
	if err != nil {
		return nil, "", err
	}
	r.meter.downloaded = pulled.Size
	return pulled.Entry, fmt.Sprintf("%s in %s", pulled.Size.Human(), actions.Seconds(time.Since(began))), nil
}

// registry is the client for published machines. Its token is for GitHub's
// registry alone.
func (r *run) registry() *registry.Client {
	return &registry.Client{Login: registry.Login{DockerConfig: r.Host.DockerConfig, GitHubToken: r.config.Token}}
}

// Pull brings a published machine into a store.
type Pull struct {
	Store     *snapshot.Store
	Client    *registry.Client
	Admission snapshot.Admission // decided before it is fetched, and once more by what it holds
	Progress  func(image.Report) // nil: nobody
}

// Pulled is a machine that was brought into a store.
type Pulled struct {
	Entry     *snapshot.Entry    // held for use
	Reference registry.Reference // with its digest
	Size      units.Bytes        // that was received; 0 when another process has brought it
}

// Do fetches a machine.
func (p Pull) Do(ctx context.Context, ref registry.Reference) (Pulled, error) {
	client := *p.Client
	client.Moved, client.Notify = transfer(image.StepFetch, ref.String(), p.Progress)
	found, err := client.Find(ctx, ref)
	if err == nil {
		err = p.fits(found)
	}
	if err != nil {
		return Pulled{}, err
	}
	part, err := p.Store.Part(ctx, found.Digest())
	if err != nil {
		return Pulled{}, err
	}
	defer part.Close()
	if entry, err := p.Store.Find(ctx, p.Admission.Wanted...); err == nil {
		return Pulled{Entry: entry, Reference: found.Reference}, nil // another process was first
	}
	// A packed machine is smaller than what it holds.
	err = client.Pull(ctx, found, part.Path(), int64(p.Admission.MaxData), func(beginning io.Reader) error {
		m, err := snapshot.ReadManifest(beginning)
		if err == nil {
			err = snapshot.Fits(m.Key, p.Admission.Wanted)
		}
		if err != nil {
			return err
		}
		return p.Store.Reserve(m.Data() + units.Bytes(max(found.Size, 0)))
	})
	if err != nil {
		return Pulled{}, err
	}
	entry, size, err := p.unpack(ctx, part)
	return Pulled{Entry: entry, Reference: found.Reference, Size: size}, err
}

// fits decides by what a registry tells of a machine.
func (p Pull) fits(found registry.Found) error {
	if found.Facts == nil || p.Admission.Wanted == nil {
		return nil
	}
	key, err := snapshot.FactsKey(found.Facts)
	if err == nil {
		err = snapshot.Fits(key, p.Admission.Wanted)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", found.Reference, err)
	}
	return nil
}

// unpack makes an entry of what was received.
func (p Pull) unpack(ctx context.Context, part *snapshot.Part) (*snapshot.Entry, units.Bytes, error) {
	f, err := part.Open()
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	entry, err := p.Store.Unpack(ctx, f, p.Admission)
	if err := errors.Join(err, part.Remove()); err != nil {
		return nil, 0, err
	}
	return entry, units.Bytes(info.Size()), nil
}

// transfer makes reports of what a client of registries does.
func transfer(step image.Step, source string, progress func(image.Report)) (moved func(done, total int64), note func(string)) {
	if progress == nil {
		return nil, nil
	}
	return image.Reports(step, source, progress), func(text string) {
		progress(image.Report{Step: step, Source: source, Note: text})
	}
}
