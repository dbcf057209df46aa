package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// The modes of the input snapshot.
const (
	snapshotAuto    = "auto"
	snapshotSave    = "save"
	snapshotRestore = "restore"
	snapshotOff     = "off"
)

// The states of the output snapshot.
const (
	stateRestored = "restored"
	stateSaved    = "saved"
	stateCold     = "cold"
	stateFailed   = "failed"
)

// warm is what a run knows of saved machines.
type warm struct {
	store   *snapshot.Store // nil: saved machines are not for this run
	why     string          // not
	key     snapshot.Key
	memory  *os.File      // the guest's memory, of a machine that may be saved
	copied  *memoryHold   // the copy of a saved memory that the guest started from; nil: it needs none
	saving  chan struct{} // closed when what was saved is kept, or is not; nil: nothing was saved
	saved   units.Bytes   // read after saving is closed, like saveErr
	saveErr error
	// shared says what became of it in the job's cache; empty: there is none.
	shared   string
	shareErr error
	uploaded units.Bytes // packed, into the job's cache

	fetched    *fetchedEntry // of the key, from the job's cache; nil: none
	superseded atomic.Bool   // that is not the cache's newest entry any more
}

// SnapshotDir is the store of saved machines below a cache directory.
func SnapshotDir(cache string) string { return filepath.Join(cache, "snapshots") }

// planSnapshot decides whether this run may begin from a saved machine, or save
// one, and under which key.
func (r *run) planSnapshot() error {
	w := &r.warm
	r.result.Snapshot = stateCold
	switch m := r.disk.manifest; {
	case r.config.Snapshot == snapshotOff:
		w.why = "snapshot is off"
	case r.overConsole():
		w.why = noSnapshotOverConsole
	case m.Method != provision.MethodExt2 || m.Prepared == nil:
		w.why = "the keys of a restored guest can only be replaced where they are in its disk (provision: ext2)"
	case r.config.SSHUser != "root":
		w.why = "only root can replace the keys of a restored guest, and ssh-user is " + r.config.SSHUser
	case r.seed != "":
		w.why = "cloud-init's seed disk is different in every run"
	case r.neverSaved() != "":
		w.why = r.neverSaved()
	default:
		w.store = &snapshot.Store{Dir: SnapshotDir(r.Host.Cache)}
	}
	if w.store == nil {
		if r.config.Snapshot == snapshotSave || r.config.Snapshot == snapshotRestore {
			return fail(InputInvalid, "Invalid input", fmt.Errorf("snapshot: %q: not for this guest: %s", r.config.Snapshot, w.why))
		}
		if r.config.SnapshotFrom != "" && r.config.Snapshot != snapshotOff {
			r.warn("The published machine is not for this run", "snapshot-from can't be used: "+w.why+"; the machine is booted")
		}
		return nil
	}
	w.key = r.snapshotKey()
	if r.maySave() {
		saver, err := newKey("hurd-qemu-action saved machine")
		if err != nil {
			return err
		}
		r.keys.saver = &saver
	}
	return nil
}

// snapshotKey is everything that decides whether a saved machine will do.
func (r *run) snapshotKey() snapshot.Key {
	h := r.hardware
	disks := []units.Bytes{r.disk.base.VirtualSize}
	if r.checkout.drive != "" {
		disks = append(disks, r.config.WorkspaceSize)
	}
	k := snapshot.Key{
		QEMU: r.features.Version, Binary: filepath.Base(qemu.DefaultBinary),
		Machine: h.Machine, CPUModel: h.CPUModel, CPUs: h.CPUs, Memory: h.Memory, DiskBus: h.DiskBus, NIC: h.NIC, HPET: h.HPET,
		Disks: disks, Forwards: []int{r.config.SSHPort}, Isolated: r.config.Network == networkRestricted, Layout: r.layout(), Accel: string(r.accel.Accel),
		Base: r.disk.manifest.Content, Provision: r.prepareKey(), Prepare: r.prepareDigest(), User: r.config.SSHUser,
	}
	if model, _, _ := strings.Cut(h.CPUModel, ","); model == "host" || model == "max" {
		k.HostCPU = hostCPU()
	}
	return k
}

// layout is a digest of QEMU's arguments: a version of this program that puts
// the machine together in another way can't load what an earlier one saved.
// What only this host's side of it has to do with is left out: which ports lead
// to the guest, how the disk's files are cached and read, what QEMU logs. Each
// run has its own. What the guest could reach when it was saved counts, as the
// key's Isolated: the prepare script may have made something of it.
func (r *run) layout() string {
	s := r.spec(qemu.Image{Format: "qcow2", Base: &qemu.Image{Format: "raw"}})
	s.Forwards, s.Isolated, s.Trace = []qemu.Forward{qemu.Loopback(r.config.SSHPort)}, false, ""
	for i := range s.Disks {
		s.Disks[i].Cache, s.Disks[i].AIO = "", ""
	}
	sum := sha256.Sum256([]byte(strings.Join(s.Args(), "\x00")))
	return hex.EncodeToString(sum[:16])
}

// prepareDigest stands for all that is done to the guest before it is saved.
func (r *run) prepareDigest() string {
	c := r.config
	commands := r.bootCommands()
	texts := []string{c.Prepare, c.UserData, c.MetaData, c.Shell}
	if c.ReadyPattern != nil || c.ConsoleScript != "" { // not always: earlier machines stay what they are
		texts = append(texts, fmt.Sprint(c.ReadyPattern), r.dialogue.String())
	} else if c.Prepare+c.UserData+c.MetaData+commands == "" {
		return ""
	}
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	if commands != "" { // what was saved without any keeps its key
		fmt.Fprintf(h, "qmp %d:%s", len(commands), commands)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// beganAs remembers how the machine began. That a saved one was of no use is
// not forgotten for the new one that replaces it.
func (r *run) beganAs(state string) {
	if r.result.Snapshot != stateFailed {
		r.result.Snapshot = state
	}
}

// hostCPU names the processor of this host.
func hostCPU() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // the name is only one part of the key
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// mayRestore tells whether the run may begin from a saved machine.
func (r *run) mayRestore() bool { return r.warm.store != nil && r.config.Snapshot != snapshotSave }

// maySave tells whether the machine of this run may be saved.
func (r *run) maySave() bool { return r.warm.store != nil && r.config.Snapshot != snapshotRestore }

// prepare runs the user's prepare script, which the machine is saved after.
func (r *run) prepare(ctx context.Context) error {
	if r.config.Prepare == "" {
		return nil
	}
	return r.step(ctx, "Prepare", r.runPrepare)
}
