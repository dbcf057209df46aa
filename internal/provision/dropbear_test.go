package provision

import (
	"slices"
	"strings"
	"testing"
)

// hurdWithDropbear is a Hurd as it is built from upstream's sources: its own
// runsystem, dropbear, the kernel's drivers.
func hurdWithDropbear(more files) files {
	return with(files{
		"hurd/exec": elf32, "hurd/ext2fs.static": elf32, "bin/sh": elf32, "usr/sbin/dropbear": elf32,
		"etc/passwd":         "root::0:0::/root:/bin/sh\n",
		"boot/grub/grub.cfg": "set timeout=5\nmenuentry GNU {\n\tmultiboot /boot/gnumach.gz root=device:hd0s1\n}\n",
	}, more)
}

// TestDropbearKeyFile holds that our key goes where dropbear looks for its
// keys, into exactly one file, and that preparing again chooses the same.
func TestDropbearKeyFile(t *testing.T) {
	ed25519Key := string(appendString(nil, []byte("ssh-ed25519"))) + strings.Repeat("k", 68)
	for name, tc := range map[string]struct {
		more files
		file string
		warn string
	}{
		"the usual one": {files{"libexec/rc": "#!/bin/sh\n/usr/sbin/dropbear -E -R\necho rc: dropbear started\n"}, dropbearKeyFile, ""},
		"named in runsystem": {files{
			"libexec/runsystem.hurd": "dropbear -R -r /etc/keys/host\n", "etc/keys/host": "x",
		}, "/etc/keys/host", ""},
		"one of several, by its contents": {files{
			"etc/init.d/dropbear": "dropbear -r /k/rsa -r /k/two -r /k/three\n", "k/rsa": "r", "k/two": ed25519Key, "k/three": "t",
		}, "/k/two", ""},
		"one of several, by its name": {files{"etc/rc": "  dropbear -r /k/rsa -r /k/my_ed25519\n", "k/rsa": "r"}, "/k/my_ed25519", ""},
		"a comment":                   {files{"etc/rc": "# dropbear -r /k/rsa\ndropbearkey -t rsa -r /k/no\nls /etc/dropbear -r /k/never\n"}, dropbearKeyFile, ""},
		"an option against root":      {files{"etc/default/dropbear": "DROPBEAR_EXTRA_ARGS=\"-w -r /k/x\"\n"}, "/k/x", "with -w, which may refuse root"},
	} {
		t.Run(name, func(t *testing.T) {
			image := makeDisk(t, hurdWithDropbear(tc.more), "-t", "ext2", "-o", "hurd", "-b", "4096")
			for range 2 {
				p := mustPrepare(t, image, Options{Console: true})
				i := slices.IndexFunc(p.Slots, func(s Slot) bool { return s.Name == SlotDropbearKey })
				if i < 0 || p.Slots[i].File != tc.file || p.Slots[i].Size != 83 {
					t.Fatalf("slots = %+v, want %s", p.Slots, tc.file)
				}
				if got := strings.Join(p.Warnings, "\n"); (tc.warn == "") != !strings.Contains(got, "refuse root") || !strings.Contains(got, tc.warn) {
					t.Errorf("warnings %q, want %q", got, tc.warn)
				}
			}
		})
	}
}
