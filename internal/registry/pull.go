package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// Found is what a registry tells of a machine before it is fetched.
type Found struct {
	Reference Reference // with the digest
	Size      int64     // of the packed machine; -1 when a web server has not told it
	Facts     map[string]string

	repo  *remote.Repository // nil for a file
	layer string             // its digest, in hexadecimal
}

// Find asks what is at a reference. Nothing is fetched but the manifest, and of
// a web server's file nothing at all.
func (c *Client) Find(ctx context.Context, ref Reference) (Found, error) {
	if ref.URL != nil {
		return Found{Reference: ref, Size: -1, layer: ref.Digest}, nil
	}
	if ref.wanted() == "" {
		return Found{}, fmt.Errorf("%s: %w, nor a tag: write %s%s and 64 digits", ref, ErrUnpinned, ref, digestMark)
	}
	logins, err := c.Login.credentials(ctx, ref.Repo.Host(), false)
	var found Found
	for i := range logins {
		if found, err = c.find(ctx, ref, logins[i]); !denied(err) {
			break
		}
	}
	if err != nil {
		return Found{}, fmt.Errorf("looking at %s: %w", ref, explained(err, ref))
	}
	return found, nil
}

func (c *Client) find(ctx context.Context, ref Reference, login auth.Credential) (Found, error) {
	repo := c.repository(ref, login)
	var data []byte
	var desc ocispec.Descriptor
	err := c.again(ctx, func(ctx context.Context, _ func(time.Duration)) error {
		var body io.ReadCloser
		var err error
		if desc, body, err = repo.Manifests().FetchReference(ctx, ref.wanted()); err != nil {
			return err
		}
		defer func() { _ = body.Close() }() // it was only read
		if desc.Size > maxManifest {
			return forGood(fmt.Errorf("%w: its manifest has %d bytes", ErrKind, desc.Size))
		}
		data, err = content.ReadAll(body, desc)
		if errors.Is(err, content.ErrMismatchedDigest) {
			return forGood(fmt.Errorf("%w: it is another manifest", ErrDigest))
		}
		return err
	})
	if err != nil {
		return Found{}, err
	}
	if ref.Digest != "" && desc.Digest.Encoded() != ref.Digest {
		return Found{}, fmt.Errorf("%w: the registry sent a manifest with %s", ErrDigest, desc.Digest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Found{}, fmt.Errorf("%w: its manifest can't be read", ErrKind)
	}
	if m.ArtifactType != ArtifactType || len(m.Layers) != 1 || m.Layers[0].MediaType != LayerType {
		return Found{}, fmt.Errorf("%w, or one of another version of this program: type %q, %d layers", ErrKind, line(m.ArtifactType), len(m.Layers))
	}
	layer := m.Layers[0]
	if layer.Digest.Validate() != nil || layer.Digest.Algorithm() != "sha256" || layer.Size <= 0 {
		return Found{}, fmt.Errorf("%w: its manifest names no layer that can be", ErrKind)
	}
	ref.Digest = desc.Digest.Encoded()
	return Found{Reference: ref, Size: layer.Size, Facts: m.Annotations, repo: repo, layer: layer.Digest.Encoded()}, nil
}

// maxManifest bounds a manifest, which is a few KiB.
const maxManifest = 4 << 20

// Digest is the SHA-256 of the packed machine, in hexadecimal.
func (f Found) Digest() string { return f.layer }

// Pull receives a machine that was found, into a part file, which goes on where
// an earlier process has stopped. peek sees the beginning of it as it arrives,
// and ends the transfer with an error. The part file holds the machine, whose
// digest is right, when there is no error; Discard removes it.
func (c *Client) Pull(ctx context.Context, f Found, part string, limit int64, peek func(io.Reader) error) error {
	if limit > 0 && f.Size > limit {
		return fmt.Errorf("fetching %s: %w: %d bytes, allowed are %d", f.Reference, ErrSize, f.Size, limit)
	}
	resumed, err := c.pull(ctx, f, part, limit, peek)
	if errors.Is(err, ErrDigest) && resumed { // the beginning may be what was wrong
		_, err = c.pull(ctx, f, part, limit, peek)
	}
	if err != nil {
		return fmt.Errorf("fetching %s: %w", f.Reference, err)
	}
	return nil
}

// Discard removes a part file.
func Discard(part string) error { return fetch.Discard(part) }

func (c *Client) pull(ctx context.Context, f Found, part string, limit int64, peek func(io.Reader) error) (resumed bool, err error) {
	r := fetch.Request{Name: f.Reference.String(), Part: part, Immutable: true}
	if f.repo != nil {
		r.Signed, r.Locate = true, func(ctx context.Context) (fetch.Location, error) { return locate(ctx, f) }
	} else {
		r.Locate = fetch.At(f.Reference.URL.String(), nil)
	}
	s, err := c.fetcher().Open(ctx, r)
	if err != nil {
		return false, explained(err, f.Reference)
	}
	defer func() {
		if errors.Is(err, ErrDigest) || errors.Is(err, ErrSize) {
			err = errors.Join(err, s.Discard())
			return
		}
		err = errors.Join(err, s.Close())
	}()
	resumed = s.Have() > 0
	if limit <= 0 || f.Size > 0 {
		limit = f.Size
	}
	if limit > 0 && s.Size() > limit {
		return resumed, fmt.Errorf("%w: %d bytes, allowed are %d", ErrSize, s.Size(), limit)
	}
	body := &bounded{r: s.Reader(ctx), left: limit, limit: limit}
	if peek != nil {
		if err := peek(body); err != nil {
			return resumed, err
		}
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return resumed, err
	}
	file, size, err := s.File()
	if err != nil {
		return resumed, err
	}
	return resumed, compare(file, size, f.layer)
}

// compare holds that a file has a digest.
func compare(file io.ReaderAt, size int64, digest string) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, size)); err != nil {
		return err
	}
	if have := hex.EncodeToString(h.Sum(nil)); have != digest {
		return fmt.Errorf("%w: sha256:%s is wanted, the %d bytes have sha256:%s", ErrDigest, digest, size, have)
	}
	return nil
}

// locate asks where a layer is, with a login that is fresh. The registry may
// send us on to a signed address, which gets no login.
func locate(ctx context.Context, f Found) (fetch.Location, error) {
	shared, ok := f.repo.Client.(*auth.Client)
	if !ok {
		return fetch.Location{}, errors.New("the client of the registry is of another kind")
	}
	client := *shared
	client.Client = &http.Client{
		Transport:     shared.Client.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	scheme := "https"
	if f.repo.PlainHTTP {
		scheme = "http"
	}
	ref := f.repo.Reference
	address := fmt.Sprintf("%s://%s/v2/%s/blobs/sha256:%s", scheme, ref.Host(), ref.Repository, f.layer)
	ctx, _, stop := watched(ctx, defaultStall)
	defer stop()
	req, err := http.NewRequestWithContext(auth.AppendRepositoryScope(ctx, ref, auth.ActionPull), http.MethodHead, address, nil)
	if err != nil {
		return fetch.Location{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fetch.Location{}, plain(err)
	}
	_ = resp.Body.Close() // there is none
	if resp.StatusCode >= http.StatusBadRequest {
		return fetch.Location{}, &fetch.StatusError{Status: resp.StatusCode}
	}
	header := http.Header{}
	if login := resp.Request.Header.Get("Authorization"); login != "" {
		header.Set("Authorization", login)
	}
	return fetch.Location{URL: address, Header: header}, nil
}
