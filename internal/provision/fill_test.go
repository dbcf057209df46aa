package provision

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// overlayOn makes a throwaway overlay on a read-only image.
func overlayOn(t testing.TB, image string) string {
	t.Helper()
	if err := os.Chmod(image, 0o400); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "over lay.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", overlay)
	return overlay
}

// flattened is the image that a guest on the overlay sees.
func flattened(t testing.TB, overlay string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "flat.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, image)
	return image
}

func digest(t testing.TB, file string) [32]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// bothServers is an image with all kinds of slots, with blocks of 1 KiB, so
// that slots have several pieces.
func bothServers(t testing.TB) string {
	t.Helper()
	return makeDisk(t, with(linuxTree(), files{"usr/sbin/dropbear": elf64}))
}

func TestFill(t *testing.T) {
	tools(t, "qemu-img", "qemu-io", "e2fsck", "debugfs")
	for name, image := range map[string]string{"debian": standIn(t), "both": bothServers(t)} {
		t.Run(name, func(t *testing.T) {
			p := mustPrepare(t, image, Options{})
			before := digest(t, image)
			overlay := overlayOn(t, image)
			keys := runKeys()
			if err := Fill(t.Context(), overlay, p, keys); err != nil {
				t.Fatal(err)
			}
			if digest(t, image) != before {
				t.Error("the base was touched")
			}
			flat := flattened(t, overlay)
			root := openRoot(t, flat, p.Guest.Root)
			if err := root.Check(t.Context()); err != nil {
				t.Error(err)
			}
			for _, slot := range p.Slots {
				checkSlot(t, root, slot, keys)
			}
			if again := mustPrepare(t, flat, Options{}); len(again.Changes) != len(p.Slots) {
				t.Errorf("preparing the used disk: %q", again.Changes)
			}
			data, err := os.ReadFile(flat)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), "BEGIN OPENSSH PRIVATE KEY") {
				t.Error("preparing the used disk left the host key on it")
			}
		})
	}
}

func checkSlot(t *testing.T, root *ext2.FS, slot Slot, keys Keys) {
	t.Helper()
	data, err := root.ReadFile(slot.File)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(keys.Host.Public())
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	switch slot.Name {
	case SlotAuthorizedKeys:
		if !strings.Contains(string(data), "\n"+keys.Authorized[0]+"\n") {
			t.Errorf("authorized_keys: %s", readable(data))
		}
	case SlotOpenSSHKey:
		if got := tool(t, "ssh-keygen", "-y", "-f", file); strings.TrimSpace(got) != want+" hurd-qemu-action" {
			t.Errorf("ssh-keygen reads %s, want %s", got, want)
		}
	case SlotDropbearKey:
		if got := tool(t, "dropbearkey", "-y", "-f", file); !strings.Contains(got, want) {
			t.Errorf("dropbearkey reads %s, want %s", got, want)
		}
	}
}

// TestFillHidesKeys looks at what qemu-io is started with.
func TestFillHidesKeys(t *testing.T) {
	tools(t, "qemu-img", "qemu-io")
	image := bothServers(t)
	p := mustPrepare(t, image, Options{})
	overlay := overlayOn(t, image)
	log := filepath.Join(t.TempDir(), "log")
	stubTool(t, "qemu-io", `printf '%s\n' "$@" >`+log+`; env >>`+log+`; exec "$REAL" "$@"`)
	if err := Fill(t.Context(), overlay, p, runKeys()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.Contains(s, "write -s") || strings.Contains(s, "AAAAC3") || strings.Contains(s, "PRIVATE") {
		t.Errorf("qemu-io was started with\n%s", s)
	}
}

func TestFillErrors(t *testing.T) {
	tools(t, "qemu-img", "qemu-io")
	image := bothServers(t)
	p := mustPrepare(t, image, Options{})
	overlay := overlayOn(t, image)
	old, odd := p, p
	old.Version--
	odd.Slots = []Slot{{Name: SlotDropbearKey, Size: 82}}
	long := runKeys()
	long.Authorized = append(long.Authorized, strings.Repeat("x", 4000))
	broken := runKeys()
	broken.Authorized = []string{"a\nb"}
	for name, tc := range map[string]struct {
		p    Prepared
		keys Keys
		path string
		stub string
		is   error
		says string
	}{
		"another version": {p: old, keys: runKeys(), is: ErrOutdated, says: fmt.Sprintf("(%d, this is %d)", Version-1, Version)},
		"too many keys":   {p: p, keys: long, is: ErrKeysTooLong, says: "bytes more than the 4096 that there are"},
		"a line break":    {p: p, keys: broken, says: "an authorized key holds a line break"},
		"no host key":     {p: p, keys: Keys{}, says: "the host key is no ed25519 key"},
		"another size":    {p: odd, keys: runKeys(), says: "the dropbear host key has 83 bytes instead of 82"},
		"no overlay":      {p: p, keys: runKeys(), path: overlay + ".none", says: "No such file"},
		"not qcow2":       {p: p, keys: runKeys(), path: image, says: "qemu-io"},
		"writes nothing":  {p: p, keys: runKeys(), stub: `for a; do case $a in -c) ;; write*) ;; *) set -- "$@" "$a"; esac; shift; done; exit 0`, is: errReadBack},
		"writes garbage":  {p: p, keys: runKeys(), stub: `"$REAL" "$@" | sed 's/23 20 68/23 20 69/'`, is: errReadBack, says: "the bytes at"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.stub != "" {
				stubTool(t, "qemu-io", tc.stub)
			}
			path := overlay
			if tc.path != "" {
				path = tc.path
			}
			err := Fill(t.Context(), path, tc.p, tc.keys)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) ||
				!strings.HasPrefix(err.Error(), "filling "+path+": ") {
				t.Errorf("%v, want %v %q", err, tc.is, tc.says)
			}
			var failed *process.Error
			if tc.path != "" && !errors.As(err, &failed) {
				t.Errorf("%T", err)
			}
		})
	}
}

