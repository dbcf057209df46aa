// Package guest is everything that is said to a guest over SSH: dialling until
// a command has run, running commands and scripts with exact endings, setting
// the clock, and bringing the system down.
//
// It relies on nothing in the guest but an SSH server (OpenSSH, dropbear), a
// POSIX shell and POSIX utilities. Whatever the guest sends is taken as hostile:
// it is bounded, and never run or interpreted here.
package guest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A Key is an Ed25519 key pair made for one run: the client's or the guest's
// host key.
type Key struct {
	private ed25519.PrivateKey
	signer  ssh.Signer
	comment string
}

// GenerateKey makes a key pair. The comment goes into its files; it may not
// hold a line end.
func GenerateKey(comment string) (Key, error) {
	if strings.ContainsAny(comment, "\r\n") {
		return Key{}, fmt.Errorf("generating a key: the comment %q holds a line end", comment)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("generating a key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("generating a key: %w", err)
	}
	return Key{private: private, signer: signer, comment: comment}, nil
}

// Signer signs with the private half.
func (k Key) Signer() ssh.Signer { return k.signer }

// Public is the public half, to be pinned.
func (k Key) Public() ssh.PublicKey { return k.signer.PublicKey() }

// OpenSSH is the private half as OpenSSH stores it (PROTOCOL.key, unencrypted,
// in PEM). Keys with comments of one length have files of one size.
func (k Key) OpenSSH() ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(k.private, k.comment)
	if err != nil {
		return nil, fmt.Errorf("writing a private key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// Dropbear is the private half as dropbear stores a host key: the SSH strings
// "ssh-ed25519" and the 64 bytes of seed and public key.
func (k Key) Dropbear() []byte {
	return ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, k.private})
}

// AuthorizedKey is the public half as a line of authorized_keys or of a .pub
// file, with its line end.
func (k Key) AuthorizedKey() []byte {
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(k.Public()), []byte("\n"))
	if k.comment != "" {
		line = append(append(line, ' '), k.comment...)
	}
	return append(line, '\n')
}

// ParseSigner reads a private key that a user gave: OpenSSH's format or PEM,
// without a passphrase.
func ParseSigner(text []byte) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, errors.New("reading the private key: it is protected by a passphrase; give one without")
	case err != nil:
		// The parser's own words could quote the key.
		return nil, errors.New("reading the private key: this is no private key in OpenSSH or PEM format (it begins with -----BEGIN)")
	}
	return signer, nil
}

// ParseHostKeys reads the public host keys that a guest may have: lines of a
// .pub, authorized_keys or known_hosts file. Empty lines and those that begin
// with # are skipped; there must be at least one key.
func ParseHostKeys(text []byte) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			_, _, key, _, _, err = ssh.ParseKnownHosts([]byte(line))
		}
		if err != nil {
			return nil, fmt.Errorf("reading the host keys: line %d is no public key (such as \"ssh-ed25519 AAAA...\")", n+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("reading the host keys: there is none")
	}
	return keys, nil
}
