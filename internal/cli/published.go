package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/registry"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// registryFlags say how to talk to a registry. The password is read from
// standard input: other users of the machine see arguments.
type registryFlags struct {
	Username      string `name:"username" placeholder:"NAME" help:"Who logs in to the registry. Default: as docker login has left it, or GITHUB_TOKEN for ghcr.io."`
	PasswordStdin bool   `name:"password-stdin" help:"Read the password or token of --username from standard input."`
	PlainHTTP     bool   `name:"plain-http" help:"Talk to the registry without TLS. Default: only to one on this host."`
}

type snapshotPush struct {
	Name     string `arg:"" help:"Name, or its end."`
	Ref      string `arg:"" help:"Where to: HOST/NAME or HOST/NAME:TAG, such as ghcr.io/owner/hurd:latest."`
	Prepared bool   `name:"allow-prepared" help:"Push it although it holds what a prepare script or user-data has made, or a key of your own."`

	registryFlags `embed:""`
}

type snapshotPull struct {
	Ref      string `arg:"" help:"What push has printed: HOST/NAME@sha256:..., or https://HOST/FILE@sha256:... for a file that export has written."`
	Unpinned bool   `name:"unpinned" help:"Take what a tag stands for now, whatever it is."`
	Size     string `name:"max-size" default:"2G" placeholder:"SIZE" help:"As the input snapshot-max-size."`

	registryFlags `embed:""`
}

type snapshotShow struct {
	Ref string `arg:"" help:"HOST/NAME@sha256:... or HOST/NAME:TAG."`

	registryFlags `embed:""`
}

// maxPassword bounds what is read from standard input.
const maxPassword = 64 << 10

// registry is a client for registries.
func (c Command) registry(f registryFlags, host lifecycle.Host) (*registry.Client, error) {
	client := &registry.Client{PlainHTTP: f.PlainHTTP, Login: registry.Login{DockerConfig: host.DockerConfig, GitHubToken: c.getenv("GITHUB_TOKEN")}}
	switch {
	case f.PasswordStdin != (f.Username != ""):
		return nil, errors.New("--username and --password-stdin belong together")
	case f.PasswordStdin:
		text, err := io.ReadAll(io.LimitReader(c.Stdin, maxPassword))
		password := strings.TrimRight(string(text), "\r\n")
		if err != nil || password == "" {
			return nil, fmt.Errorf("--password-stdin: there is no password on standard input: %w", cmp.Or(err, io.ErrUnexpectedEOF))
		}
		client.Login.User, client.Login.Password = f.Username, password
	}
	return client, nil
}

// dockerConfig is where docker login leaves what it was told.
func (c Command) dockerConfig() string {
	dir := c.getenv("DOCKER_CONFIG")
	if home := c.getenv("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".docker")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "config.json")
}

func (c Command) snapshotPush(ctx context.Context, store *snapshot.Store, x snapshotPush, host lifecycle.Host) error {
	ref, err := registry.Parse(x.Ref)
	if err != nil {
		return err
	}
	list, err := chosen(store, []string{x.Name})
	if err != nil {
		return err
	}
	client, err := c.registry(x.registryFlags, host)
	if err != nil {
		return err
	}
	return withEntry(ctx, store, list[0], func(e *snapshot.Entry) error {
		facts, risks := lifecycle.Contents(e.Manifest)
		fmt.Fprintf(c.Stderr, "Whoever can read %s gets:\n- %s\n", ref, strings.Join(slices.Concat(facts, risks), "\n- "))
		if len(risks) > 0 && !x.Prepared {
			return fmt.Errorf("%s was not pushed: %s. With --allow-prepared it is pushed all the same", e.Name(), strings.Join(risks, "; "))
		}
		// What others are to rely on is looked at as a whole.
		if err := e.VerifyStrongly(ctx); err != nil {
			return err
		}
		pinned, err := lifecycle.Push{Client: client, Temp: host.Temp, Progress: c.progress(host)}.Do(ctx, e, ref)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, pinned)
		return nil
	})
}

func (c Command) snapshotPull(ctx context.Context, store *snapshot.Store, x snapshotPull, host lifecycle.Host) error {
	ref, err := registry.Parse(x.Ref)
	if err != nil {
		return err
	}
	if ref.Digest == "" && !x.Unpinned {
		return fmt.Errorf("%s: %w: write it as push has printed it, or --unpinned to take whatever is there", ref, registry.ErrUnpinned)
	}
	most, err := units.ParseBytes(x.Size)
	if err != nil {
		return fmt.Errorf("--max-size: %w", err)
	}
	client, err := c.registry(x.registryFlags, host)
	if err != nil {
		return err
	}
	p := lifecycle.Pull{Store: store, Client: client, Admission: snapshot.Admission{MaxData: most}, Progress: c.progress(host)}
	pulled, err := p.Do(ctx, ref)
	if err != nil {
		return err
	}
	e := pulled.Entry
	fmt.Fprintf(c.Stdout, "%s, %s\n%s\n%s\n", e.Name(), e.Manifest.Data().Human(), strings.Join(e.Manifest.Key.Explain(), "\n"), pulled.Reference)
	return e.Close()
}

func (c Command) snapshotShow(ctx context.Context, x snapshotShow, host lifecycle.Host) error {
	ref, err := registry.Parse(x.Ref)
	if err != nil {
		return err
	}
	if ref.URL != nil {
		return fmt.Errorf("%s: a web server tells nothing about a file; pull it", ref)
	}
	client, err := c.registry(x.registryFlags, host)
	if err != nil {
		return err
	}
	found, err := client.Find(ctx, ref)
	if err != nil {
		return err
	}
	key, err := snapshot.FactsKey(found.Facts)
	if err != nil {
		return fmt.Errorf("%s: %w", found.Reference, err)
	}
	fmt.Fprintf(c.Stdout, "%s\n%s packed\n%s\n", found.Reference, units.Bytes(found.Size).Human(), strings.Join(key.Explain(), "\n"))
	return nil
}
