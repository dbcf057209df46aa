package provision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/units"
)

// edited are the places that Prepare may touch.
var edited = []string{
	"/root", "/root/.ssh", "/root/.ssh/authorized_keys", "/home/demo", "/home/demo/.ssh", "/home/demo/.ssh/authorized_keys",
	"/home/worker/.ssh", "/home/worker/.ssh/authorized_keys",
	"/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d", "/etc/ssh/sshd_config.d/00-hurd-qemu-action.conf",
	"/etc/ssh/hurd_qemu_action_ed25519_key", "/etc/ssh/ssh_host_ed25519_key", "/etc/dropbear", "/etc/dropbear/dropbear_ed25519_host_key",
	"/etc/shadow", "/etc/passwd", "/etc/inittab", "/boot/grub/grub.cfg",
	"/etc/apt/sources.list", "/etc/apt/apt.conf.d", "/etc/apt/apt.conf.d/00hurd-qemu-action",
}

// contents reads what is at the places, as files of an archive.
func contents(t *testing.T, image string, part ext2.Partition) map[string]string {
	t.Helper()
	root := openRoot(t, image, part)
	found := map[string]string{}
	for _, path := range edited {
		info, err := root.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Translator != 0 {
			t.Errorf("%s has a translator", path)
		}
		text := fmt.Sprintf("[%v %d:%d]\n", info.Mode, info.UID, info.GID)
		if info.Mode.IsRegular() {
			data, err := root.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text += readable(data)
		}
		found[path] = text
	}
	return found
}

// preparations are the golden cases: an image and options.
var preparations = map[string]struct {
	image   func(*testing.T) string
	options Options
}{
	"debian-amd64":     {func(t *testing.T) string { return standIn(t) }, Options{Console: true, AptSnapshot: "20260314T000000Z"}},
	"debian-i386-demo": {func(t *testing.T) string { return standIn(t, "--arch", "i386", "--logical") }, Options{User: "demo", Console: true}},
	"linux-no-include": {func(t *testing.T) string { return makeDisk(t, linuxTree()) }, Options{User: "worker", Console: true}},
	"hurd-dropbear": {func(t *testing.T) string {
		return makeDisk(t, files{
			"hurd/exec": elf32, "usr/sbin/dropbear": elf32, "etc/passwd": "root::0:0::/root:/bin/sh\n",
			"etc/default/dropbear": "# DROPBEAR_EXTRA_ARGS=-w\nDROPBEAR_EXTRA_ARGS='-w -p 22'\n", "etc/dropbear/dropbear_rsa_host_key": "stays",
			"root/.ssh/authorized_keys": "ssh-rsa AAAA of the image's owner",
			"boot/grub/grub.cfg":        "set timeout=5\nmenuentry GNU {\n\tmultiboot /boot/gnumach.gz root=device:hd0s1\n}\n",
		}, "-t", "ext2", "-o", "hurd", "-b", "4096")
	}, Options{Console: true}},
	"both-servers-no-console": {func(t *testing.T) string {
		return makeDisk(t, with(linuxTree(), files{"usr/sbin/dropbear": elf64}))
	}, Options{}},
	"sshd-without-config": {func(t *testing.T) string {
		tree := with(linuxTree(), files{"etc/ssh/ssh_host_ed25519_key": "the image's own"})
		delete(tree, "etc/ssh/sshd_config")
		return makeDisk(t, tree)
	}, Options{}},
}

func TestPrepareGolden(t *testing.T) {
	for name, tc := range preparations {
		t.Run(name, func(t *testing.T) {
			image := tc.image(t)
			guest, err := Inspect(t.Context(), image, Hints{})
			if err != nil {
				t.Fatal(err)
			}
			before := contents(t, image, guest.Root)
			p := mustPrepare(t, image, tc.options)
			after := contents(t, image, guest.Root)
			got := goldenPreparation(p, before, after)
			file := filepath.Join("testdata", "prepare", name+".txtar")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the result differs from %s:\n%s", file, diff)
			}
			again := mustPrepare(t, image, tc.options)
			if diff := cmp.Diff(after, contents(t, image, guest.Root)); diff != "" {
				t.Errorf("the second time changed files:\n%s", diff)
			}
			if len(again.Changes) > 0 {
				t.Errorf("the second time says %q", again.Changes)
			}
			again.Changes = p.Changes
			if diff := cmp.Diff(p, again); diff != "" {
				t.Errorf("the second time returns something else:\n%s", diff)
			}
		})
	}
}

// goldenPreparation writes what was changed, before and after.
func goldenPreparation(p Prepared, before, after map[string]string) []byte {
	a := &txtar.Archive{Comment: []byte(p.Guest.String() + "\n")}
	for _, c := range p.Changes {
		a.Comment = append(a.Comment, "changed: "+c+"\n"...)
	}
	for _, w := range p.Warnings {
		a.Comment = append(a.Comment, "warning: "+w+"\n"...)
	}
	for _, s := range p.Slots {
		a.Comment = append(a.Comment, fmt.Sprintf("slot: %s, %d bytes in %s\n", s.Name, s.Size, s.File)...)
	}
	for _, path := range edited {
		if before[path] == after[path] {
			continue
		}
		if before[path] != "" {
			a.Files = append(a.Files, txtar.File{Name: "before" + path, Data: []byte(before[path])})
		}
		a.Files = append(a.Files, txtar.File{Name: "after" + path, Data: []byte(after[path])})
	}
	return txtar.Format(a)
}