// TestHostKeySize: the room that Prepare leaves fits every key.
func TestHostKeySize(t *testing.T) {
	size, err := hostKeySize()
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := opensshKey(key)
		if err != nil || len(text) != size {
			t.Fatalf("%d bytes instead of %d, %v", len(text), size, err)
		}
		if block, rest := pem.Decode(text); block == nil || len(rest) > 0 {
			t.Fatalf("not PEM: %s", text)
		}
		if n := len(dropbearKey(key)); n != 83 {
			t.Fatalf("dropbear's key has %d bytes", n)
		}
	}
}

func TestSlack(t *testing.T) {
	for name, lines := range map[string][]string{"none": nil, "one": {"key"}, "two": {"key one", "key two"}} {
		room, err := slack(lines)
		if err != nil || len(room) != slackSize {
			t.Errorf("%s: %d bytes, %v", name, len(room), err)
		}
		for _, rest := range []string{"", "ssh-rsa AAAA\n", "# hurd-qemu-action: end\n"} {
			if got := withoutSlack(append(room, rest...)); string(got) != rest {
				t.Errorf("%s: %q is left of %q", name, got, rest)
			}
		}
	}
	for _, other := range []string{"", "ssh-rsa AAAA\n", slackBegin, "\n" + slackBegin + slackEnd} {
		if got := withoutSlack([]byte(other)); string(got) != other {
			t.Errorf("%q is left of %q", got, other)
		}
	}
}

func TestSplit(t *testing.T) {
	slot := Slot{Pieces: []ext2.Extent{{Offset: 4096, Length: 1024}, {Offset: 8192, Length: 100}}}
	data := []byte(strings.Repeat("a", 1024) + strings.Repeat("b", 100))
	writes := split(slot, data)
	if len(writes) != 2 || writes[0].offset != 4096 || writes[1].offset != 8192 ||
		string(writes[0].data) != string(data[:1024]) || string(writes[1].data) != string(data[1024:])+strings.Repeat("\x00", 412) {
		t.Errorf("%+v", writes)
	}
}

// BenchmarkDebianSize prepares and fills an image as large as Debian's: 4 GB,
// 60,000 files.
func BenchmarkDebianSize(b *testing.B) {
	tools(b, "qemu-img", "qemu-io")
	made := standIn(b, "--size", "4096", "--inodes", "60000")
	var p Prepared
	image := filepath.Join(b.TempDir(), "disk.raw")
	b.Run("Prepare", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			tool(b, "cp", "--sparse=always", made, image)
			b.StartTimer()
			var err error
			if p, err = Prepare(b.Context(), image, Options{Console: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Fill", func(b *testing.B) {
		overlay := overlayOn(b, image)
		b.ResetTimer()
		for range b.N {
			if err := Fill(b.Context(), overlay, p, runKeys()); err != nil {
				b.Fatal(err)
			}
		}
	})
	if p.Guest.Root.Size < 3*units.GiB {
		b.Errorf("the root has %s", p.Guest.Root.Size)
	}
}

// TestContents: what replaces the keys of a guest that runs is what Fill would
// have written, file by file.
func TestContents(t *testing.T) {
	tools(t, "qemu-img", "qemu-io", "e2fsck", "debugfs")
	image := bothServers(t)
	p := mustPrepare(t, image, Options{})
	overlay, keys := overlayOn(t, image), runKeys()
	if err := Fill(t.Context(), overlay, p, keys); err != nil {
		t.Fatal(err)
	}
	contents, err := Contents(p, keys)
	if err != nil || len(contents) != len(p.Slots) || len(contents) == 0 {
		t.Fatalf("%d contents for %d slots, %v", len(contents), len(p.Slots), err)
	}
	root := openRoot(t, flattened(t, overlay), p.Guest.Root)
	for i, c := range contents {
		got, err := root.ReadFile(c.File)
		if p.Slots[i].Name == SlotOpenSSHKey { // each encoding has random check bytes (PROTOCOL.key)
			got, c.Data = got[:20], c.Data[:20]
		}
		if err != nil || len(c.Data) == 0 || !strings.HasPrefix(string(got), string(c.Data)) {
			t.Errorf("%s begins with %.80q, want %.80q; %v", c.File, got, c.Data, err)
		}
	}
	keys.Host = nil
	if _, err := Contents(p, keys); err == nil || !strings.Contains(err.Error(), "writing keys: the host key is no ed25519 key") {
		t.Errorf("without a host key: %v", err)
	}
}
