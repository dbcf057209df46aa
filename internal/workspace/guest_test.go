package workspace

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// guestUUID is what the drive of the tests has.
var guestUUID = [16]byte{0x00, 0x11, 0xe5, 15: 0xff}

// fakeGuest is a guest made of programs that note how they were called.
type fakeGuest struct {
	t                *testing.T
	dir, dev, target string
}

// newFakeGuest makes a guest whose system is what uname -s says, and whose programs
// are the given shell scripts besides those that note their call.
func newFakeGuest(t *testing.T, system string, programs map[string]string) *fakeGuest {
	t.Helper()
	w := &fakeGuest{t: t, dir: t.TempDir(), dev: t.TempDir(), target: filepath.Join(t.TempDir(), "w")}
	all := map[string]string{"uname": "echo " + system, "id": "echo 0", "blockdev": "", "sync": "note"}
	for _, name := range []string{"mount", "umount", "settrans"} {
		all[name] = "note"
	}
	all["fsysopts"] = `note; test $# -gt 1 || echo "/hurd/ext2fs --writable"`
	for name, text := range programs {
		all[name] = text
	}
	for name, text := range all {
		script := "#!/bin/sh\nname=" + name + "\nnote() { echo \"$name $args\" >>'" + w.dir + "/calls'; }\nargs=\"$*\"\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// disk puts a disk into the guest that holds a file system of that UUID.
func (w *fakeGuest) disk(name string, uuid [16]byte) {
	w.t.Helper()
	block := make([]byte, 8192)
	copy(block[1024+104:], uuid[:])
	if err := os.WriteFile(filepath.Join(w.dev, name), block, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a script of ours in the guest.
func (w *fakeGuest) run(s GuestScript) (out string, status int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"-c", s.Text, "sh"}, s.Args...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], GuestPath, w.target)
	}
	cmd := exec.CommandContext(ctx, "dash", append(args, w.dev)...)
	cmd.Env = []string{"PATH=" + w.dir + ":/usr/bin:/bin"}
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// calls lists what was called, with the paths of the test cut down.
func (w *fakeGuest) calls() []string {
	text, _ := os.ReadFile(filepath.Join(w.dir, "calls"))
	return strings.FieldsFunc(strings.NewReplacer(w.dev, "/dev", w.target, "/w").Replace(string(text)), func(r rune) bool { return r == '\n' })
}

func TestAttach(t *testing.T) {
	hurd := []string{"settrans -a /w /hurd/ext2fs /dev/%", "fsysopts /w --writable", "fsysopts /w"}
	linux := []string{"mount -t ext2 /dev/% /w"}
	makedev := `#!/bin/sh
case $1 in wd1) cp wd1.later wd1 ;; *) exit 1 ;; esac
`
	for _, tc := range []struct {
		name, system string
		disks        []string // the last holds our file system
		calls        []string
	}{
		{"Hurd, IDE of the kernel", "GNU", []string{"hd0", "hd1"}, hurd},
		{"Hurd, AHCI of the kernel", "GNU", []string{"sd0", "sd1"}, hurd},
		{"Hurd, rumpdisk", "GNU", []string{"wd0", "wd1"}, hurd},
		{"Hurd, rumpdisk without a node", "GNU", []string{"wd0", "wd1.later"}, hurd},
		{"Hurd, not the second disk", "GNU", []string{"wd1", "wd0", "wd3"}, hurd},
		{"Linux, SATA", "Linux", []string{"sda", "sdb"}, linux},
		{"Linux, virtio", "Linux", []string{"vda", "vdb"}, linux},
		{"Linux, NVMe", "Linux", []string{"nvme0n1", "nvme1n1"}, linux},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFakeGuest(t, tc.system, nil)
			for i, name := range tc.disks {
				uuid := guestUUID
				if i < len(tc.disks)-1 {
					uuid[0]++
				}
				w.disk(name, uuid)
			}
			if err := os.WriteFile(filepath.Join(w.dev, "MAKEDEV"), []byte(makedev), 0o755); err != nil {
				t.Fatal(err)
			}
			out, status := w.run(Attach(guestUUID))
			name := strings.TrimSuffix(tc.disks[len(tc.disks)-1], ".later")
			device, err := Device(strings.ReplaceAll(out, w.dev, "/dev"))
			if status != 0 || err != nil || device != "/dev/"+name {
				t.Errorf("status %d, device %q, %v:\n%s", status, device, err, out)
			}
			var want []string
			if tc.system == "GNU" {
				for _, name := range searched(name) {
					if _, err := os.Stat(filepath.Join(w.dev, name)); err == nil {
						want = append(want, "settrans -ag /dev/"+name)
					}
				}
			}
			for _, c := range tc.calls {
				want = append(want, strings.ReplaceAll(c, "%", name))
			}
			if diff := cmp.Diff(want, w.calls()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if info, err := os.Stat(w.target); err != nil || !info.IsDir() {
				t.Errorf("the place: %v", err)
			}
		})
	}
}

