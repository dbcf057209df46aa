// Package results is a client of two services that GitHub gives to a running
// job: artifacts (protocol version 4) and the cache (protocol version 2). Both
// are Twirp over JSON at ACTIONS_RESULTS_URL, and hand out signed addresses of
// Azure block blobs that take or give the bytes.
//
// A container action has the address and the token in its environment, so
// that this program needs neither Node nor another action. Signed addresses
// and the token are secrets: neither gets into an error or a note, and the
// token is sent to nobody but the service.
//
// Sources: actions/toolkit, packages/artifact and packages/cache (the two
// services have no other description); Twirp v7, "Errors"; Azure Storage
// REST, "Put Block", "Put Block List" and "Get Blob".
package results

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The ends that a caller decides by. Errors wrap one of them, or are an
// *APIError, or those of the network and of files.
var (
	// ErrUnsupported says that whoever answers has no such service: GitHub
	// Enterprise Server, an old Gitea, or nothing that runs jobs.
	ErrUnsupported = errors.New("this server does not offer the service")
	// ErrExists says that the name or key is taken. Both are never overwritten.
	ErrExists = errors.New("exists already")
	// ErrMiss says that the cache has no entry for the keys.
	ErrMiss = errors.New("the cache has no such entry")
	// ErrReadOnly says that this job may not save to the cache.
	ErrReadOnly = errors.New("this job may not write to the cache")
	// ErrWriteOnly says that this job may not restore from the cache.
	ErrWriteOnly = errors.New("this job may not read from the cache")
	// ErrQuota says that the account's storage is used up.
	ErrQuota = errors.New("the storage quota of the account is used up")
	// ErrStalled says that a peer took or sent nothing for Service.Stall.
	ErrStalled = errors.New("nothing was sent or received for too long")
	// ErrChanged says that an entry was replaced while it was received.
	ErrChanged = errors.New("the entry was replaced on the server while it was received")
	// ErrRanges says that a peer does not send the parts of an entry that it is
	// asked for.
	ErrRanges = errors.New("the server does not give the ranges that it is asked for")
	// ErrTooLarge says that an entry is larger than the caller allows.
	ErrTooLarge = errors.New("larger than allowed")
)

// Service is where a job's services are and how patient we are with them. Its
// methods are safe for use by several goroutines.
type Service struct {
	URL   string // ACTIONS_RESULTS_URL; only its origin is used, as the toolkit does
	Token string // ACTIONS_RUNTIME_TOKEN

	Client *http.Client  // nil: the default transport, with connections enough for parallel transfers
	Stall  time.Duration // how long nothing may be sent or received; 0: 60 s
	Tries  int           // how often one request is made at most; 0: 5

	// MaxWait is the longest Retry-After that is waited for; 0: 2 min. A wait
	// that would outlast the context's deadline is not begun.
	MaxWait time.Duration
	Notify  func(note string) // told of every repetition; nil: nobody

	Sleep func(ctx context.Context, d time.Duration) error // nil: by the clock
	Now   func() time.Time                                 // nil: time.Now
}

const (
	defaultStall   = time.Minute
	defaultTries   = 5
	defaultMaxWait = 2 * time.Minute
)

// String keeps the token out of what %v prints.
func (s *Service) String() string { return "the services of the job" }

// origin is the scheme and host of the services.
func (s *Service) origin() (string, error) {
	if s.URL == "" {
		return "", fmt.Errorf("%w: ACTIONS_RESULTS_URL is not set", ErrUnsupported)
	}
	if s.Token == "" {
		return "", fmt.Errorf("%w: ACTIONS_RUNTIME_TOKEN is not set", ErrUnsupported)
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("ACTIONS_RESULTS_URL is no http address") // not shown: nobody knows what it is
	}
	if strings.ContainsFunc(s.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New("ACTIONS_RUNTIME_TOKEN is no token: it holds white space or characters outside ASCII")
	}
	return u.Scheme + "://" + u.Host, nil
}

// api is the HTTP client for the service itself. It follows no redirect: none
// is part of the protocol, and the token is for one host.
func (s *Service) api() *http.Client {
	h := s.client()
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return h
}

// blobs is the HTTP client for signed addresses.
func (s *Service) blobs() *http.Client {
	h := s.client()
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= 5:
			return errors.New("more than 5 redirects")
		case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
			return errors.New("the server redirects from https to http")
		}
		return nil
	}
	return h
}

// parallel transfers reuse their connections, which the default transport
// would close: it keeps two per host.
var transport = func() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = transfers
	t.DisableCompression = true // a blob is what it is
	return t
}()

func (s *Service) client() *http.Client {
	if s.Client == nil {
		return &http.Client{Transport: transport}
	}
	h := *s.Client
	return &h
}

func (s *Service) stall() time.Duration {
	if s.Stall > 0 {
		return s.Stall
	}
	return defaultStall
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Service) notify(format string, args ...any) {
	if s.Notify != nil {
		s.Notify(fmt.Sprintf(format, args...))
	}
}
