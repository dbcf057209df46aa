package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// Host says where a run may keep things, and what it runs on.
type Host struct {
	Workspace string // absolute; the logs go to .hurd in it
	Temp      string // for the run directory: overlay, monitor socket
	Cache     string // image store, and what was found out about this host
	KVM       string // the device; /dev/kvm
	QEMU      string // binary; empty: qemu-system-x86_64 of PATH
	Version   string // of this program
	Progress  bool   // a person watches a terminal

	Repository string // owner/name of the workflow's repository, for artifacts; empty: none
	RunID      int64  // of the workflow; 0: none
	API        string // GitHub's REST address; empty: the public one
}

// Request is one run.
type Request struct {
	Inputs config.Inputs
	Host   Host
	Log    *actions.Log
}

// Result is how a run ended and what is known of it.
type Result struct {
	Kind        Kind
	ExitCode    int
	Accel       string
	AccelReason string
	Boot        time.Duration // start of QEMU until a command had run over SSH; 0: it never did
	SSH         time.Duration // of which the connection that succeeded
	Script      time.Duration // 0: the script did not run
	Attempts    int           // machines booted
	Uname       string        // of the guest, from the guest
	ImageDigest string
	SerialLog   string // relative to the workspace; empty: there is none
	QEMULog     string
	Phases      []Phase // in order
}

// run is the state of the one pass: what its steps found and made so far.
type run struct {
	Request
	config  config.Config
	source  image.Source
	cleanup cleanup
	result  Result

	logs   *logs
	serial *os.File
	qemu   *os.File
	dir    string // run directory, private

	features *qemu.Features
	accel    qemu.Decision
	disk     disk
	hardware qemu.Hardware
	keys     keys
	seed     string // path of the NoCloud seed; empty: there is none

	qemuTail *process.Tail // the end of what QEMU wrote
	started  time.Time     // of the machine
	machine  *qemu.Machine
	console  *console.Console
	// consoleLines has the last lines of the console.
	consoleLines chan string
	overlayPath  string // of the machine that runs
	ending       ending
	ready        atomic.Bool // a command has run in the guest
	readyAt      time.Time   // when it had
	client       *guest.Client

	userData userData // for a guest without cloud-init
}

// patience is how long the reader of the log may keep a run that is to end.
const patience = time.Second

// Run makes the one pass. It never fails without saying so in the log and in
// the Result, and leaves nothing behind but the logs, also when ctx ends; the
// cause of that end should be an Interrupt.
func Run(ctx context.Context, req Request) Result {
	r := &run{Request: req, qemuTail: &process.Tail{Limit: 8 << 10}}
	defer context.AfterFunc(ctx, func() {
		r.ending.interrupted(time.Now())
		req.Log.Hurry(patience)
	})()
	err := guarded(ctx, r.pass)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = fail(Internal, "The run was given up", cause)
		if errors.As(cause, new(Interrupt)) {
			err = fail(Canceled, "Canceled", cause)
		}
	}
	r.conclude(err)
	r.report(err)
	last, stop := r.ending.context(ctx, cleanupBudget, 0)
	defer stop()
	if err := r.cleanup.run(last); err != nil {
		r.Log.Annotate(actions.Warning, "Cleaning up was not complete", err.Error())
	}
	return r.result
}

// pass goes through the steps in order.
func (r *run) pass(ctx context.Context) error {
	if err := r.readInputs(); err != nil {
		return err
	}
	steps := []struct {
		title string
		do    func(context.Context) (note string, err error)
	}{
		{"Accelerator", r.chooseAccel},
		{"Image", r.obtainImage},
		{"Boot", r.boot},
	}
	if err := r.begin(); err != nil {
		return err
	}
	for _, s := range steps {
		if err := r.step(ctx, s.title, s.do); err != nil {
			return err
		}
	}
	if err := r.carryOut(ctx); err != nil {
		return err
	}
	if err := r.runScript(ctx); err != nil || r.config.ImageOutput == "" || r.result.Kind != Success {
		return err
	}
	return r.step(ctx, "Export", r.export)
}

// readInputs validates everything that can be validated before anything is
// done, so that all problems are reported at once.
func (r *run) readInputs() error {
	cfg, err := config.Parse(r.Inputs, nil)
	problems := separate(err)
	r.config = cfg
	if cfg.CacheDir != "" {
		r.Host.Cache = cfg.CacheDir
	}
	if _, err := guest.ParseShell(cfg.Shell); err != nil && !slices.ContainsFunc(problems, isAbout("shell")) {
		problems = append(problems, err)
	}
	if cfg.Image != "" {
		if r.source, err = image.ParseSource(cfg.Image); err != nil {
			problems = append(problems, fmt.Errorf("image: %w", err))
		} else {
			problems = append(problems, separate(r.source.Check(r.want()))...)
		}
	}
	if len(problems) > 0 {
		return fail(InputInvalid, "Invalid input", errors.Join(problems...))
	}
	return nil
}

