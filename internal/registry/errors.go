package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// plain turns an error of the library into one without addresses, which may
// hold the secrets of an upload, and which says whether another try can help.
func plain(err error) error {
	var refused *errcode.ErrorResponse
	var busy *fetch.StatusError
	var u *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &busy):
		return busy
	case strings.Contains(err.Error(), "digest mismatch"): // the library has no name for it
		return forGood(fmt.Errorf("%w: the registry sent something else", ErrDigest))
	case errors.As(err, &refused):
		status := &fetch.StatusError{Status: refused.StatusCode}
		var words []string
		for _, e := range refused.Errors {
			words = append(words, line(strings.TrimSpace(e.Code+" "+e.Message)))
		}
		if len(words) == 0 {
			return status
		}
		return fmt.Errorf("%w: %s", status, strings.Join(words, "; "))
	case errors.Is(err, errdef.ErrNotFound):
		return &fetch.StatusError{Status: http.StatusNotFound}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &fetch.StatusError{Status: http.StatusUnauthorized}
	case errors.As(err, &u):
		return fmt.Errorf("asking the registry: %w", u.Err)
	}
	return err
}

// busy is a transport that makes errors of the answers that ask to wait: the
// library forgets for how long.
type busy struct{ http.RoundTripper }

func (b busy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, err
	}
	_ = resp.Body.Close() // what it says in addition is not needed
	return nil, &fetch.StatusError{Status: resp.StatusCode, Wait: fetch.RetryAfter(resp.Header.Get("Retry-After"), time.Now())}
}

// denied tells the answers that another login may change. Who may not see
// something is told that it is not there.
func denied(err error) bool {
	var status *fetch.StatusError
	return errors.As(err, &status) &&
		(status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden || status.Status == http.StatusNotFound)
}

// explained adds to a refusal what to do about it.
func explained(err error, ref Reference) error {
	var status *fetch.StatusError
	if err == nil || !errors.As(err, &status) || ref.URL != nil {
		return err
	}
	switch status.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		if ref.Repo.Registry == gitHubRegistry {
			return fmt.Errorf("%w (log in with docker login %s, or give the job's token the permission packages)", err, ref.Repo.Registry)
		}
		return fmt.Errorf("%w (log in with docker login %s)", err, ref.Repo.Registry)
	case http.StatusNotFound:
		return fmt.Errorf("%w (there is none, or it is not for everybody: log in with docker login %s)", err, ref.Repo.Registry)
	}
	return err
}

// lineLength bounds what a registry says in a message of ours.
const lineLength = 200

// line makes one printable line of a text that a stranger wrote.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if r := []rune(text); len(r) > lineLength {
		text = string(r[:lineLength]) + "..."
	}
	return text
}

// forGood marks an error that the next try would only repeat.
func forGood(err error) error {
	if err == nil {
		return nil
	}
	return backoff.Permanent(err)
}

// again does something with the waits of a fetch until it succeeds or fails for
// good. Each try ends when nothing was moved for the stall time, or for the time
// that the last call of touch has given.
func (c *Client) again(ctx context.Context, do func(ctx context.Context, touch func(next time.Duration)) error) error {
	err := c.fetcher().Retry(ctx, func() error {
		ctx, touch, stop := watched(ctx, c.stall())
		defer stop()
		err := plain(do(ctx, touch))
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		return err
	})
	var marked *backoff.PermanentError
	if errors.As(err, &marked) {
		return marked.Err
	}
	return err
}
