// Package registry publishes packed saved machines and gets published ones: as
// artifacts of an OCI registry, or as files of a web server such as the assets
// of a release. What is fetched is named by a SHA-256 digest, which it must
// have; a registry's manifest tells what a machine is before it is fetched.
//
// Sources: OCI distribution specification v1.1 and image specification v1.1,
// "Guidelines for artifact usage".
package registry

import (
	"errors"
	"net/http"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// What a saved machine is in a registry: a manifest of this artifact type, with
// one layer, which is the packed entry.
const (
	ArtifactType = "application/vnd.hurd-qemu-action.snapshot.v1"
	LayerType    = "application/vnd.hurd-qemu-action.snapshot.packed.v1+zstd"
)

var (
	// ErrReference says that a text does not name a published machine.
	ErrReference = errors.New("not a published machine")
	// ErrUnpinned says that a reference has no digest, so that anything could be behind it.
	ErrUnpinned = errors.New("it has no digest")
	// ErrDigest says that what was received is not what the digest promised.
	ErrDigest = errors.New("what was received does not have the digest")
	// ErrKind says that a registry has something else there.
	ErrKind = errors.New("it is no saved machine")
	// ErrSize says that a published machine is larger than allowed.
	ErrSize = errors.New("the published machine is too large")
)

// Client talks to registries and web servers. The zero value is ready to use,
// and anonymous.
type Client struct {
	Transport http.RoundTripper // nil: one with the proxy of the environment
	Login     Login
	PlainHTTP bool // http for every registry, and not for those on this host alone

	Tries   int           // failures in a row that end it; 0: 4
	MaxWait time.Duration // the longest wait that a server may ask for; 0: 30 s
	Stall   time.Duration // how long nothing may arrive or be taken; 0: 30 s

	Notify func(note string)       // told of lost connections and waits; nil: nobody
	Moved  func(done, total int64) // told of bytes that were sent or received; nil: nobody
}

const (
	defaultTries   = 4
	defaultMaxWait = 30 * time.Second
	defaultStall   = 30 * time.Second

	// commitStall is how long a registry may take for an upload that is complete.
	commitStall = 5 * time.Minute
)

func (c *Client) transport() http.RoundTripper {
	if c.Transport != nil {
		return c.Transport
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, DisableCompression: true}
}

// fetcher receives files, and says how failures are met.
func (c *Client) fetcher() *fetch.Client {
	f := &fetch.Client{
		HTTP: &http.Client{Transport: c.transport()}, Tries: c.Tries, MaxWait: c.MaxWait, Stall: c.stall(),
		Notify: c.Notify, Received: c.Moved,
	}
	if f.Tries == 0 {
		f.Tries = defaultTries
	}
	if f.MaxWait == 0 {
		f.MaxWait = defaultMaxWait
	}
	return f
}

func (c *Client) stall() time.Duration {
	if c.Stall > 0 {
		return c.Stall
	}
	return defaultStall
}
