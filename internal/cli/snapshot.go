package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// snapshotCommand manages the store of saved machines.
type snapshotCommand struct {
	CacheDir string `name:"cache-dir" placeholder:"DIR" help:"As the input: where the store is."`

	List   snapshotList   `cmd:"" help:"List the saved machines."`
	Verify snapshotVerify `cmd:"" help:"Check that saved machines are what was put there."`
	Export snapshotExport `cmd:"" help:"Pack a saved machine into a file, for another host. Whoever has the file can log in to the guest that was saved, until a run has restored it."`
	Import snapshotImport `cmd:"" help:"Take a packed machine into the store, after checking it."`
	Push   snapshotPush   `cmd:"" help:"Publish a saved machine in an OCI registry, and print the reference by which it is used."`
	Pull   snapshotPull   `cmd:"" help:"Bring a published machine into the store, after checking its digest."`
	Show   snapshotShow   `cmd:"" help:"Say what a published machine is, without fetching it."`
	Rm     snapshotRm     `cmd:"" help:"Remove saved machines."`
	Prune  snapshotPrune  `cmd:"" help:"Remove what was not used for long, or what is too much."`
}

type snapshotList struct {
	JSON bool `name:"json" help:"Print JSON, one object per line."`
}

type snapshotVerify struct {
	Names []string `arg:"" optional:"" help:"Names, or their ends; all if there is none."`
}

type snapshotExport struct {
	Name string `arg:"" help:"Name, or its end."`
	File string `arg:"" help:"File to write."`
}

type snapshotImport struct {
	File string `arg:"" help:"File that export has written."`
	Size string `name:"max-size" default:"2G" placeholder:"SIZE" help:"As the input snapshot-max-size."`
}

type snapshotRm struct {
	Names []string `arg:"" help:"Names, or their ends."`
}

type snapshotPrune struct {
	Unused time.Duration `name:"unused" default:"720h" placeholder:"DURATION" help:"Remove what was not used for longer; 0 for no limit."`
	Size   string        `name:"size" placeholder:"SIZE" help:"Remove the least recently used until the store takes no more than this."`
}

// snapshot carries out a subcommand of snapshot.
func (c Command) snapshot(cmd *snapshotCommand, which string) int {
	return c.manage(cmd.CacheDir, func(ctx context.Context, host lifecycle.Host) error {
		store := &snapshot.Store{Dir: lifecycle.SnapshotDir(host.Cache)}
		switch which {
		case "list":
			return c.snapshotList(store, cmd.List.JSON)
		case "verify":
			return c.snapshotVerify(ctx, store, cmd.Verify.Names)
		case "export":
			return c.snapshotExport(ctx, store, cmd.Export)
		case "import":
			return c.snapshotImport(ctx, store, cmd.Import)
		case "push":
			return c.snapshotPush(ctx, store, cmd.Push, host)
		case "pull":
			return c.snapshotPull(ctx, store, cmd.Pull, host)
		case "show":
			return c.snapshotShow(ctx, cmd.Show, host)
		case "rm":
			return c.snapshotRm(store, cmd.Rm.Names)
		}
		return c.snapshotPrune(ctx, store, cmd.Prune)
	})
}

// manage runs what manages a part of the cache directory, until a signal ends it.
func (c Command) manage(cacheDir string, do func(context.Context, lifecycle.Host) error) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer watchSignals(cancel)()
	host, err := c.host(".")
	if err != nil {
		return c.failed(err)
	}
	if cacheDir != "" {
		host.Cache = cacheDir
	}
	err = do(ctx, host)
	var i lifecycle.Interrupt
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &i) {
		_ = c.failed(cause)
		return 128 + int(i.Signal)
	}
	if err != nil {
		return c.failed(err)
	}
	return 0
}

