package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// damage is something that can be wrong with a saved machine.
type damage struct {
	name string
	do   func(entry string) error
	says string // what the warning names
}

// damages is each part of an entry, and each way in which it can be wrong.
func damages() []damage {
	all := []damage{
		{"manifest, flipped", flip("manifest.json"), ""},
		{"manifest, cut", cut("manifest.json", 2), "its manifest"},
		{"manifest, empty", cut("manifest.json", 0), "its manifest"},
		{"manifest, other JSON", edit(func(m *map[string]any) error { *m = map[string]any{"a": 1}; return nil }), "its format"},
		{"manifest, other QEMU", edit(func(m *map[string]any) error { (*m)["key"].(map[string]any)["qemu"] = "6.0.0"; return nil }), "its manifest is that of"},
		{"manifest, missing", func(entry string) error { return os.Remove(filepath.Join(entry, "manifest.json")) }, "its manifest"},
		{"login", edit(otherLogin), ""},
		{"state that QEMU refuses", refusedState, "loading the saved machine"},
	}
	for _, name := range []string{snapshot.State, snapshot.RAM, snapshot.Disk} {
		all = append(all,
			damage{name + ", flipped", flip(name), "the contents of"},
			damage{name + ", cut", cut(name, 2), name + " has "},
			damage{name + ", empty", cut(name, 0), name + " has 0 bytes"},
		)
	}
	return all
}

// flip changes one byte in the middle of a file.
func flip(name string) func(string) error {
	return func(entry string) error {
		f, err := os.OpenFile(filepath.Join(entry, name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		var b [1]byte
		_, err = f.ReadAt(b[:], info.Size()/2)
		b[0] ^= 0x80
		_, writeErr := f.WriteAt(b[:], info.Size()/2)
		return errors.Join(err, writeErr, f.Close())
	}
}

// cut shortens a file to a part of its size; 0 empties it.
func cut(name string, part int64) func(string) error {
	return func(entry string) error {
		path := filepath.Join(entry, name)
		info, err := os.Stat(path)
		if err != nil || part == 0 {
			return errors.Join(err, os.Truncate(path, 0))
		}
		return os.Truncate(path, info.Size()/part)
	}
}

// edit changes the manifest, which stays one.
func edit(change func(*map[string]any) error) func(string) error {
	return func(entry string) error {
		path := filepath.Join(entry, "manifest.json")
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		if err := change(&m); err != nil {
			return err
		}
		if data, err = json.Marshal(m); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	}
}

// otherLogin gives the manifest a key that the guest does not know.
func otherLogin(m *map[string]any) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return err
	}
	(*m)["login"].(map[string]any)["private"] = string(pem.EncodeToMemory(block))
	return nil
}

// refusedState is a state with right sums that is none.
func refusedState(entry string) error {
	path := filepath.Join(entry, snapshot.State)
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no migration stream\n", 1000)), 0o600); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sums, err := snapshot.Sum(context.Background(), f)
	if err != nil {
		return err
	}
	return edit(func(m *map[string]any) error {
		(*m)["files"].([]any)[0] = snapshot.File{
			Name: snapshot.State, Size: units.Bytes(info.Size()), Data: sums.Data, SHA256: sums.SHA256, CRC32C: sums.CRC32C,
		}
		return nil
	})(entry)
}

// run runs with a damaged entry: the machine is booted, the result is
// right, the log says why, and the entry is gone.
func (d damage) run(t *testing.T) {
	cache, entry := saved(t)
	for _, name := range []string{"manifest.json", snapshot.State, snapshot.RAM, snapshot.Disk} {
		unlink(t, filepath.Join(entry, name))
	}
	if err := d.do(entry); err != nil {
		t.Fatal(err)
	}
	p := warmRun(t, cache, "cat /root/prepared; wc -l </root/times", "INPUT_SNAPSHOT=restore")
	out := p.ends("failed")
	if out["prepare-hit"] != "false" {
		t.Errorf("prepare-hit=%s", out["prepare-hit"])
	}
	log := p.stdout.String()
	has(t, "the log", log, "\nkept\n1\n")
	warning := regexp.MustCompile(`(?m)^::warning title=The saved machine .*$`).FindAllString(log, -1)
	if len(warning) != 1 || !strings.Contains(warning[0], d.says) || !strings.Contains(warning[0], "the machine is booted") {
		t.Errorf("warnings %q, want one with %q", warning, d.says)
	}
	t.Logf("%q", warning)
	if left := inStore(t, cache); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
	if took := regexp.MustCompile(`(?m)^Restore: (?:failed after )?([0-9.]+) s`).FindStringSubmatch(log); took != nil {
		s, err := strconv.ParseFloat(took[1], 64)
		t.Logf("the restore took %s s", took[1])
		if err != nil || s > 5+restoreSlack {
			t.Errorf("the restore took %s s", took[1])
		}
	}
}

// restoreSlack is for hosts that are busy: the program does not count the time
// for which QEMU had no processor.
const restoreSlack = 15

// TestE2EWarmDamaged has one entry of each way in which a saved machine fails:
// found in the manifest, by its sums, by QEMU, and by nobody but the guest.
func TestE2EWarmDamaged(t *testing.T) {
	needGuest(t)
	for _, d := range damages() {
		switch d.name {
		case "manifest, flipped", "ram, flipped", "state that QEMU refuses", "login":
			t.Run(d.name, d.run)
		}
	}
}
