package provision

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"gopkg.in/yaml.v3"

	"github.com/kdomanski/iso9660"
)

func seedData(userData string) SeedData {
	keys := runKeys()
	return SeedData{UserData: []byte(userData), AuthorizedKeys: keys.Authorized, HostKey: keys.Host}
}

// config parses a cloud-config as cloud-init would.
func config(t *testing.T, text []byte) map[string]any {
	t.Helper()
	if !bytes.HasPrefix(text, []byte("#cloud-config\n")) {
		t.Errorf("it begins with %.40q", text)
	}
	var m map[string]any
	if err := yaml.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// checkHostKey makes sure that a cloud-config brings our host key.
func checkHostKey(t *testing.T, m map[string]any) {
	t.Helper()
	keys, ok := m["ssh_keys"].(map[string]any)
	if !ok {
		t.Fatalf("no ssh_keys in %v", m)
	}
	signer, err := ssh.ParsePrivateKey([]byte(fmt.Sprint(keys["ed25519_private"])))
	if err != nil {
		t.Fatal(err)
	}
	if public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))); keys["ed25519_public"] != public {
		t.Errorf("public key %v, want %s", keys["ed25519_public"], public)
	}
	delete(m, "ssh_keys")
}

func TestCloudConfig(t *testing.T) {
	run := runKeys().Authorized[0]
	type list = []any
	type dict = map[string]any
	for name, tc := range map[string]struct {
		user, data string
		want       dict
	}{
		"empty":           {"", "", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"only the mark":   {"root", "#cloud-config\n", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"null":            {"root", "#cloud-config\n~\n", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"windows":         {"", "\xef\xbb\xbf#cloud-config\r\npackages: [a]\r\n", dict{"packages": list{"a"}, "disable_root": false, "ssh_authorized_keys": list{run}}},
		"others stay":     {"", "#cloud-config\npackages: [gcc, make]\nruncmd:\n- [ls, -l]\n- \"echo 'a: b'\"\n", dict{"packages": list{"gcc", "make"}, "runcmd": list{list{"ls", "-l"}, "echo 'a: b'"}, "disable_root": false, "ssh_authorized_keys": list{run}}},
		"keys are added":  {"", "#cloud-config\nssh_authorized_keys: [mine]\n", dict{"disable_root": false, "ssh_authorized_keys": list{"mine", run}}},
		"one key":         {"", "#cloud-config\nssh_authorized_keys: mine\n", dict{"disable_root": false, "ssh_authorized_keys": list{"mine", run}}},
		"no keys":         {"", "#cloud-config\nssh_authorized_keys:\n", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"root is enabled": {"", "#cloud-config\ndisable_root: true\n", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"host keys":       {"", "#cloud-config\nssh_keys: {rsa_private: x, ed25519_private: y}\n", dict{"disable_root": false, "ssh_authorized_keys": list{run}}},
		"a user":          {"demo", "", dict{"users": list{"default", dict{"name": "demo", "ssh_authorized_keys": list{run}}}}},
		"a known user":    {"demo", "#cloud-config\nusers:\n- name: other\n- {name: demo, shell: /bin/zsh, ssh_authorized_keys: [mine]}\n", dict{"users": list{dict{"name": "other"}, dict{"name": "demo", "shell": "/bin/zsh", "ssh_authorized_keys": list{"mine", run}}}}},
		"a user is added": {"demo", "#cloud-config\nusers: [default]\n", dict{"users": list{"default", dict{"name": "demo", "ssh_authorized_keys": list{run}}}}},
	} {
		data := seedData(tc.data)
		data.User = tc.user
		text, err := mergeUserData(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m := config(t, text)
		if keys, ok := m["ssh_keys"].(map[string]any); name == "host keys" && (!ok || keys["rsa_private"] != "x") {
			t.Errorf("%s: %v", name, m)
		}
		checkHostKey(t, m)
		if diff := cmp.Diff(tc.want, m); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// TestCloudConfigKeepsText: comments and the way things are written stay.
func TestCloudConfigKeepsText(t *testing.T) {
	const user = "#cloud-config\n# why\npackages: # these\n  - gcc # the compiler\nwrite_files:\n  - path: /etc/motd\n    content: |\n      hello\n        indented\n"
	text, err := mergeUserData(seedData(user))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(user, "#cloud-config\n# why\n"); !strings.HasPrefix(string(text), "#cloud-config\n"+want) {
		t.Errorf("%s", text)
	}
	if strings.Count(string(text), "#cloud-config") != 1 {
		t.Errorf("%s", text)
	}
}

func TestCloudConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct{ user, data, want string }{
		"not yaml":        {"", "#cloud-config\n{", "reading user-data as cloud-config: yaml: line"},
		"a list":          {"", "#cloud-config\n- a\n", "reading user-data as cloud-config: its top level is no mapping"},
		"keys as mapping": {"", "#cloud-config\nssh_authorized_keys: {a: b}\n", "user-data: ssh_authorized_keys is no list"},
		"users as text":   {"demo", "#cloud-config\nusers: all\n", "user-data: users is no list"},
		"half a message":  {"", "Content-Type text\n", ""},
		"a bad message":   {"", "Content-Type: text/plain\nno header\n\nx", "reading user-data as a MIME message: "},
	} {
		data := seedData(tc.data)
		data.User = tc.user
		_, err := mergeUserData(data)
		if (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// parts reads a MIME message as Python's email package would: type and content
// of each leaf.
func parts(t *testing.T, header mail.Header, body io.Reader) [][2]string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		if header.Get("Content-Transfer-Encoding") == "base64" {
			for line := range strings.Lines(string(data)) {
				if len(line) > 78 {
					t.Errorf("a line of %d bytes", len(line))
				}
			}
			if data, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(string(data), "\r\n", "")); err != nil {
				t.Fatal(err)
			}
		}
		return [][2]string{{kind, string(data)}}
	}
	var all [][2]string
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parts(t, mail.Header(p.Header), p)...)
	}
}

func TestOtherUserData(t *testing.T) {
	nested := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"XX\"\n\n--XX\nContent-Type: text/x-shellscript\n\n#!/bin/sh\necho one\n--XX\nContent-Type: text/cloud-config\n\n#cloud-config\npackages: [a]\n--XX--\n"
	for name, tc := range map[string]struct {
		data string
		want [][2]string
	}{
		"script":      {"#!/bin/sh\necho hello\n", [][2]string{{"text/x-shellscript", "#!/bin/sh\necho hello\n"}}},
		"long script": {"#!/bin/sh\n" + strings.Repeat("echo hello\n", 100), [][2]string{{"text/x-shellscript", "#!/bin/sh\n" + strings.Repeat("echo hello\n", 100)}}},
		"include":     {"#include\nhttps://example.org/x\n", [][2]string{{"text/x-include-url", "#include\nhttps://example.org/x\n"}}},
		"once":        {"#include-once\nhttps://example.org/x\n", [][2]string{{"text/x-include-once-url", "#include-once\nhttps://example.org/x\n"}}},
		"boothook":    {"#cloud-boothook\n#!/bin/sh\n", [][2]string{{"text/cloud-boothook", "#cloud-boothook\n#!/bin/sh\n"}}},
		"archive":     {"#cloud-config-archive\n- x\n", [][2]string{{"text/cloud-config-archive", "#cloud-config-archive\n- x\n"}}},
		"jinja":       {"## template: jinja\n#cloud-config\n", [][2]string{{"text/jinja2", "## template: jinja\n#cloud-config\n"}}},
		"gzip":        {"\x1f\x8b\x08\x00\xff", [][2]string{{"application/gzip", "\x1f\x8b\x08\x00\xff"}}},
		"text":        {"what is this?", [][2]string{{"text/plain", "what is this?"}}},
		"message":     {nested, [][2]string{{"text/x-shellscript", "#!/bin/sh\necho one"}, {"text/cloud-config", "#cloud-config\npackages: [a]"}}},
	} {
		text, err := mergeUserData(seedData(tc.data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := mail.ReadMessage(bytes.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := parts(t, m.Header, m.Body)
		ours := all[len(all)-1]
		if diff := cmp.Diff(tc.want, all[:len(all)-1]); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		c := config(t, []byte(ours[1]))
		checkHostKey(t, c)
		if ours[0] != "text/cloud-config" || c["merge_how"] == nil || fmt.Sprint(c["ssh_authorized_keys"]) != "["+runKeys().Authorized[0]+"]" {
			t.Errorf("%s: ours is %v", name, ours)
		}
	}
}

func TestMetaData(t *testing.T) {
	seen := map[string]bool{}
	for _, given := range []string{"", "local-hostname: box\n", "# only a comment\n"} {
		text, err := mergeMetaData([]byte(given))
		var m map[string]string
		if err := yaml.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		id := m["instance-id"]
		if err != nil || !strings.HasPrefix(id, "hurd-qemu-action-") || seen[id] || strings.Contains(given, "box") != (m["local-hostname"] == "box") {
			t.Errorf("%q became %q, %v", given, text, err)
		}
		seen[id] = true
	}
	if text, err := mergeMetaData([]byte("instance-id: mine\n")); err != nil || string(text) != "instance-id: mine\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := mergeMetaData([]byte("[")); err == nil || !strings.HasPrefix(err.Error(), "reading meta-data: ") {
		t.Errorf("%v", err)
	}
}

func TestSeed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seed.iso")
	if err := Seed(file, seedData("#cloud-config\nhostname: box\n")); err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(file)
	if err != nil || stat.Mode() != 0o600 {
		t.Errorf("%v, %v", stat.Mode(), err)
	}
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := readISO(t, image)
	m := config(t, []byte(found["user-data"]))
	if m["hostname"] != "box" || !strings.Contains(found["meta-data"], "instance-id: hurd-qemu-action-") || len(found) != 2 {
		t.Errorf("%q", found)
	}
	if out := tool(t, "blkid", "-p", "-o", "export", file); !strings.Contains(out, "LABEL=cidata\n") || !strings.Contains(out, "TYPE=iso9660\n") {
		t.Errorf("blkid says\n%s", out)
	}
	for name, data := range map[string]SeedData{"no host key": {}, "bad user-data": seedData("#cloud-config\n[")} {
		err := Seed(file+".new", data)
		if _, statErr := os.Stat(file + ".new"); err == nil || !strings.HasPrefix(err.Error(), "making the seed disk "+file+".new: ") || !os.IsNotExist(statErr) {
			t.Errorf("%s: %v, %v", name, err, statErr)
		}
	}
}

// readISO reads an image with the library, checking names and dates.
func readISO(t *testing.T, image []byte) map[string]string {
	t.Helper()
	iso, err := iso9660.OpenImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if label, err := iso.Label(); err != nil || strings.TrimSpace(label) != "cidata" {
		t.Errorf("volume %q, %v", label, err)
	}
	root, err := iso.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	children, err := root.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, c := range children {
		data, err := io.ReadAll(c.Reader())
		if err != nil {
			t.Fatal(err)
		}
		found[c.Name()] = string(data)
	}
	return found
}
