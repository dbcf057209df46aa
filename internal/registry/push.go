package registry

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
)

// Packed is a packed machine that is to be published.
type Packed struct {
	File   io.ReaderAt
	Size   int64
	SHA256 string // of the file, in hexadecimal
	Name   string // of the file, for who fetches it with another tool

	// Facts tell what it is, as annotations of the manifest.
	Facts map[string]string
}

// Push puts a packed machine into a registry, under the tag of the reference if
// it has one, and returns the reference with the digest that names it for good.
func (c *Client) Push(ctx context.Context, ref Reference, p Packed) (Reference, error) {
	pinned, err := c.push(ctx, ref, p)
	if err != nil {
		return ref, fmt.Errorf("pushing to %s: %w", ref, explained(err, ref))
	}
	return pinned, nil
}

func (c *Client) push(ctx context.Context, ref Reference, p Packed) (Reference, error) {
	switch {
	case ref.URL != nil:
		return ref, fmt.Errorf("%w: a web server is no registry; export the machine into a file, and put that there", ErrReference)
	case ref.Digest != "":
		return ref, fmt.Errorf("%w: the digest is what comes of it; leave it out", ErrReference)
	}
	logins, err := c.Login.credentials(ctx, ref.Repo.Host(), true)
	if err != nil {
		return ref, err
	}
	repo := c.repository(ref, logins[0])
	layer := ocispec.Descriptor{
		MediaType: LayerType, Digest: digest.NewDigestFromEncoded(digest.SHA256, p.SHA256), Size: p.Size,
		Annotations: map[string]string{ocispec.AnnotationTitle: p.Name},
	}
	if err := c.again(ctx, func(ctx context.Context, touch func(time.Duration)) error {
		return c.pushLayer(ctx, touch, repo, layer, p.File)
	}); err != nil {
		return ref, err
	}
	var manifest ocispec.Descriptor
	err = c.again(ctx, func(ctx context.Context, _ func(time.Duration)) (err error) {
		manifest, err = oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, ArtifactType, oras.PackManifestOptions{
			Layers: []ocispec.Descriptor{layer}, ManifestAnnotations: p.Facts,
		})
		if err == nil && ref.Tag != "" {
			err = repo.Tag(ctx, manifest, ref.Tag)
		}
		return err
	})
	if err != nil {
		return ref, err
	}
	ref.Tag, ref.Digest = "", manifest.Digest.Encoded()
	return ref, nil
}

// pushLayer sends the packed machine, unless the registry has it.
func (c *Client) pushLayer(ctx context.Context, touch func(time.Duration), repo *remote.Repository, layer ocispec.Descriptor, file io.ReaderAt) error {
	if there, err := repo.Blobs().Exists(ctx, layer); there || err != nil {
		return err
	}
	sent := int64(0)
	body := &moving{r: io.NewSectionReader(file, 0, layer.Size), moved: func(n int) {
		sent += int64(n)
		if sent == layer.Size {
			touch(commitStall)
		} else {
			touch(c.stall())
		}
		if c.Moved != nil {
			c.Moved(sent, layer.Size)
		}
	}}
	return repo.Blobs().Push(ctx, layer, body)
}
