package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// oldest is the first major version of QEMU that has all that runs rely on.
const oldest = 7

const installQEMU = "Install QEMU for x86; Debian and Ubuntu: apt-get install qemu-system-x86 qemu-utils."

// checkQEMU: is there one, is it new enough, and what does it lack.
func checkQEMU(ctx context.Context, e *exam) Finding {
	if e.qemu == nil {
		return skipped("not asked")
	}
	q, err := e.qemu(ctx)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return broken(err.Error(), installQEMU)
	case err != nil:
		return broken(err.Error(), "Run qemu-system-x86_64 --version by hand: a library may be missing, or the program may be another machine's.", installQEMU)
	}
	text := strings.TrimSpace(q.Version + " " + q.Package)
	if q.Path != "" {
		text += " (" + q.Path + ")"
	}
	major, _, _ := strings.Cut(q.Version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < oldest {
		return broken(fmt.Sprintf("%s: versions before %d are too old", text, oldest),
			fmt.Sprintf("Install QEMU %d or later (Debian 12, Ubuntu 24.04), or use the action's container, which has QEMU 10.", oldest))
	}
	if len(q.Missing) > 0 {
		return broken(fmt.Sprintf("%s has no %s, which the guests' machines need", text, strings.Join(q.Missing, ", ")),
			"Install a QEMU with all of its x86 devices; a build for microvm or a minimal one lacks them.")
	}
	if lost := q.lost(); len(lost) > 0 {
		return limited(text+": "+strings.Join(lost, "; "), "Install QEMU 10 where that matters, as the action's container has it; else there is nothing to do.")
	}
	return fine(text)
}

// lost says what goes without the features that an older QEMU lacks.
func (q QEMU) lost() []string {
	var lost []string
	for _, f := range []struct {
		has  bool
		text string
	}{
		{q.PrivateRAM, "machines that separate runs restore at once share no memory, those of --jobs do (before 8.2)"},
		{q.VNC, "a guest that is kept for debug shows no screen (no VNC)"},
		{q.Shared, "machines that are saved here can't be restored by other versions of QEMU (no machine type 7.2)"},
	} {
		if !f.has {
			lost = append(lost, f.text)
		}
	}
	return lost
}

// checkKVM says how KVM is, and how to get it.
func checkKVM(ctx context.Context, e *exam) Finding {
	switch {
	case e.Accel == AccelTCG:
		return skipped("not wanted: accel is tcg")
	case e.KVM == nil:
		return skipped("not asked")
	}
	k, err := e.KVM(ctx)
	if err != nil && e.qemu != nil {
		if _, qemuErr := e.qemu(ctx); qemuErr != nil {
			return skipped("there is no QEMU that could use it")
		}
	}
	if err != nil {
		return broken("what KVM can do was not found out: "+err.Error(), "Run the action's container, or report this as a bug of hurd-qemu-action.")
	}
	switch k.State {
	case KVMUnasked:
		return skipped("not asked")
	case KVMWorks:
		return fine(k.Reason)
	}
	fix := e.getKVM(k)
	if e.Accel == AccelKVM {
		return broken(k.Reason, fix...)
	}
	if e.qemu != nil {
		if q, err := e.qemu(ctx); err == nil && !q.TCG {
			return broken(k.Reason+"; and this QEMU has no TCG, which would do without", append(fix, "Or install a QEMU with TCG.")...)
		}
	}
	return slow(k.Reason+"; guests are emulated (TCG), several times slower", fix...)
}

// getKVM is what to do for it.
func (e *exam) getKVM(k KVM) []string {
	if e.Arch != "" && e.Arch != "amd64" && e.Arch != "386" {
		return []string{"Use an x86 host: the KVM of " + e.Arch + " runs no guests of x86."}
	}
	switch k.State {
	case KVMNotBuilt:
		return []string{"Install a QEMU that was built with KVM; Debian's qemu-system-x86 is."}
	case KVMAbsent:
		return e.exposeKVM()
	case KVMDenied:
		return e.permitKVM(k.Device)
	case KVMRefused:
		return []string{"Read what QEMU says there: memory that may be locked, a limit of the container, or another hypervisor that has taken the processor (rmmod kvm_intel or end VirtualBox)."}
	}
	return []string{
		"Use another host, or a host whose hypervisor offers nested virtualization that works: nothing on this one will help.",
		"Write accel: tcg to say that this is known, which also spares the test.",
	}
}

