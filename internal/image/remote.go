package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

// remote is a file that is not on this machine.
type remote struct {
	origin  string // for people
	preset  *Preset
	places  []place // in the order in which they are tried
	expect  expectation
	version string // of an artifact: its number at GitHub
	variant string // stands for a query, which is kept nowhere
	zipped  bool   // an artifact: the file is the one inside a zip
	zipHash string // SHA-256 of that zip, "" when not known

	// findHash completes expect when nothing is known of the file; nil when
	// nobody can.
	findHash func(ctx context.Context, e *expectation) error
}

// place is where a file may be.
type place struct {
	name   string // address without what may be a secret
	locate func(context.Context) (fetch.Location, error)
	signed bool
}

func at(address string) place {
	return place{name: printable(address), locate: fetch.At(address, nil)}
}

func printable(address string) string { return fetch.Printable(address) }

// presetRemote finds the places of a preset.
func (s *Store) presetRemote(p *Preset, want Want) remote {
	lists := Publisher
	if strings.HasPrefix(want.Mirror, "https://") {
		lists = strings.TrimSuffix(want.Mirror, "/") + "/" // a mirror without encryption is no source of hashes
	}
	r := remote{origin: p.Origin(), preset: p}
	for _, address := range p.Addresses(want.Mirror) {
		r.places = append(r.places, at(address))
	}
	var dirs []string
	for _, dir := range p.Dirs {
		dirs = append(dirs, lists+dir)
	}
	r.findHash = func(ctx context.Context, e *expectation) error {
		return s.published(ctx, e, Publisher+p.File, p.File, dirs)
	}
	return r
}

// urlRemote is a file at an address of the user's.
func (s *Store) urlRemote(u *url.URL) remote {
	r := remote{origin: printableURL(u), places: []place{at(u.String())}}
	if u.RawQuery != "" {
		r.variant = hashName(u.RawQuery)
	}
	if u.Scheme == "https" {
		dir := url.URL{Scheme: u.Scheme, Host: u.Host, Path: path.Dir(u.Path)}
		r.findHash = func(ctx context.Context, e *expectation) error {
			return s.published(ctx, e, u.String(), path.Base(u.Path), []string{strings.TrimSuffix(dir.String(), "/") + "/"})
		}
	}
	return r
}

// obtainRemote finds a file in the store, or fetches it.
func (s *Store) obtainRemote(ctx context.Context, r remote, want Want) (Base, error) {
	var err error
	if r.expect, err = expected(want, r.preset); err != nil {
		return Base{}, err
	}
	if r.expect.signer, err = s.signer(ctx, want); err != nil {
		return Base{}, err
	}
	if !r.expect.hasHash() && r.expect.signer == nil && want.Verify != VerifyNone && r.findHash != nil {
		if err := r.findHash(ctx, &r.expect); err != nil {
			return Base{}, err
		}
	}
	b, err := s.fetchOnce(ctx, r)
	if err == nil {
		b.Preset = r.preset
	}
	return b, err
}

// fetchOnce fetches a file unless it is in the store; of several processes
// that want the same one, one fetches it.
func (s *Store) fetchOnce(ctx context.Context, r remote) (Base, error) {
	if b, ok, err := s.find(ctx, r); ok || err != nil {
		return b, err
	}
	key := hashName(r.places[0].name)
	l, err := s.lock(ctx, "fetching-"+key, exclusive, func() {
		s.report(Report{Step: StepWait, Source: r.origin, Note: "another process fetches it; using its result"})
	})
	if err != nil {
		return Base{}, err
	}
	defer func() { _ = l.Close() }() // nothing depends on the lock any more
	if b, ok, err := s.find(ctx, r); ok || err != nil {
		return b, err
	}
	if err := s.mkdir(downloadsDir); err != nil {
		return Base{}, fmt.Errorf("writing to the image store: %w", err)
	}
	return s.fetchFrom(ctx, r, filepath.Join(s.Dir, downloadsDir, key))
}

// downloadsDir holds what was received so far.
const downloadsDir = "downloads"

// find looks for a file that matches the expectation in the store.
func (s *Store) find(ctx context.Context, r remote) (Base, bool, error) {
	if !r.expect.hasHash() && r.expect.signer == nil && r.version == "" {
		return Base{}, false, nil
	}
	return s.findEntry(ctx, func(m manifest) bool {
		switch {
		case r.expect.signer != nil && m.Signature != r.expect.signer.id:
			return false
		case r.expect.hasHash():
			return r.expect.matches(sums{m.SHA256, m.SHA512})
		case r.version != "":
			return m.Address == r.places[0].name && m.Version == r.version
		}
		return true
	}, r.expect)
}

// findEntry takes the first image whose manifest is good for use.
func (s *Store) findEntry(ctx context.Context, good func(manifest) bool, e expectation) (Base, bool, error) {
	for _, digest := range s.entries(imagesDir) {
		m, err := s.read(imagesDir, digest)
		if errors.Is(err, ErrDamaged) && good(m) {
			s.report(Report{Step: StepVerify, Source: m.Origin, Note: "getting it anew, because " + err.Error()})
		}
		if err != nil || !good(m) {
			continue
		}
		b, _, err := s.use(ctx, imagesDir, digest)
		if err != nil {
			continue // removed in between
		}
		if e.hasHash() || e.signer != nil {
			b.Verified = e.verification()
		}
		return b, true, nil
	}
	return Base{}, false, context.Cause(ctx)
}

