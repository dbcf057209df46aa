package guest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestKeyOpenSSH reads the file back, and checks that its size does not depend
// on the key: it is written into a place of fixed size.
func TestKeyOpenSSH(t *testing.T) {
	size := 0
	for i := range 20 {
		k := mustKey(t, "root@guest")
		text, err := k.OpenSSH()
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && len(text) != size {
			t.Errorf("%d bytes, then %d", size, len(text))
		}
		size = len(text)
		signer, err := ParseSigner(text)
		if err != nil || !bytes.Equal(signer.PublicKey().Marshal(), k.Public().Marshal()) {
			t.Errorf("read back: %v", err)
		}
	}
	t.Logf("%d bytes", size)
}

// TestKeyTools has the programs that will read the files read them.
func TestKeyTools(t *testing.T) {
	k := mustKey(t, "a comment")
	private, err := k.OpenSSH()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"key": private, "key.pub": k.AuthorizedKey(), "db": k.Dropbear()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	public := strings.TrimSpace(string(k.AuthorizedKey()))
	t.Run("ssh-keygen", func(t *testing.T) {
		out, err := exec.Command(needed(t, "ssh-keygen"), "-y", "-f", filepath.Join(dir, "key")).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != public {
			t.Errorf("%v: %s\nwant %s", err, out, public)
		}
	})
	t.Run("dropbearkey", func(t *testing.T) {
		out, err := exec.Command(needed(t, "dropbearkey"), "-y", "-f", filepath.Join(dir, "db")).CombinedOutput()
		blob := strings.Fields(public)[1]
		if err != nil || !strings.Contains(string(out), blob) {
			t.Errorf("%v: %s\nwant %s", err, out, blob)
		}
	})
}

func TestKeyDropbear(t *testing.T) {
	k := mustKey(t, "")
	text := k.Dropbear()
	if len(text) != 4+11+4+64 || string(text[4:15]) != "ssh-ed25519" || binary.BigEndian.Uint32(text[15:]) != 64 {
		t.Fatalf("%q", text)
	}
	private := ed25519.PrivateKey(text[19:])
	want, ok := k.Public().(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)
	if !ok || !bytes.Equal(private[32:], want) || !bytes.Equal(ed25519.NewKeyFromSeed(private[:32]), private) {
		t.Error("another key")
	}
}

func TestKeyAuthorized(t *testing.T) {
	for comment, end := range map[string]string{"": "\n", "run 7": " run 7\n"} {
		k := mustKey(t, comment)
		line := string(k.AuthorizedKey())
		if !strings.HasPrefix(line, "ssh-ed25519 AAAA") || !strings.HasSuffix(line, end) || strings.Count(line, "\n") != 1 {
			t.Errorf("%q", line)
		}
	}
	if _, err := GenerateKey("a\nssh-rsa AAAA"); err == nil {
		t.Error("a comment with a line end was accepted")
	}
}

func TestParseHostKeys(t *testing.T) {
	k := mustKey(t, "x")
	line := strings.TrimSpace(string(k.AuthorizedKey()))
	for name, text := range map[string]string{
		"pub": line + "\n", "known_hosts": "[127.0.0.1]:2222 " + line, "comments": "# two\n\n" + line + "\r\n",
	} {
		keys, err := ParseHostKeys([]byte(text))
		if err != nil || len(keys) != 1 || !bytes.Equal(keys[0].Marshal(), k.Public().Marshal()) {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
	for text, want := range map[string]string{
		"":               "reading the host keys: there is none",
		line + "\nhello": `reading the host keys: line 2 is no public key (such as "ssh-ed25519 AAAA...")`,
	} {
		if _, err := ParseHostKeys([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestParseSignerKeepsSecrets checks that an error does not quote the key.
func TestParseSignerKeepsSecrets(t *testing.T) {
	k := mustKey(t, "x")
	text, err := k.OpenSSH()
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Replace(text, []byte("OPENSSH"), []byte("BROKEN"), 2)
	_, err = ParseSigner(broken)
	if err == nil || strings.Contains(fmt.Sprint(err), string(text[40:60])) {
		t.Errorf("err = %v", err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(k.private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseSigner(pem.EncodeToMemory(block))
	if err == nil || !strings.Contains(err.Error(), "protected by a passphrase") {
		t.Errorf("err = %v", err)
	}
}