func (c Command) snapshotList(store *snapshot.Store, asJSON bool) error {
	list, err := store.List()
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(c.Stdout)
		for _, e := range list {
			if e.Manifest != nil {
				e.Manifest.Login.Private = "" // who may read the store finds it there
			}
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintf(c.Stdout, "No machine is saved in %s.\n", store.Dir)
		return nil
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tMEMORY\tSAVED\tLAST USED\tIMAGE")
	for _, e := range list {
		memory, base := "", e.Problem
		if e.Manifest != nil {
			memory, base = e.Manifest.Key.Memory.Human(), strings.TrimSpace(snapshot.Printable(e.Manifest.Key.Base)+" "+e.Problem)
		}
		if e.InUse {
			base += " (in use)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, e.Size.Human(), memory, e.Created.Format(minute), e.Used.Format(minute), base)
	}
	return w.Flush()
}

// minute is how lists write a time.
const minute = "2006-01-02 15:04"

// chosen lists what the names stand for; all for none.
func chosen(store *snapshot.Store, names []string) ([]snapshot.Info, error) {
	all, err := store.List()
	if err != nil || len(names) == 0 {
		return all, err
	}
	var found []snapshot.Info
	for _, name := range names {
		before := len(found)
		for _, e := range all {
			if name != "" && strings.HasSuffix(e.Name, name) {
				found = append(found, e)
			}
		}
		switch len(found) - before {
		case 0:
			return nil, fmt.Errorf("%q: %w in %s", name, snapshot.ErrMiss, store.Dir)
		case 1:
		default:
			return nil, fmt.Errorf("%q stands for %d saved machines: write more of the name", name, len(found)-before)
		}
	}
	return found, nil
}

func (c Command) snapshotVerify(ctx context.Context, store *snapshot.Store, names []string) error {
	list, err := chosen(store, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		err := withEntry(ctx, store, e, func(entry *snapshot.Entry) error { return entry.VerifyStrongly(ctx) })
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name, err))
			continue
		}
		fmt.Fprintf(c.Stdout, "%s: as it was written\n", e.Name)
	}
	return errors.Join(errs...)
}

// withEntry takes an entry for use.
func withEntry(ctx context.Context, store *snapshot.Store, e snapshot.Info, do func(*snapshot.Entry) error) error {
	if e.Manifest == nil {
		return fmt.Errorf("%w: %s", snapshot.ErrDamaged, e.Problem)
	}
	entry, err := store.Find(ctx, e.Manifest.Key)
	if err != nil {
		return err
	}
	return errors.Join(do(entry), entry.Close())
}

func (c Command) snapshotExport(ctx context.Context, store *snapshot.Store, x snapshotExport) error {
	list, err := chosen(store, []string{x.Name})
	if err != nil {
		return err
	}
	if err := withEntry(ctx, store, list[0], func(e *snapshot.Entry) error { return e.Export(ctx, x.File) }); err != nil {
		return err
	}
	info, err := os.Stat(x.File)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s is in %s, %s\n", list[0].Name, x.File, units.Bytes(info.Size()).Human())
	return nil
}

func (c Command) snapshotImport(ctx context.Context, store *snapshot.Store, m snapshotImport) error {
	most, err := units.ParseBytes(m.Size)
	if err != nil {
		return fmt.Errorf("--max-size: %w", err)
	}
	f, err := os.Open(m.File)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	entry, err := store.Unpack(ctx, f, snapshot.Admission{MaxData: most})
	if err != nil {
		return fmt.Errorf("%s: %w", m.File, err)
	}
	fmt.Fprintf(c.Stdout, "%s, %s\n%s\n", entry.Name(), entry.Manifest.Data().Human(), strings.Join(entry.Manifest.Key.Explain(), "\n"))
	return entry.Close()
}

func (c Command) snapshotRm(store *snapshot.Store, names []string) error {
	list, err := chosen(store, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if err := store.Remove(e.Name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name, err))
			continue
		}
		fmt.Fprintf(c.Stdout, "removed %s, %s\n", e.Name, e.Size.Human())
	}
	return errors.Join(errs...)
}

func (c Command) snapshotPrune(ctx context.Context, store *snapshot.Store, p snapshotPrune) error {
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
		fmt.Fprintf(c.Stdout, "removed %s, %s\n", e.Name, e.Size.Human())
	}
	fmt.Fprintf(c.Stdout, "%s freed, %s kept in %s\n", pruned.Freed.Human(), pruned.Kept.Human(), filepath.Clean(store.Dir))
	return nil
}