// exposeKVM is for a host without the device.
func (e *exam) exposeKVM() []string {
	if e.inContainer() {
		fix := []string{"Start the container with --device /dev/kvm, when its host has it."}
		if e.inJob() {
			fix = append(fix, "A runner gives a container action no devices: for KVM, run hurd-qemu-action in a run step on the runner itself.")
		}
		return fix
	}
	flag, module := e.virtualization()
	if flag == "" {
		return []string{"The processor shows neither vmx nor svm: turn on VT-x or AMD-V in the firmware's setup, or nested virtualization in the hypervisor or cloud (on many clouds a matter of the instance type)."}
	}
	return []string{fmt.Sprintf("The processor has %s: load the module with modprobe %s, and look into dmesg when that fails (virtualization may be off in the firmware).", flag, module)}
}

// virtualization is the processor's flag, and the module for it.
func (e *exam) virtualization() (flag, module string) {
	lines := bufio.NewScanner(strings.NewReader(e.text("proc/cpuinfo")))
	for lines.Scan() {
		name, flags, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for word := range strings.FieldsSeq(flags) {
			switch word {
			case "vmx":
				return word, "kvm_intel"
			case "svm":
				return word, "kvm_amd"
			}
		}
		break
	}
	return "", ""
}

// permitKVM is for a device that this user may not open.
func (e *exam) permitKVM(device string) []string {
	if device == "" {
		device = "/dev/kvm"
	}
	rule := `Or, on a machine of your own as on GitHub's runners, let everybody: echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' | sudo tee /etc/udev/rules.d/99-kvm.rules; sudo udevadm control --reload-rules; sudo udevadm trigger --name-match=kvm.`
	if e.UID == 0 {
		return []string{"Root may not open it either: the container's control group has no such device. Start the container with --device " + device + "."}
	}
	if e.Node == nil {
		return []string{"Add the user to the group of " + device + ".", rule}
	}
	node, err := e.Node(device)
	if err != nil || node.Mode.Perm()&0o060 != 0o060 || node.GID == 0 {
		return []string{fmt.Sprintf("Make the device belong to a group: sudo chown root:kvm %s; sudo chmod 660 %[1]s; then sudo usermod -aG kvm %s.", device, e.userName()), rule}
	}
	return []string{fmt.Sprintf("Add the user to the device's group, and log in again (or restart the runner's service): sudo usermod -aG %s %s.", e.groupName(node.GID), e.userName()), rule}
}

func (e *exam) groupName(gid int) string { return e.named("etc/group", gid) }
func (e *exam) userName() string         { return e.named("etc/passwd", e.UID) }

// named finds a number's name in /etc/passwd or /etc/group; the number when it
// has none.
func (e *exam) named(file string, id int) string {
	number := strconv.Itoa(id)
	for line := range strings.Lines(e.text(file)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[2] == number {
			return fields[0]
		}
	}
	return number
}

// checkStart starts a machine, with firmware, network and confinement.
func checkStart(ctx context.Context, e *exam) Finding {
	if e.Start == nil {
		return skipped("not asked")
	}
	if e.qemu != nil {
		if _, err := e.qemu(ctx); err != nil {
			return skipped("there is no QEMU to be started")
		}
	}
	err := e.Start(ctx)
	if err == nil {
		return fine("QEMU starts the usual machine, and its monitor answers")
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, known := range startFailures {
		if strings.Contains(strings.ToLower(text), known.says) {
			return broken(text, known.fix)
		}
	}
	return broken(text, "Look at what QEMU says there; qemu.log of a run has its command line to try by hand, and qemu-trace: guest_errors says more.")
}

// startFailures are what QEMU says when it does not start, in small letters,
// and what helps.
var startFailures = []struct{ says, fix string }{
	{"could not find 'bios", "Install the firmware: apt-get install seabios, or reinstall qemu-system-x86."},
	{"could not load pc bios", "Install the firmware: apt-get install seabios, or reinstall qemu-system-x86."},
	{"failed to find romfile", "Install the firmware: apt-get install seabios ipxe-qemu, or reinstall qemu-system-x86."},
	{"vgabios", "Install the firmware: apt-get install seabios, or reinstall qemu-system-x86."},
	{"seccomp", "Give the container a seccomp profile that lets QEMU have its own (Docker's default does), or install a QEMU built with seccomp."},
	{"cannot set up guest memory", "Give the guest less memory, or raise the limit of this process (ulimit -v, MemoryMax= of the service)."},
	{"cannot allocate memory", "Give the guest less memory, or raise the limit of this process (ulimit -v, MemoryMax= of the service)."},
	{"network backend 'user' is not compiled", "Install a QEMU with user networking (slirp), as Debian's is."},
	{"could not set up host forwarding", "Look at the loopback interface: QEMU can't listen on 127.0.0.1."},
	{"not supported by this qemu", "Install a newer QEMU, or one with more built in."},
	{"permission denied", "Look at the modes of QEMU's program and firmware: it runs as nobody when root starts it."},
	{"operation not permitted", "A seccomp profile or security module forbids what QEMU does: look into the audit log or dmesg, and use Docker's default profile."},
	{"did not answer", "The host is too busy, or hangs: look at the load and the memory."},
}

// checkSandbox: what keeps a guest that has broken out of QEMU from the host.
func checkSandbox(ctx context.Context, e *exam) Finding {
	if e.qemu == nil {
		return skipped("not asked")
	}
	q, err := e.qemu(ctx)
	if err != nil {
		return skipped("there is no QEMU")
	}
	who := "QEMU becomes nobody"
	switch {
	case e.UID != 0:
		who = "QEMU runs as this user, " + e.userName()
	case !e.hasNobody():
		who = "QEMU stays this container's root, which has no other users"
	}
	if !q.Sandbox {
		return limited("this QEMU has no seccomp filter, so that a guest that breaks out of it may make any system call; "+who,
			"Install a QEMU that was built with seccomp, as Debian's is.")
	}
	return fine("seccomp filter; " + who)
}

// hasNobody tells whether this user namespace has the user that QEMU becomes
// (user_namespaces(7)).
func (e *exam) hasNobody() bool {
	text := e.text("proc/self/uid_map")
	for line := range strings.Lines(text) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && inside <= nobody && nobody-inside < count {
			return true
		}
	}
	return text == ""
}

