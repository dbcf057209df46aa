package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// ErrSignature is wrapped by the errors about a signature that does not prove
// what it should.
var ErrSignature = errors.New("the signature does not verify the file")

// maxKey bounds a key or signature.
const maxKey = 1 << 20

// signer checks the detached OpenPGP signature of a file.
type signer struct {
	keys      openpgp.EntityList
	signature []byte // binary
	id        string // stands for this signature by these keys
}

// String names the keys by their fingerprints.
func (s *signer) String() string {
	var names []string
	for _, k := range s.keys {
		names = append(names, strings.ToUpper(hex.EncodeToString(k.PrimaryKey.Fingerprint)))
	}
	return "OpenPGP key " + strings.Join(names, ", ")
}

// signer reads the wanted signature and key, or returns nil when there is none.
func (s *Store) signer(ctx context.Context, want Want) (*signer, error) {
	if want.Signature == "" {
		return nil, nil
	}
	keyText, err := textOrFile(want.Key)
	if err != nil {
		return nil, fmt.Errorf("reading image-key: %w", err)
	}
	var signature []byte
	if strings.HasPrefix(want.Signature, "https://") {
		signature, err = s.fetcher(nil).Get(ctx, want.Signature, maxKey)
		if err != nil {
			err = fmt.Errorf("%s: %w", printable(want.Signature), err)
		}
	} else {
		signature, err = textOrFile(want.Signature)
	}
	if err != nil {
		return nil, fmt.Errorf("reading image-signature: %w", err)
	}
	return newSigner(keyText, signature)
}

func newSigner(keyText, signature []byte) (*signer, error) {
	keyText, err := dearmor(keyText, openpgp.PublicKeyType)
	if err != nil {
		return nil, fmt.Errorf("reading image-key: %w", err)
	}
	if signature, err = dearmor(signature, openpgp.SignatureType); err != nil {
		return nil, fmt.Errorf("reading image-signature: %w", err)
	}
	keys, err := openpgp.ReadKeyRing(bytes.NewReader(keyText))
	if err != nil {
		return nil, fmt.Errorf("image-key is no OpenPGP public key: %w", err)
	}
	sum := sha256.Sum256(append(append([]byte(nil), keyText...), signature...))
	return &signer{keys: keys, signature: signature, id: hex.EncodeToString(sum[:])}, nil
}

// textOrFile gives an armoured text as it is, and reads anything else as a file.
func textOrFile(value string) ([]byte, error) {
	if strings.HasPrefix(strings.TrimSpace(value), "-----BEGIN PGP") {
		return []byte(value), nil
	}
	f, err := os.Open(value)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(f, maxKey))
}

// dearmor makes armoured text binary; what is binary stays as it is.
func dearmor(data []byte, kind string) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP")) {
		return data, nil
	}
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the armour is damaged: %w", err)
	}
	if block.Type != kind {
		return nil, fmt.Errorf("it is a %s, not a %s", block.Type, kind)
	}
	binary, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, fmt.Errorf("the armour is damaged: %w", err)
	}
	return binary, nil
}

// begin starts a check of what will be written to the returned writer; finish
// ends it and gives the verdict.
func (s *signer) begin() (w io.Writer, finish func() error) {
	r, p := io.Pipe()
	verdict := make(chan error, 1)
	go func() {
		_, err := openpgp.CheckDetachedSignature(s.keys, r, bytes.NewReader(s.signature), nil)
		// Without the right key nothing was read; the rest of the file is
		// still to be written here.
		_, _ = io.Copy(io.Discard, r)
		verdict <- err
	}()
	return p, func() error {
		_ = p.Close() // never fails
		if err := <-verdict; err != nil {
			return fmt.Errorf("%w: %w (%s)", ErrSignature, err, s)
		}
		return nil
	}
}
