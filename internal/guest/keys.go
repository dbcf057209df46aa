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

// Private is the private half, to be put into the guest when it is a host key.
func (k Key) Private() ed25519.PrivateKey { return k.private }

// AuthorizedKey is the public half as a line of authorized_keys or of a .pub
// file, with its line end.
func (k Key) AuthorizedKey() []byte {
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(k.Public()), []byte("\n"))
	if k.comment != "" {
		line = append(append(line, ' '), k.comment...)
	}
	return append(line, '\n')
}