const nobody = 65534

// tools are the programs that every run needs, the option that makes each of
// them say what it is, and the package it is in.
var tools = []struct{ name, option, pkg string }{
	{"qemu-img", "--version", "qemu-utils"},
	{"qemu-io", "--version", "qemu-utils"},
	{"debugfs", "-V", "e2fsprogs"},
	{"e2fsck", "-V", "e2fsprogs"},
	{"mke2fs", "-V", "e2fsprogs"},
	{"resize2fs", "", "e2fsprogs"},
}

func checkTools(ctx context.Context, e *exam) Finding {
	if e.Program == nil {
		return skipped("not asked")
	}
	var bad, packages []string
	version := ""
	for _, t := range tools {
		out, err := e.Program(ctx, t.name, strings.Fields(t.option)...)
		switch {
		case errors.Is(err, exec.ErrNotFound):
			bad = append(bad, t.name+" is missing")
		case err != nil && t.option != "":
			bad = append(bad, fmt.Sprintf("%s does not run (%v)", t.name, err))
		default:
			if version == "" {
				version, _, _ = strings.Cut(strings.TrimSpace(out), "\n")
			}
			continue
		}
		if !strings.Contains(strings.Join(packages, " "), t.pkg) {
			packages = append(packages, t.pkg)
		}
	}
	if len(bad) > 0 {
		return broken(strings.Join(bad, "; "), "Install them; Debian and Ubuntu: apt-get install "+strings.Join(packages, " ")+".")
	}
	return fine("all there; " + version)
}

// checkUnpackers: without these programs our own code unpacks, that of xz much
// slower.
func checkUnpackers(ctx context.Context, e *exam) Finding {
	if e.Program == nil {
		return skipped("not asked")
	}
	if _, err := e.Program(ctx, "xz", "--version"); err != nil {
		return slow("xz can't be run: images are unpacked by our own code, several times slower", "Install it: apt-get install xz-utils.")
	}
	if _, err := e.Program(ctx, "zstd", "--version"); err != nil {
		return fine("xz; zstd can't be run, and our own code does its work")
	}
	return fine("xz and zstd")
}

// modes are those of the disk beside the usual one, which works everywhere.
var modes = []struct{ cache, aio string }{{"none", "threads"}, {"none", "native"}, {"unsafe", "io_uring"}}

// checkDiskModes tries the others. None of them is needed, so that none is missed.
func checkDiskModes(ctx context.Context, e *exam) Finding {
	if e.DiskMode == nil {
		return skipped("not asked")
	}
	if e.qemu != nil {
		if _, err := e.qemu(ctx); err != nil {
			return skipped("there is no QEMU to be tried")
		}
	}
	var can, not []string
	for _, m := range modes {
		name := fmt.Sprintf("disk-cache: %s with disk-aio: %s", m.cache, m.aio)
		if err := e.DiskMode(ctx, m.cache, m.aio); err != nil {
			not = append(not, fmt.Sprintf("%s does not work (%v)", name, err))
		} else {
			can = append(can, name+" works as well")
		}
	}
	return fine("the usual mode works; " + strings.Join(append(can, not...), "; "))
}
