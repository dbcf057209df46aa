package image

import (
	"context"
	"strings"
)

// Identity is what is known of an image without it: enough to tell whether
// something was made from it.
type Identity struct {
	Origin string // as Base.Origin
	Preset *Preset

	expect expectation // with a hash
}

// String is the image's hash, "sha512:..." or "sha256:...", of the file as it is
// published.
func (i Identity) String() string {
	if i.expect.sha512 != "" {
		return "sha512:" + i.expect.sha512
	}
	return "sha256:" + i.expect.sha256
}

// Identify tells what an image is before anything of it is fetched. It can for
// presets and addresses whose hash is given, known, or in the publisher's list,
// which is all that may be fetched. It is false for all others: files that are
// here already, what only its signature tells, what a token may be needed for
// (who sees the image and who sees what was made from it need not be the same),
// and addresses with a query, as signed ones have.
func (s *Store) Identify(ctx context.Context, src Source, want Want) (Identity, bool, error) {
	want.SHA256, want.SHA512 = strings.ToLower(want.SHA256), strings.ToLower(want.SHA512)
	if err := src.Check(want); err != nil {
		return Identity{}, false, &Error{Op: "looking for", Source: src.String(), Err: err}
	}
	var r remote
	switch {
	case want.Signature != "":
		return Identity{}, false, nil
	case src.Kind == KindPreset:
		p, err := FindPreset(src.Name, want.Arch)
		if err != nil {
			return Identity{}, false, explain("looking for", src.String(), err)
		}
		r = s.presetRemote(p, want)
	case src.Kind == KindURL && src.URL.RawQuery == "":
		r = s.urlRemote(src.URL)
	default:
		return Identity{}, false, nil
	}
	id := Identity{Origin: r.origin, Preset: r.preset}
	var err error
	if id.expect, err = expected(want, r.preset); err != nil {
		return Identity{}, false, explain("looking for", src.String(), err)
	}
	if !id.expect.hasHash() {
		if want.Verify == VerifyNone || r.findHash == nil {
			return Identity{}, false, nil
		}
		if err := r.findHash(ctx, &id.expect); err != nil {
			return Identity{}, false, explain("obtaining", src.String(), err)
		}
	}
	return id, true, nil
}

// Has tells whether an image is in the store, so that Obtain need not fetch it.
func (s *Store) Has(ctx context.Context, id Identity) bool {
	b, ok, err := s.find(ctx, remote{origin: id.Origin, expect: id.expect})
	if err != nil || !ok {
		return false
	}
	_ = b.Close() // it was only looked at
	return true
}

// FindPrepared takes the disk that was prepared from an image under a key, as
// Prepare does, where the image itself need not be in the store.
func (s *Store) FindPrepared(ctx context.Context, id Identity, key string) (Prepared, bool) {
	for _, name := range s.entries(preparedDir) {
		m, err := s.read(preparedDir, name)
		if err != nil || m.Key != key || !id.expect.matches(sums{m.SHA256, m.SHA512}) {
			continue // Prepare makes a damaged one anew
		}
		b, m, err := s.use(ctx, preparedDir, name)
		if err != nil {
			continue // removed in between
		}
		b.Preset, b.Verified = id.Preset, id.expect.verification()
		return Prepared{Base: b, Manifest: m.Extra, key: key}, true
	}
	return Prepared{}, false
}
