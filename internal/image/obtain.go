package image

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/org/hurd-qemu-action/internal/platform"
)

// Verify says how much an image must be compared with before it is used.
type Verify string

// The modes of verification.
const (
	VerifyPublished Verify = "published" // the default: also the publisher's list of hashes over https
	VerifyPinned    Verify = "pinned"    // a hash known to us or given, or a signature by a given key
	VerifyNone      Verify = "none"      // a hash or signature is checked when there is one
)

// Run is the workflow run that artifacts are looked for in.
type Run struct {
	Repository string // owner/name
	ID         int64
}

// Want is what an image must match and what is needed to get it. The zero
// value is what a local path needs.
type Want struct {
	Arch   platform.Arch // "" means that of the image, amd64 where there are several
	Verify Verify        // "" means VerifyPublished

	// Hashes in hexadecimal, of the file as it is published: before it is
	// unpacked, and of an artifact the file inside.
	SHA256, SHA512 string

	Signature string // detached OpenPGP signature: an https URL, a path, or the armoured text
	Key       string // OpenPGP public key: a path or the armoured text

	Mirror string // replaces Publisher in the addresses of presets; https or http
	Token  string // GitHub token for release assets and artifacts
	API    string // GitHub's REST address; "" means https://api.github.com
	Run    Run
}

func (w Want) hasHash() bool { return w.SHA256 != "" || w.SHA512 != "" }

var (
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	sha512Pattern = regexp.MustCompile(`^[0-9a-f]{128}$`)
)

// Check finds what is wrong with a source and what is wanted of it without
// fetching anything. It returns all problems, joined.
func (s Source) Check(w Want) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if w.SHA256 != "" && !sha256Pattern.MatchString(strings.ToLower(w.SHA256)) {
		add("image-sha256 is not a SHA-256: it has 64 hexadecimal digits, this one is %q", w.SHA256)
	}
	if w.SHA512 != "" && !sha512Pattern.MatchString(strings.ToLower(w.SHA512)) {
		add("image-sha512 is not a SHA-512: it has 128 hexadecimal digits, this one is %q", w.SHA512)
	}
	if (w.Signature == "") != (w.Key == "") {
		add("image-signature and image-key belong together: only one of them is given")
	}
	var preset *Preset
	if s.Kind == KindPreset {
		var err error
		if preset, err = FindPreset(s.Name, w.Arch); err != nil {
			problems = append(problems, err)
		}
	}
	if err := s.checkMode(w, preset); err != nil {
		problems = append(problems, err)
	}
	if u, err := url.Parse(w.Mirror); w.Mirror != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		add("image-mirror is not an address: it begins with https:// and takes the place of %s", Publisher)
	} else if w.Mirror != "" && u.Scheme == "http" && w.Verify == VerifyNone && preset != nil && preset.SHA512 == "" && !w.hasHash() {
		add("image-mirror without encryption needs a hash: give image-sha512, or an https address")
	}
	if s.Kind == KindArtifact && (w.Token == "" || w.Run.Repository == "" || w.Run.ID == 0) {
		add("%s needs a token, and a workflow run to look for it in", s)
	}
	return errors.Join(problems...)
}

// checkMode checks that there is something to verify an image with.
func (s Source) checkMode(w Want, preset *Preset) error {
	pinned := w.hasHash() || w.Key != "" || preset != nil && preset.SHA512 != ""
	switch w.Verify {
	case "", VerifyPublished, VerifyNone:
	case VerifyPinned:
		if !pinned && s.Kind != KindSelftest {
			return fmt.Errorf("image-verify: pinned needs a hash, and none is known for %s: give image-sha256 or image-sha512, "+
				"or image-signature and image-key, or use image-verify: published", s)
		}
	default:
		return fmt.Errorf("%q is not a value of image-verify: use published, pinned or none", w.Verify)
	}
	if s.Kind == KindURL && s.URL.Scheme == "http" && !w.hasHash() {
		return fmt.Errorf("%s is fetched without encryption: give image-sha256 or image-sha512, or use https", s)
	}
	return nil
}

// Obtain returns the image that a source names: fetched, verified and unpacked
// into the store, unless it is there already. A local disk image is used in
// place. The error, if any, is an *Error.
func (s *Store) Obtain(ctx context.Context, src Source, want Want) (Base, error) {
	want.SHA256, want.SHA512 = strings.ToLower(want.SHA256), strings.ToLower(want.SHA512)
	if err := src.Check(want); err != nil {
		return Base{}, &Error{Op: "looking for", Source: src.String(), Err: err}
	}
	b, err := s.obtain(ctx, src, want)
	if err != nil {
		return Base{}, explain("obtaining", src.String(), err)
	}
	return b, nil
}

func (s *Store) obtain(ctx context.Context, src Source, want Want) (Base, error) {
	switch src.Kind {
	case KindSelftest:
		return s.obtainEmbedded(ctx, src.Name)
	case KindPath:
		return s.obtainPath(ctx, src.Path, want)
	case KindURL:
		return s.obtainRemote(ctx, s.urlRemote(src.URL), want)
	case KindRelease:
		return s.obtainRelease(ctx, src, want)
	case KindArtifact:
		return s.obtainArtifact(ctx, src, want)
	}
	preset, err := FindPreset(src.Name, want.Arch)
	if err != nil {
		return Base{}, err
	}
	return s.obtainRemote(ctx, s.presetRemote(preset, want), want)
}

// explain makes an error an *Error, with what to do about it.
func explain(op, source string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Source: source, Err: err, Hint: hint(err)}
}
