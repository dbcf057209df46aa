package lifecycle

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/provision"
)

// keys are those of one run. Nothing is trusted on first use: whoever answers
// at the forwarded port must have one of the pinned keys.
type keys struct {
	signer ssh.Signer         // ours
	login  string             // the same as a line of authorized_keys
	host   ed25519.PrivateKey // the guest's, when we put it there
	pinned []ssh.PublicKey    // what the guest may show
	saver  *guest.Key         // lets whoever has the saved machine in, until its keys are replaced; nil: it is not saved
}

// makeKeys makes what the user did not give.
func (r *run) makeKeys() error {
	k := keys{signer: r.config.PrivateKey, pinned: r.config.HostKeys}
	if k.signer == nil {
		key, err := newKey("client")
		if err != nil {
			return err
		}
		k.signer = key.Signer()
	}
	k.login = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey()))) + " hurd-qemu-action"
	switch r.disk.manifest.Method {
	case provision.MethodExt2, provision.MethodNoCloud:
		host, err := newKey("host")
		if err != nil {
			return err
		}
		k.host, k.pinned = host.Private(), []ssh.PublicKey{host.Public()}
	}
	r.keys = k
	return nil
}

func newKey(comment string) (guest.Key, error) {
	key, err := guest.GenerateKey(comment)
	if err != nil {
		return key, fail(Internal, "No key could be made", err)
	}
	return key, nil
}

// makeSeed writes the seed disk for a guest that runs cloud-init. With keys that
// are already in the disk it still carries the user's data. Without cloud-init,
// and where our keys are not in the disk for it to leave alone, the data is
// carried out over SSH instead.
func (r *run) makeSeed() error {
	m := r.disk.manifest
	switch given := r.config.UserData+r.config.MetaData != ""; {
	case m.Method == provision.MethodNoCloud:
	case !given:
		return nil
	case m.Method != provision.MethodExt2 || m.Guest == nil || !m.Guest.CloudInit:
		return r.planUserData()
	}
	r.seed = filepath.Join(r.dir, "seed.iso")
	err := provision.Seed(r.seed, provision.SeedData{
		UserData: []byte(r.config.UserData), MetaData: []byte(r.config.MetaData), User: r.config.SSHUser,
		AuthorizedKeys: []string{r.keys.login}, HostKey: r.keys.host,
	})
	if err != nil {
		return fail(InputInvalid, "Invalid input", fmt.Errorf("user-data: %w", err))
	}
	return nil
}