// isAbout tells whether a problem is one with the input.
func isAbout(input string) func(error) bool {
	return func(err error) bool {
		var e *config.InputError
		return errors.As(err, &e) && e.Input == input
	}
}

// maxSocketPath is what fits into sockaddr_un (unix(7)), without the final NUL.
const maxSocketPath = 107

// begin makes the directories and logs of the run.
func (r *run) begin() error {
	dir, err := os.MkdirTemp(r.Host.Temp, "hurd-qemu-action-")
	if err != nil {
		return fail(Internal, "No run directory", fmt.Errorf("making the run directory: %w", err),
			"Make sure that "+r.Host.Temp+" can be written and has space.")
	}
	r.dir = dir
	r.cleanup.push("removing the run directory", func(context.Context) error { return os.RemoveAll(dir) })
	if n := len(filepath.Join(dir, qemu.SocketName)); n > maxSocketPath {
		return fail(Internal, "The path of the run directory is too long", fmt.Errorf("%s: a socket in it would have a path of %d bytes, and %d are possible", dir, n, maxSocketPath),
			"Set RUNNER_TEMP or TMPDIR to a shorter path.")
	}
	r.logs, err = newLogs(r.Host.Workspace)
	if err != nil {
		return fail(Internal, "No place for the logs", err, "Make sure that the workspace "+r.Host.Workspace+" exists and can be written.")
	}
	if r.serial, err = r.log("serial.log"); err != nil {
		return err
	}
	r.result.SerialLog = r.logs.path("serial.log")
	if r.qemu, err = r.log("qemu.log"); err != nil {
		return err
	}
	r.result.QEMULog = r.logs.path("qemu.log")
	return nil
}

func (r *run) log(name string) (*os.File, error) {
	f, err := r.logs.create(name)
	if err != nil {
		return nil, fail(Internal, "No place for the logs", err)
	}
	r.cleanup.push("closing "+name, func(context.Context) error { return f.Close() })
	return f, nil
}

// storeDir is the image store.
func (r *run) storeDir() string { return StoreDir(r.Host.Cache) }

// stateDir keeps what was found out about this host.
func (r *run) stateDir() string { return filepath.Join(r.Host.Cache, "host") }

// chooseAccel asks QEMU what it can do, and KVM whether it works.
func (r *run) chooseAccel(ctx context.Context) (string, error) {
	binary := r.Host.QEMU
	if binary == "" {
		binary = qemu.DefaultBinary
	}
	features, err := qemu.Probe(ctx, binary, r.stateDir())
	if err != nil {
		return "", fail(Internal, "QEMU cannot be used", err, "Install QEMU for x86 (Debian: qemu-system-x86 and qemu-utils).")
	}
	r.features = features
	// Before the image is fetched: a mistyped name should not cost a download.
	c := r.config
	if err := qemu.CheckNames(qemu.Overrides{Machine: c.Machine, CPUModel: c.CPUModel, DiskBus: c.DiskBus, NIC: c.NIC}, features); err != nil {
		return "", fail(InputInvalid, "Invalid input", err)
	}
	r.accel, err = qemu.ChooseAccel(ctx, qemu.AccelOptions{
		Want: qemu.Accel(r.config.Accel), Device: r.Host.KVM, Features: features, CacheDir: r.stateDir(),
	})
	if err != nil {
		return "", fail(InputInvalid, "KVM cannot be used", err)
	}
	r.result.Accel, r.result.AccelReason = string(r.accel.Accel), r.accel.Reason
	r.Log.Printf("QEMU %s, accelerator %s", features.Version, r.accel.Accel)
	if !r.accel.Warning {
		r.Log.Printf("%s", r.accel.Reason)
	} else {
		r.Log.Annotate(actions.Warning, "KVM does not work here", r.accel.Reason+"; the guest is emulated (TCG), several times slower")
	}
	return string(r.accel.Accel), nil
}

// conclude turns the error of the pass into the Result.
func (r *run) conclude(err error) {
	if r.result.Kind != "" && err == nil {
		return // the script came to an end of its own
	}
	var e *Error
	if !errors.As(err, &e) {
		e = fail(Internal, "Internal error", err)
	}
	r.result.Kind = e.Kind
	r.result.ExitCode = statusOf(e.Kind, err)
}
