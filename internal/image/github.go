package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-github/v57/github"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// apiTimeout bounds one question to GitHub.
const apiTimeout = 30 * time.Second

// hub asks GitHub. The library gives addresses; the files are fetched by
// package fetch, which can go on where it ended. It is made anew for every
// question: the library's download of an asset changes its HTTP client.
func (s *Store) hub(want Want) (*github.Client, error) {
	var h http.Client
	if s.Client != nil {
		h.Transport = s.Client.Transport
	} else {
		h.Transport = &http.Transport{DisableKeepAlives: true}
	}
	c := github.NewClient(&h)
	if want.API != "" {
		base, err := url.Parse(strings.TrimSuffix(want.API, "/") + "/")
		if err != nil {
			return nil, fmt.Errorf("the address of GitHub's API: %w", err)
		}
		c.BaseURL = base
	}
	if want.Token != "" {
		c = c.WithAuthToken(want.Token)
	}
	return c, nil
}

// ask puts one question to GitHub, again when it fails for a passing reason.
func (s *Store) ask(ctx context.Context, want Want, about string, do func(context.Context, *github.Client) error) error {
	client := s.fetcher(func(note string) { s.report(Report{Step: StepFetch, Source: about, Note: note}) })
	return client.Retry(ctx, func() error {
		c, err := s.hub(want)
		if err != nil {
			return backoff.Permanent(err)
		}
		ctx, cancel := context.WithTimeout(ctx, apiTimeout)
		defer cancel()
		return hubError(do(ctx, c))
	})
}

// hubError translates the library's errors: it puts whole URLs into them,
// which may be signed, and our retries decide by status.
func hubError(err error) error {
	var limit *github.RateLimitError
	var abuse *github.AbuseRateLimitError
	var answer *github.ErrorResponse
	var u *url.Error
	switch {
	case errors.As(err, &limit):
		return backoff.Permanent(fmt.Errorf("%w (%d questions an hour) until %s", errRateLimit, limit.Rate.Limit, limit.Rate.Reset.UTC().Format(time.TimeOnly)))
	case errors.As(err, &abuse):
		e := &fetch.StatusError{Status: http.StatusTooManyRequests}
		if abuse.RetryAfter != nil {
			e.Wait = *abuse.RetryAfter
		}
		return e
	case errors.As(err, &answer) && answer.Response != nil:
		return &fetch.StatusError{Status: answer.Response.StatusCode}
	case errors.As(err, &u):
		return u.Err
	}
	return err
}

// errRateLimit says that GitHub has answered enough.
var errRateLimit = errors.New("GitHub's rate limit is used up")

// hubFile is an asset or artifact. The library's own types have no digest.
type hubFile struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Digest  string `json:"digest"` // "sha256:..." since 2025, else ""
	Expired bool   `json:"expired"`
	State   string `json:"state"`
}

// sha256 is the file's digest, or "" when GitHub does not know it.
func (f hubFile) sha256() string {
	hash, ok := strings.CutPrefix(f.Digest, "sha256:")
	if !ok || !sha256Pattern.MatchString(hash) {
		return ""
	}
	return hash
}

// question is a GET request to GitHub whose answer is decoded into v.
func question(ctx context.Context, c *github.Client, path string, v any) (*github.Response, error) {
	req, err := c.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, req, v)
}

// obtainRelease obtains an asset of a release.
func (s *Store) obtainRelease(ctx context.Context, src Source, want Want) (Base, error) {
	r := remote{origin: src.String()}
	var asset hubFile
	find := func(ctx context.Context) (err error) {
		if asset.ID == 0 {
			asset, err = s.findAsset(ctx, src, want)
		}
		return err
	}
	r.places = []place{{name: r.origin, signed: true, locate: func(ctx context.Context) (fetch.Location, error) {
		if err := find(ctx); err != nil {
			return fetch.Location{}, backoff.Permanent(err)
		}
		return s.locateAsset(ctx, src, asset.ID, want)
	}}}
	r.findHash = func(ctx context.Context, e *expectation) error {
		if err := find(ctx); err != nil {
			return err
		}
		if asset.sha256() == "" {
			return fmt.Errorf("%w: GitHub knows no digest of this asset", ErrNoList)
		}
		e.sums, e.how, e.detail = sums{sha256: asset.sha256()}, Published, "GitHub's digest of the asset"
		return nil
	}
	return s.obtainRemote(ctx, r, want)
}

