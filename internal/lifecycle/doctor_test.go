package lifecycle

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/doctor"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestKVMStates: the states of package qemu are those that package doctor knows.
func TestKVMStates(t *testing.T) {
	for of, as := range map[qemu.KVMState]string{
		qemu.KVMUnasked: doctor.KVMUnasked, qemu.KVMNotBuilt: doctor.KVMNotBuilt, qemu.KVMAbsent: doctor.KVMAbsent, qemu.KVMDenied: doctor.KVMDenied,
		qemu.KVMBroken: doctor.KVMBroken, qemu.KVMRefused: doctor.KVMRefused, qemu.KVMDead: doctor.KVMDead, qemu.KVMWorks: doctor.KVMWorks,
	} {
		if got := describeKVM(qemu.Decision{KVM: of, Reason: "TCG, because of this; do that", Found: "this"}, "/dev/kvm"); got != (doctor.KVM{State: as, Reason: "this", Device: "/dev/kvm"}) {
			t.Errorf("%+v, want %q", got, as)
		}
	}
}

// TestAskKVM: a device that is none is found out whether KVM is insisted on or not.
func TestAskKVM(t *testing.T) {
	req := bootable(t, "")
	req.Host.KVM = filepath.Join(t.TempDir(), "kvm")
	for _, accel := range []string{"auto", "kvm"} {
		h := Examined(req.Host, Examination{Accel: accel})
		k, err := h.KVM(t.Context())
		if err != nil || k.State != doctor.KVMAbsent || k.Device != req.Host.KVM || !strings.Contains(k.Reason, "is not exposed here") || strings.Contains(k.Reason, "--device") {
			t.Errorf("%s: %+v, %v", accel, k, err)
		}
		if q, err := h.QEMU(t.Context()); err != nil || q.Path == "" || !q.TCG || len(q.Missing) > 0 {
			t.Errorf("%+v, %v", q, err)
		}
	}
	req.Host.QEMU = filepath.Join(t.TempDir(), "no-qemu")
	h := Examined(req.Host, Examination{})
	if _, err := h.KVM(t.Context()); err == nil {
		t.Error("without QEMU there is no answer")
	}
	if err := h.Start(t.Context()); err == nil {
		t.Error("no QEMU was started")
	}
}

// TestStartFails: what QEMU says when it does not start is told, and nothing is left.
func TestStartFails(t *testing.T) {
	req := bootable(t, brokenQEMU(t))
	err := Examined(req.Host, Examination{}).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the dog ate my homework") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(req.Host.Temp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestDescribeQEMU(t *testing.T) {
	full := &qemu.Features{
		Version: "7.2.22", TCG: true, Sandbox: true,
		Machines: []qemu.MachineType{{Name: "pc-i440fx-7.2"}, {Name: "pc-q35-7.2"}},
		Devices:  []string{"e1000", "ich9-ahci", "ide-cd", "ide-hd", "rtl8139"}, CPUModels: []string{"qemu32", "qemu64"},
	}
	if got := describeQEMU(full); len(got.Missing) > 0 || !got.Shared || !got.TCG || got.PrivateRAM {
		t.Errorf("%+v", got)
	}
	poor := &qemu.Features{Version: "9.0.0", Machines: []qemu.MachineType{{Name: "microvm"}}, Devices: []string{"e1000"}, CPUModels: []string{"qemu32", "qemu64"}}
	got := describeQEMU(poor)
	for _, want := range []string{"machine q35", "machine pc", "nic rtl8139"} {
		if !slices.Contains(got.Missing, want) {
			t.Errorf("%q lack %q", got.Missing, want)
		}
	}
	if got.Shared || slices.Contains(got.Missing, "nic e1000") {
		t.Errorf("%+v", got)
	}
}

