package image

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// Kind is what a Source refers to.
type Kind string

// The kinds of sources.
const (
	KindPreset   Kind = "preset"
	KindSelftest Kind = "selftest" // the guest that is part of this program
	KindPath     Kind = "path"
	KindURL      Kind = "url"
	KindRelease  Kind = "release"  // a GitHub release asset
	KindArtifact Kind = "artifact" // an artifact of the same workflow run
)

// Source is an image as the user names it. It is made by ParseSource.
type Source struct {
	Kind Kind
	Name string // preset, selftest or artifact name
	Path string // KindPath

	URL *url.URL // KindURL

	Owner, Repo, Tag, Asset string // KindRelease
}

// ErrSource is wrapped by every error of ParseSource.
var ErrSource = errors.New("not an image")

// selftestName is the name of the embedded guest.
const selftestName = "selftest"

// artifactPrefix marks an artifact's name.
const artifactPrefix = "artifact:"

// releasePattern is owner/repo@tag:asset. A tag may hold slashes; an asset's
// name may not.
var releasePattern = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)@([^:\s]+):([^/\s]+)$`)

// diskSuffixes mark a word without a slash as a file's name.
var diskSuffixes = []string{
	".img", ".raw", ".qcow2", ".vmdk", ".vdi", ".gz", ".tgz", ".xz", ".txz", ".zst", ".zip", ".tar",
}

// ParseSource reads what the input image holds: a preset's name, selftest, a
// path, an https or http URL, owner/repo@tag:asset, or artifact:name. It reads
// no file; that a path exists is found out by Obtain.
func ParseSource(text string) (Source, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == selftestName:
		return Source{Kind: KindSelftest, Name: text}, nil
	case strings.Contains(text, "://"):
		return parseURL(text)
	case strings.HasPrefix(text, artifactPrefix):
		return parseArtifact(text)
	case isPresetName(text):
		return Source{Kind: KindPreset, Name: text}, nil
	}
	if m := releasePattern.FindStringSubmatch(text); m != nil {
		return Source{Kind: KindRelease, Owner: m[1], Repo: m[2], Tag: m[3], Asset: m[4]}, nil
	}
	if looksLikePath(text) {
		return Source{Kind: KindPath, Path: filepath.Clean(text)}, nil
	}
	return Source{}, fmt.Errorf("%q is %w: use one of %s, a path such as ./disk.qcow2, an https:// URL, "+
		"owner/repo@tag:asset, or artifact:name", text, ErrSource, strings.Join(append(PresetNames(), selftestName), ", "))
}

func looksLikePath(text string) bool {
	if strings.ContainsRune(text, filepath.Separator) || text == "." || text == ".." {
		return true
	}
	for _, suffix := range diskSuffixes {
		if strings.HasSuffix(strings.ToLower(text), suffix) {
			return true
		}
	}
	return false
}

func parseArtifact(text string) (Source, error) {
	name := strings.TrimPrefix(text, artifactPrefix)
	// The characters that upload-artifact refuses in a name.
	if name == "" || strings.ContainsAny(name, "\":<>|*?\\/\r\n") {
		return Source{}, fmt.Errorf("%q is %w: after artifact: comes the name that the artifact was uploaded with", text, ErrSource)
	}
	return Source{Kind: KindArtifact, Name: name}, nil
}

func parseURL(text string) (Source, error) {
	u, err := url.Parse(text)
	if err != nil {
		// The parser's message quotes the text, which may hold a password.
		return Source{}, fmt.Errorf("the text with :// is %w: it can't be read as a URL", ErrSource)
	}
	shown := printableURL(u)
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return Source{}, fmt.Errorf("%q is %w: of URLs only https:// is supported, and http:// together with a hash", shown, ErrSource)
	case u.Host == "":
		return Source{}, fmt.Errorf("%q is %w: the URL names no host", shown, ErrSource)
	case u.User != nil:
		return Source{}, fmt.Errorf("%q is %w: a URL with a password would end up in logs; use a URL without one", shown, ErrSource)
	case strings.Trim(u.Path, "/") == "":
		return Source{}, fmt.Errorf("%q is %w: the URL names no file", shown, ErrSource)
	}
	u.Fragment, u.RawFragment = "", ""
	return Source{Kind: KindURL, URL: u}, nil
}

// printableURL leaves out what may be a secret: the query of a signed URL and
// the user's password.
func printableURL(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return c.String()
}

// String names the source as the user does, without what may be a secret.
func (s Source) String() string {
	switch s.Kind {
	case KindPath:
		return s.Path
	case KindURL:
		return printableURL(s.URL)
	case KindRelease:
		return s.Owner + "/" + s.Repo + "@" + s.Tag + ":" + s.Asset
	case KindArtifact:
		return artifactPrefix + s.Name
	}
	return s.Name
}
