package snapshot

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

// whole is a manifest with files.
func whole() Manifest {
	m := testManifest(testKey())
	m.Format = Format
	sha, crc := strings.Repeat("ab", 32), strings.Repeat("cd", crcSize)
	m.Files = []File{
		{State, 1000, 900, sha, crc}, {RAM, m.Key.Memory, 4096, sha, crc}, {Disk, 200 << 10, 0, sha, crc},
	}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	m := whole()
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoded again it differs, %v:\n%s", err, cmp.Diff(string(data), string(again)))
	}
	got.Guest = m.Guest // differs in white space
	if d := cmp.Diff(&m, got); d != "" {
		t.Errorf("what was written was not read (-written +read):\n%s", d)
	}
	if got.Data() != 4996 {
		t.Errorf("Data() = %d", got.Data())
	}
}

func TestManifestCheck(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"no accelerator":      func(m *Manifest) { m.Key.Accel = "hvf" },
		"no QEMU":             func(m *Manifest) { m.Key.QEMU = "" },
		"no machine type":     func(m *Manifest) { m.Key.Machine = "" },
		"no disk":             func(m *Manifest) { m.Key.Disks = nil },
		"a file too few":      func(m *Manifest) { m.Files = m.Files[:2] },
		"a file twice":        func(m *Manifest) { m.Files[2] = m.Files[1] },
		"a name that leads":   func(m *Manifest) { m.Files[0].Name = "../state" },
		"an empty file":       func(m *Manifest) { m.Files[0].Size, m.Files[0].Data = 0, 0 },
		"a huge state":        func(m *Manifest) { m.Files[0].Size = maxState + 1 },
		"a huge memory":       func(m *Manifest) { m.Files[1].Size, m.Key.Memory = maxMemory+1, maxMemory+1 },
		"a huge disk":         func(m *Manifest) { m.Files[2].Size = maxDisk + 1 },
		"another memory":      func(m *Manifest) { m.Files[1].Size++ },
		"more data than size": func(m *Manifest) { m.Files[0].Data = m.Files[0].Size + 1 },
		"negative data":       func(m *Manifest) { m.Files[0].Data = -1 },
		"a short sum":         func(m *Manifest) { m.Files[0].SHA256 = "ab" },
		"a sum in capitals":   func(m *Manifest) { m.Files[0].CRC32C = strings.Repeat("AB", crcSize) },
	} {
		m := whole()
		change(&m)
		if err := m.check(); err == nil {
			t.Errorf("%s passes", name)
		}
		if _, err := m.encode(); err == nil {
			t.Errorf("%s is written", name)
		}
	}
	m := whole()
	m.Login.Private = strings.Repeat("x", maxManifest)
	if _, err := m.encode(); !errors.Is(err, ErrSize) {
		t.Errorf("a manifest that nobody would read: %v", err)
	}
}

func TestParseManifest(t *testing.T) {
	m := whole()
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, tc := range []struct {
		name, text string
		want       error
	}{
		{"nothing", "", ErrDamaged},
		{"cut", text[:len(text)/2], ErrDamaged},
		{"more", text + "{}", ErrDamaged},
		{"an unknown field", strings.Replace(text, `"action"`, `"reaction"`, 1), ErrDamaged},
		{"no key", `{"format": 1}`, ErrDamaged},
		{"too long", text + strings.Repeat(" ", maxManifest), ErrDamaged},
		{"the future", `{"format": 2, "unheard": "of"}`, ErrIncompatible},
	} {
		if _, err := ParseManifest([]byte(tc.text)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// FuzzParseManifest holds that what is accepted can exist, and is written back
// as something that is read as the same.
func FuzzParseManifest(f *testing.F) {
	m := whole()
	data, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1,"files":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		if m.Data() < 0 || m.Data() > maxState+maxMemory+maxDisk || m.file(RAM).Size != m.Key.Memory || m.Key.Memory > units.TiB {
			t.Fatalf("accepted: %+v", m)
		}
		if !validName(m.Key.String()) {
			t.Fatalf("a key that is no name: %q", m.Key)
		}
		again, err := m.encode()
		if err != nil {
			return // larger than it was, with all its escapes
		}
		back, err := ParseManifest(again)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if third, err := back.encode(); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("written twice it differs: %v", err)
		}
	})
}
