package guest

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// opensshKey is a key as OpenSSH's server reads it.
func opensshKey(t testing.TB, k Key) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(k.Private(), "")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// dropbearKey is a key as dropbear reads it.
func dropbearKey(k Key) []byte {
	return ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, k.Private()})
}

// TestKeyTools has ssh-keygen read both halves.
func TestKeyTools(t *testing.T) {
	k := mustKey(t, "a comment")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, opensshKey(t, k), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(needed(t, "ssh-keygen"), "-y", "-f", file).CombinedOutput()
	if want := ssh.MarshalAuthorizedKey(k.Public()); err != nil || !bytes.Equal(bytes.TrimSpace(out), bytes.TrimSpace(want)) {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
	if !bytes.Equal(k.Signer().PublicKey().Marshal(), k.Public().Marshal()) {
		t.Error("the signer has another key")
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