func TestPreparedIsJSON(t *testing.T) {
	image := makeDisk(t, linuxTree())
	p := mustPrepare(t, image, Options{})
	if p.Version != Version || len(p.Slots) != 2 {
		t.Errorf("%+v", p)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Prepared
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Error(diff)
	}
}

func TestPrepareRepairs(t *testing.T) {
	for name, tc := range map[string]struct {
		damage []string
		says   []string
	}{
		"not unmounted": {[]string{"ssv state 0"}, []string{"repaired the root file system, which was not unmounted cleanly"}},
		"clean but not": {[]string{"unlink /etc/hostname"}, []string{"repaired the root file system, which was marked clean but was not", "e2fsck: Unattached inode"}},
	} {
		t.Run(name, func(t *testing.T) {
			image := standIn(t)
			debugfs(t, image, debianGuest().Root, tc.damage...)
			p := mustPrepare(t, image, Options{})
			changes := strings.Join(p.Changes, "\n")
			for _, says := range tc.says {
				if !strings.Contains(changes, says) {
					t.Errorf("%q does not say %q", changes, says)
				}
			}
			if again := mustPrepare(t, image, Options{}); len(again.Changes) > 0 {
				t.Errorf("the second time says %q", again.Changes)
			}
		})
	}
}

func TestPrepareGrows(t *testing.T) {
	tools(t, "resize2fs")
	for _, args := range [][]string{nil, {"--logical"}} {
		image := standIn(t, args...)
		p := mustPrepare(t, image, Options{DiskSize: 500 * units.MiB})
		part := p.Guest.Root
		if part.Start+part.Size != 500*units.MiB || !strings.Contains(strings.Join(p.Changes, "\n"), "grew the root partition from 5") {
			t.Errorf("%v %q", part, p.Changes)
		}
		sb, err := openRoot(t, image, part).Superblock()
		if err != nil || sb.Size() != part.Size {
			t.Errorf("the file system has %s of %s, %v", sb.Size(), part.Size, err)
		}
		if again := mustPrepare(t, image, Options{DiskSize: 500 * units.MiB}); len(again.Changes) > 0 {
			t.Errorf("the second time says %q", again.Changes)
		}
	}
}

// TestPrepareKeepsKeys: what the image's owner let in stays let in, and the
// keys of a run go.
func TestPrepareKeepsKeys(t *testing.T) {
	image := makeDisk(t, with(linuxTree(), files{"root/.ssh/authorized_keys": "ssh-rsa AAAA owner\n"}))
	mustPrepare(t, image, Options{})
	filled, err := slack([]string{"ssh-ed25519 AAAA run"})
	if err != nil {
		t.Fatal(err)
	}
	name := "/root/.ssh/authorized_keys"
	edit(t, image, whole(t, image), func(b *ext2.Batch) error {
		return b.WriteFile(name, append(filled, "ssh-rsa AAAA owner\nssh-rsa BBBB added in the guest\n"...), ext2.Attr{Mode: 0o600})
	})
	p := mustPrepare(t, image, Options{})
	data, err := openRoot(t, image, whole(t, image)).ReadFile(name)
	if err != nil || bytes.Contains(data, []byte("AAAA run")) ||
		!bytes.HasSuffix(data, []byte("\nssh-rsa AAAA owner\nssh-rsa BBBB added in the guest\n")) || len(data) != slackSize+51 {
		t.Errorf("%d bytes: %s, %v", len(data), readable(data), err)
	}
	if len(p.Changes) != 1 {
		t.Errorf("%q", p.Changes)
	}
}