// fetchFrom tries the places in their order.
func (s *Store) fetchFrom(ctx context.Context, r remote, part string) (Base, error) {
	var failed []error
	for _, p := range r.places {
		b, err := s.fetchPlace(ctx, r, p, part)
		var status *fetch.StatusError
		if !errors.As(err, &status) && !errors.Is(err, fetch.ErrNotFile) || context.Cause(ctx) != nil {
			return b, err
		}
		failed = append(failed, err)
	}
	return Base{}, joinLine(failed)
}

// maxRestarts bounds how often a file that changes on the server, or does not
// have its hash after it was received in pieces, is fetched from the start.
const maxRestarts = 3

// fetchPlace fetches, verifies and unpacks a file from one place.
func (s *Store) fetchPlace(ctx context.Context, r remote, p place, part string) (Base, error) {
	meter := s.meter(StepFetch, r.origin)
	req := fetch.Request{Name: p.name, Locate: p.locate, Signed: p.signed, Part: part, AllowHTTP: r.expect.hasHash()}
	for restarts := 0; ; restarts++ {
		b, pieces, err := s.attempt(ctx, r, req, meter)
		switch {
		case err == nil || restarts == maxRestarts:
		case errors.Is(err, fetch.ErrChanged):
			meter.note("the file was changed on the server meanwhile; starting again")
			continue
		case pieces && isDamage(err) && !req.WithoutRange:
			meter.note("the file was received in pieces that do not fit together; starting again in one piece")
			req.WithoutRange = true
			continue
		}
		return b, err
	}
}

// isDamage tells errors that a file received in wrong pieces may cause.
func isDamage(err error) bool {
	for _, damage := range []error{ErrHash, ErrSignature, unpack.ErrCorrupt, unpack.ErrTruncated} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}

// attempt fetches a file once. It tells whether the file was received in
// pieces, by more than one connection.
func (s *Store) attempt(ctx context.Context, r remote, req fetch.Request, meter *meter) (b Base, pieces bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the feed may still wait for the server
	client := s.fetcher(func(note string) {
		pieces = true
		meter.note(note)
	})
	client.Received = meter.at
	stream, err := client.Open(ctx, req)
	if err != nil {
		return Base{}, false, fmt.Errorf("%s: %w", req.Name, err)
	}
	resumed := stream.Have() > 0
	w := &watched{Stream: stream}
	b, err = s.receive(ctx, r, req.Name, w)
	switch {
	case err == nil, isFull(err), !w.lost && context.Cause(ctx) == nil:
		err = errors.Join(err, stream.Discard())
	default: // the next try goes on where this one ended
		err = fmt.Errorf("%s: %w", req.Name, errors.Join(err, stream.Close()))
	}
	return b, pieces || resumed, err
}

// watched is a stream that remembers whether it was the one that failed.
type watched struct {
	*fetch.Stream
	lost bool
}

func (w *watched) reader(ctx context.Context) io.Reader {
	r := w.Reader(ctx)
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		w.lost = w.lost || err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, fetch.ErrChanged)
		return n, err
	})
}

// receive makes an entry of a file that is being fetched, or finds out by its
// version that it is there.
func (s *Store) receive(ctx context.Context, r remote, address string, stream *watched) (Base, error) {
	version := r.version
	if etag, date := stream.Validators(); version == "" && etag+date != "" {
		version = strings.TrimSpace(r.variant + " " + etag + " " + date)
	}
	if !r.expect.hasHash() && r.expect.signer == nil && version != "" {
		b, ok, err := s.findEntry(ctx, func(m manifest) bool { return m.Address == address && m.Version == version }, r.expect)
		if ok || err != nil {
			return b, err
		}
	}
	if err := s.reserve(r.space(stream.Size(), stream.Have())); err != nil {
		return Base{}, err
	}
	t, err := s.temp()
	if err != nil {
		return Base{}, err
	}
	defer t.remove()
	in := unpack.Input{File: stream.File, Reader: stream.reader(ctx)}
	if r.zipped {
		if in, err = unzipped(in, r.zipHash); err != nil {
			return Base{}, err
		}
	}
	m := manifest{Created: s.now(), Origin: r.origin, Address: address, Version: version}
	if err := s.admit(ctx, t, in, r.expect, &m); err != nil {
		return Base{}, err
	}
	return s.publish(ctx, t, imagesDir, m.SHA256, m)
}

// unzipped replaces a zip file by the one file in it.
func unzipped(in unpack.Input, hash string) (unpack.Input, error) {
	h := sha256.New()
	if _, err := io.Copy(h, in.Reader); err != nil {
		return in, err
	}
	if have := hex.EncodeToString(h.Sum(nil)); hash != "" && have != hash {
		return in, fmt.Errorf("%w: the SHA-256 of the artifact's zip is %s, by GitHub it is %s", ErrHash, have, hash)
	}
	zip, size, err := in.File()
	if err != nil {
		return in, err
	}
	member, err := unpack.OpenZip(zip, size)
	if err != nil {
		return in, err
	}
	return unpack.Input{Reader: member}, nil
}

// space estimates what a file will take: the rest of itself and what is in it.
func (r remote) space(size, have int64) units.Bytes {
	rest := units.Bytes(max(size-have, 0))
	if r.preset != nil {
		return rest + r.preset.Allocated
	}
	return rest + units.Bytes(max(size, 0))
}

// fetcher is the HTTP side of the store.
func (s *Store) fetcher(note func(string)) *fetch.Client {
	return &fetch.Client{HTTP: s.Client, Stall: s.Stall, Notify: note}
}

// isFull tells the errors of a full disk.
func isFull(err error) bool {
	for _, full := range fullDisk {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
