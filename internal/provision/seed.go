package provision

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"gopkg.in/yaml.v3"
)

// SeedData is what goes onto a NoCloud seed disk.
type SeedData struct {
	// UserData is the user's: a cloud-config, into which our keys are merged,
	// or anything else that cloud-init takes, beside which they are put. Empty for none.
	UserData []byte
	// MetaData is the user's YAML; an instance-id is added when it has none.
	MetaData []byte
	User     string // who logs in over SSH; empty means root
	// AuthorizedKeys are lines of an authorized_keys file, without newlines.
	AuthorizedKeys []string
	HostKey        ed25519.PrivateKey
}

// Seed writes a NoCloud seed disk: an ISO 9660 image with the volume id cidata
// that holds user-data and meta-data. cloud-init takes the keys from it at the
// guest's first boot with this instance-id. The file has mode 0600, since it holds the host key.
func Seed(path string, data SeedData) error {
	if err := seed(path, data); err != nil {
		return fmt.Errorf("making the seed disk %s: %w", path, err)
	}
	return nil
}

func seed(path string, data SeedData) error {
	if len(data.HostKey) != ed25519.PrivateKeySize {
		return errors.New("the host key is no ed25519 key")
	}
	userData, err := mergeUserData(data)
	if err != nil {
		return err
	}
	metaData, err := mergeMetaData(data.MetaData)
	if err != nil {
		return err
	}
	image, err := isoImage(map[string][]byte{"user-data": userData, "meta-data": metaData})
	if err != nil {
		return err
	}
	return os.WriteFile(path, image, 0o600)
}

// mergeMetaData makes sure that there is an instance-id: cloud-init applies a
// seed once for each.
func mergeMetaData(user []byte) ([]byte, error) {
	doc, err := yamlMapping(user)
	if err != nil {
		return nil, fmt.Errorf("reading meta-data: %w", err)
	}
	if yamlGet(doc, "instance-id") == nil {
		id := make([]byte, 8)
		if _, err := rand.Read(id); err != nil {
			return nil, err
		}
		yamlSet(doc, "instance-id", yamlString("hurd-qemu-action-"+hex.EncodeToString(id)))
	}
	return yaml.Marshal(doc)
}

const cloudConfigMark = "#cloud-config"

func mergeUserData(data SeedData) ([]byte, error) {
	user := bytes.TrimPrefix(data.UserData, []byte("\xef\xbb\xbf"))
	first, _, _ := strings.Cut(string(user), "\n")
	isConfig := strings.TrimRight(first, " \t\r") == cloudConfigMark
	if len(bytes.TrimSpace(user)) != 0 && !isConfig {
		ours, err := cloudConfig(nil, data, true)
		if err != nil {
			return nil, err
		}
		return multipartMessage(user, ours)
	}
	return cloudConfig(user, data, false)
}

// cloudConfig merges our keys into a cloud-config; apart says that the result
// stands beside other user-data, whose lists it must add to.
func cloudConfig(user []byte, data SeedData, apart bool) ([]byte, error) {
	doc, err := yamlMapping(user)
	if err != nil {
		return nil, fmt.Errorf("reading user-data as cloud-config: %w", err)
	}
	private, err := opensshKey(data.HostKey)
	if err != nil {
		return nil, err
	}
	public, err := ssh.NewPublicKey(data.HostKey.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the host key: %w", err)
	}
	hostKeys := yamlGet(doc, "ssh_keys")
	if hostKeys == nil || hostKeys.Kind != yaml.MappingNode {
		hostKeys = &yaml.Node{Kind: yaml.MappingNode}
		yamlSet(doc, "ssh_keys", hostKeys)
	}
	yamlSet(hostKeys, "ed25519_private", yamlString(string(private)))
	yamlSet(hostKeys, "ed25519_public", yamlString(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))))
	if err := authorize(doc, data); err != nil {
		return nil, err
	}
	if apart {
		yamlSet(doc, "merge_how", mergeHow())
	}
	var out bytes.Buffer
	out.WriteString(cloudConfigMark + "\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(doc), enc.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// authorize lets the keys in: those of the top level go to the default user
// and, unless disable_root says no, to root; other users have their own.
func authorize(doc *yaml.Node, data SeedData) error {
	if data.User == "" || data.User == "root" {
		yamlSet(doc, "disable_root", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "false"})
		return yamlAppend(doc, "ssh_authorized_keys", data.AuthorizedKeys)
	}
	users := yamlGet(doc, "users")
	if users == nil {
		users = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{yamlString("default")}}
		yamlSet(doc, "users", users)
	}
	if users.Kind != yaml.SequenceNode {
		return errors.New("user-data: users is no list")
	}
	for _, u := range users.Content {
		if name := yamlGet(u, "name"); name != nil && name.Value == data.User {
			return yamlAppend(u, "ssh_authorized_keys", data.AuthorizedKeys)
		}
	}
	u := &yaml.Node{Kind: yaml.MappingNode}
	yamlSet(u, "name", yamlString(data.User))
	users.Content = append(users.Content, u)
	return yamlAppend(u, "ssh_authorized_keys", data.AuthorizedKeys)
}

// mergeHow makes cloud-init add our lists to those of other parts.
func mergeHow() *yaml.Node {
	var n yaml.Node
	err := n.Encode([]map[string]any{
		{"name": "list", "settings": []string{"append"}},
		{"name": "dict", "settings": []string{"no_replace", "recurse_list"}},
	})
	if err != nil {
		panic(err) // a constant
	}
	return &n
}