func TestPrepareHomeDirectories(t *testing.T) {
	tools(t, "debugfs")
	for name, tc := range map[string]struct {
		damage []string
		home   string // mode and owner afterwards
		says   string
	}{
		"writable for others": {[]string{"sif /home/worker mode 040777", "sif /home/worker uid 1000"}, "drwxr-xr-x 1000", "took from others the right to write to /home/worker"},
		"of a stranger":       {[]string{"sif /home/worker mode 040755", "sif /home/worker uid 77"}, "drwxr-xr-x 1000", "took from others the right"},
		"of root":             {[]string{"sif /home/worker uid 0"}, "drwxr-xr-x 0", ""},
		"missing":             {[]string{"rmdir /home/worker"}, "drwx------ 1000", "made /home/worker"},
	} {
		image := makeDisk(t, linuxTree())
		debugfs(t, image, whole(t, image), tc.damage...)
		p := mustPrepare(t, image, Options{User: "worker"})
		info, err := openRoot(t, image, whole(t, image)).Stat("/home/worker")
		if got := fmt.Sprintf("%v %d", info.Mode, info.UID); err != nil || got != tc.home {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if !strings.Contains(strings.Join(p.Changes, "\n"), tc.says) {
			t.Errorf("%s: %q does not say %q", name, p.Changes, tc.says)
		}
	}
}

func TestPrepareWarns(t *testing.T) {
	sshd := func(config string) files { return with(linuxTree(), files{"etc/ssh/sshd_config": config}) }
	for name, tc := range map[string]struct {
		tree files
		want string
	}{
		"no server":      {files{"etc/passwd": "root::0:0::/root:\n"}, "no SSH server was found in the image"},
		"no boot config": {files{"etc/passwd": "root::0:0::/root:\n"}, "no boot configuration was found in the root file system: the serial console may stay silent"},
		"syslinux":       {files{"etc/passwd": "root::0:0::/root:\n", "extlinux.conf": ""}, "/extlinux.conf belongs to syslinux, which is not edited"},
		"no kernel":      {with(linuxTree(), files{"boot/grub/grub.cfg": "menuentry x {\n chainloader +1\n}\n"}), `/boot/grub/grub.cfg: the default boot entry loads no kernel: entry "x" has no linux`},
		"not to be run":  {with(linuxTree(), files{"etc/ssh/sshd_not_to_be_run": ""}), "Debian's sshd will not start"},
		"allowed users":  {sshd("AllowUsers demo\n"), `/etc/ssh/sshd_config has "allowusers demo": it may keep root from logging in`},
		"another port":   {sshd("Port 2222\n"), "/etc/ssh/sshd_config says Port 2222: set ssh-port accordingly"},
		"odd names":      {with(sshd("Include /etc/ssh/sshd_config.d/*.conf\n"), files{"etc/ssh/sshd_config.d/0\n\x1b::error::.conf": ""}), "sshd reads /etc/ssh/sshd_config.d/0\ufffd\ufffd::error::.conf before"},
		"another first":  {with(sshd("Include /etc/ssh/sshd_config.d/*.conf\n"), files{"etc/ssh/sshd_config.d/00-a.conf": ""}), "sshd reads /etc/ssh/sshd_config.d/00-a.conf before our settings"},
		"locked":         {with(linuxTree(), files{"etc/shadow": "root:!:1::::::\n"}), "the password of root is locked"},
		"no archive":     {with(linuxTree(), files{"etc/apt/sources.list": "deb http://example.org/x ./\n"}), "no Debian archive was found in apt's sources"},
	} {
		o := Options{Console: true}
		if name == "no archive" {
			o.AptSnapshot = "20260314T000000Z"
		}
		p := mustPrepare(t, makeDisk(t, tc.tree), o)
		if !strings.Contains(strings.Join(p.Warnings, "\n"), tc.want) {
			t.Errorf("%s: %q does not say %q", name, p.Warnings, tc.want)
		}
	}
	if p := mustPrepare(t, makeDisk(t, linuxTree()), Options{Console: true}); len(p.Warnings) > 0 {
		t.Errorf("without a reason: %q", p.Warnings)
	}
}

func TestPrepareErrors(t *testing.T) {
	tools(t, "e2fsck")
	image := makeDisk(t, linuxTree())
	_, err := Prepare(t.Context(), image, Options{User: "demo"})
	var user *NoUserError
	if !errors.As(err, &user) || !strings.Contains(err.Error(), `preparing `+image+`: the image has no user "demo" that could log in: use one of root, worker`) {
		t.Errorf("unknown user: %v", err)
	}
	if _, err = Prepare(t.Context(), makeDisk(t, files{"home/": ""}), Options{}); !errors.Is(err, ErrNoRoot) {
		t.Errorf("no root: %v", err)
	}
	if _, err = Prepare(t.Context(), image, Options{AptSnapshot: "yesterday"}); err == nil || !strings.Contains(err.Error(), `"yesterday" is no moment of snapshot.debian.org`) {
		t.Errorf("a bad moment: %v", err)
	}
	odd := makeDisk(t, with(files{"root": "a file"}, files{"etc/passwd": "root::0:0::/root:\n"}))
	if _, err = Prepare(t.Context(), odd, Options{}); err == nil || !strings.Contains(err.Error(), "/root is the home directory of root, but it is no directory") {
		t.Errorf("a file as home: %v", err)
	}
}

// TestPrepareProves replaces tools by programs that claim success.
func TestPrepareProves(t *testing.T) {
	t.Run("debugfs", func(t *testing.T) {
		image := makeDisk(t, linuxTree())
		stubTool(t, "debugfs", "cat >/dev/null")
		var failed *ext2.EditError
		if _, err := Prepare(t.Context(), image, Options{}); !errors.As(err, &failed) {
			t.Errorf("%v", err)
		}
	})
	t.Run("e2fsck", func(t *testing.T) {
		image := makeDisk(t, linuxTree())
		stubTool(t, "e2fsck", `case $1 in -fn) echo "Inode 12 is odd"; exit 4;; esac; exec "$REAL" "$@"`)
		var failed *ext2.CheckError
		if _, err := Prepare(t.Context(), image, Options{}); !errors.As(err, &failed) {
			t.Errorf("%v", err)
		}
	})
}