// TestDownloads: without an image all presets are looked at, with one it alone.
func TestDownloads(t *testing.T) {
	s := &examined{store: NewStore(t.TempDir(), nil), exam: Examination{Want: image.Want{Mirror: "http://mirror.example/"}}}
	debian := image.Source{Kind: image.KindPreset, Name: "debian"}
	all := s.downloads(debian)
	if len(all) != len(image.Presets()) {
		t.Fatalf("%d", len(all))
	}
	for i, d := range all {
		if d.Wanted != (i == 0) || d.Stored || !strings.HasPrefix(d.Addresses[0], "http://mirror.example/ports/") {
			t.Errorf("%+v", d)
		}
	}
	s.exam.Image, s.exam.Want.Arch = &debian, platform.I386
	if got := s.downloads(debian); len(got) != 1 || !got[0].Wanted || !strings.Contains(got[0].Name, "i386") {
		t.Errorf("%+v", got)
	}
	for text, address := range map[string]string{
		"https://h.example/d.img":   "https://h.example/d.img",
		"owner/repo@v1:disk.qcow2":  "",
		"./disk.qcow2":              "",
		"selftest":                  "",
		"artifact:disk":             "",
		"https://h.example/d?sig=x": "https://h.example/d?sig=x",
	} {
		src, err := image.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		got := s.downloads(src)
		if address == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Addresses[0] != address || strings.Contains(got[0].Name, "sig") {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestPresetNeed(t *testing.T) {
	p := image.Presets()[0]
	base := image.Entry{Type: image.EntryImage, Origin: p.Origin(), Digest: "sha256:1"}
	damaged := base
	damaged.Problem = "x"
	prepared := image.Entry{Type: image.EntryPrepared, Origin: p.Origin(), Digest: "sha256:1"}
	other := image.Entry{Type: image.EntryPrepared, Origin: p.Origin(), Digest: "sha256:2"}
	for name, tc := range map[string]struct {
		list []image.Entry
		want units.Bytes
	}{
		"nothing":          {nil, p.Download + 2*p.Allocated},
		"damaged":          {[]image.Entry{damaged}, p.Download + 2*p.Allocated},
		"the image":        {[]image.Entry{base}, p.Allocated},
		"of another image": {[]image.Entry{base, other}, p.Allocated},
		"all":              {[]image.Entry{prepared, base}, 0},
	} {
		if got := presetNeed(&p, tc.list); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestLookAtImage(t *testing.T) {
	dir := t.TempDir()
	blank := filepath.Join(dir, "blank.img")
	if err := os.WriteFile(blank, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &examined{store: NewStore(t.TempDir(), nil)}
	for text, want := range map[string]string{
		blank: "raw, a disk of 1 MiB", filepath.Join(dir, "no.img"): "no such file", "debian": "354 MiB to fetch",
		"artifact:disk": "artifacts belong to a workflow run", "https://h.example/d.img": "a file of the network",
	} {
		src, err := image.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.lookAtImage(t.Context(), src)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if need := s.storeNeed(image.Source{Kind: image.KindPath, Path: blank}); need < units.MiB || need > 2*units.MiB {
		t.Errorf("a copy of 1 MiB takes %v", need)
	}
}

// TestDescribeGuest follows the link to the serial log, and only in a directory
// of our own.
func TestDescribeGuest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), runPrefix+"1")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink("/somewhere/serial.log", filepath.Join(dir, serialLink))); err != nil {
		t.Fatal(err)
	}
	want := doctor.Guest{Dir: dir, Socket: filepath.Join(dir, "qmp.sock"), Alive: true, Serial: "/somewhere/serial.log"}
	if got := describeGuest(dir, true); !cmp.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if os.Geteuid() != 0 {
		return // nobody else's directory can be made
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if got := describeGuest(dir, true); got.Serial != "" {
		t.Errorf("in a directory of nobody's: %+v", got)
	}
}

// TestGuests: what lives and what a killed run has left, and of that only ours.
func TestGuests(t *testing.T) {
	temp := t.TempDir()
	names := []string{"alive", "dead", "other"}
	for _, name := range names {
		dir := filepath.Join(temp, runPrefix+name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, qemu.SocketName), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if name != "alive" {
			_ = l.Close() // its file stays
		} else {
			t.Cleanup(func() { _ = l.Close() })
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(temp, runPrefix+"other"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	} else if err := os.RemoveAll(filepath.Join(temp, runPrefix+"other")); err != nil {
		t.Fatal(err)
	}
	s := &examined{host: Host{Temp: temp}}
	guests, err := s.guests(t.Context())
	if err != nil || len(guests) != 2 || !guests[0].Alive || guests[1].Alive || !strings.HasSuffix(guests[1].Dir, "dead") {
		t.Errorf("%+v, %v", guests, err)
	}
	s.exam.Guest = "alive"
	if guests, err := s.guests(t.Context()); err != nil || len(guests) != 1 || guests[0].Dir != filepath.Join(temp, runPrefix+"alive") {
		t.Errorf("%+v, %v", guests, err)
	}
	s.exam.Guest = "7"
	if _, err := s.guests(t.Context()); err == nil {
		t.Error("there is no guest of that name")
	}
}

func TestExplainConsole(t *testing.T) {
	for text, want := range map[string]string{
		"Starting OpenBSD Secure Shell server: sshd.\r\n\r\ndebian login: ":                              "",
		"panic ../kern/bootstrap.c:843: bootstrap_create: No bootstrap code loaded with the kernel!\r\n": "GNU Mach",
	} {
		got := strings.Join(explainConsole(text), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// someFindings is a report with one of each verdict.
func someFindings() doctor.Report {
	return doctor.Report{Verdict: doctor.Broken, Findings: []doctor.Finding{
		{Title: "QEMU", Verdict: doctor.Fine, Text: "10.0"},
		{Title: "Memory", Verdict: doctor.Slow, Text: "little", Fix: []string{"Use less.", "Or more."}},
		{Title: "Workspace", Verdict: doctor.Broken, Text: "full", Fix: []string{"Make room."}},
	}}
}

// TestAddFindings: what is not fine comes after the boot's own advice, the worst
// first; nothing is said of a host when it is not known, or when a run ends.
func TestAddFindings(t *testing.T) {
	r, out := newRun()
	found := make(chan doctor.Report, 1)
	found <- someFindings()
	e := fail(BootFailed, "No answer", errors.New("the cause"), "Do that first.")
	r.addFindings(retryable{e}, found)
	want := []string{"Do that first.", "About this host: Workspace: broken: full. Make room.", "About this host: Memory: works but slow: little. Use less."}
	if !cmp.Equal(e.Advice, want) || e.Title != "No answer" || e.Error() != "the cause" {
		t.Errorf("%q", e.Advice)
	}
	for _, line := range []string{"✓ QEMU: fine: 10.0", "! Memory: works but slow: little. Use less.", "✗ Workspace: broken"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, out)
		}
	}
	r, out = newRun()
	r.addFindings(fail(ImageFailed, "x", nil), nil)
	r.ending.interrupted(time.Now())
	found <- someFindings()
	e = fail(BootFailed, "x", nil)
	r.addFindings(e, found)
	if len(e.Advice) > 0 || out.Len() > 0 {
		t.Errorf("advice %q, log %q", e.Advice, out)
	}
}

// TestExamineWhen: a host is looked at when a boot has failed, and not when the
// inputs were wrong, the script failed or the run was interrupted.
func TestExamineWhen(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupt{Signal: 2})
	for name, tc := range map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"boot failed":      {t.Context(), retryable{fail(BootFailed, "x", nil)}, true},
		"success":          {t.Context(), nil, false},
		"wrong input":      {t.Context(), fail(InputInvalid, "x", nil), false},
		"no image":         {t.Context(), fail(ImageFailed, "x", nil), false},
		"script failed":    {t.Context(), fail(ScriptFailed, "x", nil), false},
		"canceled":         {t.Context(), fail(Canceled, "x", nil), false},
		"interrupted then": {ended, fail(BootFailed, "x", nil), false},
	} {
		r, _ := newRun()
		r.Host = Host{Workspace: t.TempDir(), Temp: t.TempDir(), Cache: t.TempDir()}
		r.config.Accel = "tcg"
		began := time.Now()
		found := r.examine(tc.ctx, tc.err)
		if (found != nil) != tc.want {
			t.Errorf("%s: %v", name, found)
		}
		if found == nil {
			continue
		}
		rep := <-found
		if took := time.Since(began); took > examineTime+time.Second || len(rep.Findings) < 10 {
			t.Errorf("%s: %d findings after %v", name, len(rep.Findings), took)
		}
	}
}
