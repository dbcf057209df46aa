package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Login says who we are, for registries that ask.
type Login struct {
	User, Password string // for the registry that is asked; empty: what follows
	DockerConfig   string // path of docker's config.json; empty or not there: none
	GitHubToken    string // secret; for GitHub's registry alone; empty: none
}

// String keeps the secrets out of what %v prints.
func (Login) String() string { return "a login" }

// gitHubRegistry takes a token of GitHub as a password.
const gitHubRegistry = "ghcr.io"

// known is what is known for a registry without the token of GitHub; empty for nothing.
func (l Login) known(ctx context.Context, host string) (auth.Credential, error) {
	if l.Password != "" {
		return auth.Credential{Username: l.User, Password: l.Password}, nil
	}
	if _, err := os.Stat(l.DockerConfig); l.DockerConfig == "" || errors.Is(err, fs.ErrNotExist) {
		return auth.EmptyCredential, nil
	}
	store, err := credentials.NewStore(l.DockerConfig, credentials.StoreOptions{})
	if err == nil {
		var c auth.Credential
		if c, err = store.Get(ctx, credentials.ServerAddressFromHostname(host)); err == nil {
			return c, nil
		}
	}
	return auth.EmptyCredential, fmt.Errorf("looking for a login in %s: %w", l.DockerConfig, err)
}

// credentials lists what to try at a registry, in this order. Who only reads
// begins with nothing: most machines are public, and a token that may not read
// packages is refused where nobody is not.
func (l Login) credentials(ctx context.Context, host string, write bool) ([]auth.Credential, error) {
	first, err := l.known(ctx, host)
	if err != nil {
		return nil, err
	}
	token := auth.Credential{Username: "x-access-token", Password: l.GitHubToken}
	switch {
	case first != auth.EmptyCredential || l.GitHubToken == "" || host != gitHubRegistry:
		return []auth.Credential{first}, nil
	case write:
		return []auth.Credential{token}, nil
	}
	return []auth.Credential{first, token}, nil
}

// repository is the repository of a reference, asked with a credential.
func (c *Client) repository(ref Reference, credential auth.Credential) *remote.Repository {
	client := &auth.Client{
		Client: &http.Client{Transport: busy{c.transport()}}, Cache: auth.NewCache(),
		Credential: func(_ context.Context, host string) (auth.Credential, error) {
			if host != ref.Repo.Host() {
				return auth.EmptyCredential, nil
			}
			return credential, nil
		},
	}
	if isLoopback(ref.Repo.Registry) {
		client.BlockedRealmPrefixes = []netip.Prefix{} // its login is on this host, too
	}
	client.SetUserAgent("hurd-qemu-action")
	return &remote.Repository{Reference: ref.Repo, Client: client, PlainHTTP: c.PlainHTTP || isLoopback(ref.Repo.Registry)}
}