// findAsset finds the asset in its release.
func (s *Store) findAsset(ctx context.Context, src Source, want Want) (hubFile, error) {
	var release struct {
		Assets []hubFile `json:"assets"`
	}
	tag := (&url.URL{Path: src.Tag}).EscapedPath()
	err := s.ask(ctx, want, src.String(), func(ctx context.Context, c *github.Client) error {
		_, err := question(ctx, c, "repos/"+src.Owner+"/"+src.Repo+"/releases/tags/"+tag, &release)
		return err
	})
	if err != nil {
		return hubFile{}, notFound(err, fmt.Sprintf("there is no release %s in %s/%s, or the token may not see it", src.Tag, src.Owner, src.Repo))
	}
	var names []string
	for _, a := range release.Assets {
		if a.Name == src.Asset && (a.State == "" || a.State == "uploaded") {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return hubFile{}, &Error{Op: "looking for", Source: src.String(), Err: errors.New("the release has no such asset"), Hint: "it has " + list(names)}
}

// locateAsset finds out where an asset can be fetched right now.
func (s *Store) locateAsset(ctx context.Context, src Source, id int64, want Want) (fetch.Location, error) {
	c, err := s.hub(want)
	if err != nil {
		return fetch.Location{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	body, address, err := c.Repositories.DownloadReleaseAsset(ctx, src.Owner, src.Repo, id, nil)
	if err != nil {
		return fetch.Location{}, hubError(err)
	}
	if address != "" {
		return fetch.Location{URL: address}, nil
	}
	// This server sends the file itself, to who asks like the library does.
	_ = body.Close() // it is asked for again, from where we are
	header := http.Header{"Accept": {"application/octet-stream"}}
	if want.Token != "" {
		header.Set("Authorization", "Bearer "+want.Token)
	}
	return fetch.Location{URL: fmt.Sprintf("%srepos/%s/%s/releases/assets/%d", c.BaseURL, src.Owner, src.Repo, id), Header: header}, nil
}

// obtainArtifact obtains the one disk image in an artifact of this run. The
// artifact was made by this run and comes from GitHub over https: also without
// a digest it needs no other proof.
func (s *Store) obtainArtifact(ctx context.Context, src Source, want Want) (Base, error) {
	owner, repo, ok := strings.Cut(want.Run.Repository, "/")
	if !ok {
		return Base{}, fmt.Errorf("%q is not a repository: it is written owner/name", want.Run.Repository)
	}
	r := remote{origin: fmt.Sprintf("%s of run %d", src, want.Run.ID), zipped: true}
	artifact, err := s.findArtifact(ctx, src, want)
	if err != nil {
		return Base{}, err
	}
	r.version, r.zipHash = fmt.Sprint(artifact.ID), artifact.sha256()
	r.places = []place{{name: fmt.Sprintf("%s/%s artifact %d", owner, repo, artifact.ID), signed: true, locate: func(ctx context.Context) (fetch.Location, error) {
		c, err := s.hub(want)
		if err != nil {
			return fetch.Location{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, apiTimeout)
		defer cancel()
		address, _, err := c.Actions.DownloadArtifact(ctx, owner, repo, artifact.ID, 1)
		if err != nil {
			return fetch.Location{}, hubError(err)
		}
		return fetch.Location{URL: address.String()}, nil
	}}}
	b, err := s.obtainRemote(ctx, r, want)
	if err == nil && b.Verified.How == Nothing {
		b.Verified = Verification{How: Published, Detail: "GitHub's artifact of this run"}
	}
	return b, err
}

// findArtifact finds the newest artifact of a name in the run.
func (s *Store) findArtifact(ctx context.Context, src Source, want Want) (hubFile, error) {
	var all []hubFile
	path := fmt.Sprintf("repos/%s/actions/runs/%d/artifacts?per_page=100", want.Run.Repository, want.Run.ID)
	for page := 1; page > 0; {
		var found struct {
			Artifacts []hubFile `json:"artifacts"`
		}
		next := 0
		err := s.ask(ctx, want, src.String(), func(ctx context.Context, c *github.Client) error {
			resp, err := question(ctx, c, fmt.Sprintf("%s&page=%d", path, page), &found)
			if err == nil {
				next = resp.NextPage
			}
			return err
		})
		if err != nil {
			return hubFile{}, notFound(err, fmt.Sprintf("there is no run %d in %s, or the token may not see it (it needs actions: read)", want.Run.ID, want.Run.Repository))
		}
		all, page = append(all, found.Artifacts...), next
	}
	var newest hubFile
	var names []string
	for _, a := range all {
		if a.Name == src.Name && a.ID > newest.ID {
			newest = a
		}
		if !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	switch {
	case newest.ID == 0:
		return hubFile{}, &Error{Op: "looking for", Source: src.String(), Err: fmt.Errorf("run %d has no such artifact", want.Run.ID),
			Hint: "it has " + list(names) + "; the job that uploads it must be in needs:"}
	case newest.Expired:
		return hubFile{}, &Error{Op: "looking for", Source: src.String(), Err: errors.New("the artifact has expired"), Hint: "run the job that uploads it again"}
	}
	return newest, nil
}

// notFound says what a 404 of the API means; other errors stay.
func notFound(err error, means string) error {
	var status *fetch.StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return fmt.Errorf("%s (%w)", means, err)
	}
	return fmt.Errorf("asking GitHub: %w", err)
}

func list(names []string) string {
	const shown = 10
	switch {
	case len(names) == 0:
		return "none at all"
	case len(names) > shown:
		return strings.Join(names[:shown], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
