package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/org/hurd-qemu-action/internal/doctor"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/selftest"
	"github.com/org/hurd-qemu-action/internal/units"
)

// describeImage says what the image takes, where it comes from, and how it is.
func (s *examined) describeImage(d *doctor.Host) {
	src := image.Source{Kind: image.KindPreset, Name: "debian"}
	if s.exam.Image != nil {
		src = *s.exam.Image
		d.Image = func(ctx context.Context) (string, error) { return s.lookAtImage(ctx, src) }
	}
	d.Need.Image = src.String()
	d.Downloads = func() []doctor.Download { return s.downloads(src) }
	d.StoreNeed = func() units.Bytes { return s.storeNeed(src) }
}

// downloads are the file of the image, or those of all presets when none was named.
func (s *examined) downloads(src image.Source) []doctor.Download {
	list := s.stored()
	address := ""
	switch src.Kind {
	case image.KindPreset:
		wanted, err := image.FindPreset(src.Name, s.exam.Want.Arch)
		if err != nil {
			return nil // lookAtImage says so
		}
		var all []doctor.Download
		for _, p := range image.Presets() {
			if is := p.Origin() == wanted.Origin(); is || s.exam.Image == nil {
				all = append(all, doctor.Download{
					Name: p.Origin(), Addresses: p.Addresses(s.exam.Want.Mirror), Stored: holds(list, p.Origin()) != nil, Wanted: is,
				})
			}
		}
		return all
	case image.KindURL:
		address = src.URL.String()
	// An asset of a release may need the token, as an artifact does: the run asks for it.
	default:
		return nil
	}
	return []doctor.Download{{Name: src.String(), Addresses: []string{address}, Stored: holds(list, src.String()) != nil, Wanted: true}}
}

// storeNeed is what the image still takes in the store.
func (s *examined) storeNeed(src image.Source) units.Bytes {
	switch src.Kind {
	case image.KindPreset:
		if p, err := image.FindPreset(src.Name, s.exam.Want.Arch); err == nil {
			return presetNeed(p, s.stored())
		}
	case image.KindPath:
		info, err := os.Stat(src.Path)
		if err != nil || !info.Mode().IsRegular() {
			return 0 // lookAtImage says so
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return units.Bytes(st.Blocks) * blockSize // of the copy that is prepared
		}
	}
	return 0
}

// blockSize is the unit of st_blocks (stat(2)).
const blockSize = 512

// stored is what is in the image store.
func (s *examined) stored() []image.Entry {
	list, err := s.store.List()
	if err != nil {
		return nil // the check of the store says so
	}
	return list
}

// holds finds an image by its origin; nil: there is none that can be used.
func holds(list []image.Entry, origin string) *image.Entry {
	for _, e := range list {
		if e.Type == image.EntryImage && e.Origin == origin && e.Problem == "" {
			return &e
		}
	}
	return nil
}

// presetNeed is what a preset still takes in the store: the file, the disk that
// is in it, and the copy that is prepared.
func presetNeed(p *image.Preset, list []image.Entry) units.Bytes {
	has := holds(list, p.Origin())
	switch {
	case has == nil:
		return p.Download + 2*p.Allocated
	case slices.ContainsFunc(list, func(e image.Entry) bool {
		return e.Type == image.EntryPrepared && e.Digest == has.Digest && e.Problem == ""
	}):
		return 0
	}
	return p.Allocated
}

// lookAtImage is what can be said of an image without fetching it.
func (s *examined) lookAtImage(ctx context.Context, src image.Source) (string, error) {
	switch src.Kind {
	case image.KindPath:
		return s.store.Look(ctx, src.Path)
	case image.KindSelftest:
		f, info, err := selftest.Open()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the selftest guest of this program, %s packed", info.Size.Human()), f.Close()
	case image.KindPreset:
		p, err := image.FindPreset(src.Name, s.exam.Want.Arch)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %s to fetch, a disk of %s", p.Origin(), p.Download.Human(), p.Disk.Human()), nil
	case image.KindArtifact:
		switch {
		case s.host.Repository == "" || s.host.RunID == 0:
			return "", errors.New("artifacts belong to a workflow run: GITHUB_REPOSITORY and GITHUB_RUN_ID are not set")
		case s.exam.Want.Token == "":
			return "", errors.New("an artifact needs a token (GITHUB_TOKEN)")
		}
	}
	return src.String() + ", a file of the network", nil
}