// searched lists the disks of a Hurd that are looked at before and with one.
func searched(last string) []string {
	all := []string{"hd1", "wd1", "sd1", "hd2", "wd2", "sd2", "hd3", "wd3", "sd3", "hd0", "wd0", "sd0"}
	return all[:slices.Index(all, last)+1]
}

func TestAttachFails(t *testing.T) {
	for _, tc := range []struct {
		name, system string
		programs     map[string]string
		status       int
		says         string
	}{
		{"another system", "FreeBSD", nil, 65, "FreeBSD is not known"},
		{"not root", "GNU", map[string]string{"id": "test \"$1\" = -un && echo demo || echo 1000"}, 77, "this is demo"},
		{"no translator", "GNU", map[string]string{"settrans": "test \"$1\" = -ag && exit; echo 'settrans: /hurd/ext2fs: panic' >&2; exit 5"}, 1, "panic"},
		{"read-only translator", "GNU", map[string]string{"fsysopts": "echo /hurd/ext2fs --readonly"}, 1, "can't be written: /hurd/ext2fs --readonly"},
		{"no mount", "Linux", map[string]string{"mount": "echo 'mount: unknown filesystem type' >&2; exit 32"}, 1, "unknown filesystem"},
		{"no such disk", "Linux", nil, 66, "no disk of the guest"},
		{"no such disk, Hurd", "GNU", nil, 66, "no disk of the guest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFakeGuest(t, tc.system, tc.programs)
			if tc.status != 66 {
				w.disk("sda", guestUUID)
				w.disk("hd1", guestUUID)
			}
			out, status := w.run(Attach(guestUUID))
			if status != tc.status || !strings.Contains(out, tc.says) {
				t.Errorf("status %d, %q; want %d with %q", status, out, tc.status, tc.says)
			}
			if device, err := Device(out); err == nil {
				t.Errorf("a device was found: %q", device)
			}
		})
	}
}

func TestDetach(t *testing.T) {
	busy := "note; exit 1"
	for _, tc := range []struct {
		name, system string
		programs     map[string]string
		gone, fails  bool
		calls        []string
	}{
		{"Hurd", "GNU", nil, true, false, []string{"settrans -ag /w"}},
		{"Hurd, in use", "GNU", map[string]string{"settrans": busy}, false, false, []string{"settrans -ag /w", "fsysopts /w --readonly"}},
		{"Hurd, being written", "GNU", map[string]string{"settrans": "note; test \"$1\" != -ag", "fsysopts": busy}, true, false,
			[]string{"settrans -ag /w", "fsysopts /w --readonly", "settrans -afg /w"}},
		{"Hurd, hopeless", "GNU", map[string]string{"settrans": busy, "fsysopts": busy}, false, true,
			[]string{"settrans -ag /w", "fsysopts /w --readonly", "settrans -afg /w", "sync "}},
		{"Linux", "Linux", nil, true, false, []string{"umount /w"}},
		{"Linux, in use", "Linux", map[string]string{"umount": busy}, false, false, []string{"umount /w", "mount -o remount,ro /w"}},
		{"Linux, being written", "Linux", map[string]string{"umount": busy, "mount": busy}, false, true,
			[]string{"umount /w", "mount -o remount,ro /w", "sync "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFakeGuest(t, tc.system, tc.programs)
			out, status := w.run(Detach())
			gone, err := Detached(out)
			if gone != tc.gone || (err != nil) != tc.fails || (status != 0) != tc.fails {
				t.Errorf("status %d, gone %v, %v:\n%s", status, gone, err, out)
			}
			if diff := cmp.Diff(tc.calls, w.calls()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestGuestWords has a guest that lies.
func TestGuestWords(t *testing.T) {
	for _, text := range []string{"", "attached", "attached hd1", "attached /dev/hd1 now", "attached /dev/\x1b[2J", "\nattached /" + strings.Repeat("x", 99)} {
		if device, err := Device(text); err == nil {
			t.Errorf("%q names the device %q", text, device)
		}
		if _, err := Detached(text); err == nil {
			t.Errorf("%q counts as detached", text)
		}
	}
	if device, err := Device("Welcome!\nattached /dev/hd1\n"); err != nil || device != "/dev/hd1" {
		t.Errorf("device %q, %v", device, err)
	}
}
