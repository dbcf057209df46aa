package image

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// newKey makes a key that was made on a day, and is good for a lifetime from then.
func newKey(t *testing.T, made time.Time, lifetime time.Duration) *openpgp.Entity {
	t.Helper()
	config := &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return made }, KeyLifetimeSecs: uint32(lifetime.Seconds()),
	}
	k, err := openpgp.NewEntity("Publisher", "", "publisher@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, k *openpgp.Entity) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(k.Serialize(w), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func sign(t *testing.T, k *openpgp.Entity, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	made := k.PrimaryKey.CreationTime
	if err := openpgp.ArmoredDetachSign(&b, k, bytes.NewReader(data), &packet.Config{Time: func() time.Time { return made }}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSignature(t *testing.T) {
	data := rawDisk(1 << 20)
	packed := tarGz(t, "disk.img", data)
	now := time.Now().Add(-time.Hour)
	key, other, expired := newKey(t, now, 0), newKey(t, now, 0), newKey(t, now.AddDate(-1, 0, 0), 24*time.Hour)
	good := sign(t, key, packed)
	for _, tc := range []struct {
		name           string
		signature, key string
		err            error
		says           string
	}{
		{"good", good, public(t, key), nil, ""},
		{"of another file", sign(t, key, data), public(t, key), ErrSignature, "signature"},
		{"by another key", sign(t, other, packed), public(t, key), ErrSignature, "signature made by unknown entity"},
		{"by an expired key", sign(t, expired, packed), public(t, expired), ErrSignature, "expired"},
		{"the two exchanged", public(t, key), good, nil, "it is a PGP SIGNATURE, not a PGP PUBLIC KEY BLOCK"},
		{"damaged armour", good[:60], public(t, key), nil, "reading image-signature: the armour is damaged"},
		{"no key in it", good, filepath.Join(t.TempDir(), "none"), nil, "reading image-key: open "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			web := newSite(t, httptest.NewTLSServer)
			web.files["/disk.tar.gz"] = packed
			s := web.store(t)
			src, want := mustParse(t, web.URL+"/disk.tar.gz"), Want{Verify: VerifyPinned, Signature: tc.signature, Key: tc.key}
			b, err := s.Obtain(t.Context(), src, want)
			if tc.says != "" {
				if err == nil || tc.err != nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("error %v, want %v with %q", err, tc.err, tc.says)
				}
				return
			}
			if err != nil || b.Verified.How != Signed || !strings.HasPrefix(b.Verified.Detail, "OpenPGP key ") {
				t.Fatalf("base %+v, %v", b, err)
			}
			web.requests()
			again := mustObtain(t, s, src.String(), want)
			if !again.Reused || again.Verified != b.Verified || web.requests() != "" {
				t.Errorf("again: %+v", again)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignatureFromElsewhere takes signature and key from files and an address,
// binary and armoured, for local files too.
func TestSignatureFromElsewhere(t *testing.T) {
	data := rawDisk(1 << 20)
	key := newKey(t, time.Now().Add(-time.Hour), 0)
	var binary, keyring bytes.Buffer
	if err := errors.Join(openpgp.DetachSign(&binary, key, bytes.NewReader(data), nil), key.Serialize(&keyring)); err != nil {
		t.Fatal(err)
	}
	web := newSite(t, httptest.NewTLSServer)
	web.files["/disk.img.sig"] = binary.Bytes()
	web.files["/disk.img"] = data
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sigFile, keyFile, local := file("sig", binary.Bytes()), file("key", keyring.Bytes()), file("disk.img", data)
	wrong := file("wrong.img", rawDisk(2<<20))
	s := web.store(t)
	for _, src := range []string{web.URL + "/disk.img", local} {
		for _, sig := range []string{web.URL + "/disk.img.sig?token=secret", sigFile, sign(t, key, data)} {
			if b := mustObtain(t, s, src, Want{Signature: sig, Key: keyFile}); b.Verified.How != Signed {
				t.Errorf("%s with %.40s: %+v", src, sig, b)
			}
		}
	}
	if _, err := s.Obtain(t.Context(), mustParse(t, wrong), Want{Signature: sigFile, Key: keyFile}); !errors.Is(err, ErrSignature) {
		t.Errorf("a local file with a wrong signature: %v", err)
	}
	_, err := s.Obtain(t.Context(), mustParse(t, local), Want{Signature: web.URL + "/none?token=secret", Key: keyFile})
	if err == nil || !strings.Contains(err.Error(), "reading image-signature: "+web.URL+"/none: 404 Not Found") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a signature that is not there: %v", err)
	}
}
