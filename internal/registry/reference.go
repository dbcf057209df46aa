package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	oci "oras.land/oras-go/v2/registry"
)

// Reference names a published machine. It is made by Parse.
type Reference struct {
	URL    *url.URL      // of a file; nil: it is in a registry
	Repo   oci.Reference // without tag and digest
	Tag    string        // "" for none
	Digest string        // SHA-256 in hexadecimal, of the manifest or the file; "" for none
}

// digestMark is between what is named and its digest.
const digestMark = "@sha256:"

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// Parse reads HOST/NAME[:TAG][@sha256:HEX] or https://HOST/FILE@sha256:HEX.
func Parse(text string) (Reference, error) {
	text = strings.TrimSpace(text)
	name, digest, pinned := strings.Cut(text, digestMark)
	if pinned && !isDigest(digest) {
		return Reference{}, fmt.Errorf("%q is %w: behind @sha256: belong 64 digits, 0 to 9 and a to f", printable(text), ErrReference)
	}
	if strings.Contains(name, "://") {
		return parseURL(name, digest)
	}
	r := Reference{Digest: digest}
	host, path, ok := strings.Cut(name, "/")
	// Without a dot, a port or localhost the first word would be a user's name at one
	// registry that everybody means and nobody writes.
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return r, fmt.Errorf("%q is %w: write HOST/NAME@sha256:DIGEST, such as ghcr.io/owner/name@sha256:..., or https://HOST/FILE@sha256:DIGEST", printable(text), ErrReference)
	}
	path, r.Tag, ok = strings.Cut(path, ":")
	if ok && !tagPattern.MatchString(r.Tag) {
		return r, fmt.Errorf("%q is %w: %q can't be a tag", printable(text), ErrReference, r.Tag)
	}
	r.Repo = oci.Reference{Registry: host, Repository: path}
	if err := r.Repo.Validate(); err != nil {
		return r, fmt.Errorf("%q is %w: the name has characters that it can't have, such as capitals", printable(text), ErrReference)
	}
	return r, nil
}

func isDigest(text string) bool {
	data, err := hex.DecodeString(text)
	return err == nil && len(data) == sha256.Size && strings.ToLower(text) == text
}

func parseURL(name, digest string) (Reference, error) {
	u, err := url.Parse(name)
	switch {
	case err != nil: // the parser's message quotes the text, which may hold a password
		return Reference{}, fmt.Errorf("the text with :// is %w: it can't be read as a URL", ErrReference)
	case u.Host == "" || strings.Trim(u.Path, "/") == "":
		return Reference{}, fmt.Errorf("%q is %w: the URL names no file", printable(name), ErrReference)
	case u.User != nil:
		return Reference{}, fmt.Errorf("%q is %w: a URL with a password would end up in logs", printable(name), ErrReference)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Host)):
		return Reference{}, fmt.Errorf("%q is %w: of URLs only https:// is supported, and http:// on this host", printable(name), ErrReference)
	case digest == "":
		return Reference{}, fmt.Errorf("%q is %w: behind a URL belongs @sha256: and the digest of the file", printable(name), ErrReference)
	}
	u.Fragment, u.RawFragment = "", ""
	return Reference{URL: u, Digest: digest}, nil
}

// printable leaves out what may be a secret of a URL.
func printable(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return text
	}
	rest, _, _ = strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	return scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + path
}

// isLoopback tells whether a host, with or without a port, is this one.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return name == "localhost" || err == nil && addr.IsLoopback()
}

// String names the machine as it is written, without what may be a secret.
func (r Reference) String() string {
	var text string
	if r.URL != nil {
		text = printable(r.URL.String())
	} else {
		text = r.Repo.Registry + "/" + r.Repo.Repository
		if r.Tag != "" {
			text += ":" + r.Tag
		}
	}
	if r.Digest != "" {
		text += digestMark + r.Digest
	}
	return text
}

// wanted is what a registry is asked for.
func (r Reference) wanted() string {
	if r.Digest != "" {
		return "sha256:" + r.Digest
	}
	return r.Tag
}
