package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The groups of checks, in the order in which they are shown.
const (
	groupQEMU    = "QEMU"
	groupRoom    = "Room"
	groupStores  = "Images"
	groupNetwork = "Network"
	groupJob     = "Job"
	groupGuest   = "Guests that run here"
)

// Checks are all there are, in the order in which they are shown.
func Checks() []Check {
	return []Check{
		{Name: "qemu", Title: "QEMU", Group: groupQEMU, quick: true, busy: true, limit: 6 * time.Second, run: simple(checkQEMU)},
		{Name: "kvm", Title: "KVM", Group: groupQEMU, quick: true, busy: true, limit: 6 * time.Second, run: simple(checkKVM)},
		{Name: "start", Title: "Starting a machine", Group: groupQEMU, busy: true, limit: 5 * time.Second, run: simple(checkStart)},
		{Name: "sandbox", Title: "Confinement", Group: groupQEMU, quick: true, run: simple(checkSandbox)},
		{Name: "tools", Title: "QEMU's tools and e2fsprogs", Group: groupQEMU, run: simple(checkTools)},
		{Name: "unpackers", Title: "Decompressors", Group: groupQEMU, run: simple(checkUnpackers)},
		{Name: "disk-modes", Title: "Modes of the disk", Group: groupQEMU, busy: true, run: simple(checkDiskModes)},

		{Name: "memory", Title: "Memory", Group: groupRoom, quick: true, run: simple(checkMemory)},
		{Name: "hugepages", Title: "Huge pages", Group: groupRoom, run: simple(checkHugePages)},
		{Name: "cpus", Title: "Processors", Group: groupRoom, quick: true, run: simple(checkCPUs)},
		{Name: "load", Title: "Load", Group: groupRoom, quick: true, run: simple(checkLoad)},
		{Name: "temp-space", Title: "Temporary files", Group: groupRoom, quick: true, run: simple(checkTemp)},
		{Name: "store-space", Title: "Image store's disk", Group: groupRoom, quick: true, run: simple(checkStoreSpace)},
		{Name: "workspace", Title: "Workspace", Group: groupRoom, quick: true, run: simple(checkWorkspace)},
		{Name: "limits", Title: "Limits of this process", Group: groupRoom, quick: true, run: simple(checkLimits)},
		{Name: "clock", Title: "Clock", Group: groupRoom, quick: true, run: simple(checkClock)},

		{Name: "images", Title: "Image store", Group: groupStores, run: simple(checkImages)},
		{Name: "snapshots", Title: "Saved machines", Group: groupStores, run: simple(checkSnapshots)},
		{Name: "image", Title: "Image", Group: groupStores, limit: 8 * time.Second, run: simple(checkImage)},

		{Name: "loopback", Title: "Loopback", Group: groupNetwork, quick: true, run: simple(checkLoopback)},
		{Name: "sockets", Title: "Sockets", Group: groupNetwork, quick: true, run: simple(checkSockets)},
		{Name: "proxy", Title: "Proxy", Group: groupNetwork, net: true, run: checkProxy},
		{Name: "downloads", Title: "Downloads", Group: groupNetwork, net: true, limit: 8 * time.Second, run: checkDownloads},

		{Name: "docker", Title: "Docker", Group: groupJob, run: simple(checkDocker)},
		{Name: "runner", Title: "Runner", Group: groupJob, run: simple(checkRunner)},
		{Name: "services", Title: "Caches and artifacts", Group: groupJob, run: simple(checkServices)},
		{Name: "services-network", Title: "Way to caches and artifacts", Group: groupJob, net: true, limit: 6 * time.Second, run: simple(checkServicesNetwork)},

		{Name: "guest-process", Title: "QEMU's process", Group: groupGuest, run: perGuest(checkProcess)},
		{Name: "guest-monitor", Title: "Monitor", Group: groupGuest, limit: 5 * time.Second, run: perGuest(checkMonitor)},
		{Name: "guest-ssh", Title: "SSH", Group: groupGuest, limit: 12 * time.Second, run: perGuest(checkSSH)},
		{Name: "guest-console", Title: "Console", Group: groupGuest, run: perGuest(checkConsole)},
		{Name: "leftovers", Title: "What killed runs have left", Group: groupGuest, run: simple(checkLeftovers)},
	}
}

// exam is one examination of a host: what several checks want to know is found
// out once.
type exam struct {
	Host
	qemu   func(context.Context) (QEMU, error)
	guests func(context.Context) ([]Guest, error)

	mu       sync.Mutex
	machines map[string]func(context.Context) (Machine, error) // by the socket: a monitor serves one client at a time
}

// newExam takes the context of all checks, so that the answer to one of them
// does not end with its time.
func newExam(ctx context.Context, h Host) *exam {
	e := &exam{Host: h, machines: map[string]func(context.Context) (Machine, error){}}
	if e.Getenv == nil {
		e.Getenv = func(string) string { return "" }
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if h.QEMU != nil {
		e.qemu = once(func() (QEMU, error) { return h.QEMU(ctx) })
	}
	e.guests = once(func() ([]Guest, error) {
		if h.Guests == nil {
			return nil, nil
		}
		return h.Guests(ctx)
	})
	return e
}

// machineTime bounds the answer of a monitor, which is at once or, when
// somebody else is connected to it, not at all.
const machineTime = 3 * time.Second

// machine asks a guest's monitor.
func (e *exam) machine(ctx context.Context, socket string) (Machine, error) {
	e.mu.Lock()
	ask := e.machines[socket]
	if ask == nil {
		all := context.WithoutCancel(ctx) // the answer is for other checks as well
		ask = once(func() (Machine, error) {
			ctx, cancel := context.WithTimeout(all, machineTime)
			defer cancel()
			return e.Machine(ctx, socket)
		})
		e.machines[socket] = ask
	}
	e.mu.Unlock()
	return ask(ctx)
}

// once finds something out, when it is asked for the first time, for all who
// ask. None of them waits longer than its own time.
func once[T any](find func() (T, error)) func(context.Context) (T, error) {
	var begun atomic.Bool
	var value T
	var err error
	done := make(chan struct{})
	return func(ctx context.Context) (T, error) {
		if begun.CompareAndSwap(false, true) {
			go func() {
				defer close(done)
				defer func() {
					if r := recover(); r != nil {
						err = fmt.Errorf("internal error: %v", r)
					}
				}()
				value, err = find()
			}()
		}
		select {
		case <-done:
			return value, err
		case <-ctx.Done():
			var none T
			return none, context.Cause(ctx)
		}
	}
}

// simple makes a check of one that finds one thing.
func simple(check func(context.Context, *exam) Finding) func(context.Context, *exam) []Finding {
	return func(ctx context.Context, e *exam) []Finding { return one(check(ctx, e)) }
}

// text reads a small file of the host; "" when there is none.
func (e *exam) text(name string) string {
	if e.Root == nil {
		return ""
	}
	data, err := fs.ReadFile(e.Root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// exists tells whether the host has a file.
func (e *exam) exists(name string) bool {
	if e.Root == nil {
		return false
	}
	_, err := fs.Stat(e.Root, name)
	return err == nil
}

// inContainer tells a container's root file system from a host's.
func (e *exam) inContainer() bool {
	return e.exists(".dockerenv") || e.exists("run/.containerenv") || e.Getenv("container") != "" || e.Getenv("KUBERNETES_SERVICE_HOST") != ""
}

// inJob tells whether a runner of GitHub Actions has started this.
func (e *exam) inJob() bool { return e.Getenv("GITHUB_ACTIONS") == "true" }
