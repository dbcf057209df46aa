// Package fetch receives a file over HTTP so that a lost connection, a busy
// server or the end of the process costs as little as possible.
//
// A Stream is read like a file. What was received is also kept in a part file,
// from which a later process goes on; within a process a lost connection is
// made again where it ended. Ranges are only asked for together with the
// server's validator (RFC 9110, sections 13.1.5 and 14), so that the two
// halves are of the same file.
//
// URLs may be signed: their queries never get into an error.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// The reasons for which a file is not received. Errors wrap one of them, or
// are a *StatusError or those of the network and of the part file.
var (
	// ErrChanged says that the file was replaced while it was received. What
	// was read is worth nothing; a new Open begins with the new file.
	ErrChanged  = errors.New("the file was changed on the server while it was received")
	ErrNotFile  = errors.New("the server sent something else than the file")
	ErrStalled  = errors.New("nothing was received for too long")
	ErrCut      = errors.New("the connection ended too early")
	ErrLength   = errors.New("the server announced a length that the file does not have")
	ErrInsecure = errors.New("the server redirects from https to http")
)

// StatusError is an answer that is not the file.
type StatusError struct {
	Status int           // HTTP status
	Host   string        // who answered, when it is not who was asked
	Wait   time.Duration // how long the server wants us to wait; 0 when it did not say
}

// Error is "404 Not Found", with the host that a redirect led to.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Host != "" {
		text += " (from " + e.Host + ", to which the server redirects)"
	}
	if e.Wait > 0 {
		text += fmt.Sprintf(" (try again in %s)", e.Wait)
	}
	return text
}

// retryable tells the answers that may be others the next time.
func (e *StatusError) retryable() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Client fetches. The zero value is ready to use.
type Client struct {
	HTTP     *http.Client            // nil means one without a proxy
	Stall    time.Duration           // how long nothing may arrive; 0 means 30 s
	Tries    int                     // failures in a row without progress that end it; 0 means 6
	MaxWait  time.Duration           // the longest wait that a server may ask for; 0 means 5 min
	Notify   func(note string)       // told of lost connections and waits; nil for nobody
	Received func(done, total int64) // told of each arrival; total is -1 when not known; nil for nobody
}

const (
	defaultStall   = 30 * time.Second
	defaultTries   = 6
	defaultMaxWait = 5 * time.Minute

	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
	maxRedirect = 10
)

// Location is where a file is right now.
type Location struct {
	URL    string
	Header http.Header // to send along; nil for none
}

// Request names a file to receive.
type Request struct {
	Name string // in errors and notes; without queries or passwords

	// Locate is asked before every connection, because a signed URL expires.
	// It is asked again when it fails, unless the error is a backoff.Permanent.
	Locate func(ctx context.Context) (Location, error)
	Signed bool // the URL is signed: a refusal may be its age, and it is asked for again

	Part         string // path of the part file; what it holds is gone on with
	AllowHTTP    bool   // a redirect from https to http is followed: the contents are verified otherwise
	WithoutRange bool   // forget the part file and never ask for ranges: the server's are wrong

	// Immutable says that what the file holds follows from its name, as that of a
	// hash: what is left of an earlier download is gone on with also where the
	// server names no version.
	Immutable bool
}

// At is the Locate of an address that stays.
func At(address string, header http.Header) func(context.Context) (Location, error) {
	return func(context.Context) (Location, error) { return Location{URL: address, Header: header}, nil }
}

// Printable is an address without what may be a secret in it.
func Printable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that can't be read"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func (c *Client) stall() time.Duration {
	if c.Stall > 0 {
		return c.Stall
	}
	return defaultStall
}

func (c *Client) notify(format string, arg ...any) {
	if c.Notify != nil {
		c.Notify(fmt.Sprintf(format, arg...))
	}
}

// client is the HTTP client with our rules for redirects.
func (c *Client) client(allowHTTP bool) *http.Client {
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if c.HTTP != nil {
		h = *c.HTTP
	}
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= maxRedirect:
			return fmt.Errorf("more than %d redirects", maxRedirect)
		case via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !allowHTTP:
			return fmt.Errorf("%w (%s)", ErrInsecure, req.URL.Host)
		}
		return nil
	}
	return &h
}

// patience says how often and after what waits something is tried again.
type patience struct {
	c        *Client
	wait     *backoff.ExponentialBackOff
	failures int
}

func (c *Client) patience() *patience {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = firstWait, longestWait, 2, 0.25
	b.Reset()
	return &patience{c: c, wait: b}
}

// progress forgets the failures so far.
func (p *patience) progress() {
	p.failures = 0
	p.wait.Reset()
}

// after waits before the next try, or returns the error that ends trying.
func (p *patience) after(ctx context.Context, failure error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	tries, longest := p.c.Tries, p.c.MaxWait
	if tries == 0 {
		tries = defaultTries
	}
	if longest == 0 {
		longest = defaultMaxWait
	}
	if p.failures++; p.failures >= tries {
		return fmt.Errorf("%w (%d times in a row)", failure, p.failures)
	}
	wait := p.wait.NextBackOff().Round(time.Millisecond)
	var status *StatusError
	if errors.As(failure, &status) && status.Wait > 0 {
		if status.Wait > longest {
			return failure
		}
		wait = status.Wait
	}
	p.c.notify("%v; trying again in %s", failure, wait.Round(100*time.Millisecond))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// permanent tells errors that the next try would only repeat.
func permanent(err error) bool {
	var status *StatusError
	var final *backoff.PermanentError
	switch {
	case errors.As(err, &final):
		return true
	case errors.As(err, &status):
		return !status.retryable()
	}
	for _, final := range []error{ErrChanged, ErrNotFile, ErrLength, ErrInsecure} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// plainError is a network error without the URL that net/http puts into it,
// and with a name for an end that came too early.
func plainError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCut
	}
	return err
}
