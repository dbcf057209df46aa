package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// imageCommand manages the image store.
type imageCommand struct {
	CacheDir string `name:"cache-dir" placeholder:"DIR" help:"As the input: where the store is."`

	List   imageList   `cmd:"" help:"List what is in the store."`
	Pull   imagePull   `cmd:"" help:"Fetch an image into the store, so that the next run need not."`
	Verify imageVerify `cmd:"" help:"Check that images of the store are what was put there."`
	Rm     imageRm     `cmd:"" help:"Remove images from the store."`
	Prune  imagePrune  `cmd:"" help:"Remove what was not used for long, or what is too much."`
}

type imageList struct {
	JSON bool `name:"json" help:"Print JSON, one object per line."`
}

type imagePull struct {
	Image  string `arg:"" default:"debian" help:"As the input image."`
	Arch   string `name:"arch" placeholder:"ARCH" help:"As the input arch."`
	Mirror string `name:"image-mirror" placeholder:"URL" help:"As the input image-mirror."`
	Verify string `name:"image-verify" default:"published" placeholder:"MODE" help:"As the input image-verify."`
	SHA256 string `name:"image-sha256" placeholder:"HEX" help:"As the input image-sha256."`
	SHA512 string `name:"image-sha512" placeholder:"HEX" help:"As the input image-sha512."`
	Token  string `name:"token" env:"GITHUB_TOKEN" placeholder:"TOKEN" help:"As the input token."`
}

type imageVerify struct {
	Images []string `arg:"" optional:"" help:"Names, origins or digests, or their beginnings; all images if there is none."`
}

type imageRm struct {
	Images []string `arg:"" help:"Names, origins or digests, or their beginnings."`
}

type imagePrune struct {
	Unused time.Duration `name:"unused" default:"720h" placeholder:"DURATION" help:"Remove what was not used for longer; 0 for no limit."`
	Size   string        `name:"size" placeholder:"SIZE" help:"Remove the least recently used until the store takes no more than this."`
}

// image carries out a subcommand of image.
func (c Command) image(cmd *imageCommand, which string) int {
	return c.manage(cmd.CacheDir, func(ctx context.Context, host lifecycle.Host) error {
		store := lifecycle.NewStore(lifecycle.StoreDir(host.Cache), c.progress(host))
		switch which {
		case "list":
			return c.imageList(store, cmd.List.JSON)
		case "pull":
			return c.imagePull(ctx, store, cmd.Pull, host)
		case "verify":
			return c.imageVerify(ctx, store, cmd.Verify.Images)
		case "rm":
			return c.imageRm(store, cmd.Rm.Images)
		}
		return c.imagePrune(ctx, store, cmd.Prune)
	})
}

// progress shows what is transferred.
func (c Command) progress(host lifecycle.Host) func(image.Report) {
	return lifecycle.Progress(host.Progress,
		func(text string) { fmt.Fprintln(c.Stderr, text) },
		func(text string) { fmt.Fprint(c.Stderr, "\r\x1b[K"+text) })
}

// failed prints an error, or each of several, and returns the exit status.
func (c Command) failed(err error) int {
	fmt.Fprintf(c.Stderr, "hurd-qemu-action: %v\n", err)
	return statusUsage
}

func (c Command) imageList(store *image.Store, asJSON bool) error {
	entries, err := store.List()
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(c.Stdout)
		for _, e := range entries {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(entries) == 0 {
		fmt.Fprintf(c.Stdout, "The store in %s is empty.\n", store.Dir)
		return nil
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTYPE\tSIZE\tLAST USED\tORIGIN")
	for _, e := range entries {
		note := e.Origin
		if e.InUse {
			note += " (in use)"
		}
		if e.Problem != "" {
			note += " (" + e.Problem + ")"
		}
		fmt.Fprintf(w, "%.20s\t%s\t%s\t%s\t%s\n", e.Name, e.Type, e.Size.Human(), e.Used.Format("2006-01-02 15:04"), note)
	}
	return w.Flush()
}

func (c Command) imagePull(ctx context.Context, store *image.Store, p imagePull, host lifecycle.Host) error {
	src, err := image.ParseSource(p.Image)
	if err != nil {
		return err
	}
	want := image.Want{
		Arch: platform.Arch(p.Arch), Verify: image.Verify(p.Verify), SHA256: p.SHA256, SHA512: p.SHA512, Mirror: p.Mirror, Token: p.Token,
		API: host.API, Run: image.Run{Repository: host.Repository, ID: host.RunID},
	}
	if err := src.Check(want); err != nil {
		return err
	}
	base, err := store.Obtain(ctx, src, want)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s\n%s, %s, %s\n", base.Path, base.Format, base.VirtualSize.Human(), base.Verified)
	return base.Close()
}

// find is what the arguments name; everything that holds an image for none.
func find(store *image.Store, names []string) ([]image.Entry, error) {
	if len(names) == 0 {
		all, err := store.List()
		var images []image.Entry
		for _, e := range all {
			if e.Type == image.EntryImage || e.Type == image.EntryPrepared {
				images = append(images, e)
			}
		}
		return images, err
	}
	var found []image.Entry
	for _, name := range names {
		entries, err := store.Find(name)
		if err != nil {
			return nil, err
		}
		found = append(found, entries...)
	}
	return found, nil
}

func (c Command) imageVerify(ctx context.Context, store *image.Store, names []string) error {
	entries, err := find(store, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if err := store.Verify(ctx, e); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.Stdout, "%.20s  %s: as it was written\n", e.Name, e.Origin)
	}
	return errors.Join(errs...)
}

func (c Command) imageRm(store *image.Store, names []string) error {
	entries, err := find(store, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if err := store.Remove(e); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.Stdout, "removed %.20s  %s, %s\n", e.Name, e.Origin, e.Size.Human())
	}
	return errors.Join(errs...)
}

func (c Command) imagePrune(ctx context.Context, store *image.Store, p imagePrune) error {
	var size units.Bytes
	if p.Size != "" {
		var err error
		if size, err = units.ParseBytes(p.Size); err != nil {
			return fmt.Errorf("--size: %w", err)
		}
	}
	pruned, err := store.Prune(ctx, p.Unused, size)
	if err != nil {
		return err
	}
	for _, e := range pruned.Removed {
		fmt.Fprintf(c.Stdout, "removed %.20s  %s, %s\n", e.Name, e.Origin, e.Size.Human())
	}
	fmt.Fprintf(c.Stdout, "%s freed, %s kept in %s\n", pruned.Freed.Human(), pruned.Kept.Human(), filepath.Clean(store.Dir))
	return nil
}
