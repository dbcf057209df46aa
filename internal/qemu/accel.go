package qemu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// The defaults of AccelOptions.
const (
	kvmDevice    = "/dev/kvm"
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	kvmProbeTime = 2 * time.Second
)

// AccelOptions say how to choose an accelerator.
type AccelOptions struct {
	Want     Accel         // "" means AccelAuto
	Binary   string        // QEMU; "" means DefaultBinary
	Features *Features     // of that binary; nil to ask it
	CacheDir string        // where the verdict on KVM is kept until the host boots again; "" keeps nothing
	User     User          // as in StartOptions
	Device   string        // "" means /dev/kvm
	BootID   string        // the file that names the host's boot; "" means the kernel's
	Timeout  time.Duration // how long the probe guest may take; 0 means 2 s
}

func (o AccelOptions) withDefaults() AccelOptions {
	if o.Want == "" {
		o.Want = AccelAuto
	}
	if o.Device == "" {
		o.Device = kvmDevice
	}
	if o.BootID == "" {
		o.BootID = bootIDFile
	}
	if o.Timeout == 0 {
		o.Timeout = kvmProbeTime
	}
	return o
}

// Decision is the accelerator to use.
type Decision struct {
	Accel   Accel  // AccelKVM or AccelTCG
	Reason  string // one line for the log and the output accel-reason
	Warning bool   // KVM is there but cannot be used, which its owner should know
	Access  Access // for StartOptions
	KVM     KVMState
	Found   string // what was found out about KVM, without what follows from it
}

// KVMState is what was found out about KVM.
type KVMState string

// From no KVM at all to one that works.
const (
	KVMUnasked  KVMState = ""          // TCG was asked for
	KVMNotBuilt KVMState = "not-built" // this QEMU has none
	KVMAbsent   KVMState = "absent"    // there is no device
	KVMDenied   KVMState = "denied"    // the device may not be opened
	KVMBroken   KVMState = "broken"    // the device opens but does not answer as KVM
	KVMRefused  KVMState = "refused"   // QEMU cannot use it
	KVMDead     KVMState = "dead"      // virtual machines are created, but their processors do not run
	KVMWorks    KVMState = "works"     // a guest has run
)

// AccelError says why KVM, which was asked for, cannot be used.
type AccelError struct {
	State  KVMState
	Reason string // what was found
	Advice string // what to do
}

// Error gives reason and advice.
func (e *AccelError) Error() string {
	return fmt.Sprintf("accel kvm: %s: %s, or use accel auto or tcg", e.Reason, e.Advice)
}

// ChooseAccel decides between KVM and TCG. KVM counts as working when a guest
// of our own has run under it, which is found out once per boot of the host;
// a remembered failure is only tried again when KVM was asked for.
// That KVM was asked for and does not work is an *AccelError; the other errors
// are the context's, and those of a QEMU that tells nothing of itself.
func ChooseAccel(ctx context.Context, o AccelOptions) (Decision, error) {
	o = o.withDefaults()
	if o.Want == AccelTCG {
		return Decision{Accel: AccelTCG, Reason: "TCG, as asked for"}, nil
	}
	if o.Features == nil {
		f, err := Probe(ctx, o.Binary, o.CacheDir)
		if err != nil {
			return Decision{}, fmt.Errorf("choosing the accelerator: %w", err)
		}
		o.Features = f
	}
	v, err := examineKVM(ctx, o)
	if err != nil {
		return Decision{}, fmt.Errorf("choosing the accelerator: %w", err)
	}
	switch {
	case v.State == KVMWorks:
		return Decision{Accel: AccelKVM, Reason: v.Reason, Access: v.access, KVM: v.State, Found: v.Reason}, nil
	case o.Want == AccelKVM:
		return Decision{}, &AccelError{State: v.State, Reason: v.Reason, Advice: advice(v.State)}
	}
	return Decision{
		Accel:   AccelTCG,
		Reason:  "TCG, because " + v.Reason + noteFor(v.State),
		Warning: v.State != KVMAbsent,
		KVM:     v.State,
		Found:   v.Reason,
	}, nil
}

// noteFor adds what to do about it where that is not the host owner's work.
func noteFor(s KVMState) string {
	if s == KVMDead || s == KVMBroken {
		return ""
	}
	return "; " + advice(s)
}

// advice is what to do to get KVM.
func advice(s KVMState) string {
	switch s {
	case KVMNotBuilt:
		return "install a QEMU that was built with KVM"
	case KVMAbsent:
		return "for KVM, run the container with --device /dev/kvm, or this program directly on a host that has it (a container action is given no devices)"
	case KVMDenied:
		return "let this user read and write the device (group kvm), or run as root"
	default:
		return "use another host: this one's (nested) virtualization does not work"
	}
}

// examineKVM goes from the cheapest question to the dearest.
func examineKVM(ctx context.Context, o AccelOptions) (verdict, error) {
	if !o.Features.KVM {
		return verdict{State: KVMNotBuilt, Reason: "this QEMU was built without KVM"}, nil
	}
	info, v := openKVM(o.Device)
	if v.State != KVMWorks {
		return v, nil
	}
	access := accessTo(info, o.Device, os.Geteuid(), o.Features)
	v, err := recallOrProbe(ctx, o, o.verdictKey(info), access)
	v.access = access
	return v, err
}

// recallOrProbe spares the probe where its outcome is remembered. A failure
// may have had a passing cause (a busy host, no memory left), so who insists
// on KVM has it probed again; for all others it stands, and says how to drop it.
func recallOrProbe(ctx context.Context, o AccelOptions, key verdictKey, access Access) (verdict, error) {
	path := cachePath(o.CacheDir, verdictFile)
	v, ok := recallVerdict(o.CacheDir, key)
	switch {
	case ok && v.State == KVMWorks:
		return v, nil
	case ok && o.Want != AccelKVM:
		v.Reason += fmt.Sprintf(" (found by an earlier run since this host booted; accel kvm tries again, and so does every run once %s is removed)", path)
		return v, nil
	}
	v, err := probeKVM(ctx, o, access)
	if err != nil {
		return verdict{}, err
	}
	_ = writeCache(path, keptVerdict{key, v}) // the next run probes again
	return v, nil
}

// probeKVM runs the payload under KVM. Its error is only ever the context's:
// everything else is a verdict.
func probeKVM(ctx context.Context, o AccelOptions, access Access) (verdict, error) {
	start := time.Now()
	err := runPayload(ctx, o, AccelKVM, access)
	switch failure := err; {
	case failure == nil:
		return verdict{State: KVMWorks, Reason: fmt.Sprintf("KVM: a test guest ran in %d ms", time.Since(start).Milliseconds())}, nil
	case ctx.Err() != nil:
		return verdict{}, context.Cause(ctx)
	case failure.timeout:
		return verdict{State: KVMDead, Reason: fmt.Sprintf("%s opens and creates virtual machines, but a test guest of a few instructions did not end within %v: this host's (nested) KVM does not run guests", o.Device, o.Timeout)}, nil
	case failure.ran:
		return verdict{State: KVMDead, Reason: fmt.Sprintf("a test guest went wrong under KVM (QEMU's status %d instead of %d): this host's (nested) KVM does not run guests correctly", failure.status, payloadStatus)}, nil
	default:
		return verdict{State: KVMRefused, Reason: fmt.Sprintf("QEMU cannot use %s (status %d): %s", o.Device, failure.status, strings.ReplaceAll(failure.stderr, "\n", "; "))}, nil
	}
}
