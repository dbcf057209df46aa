package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/diagnostic"
	"github.com/org/hurd-qemu-action/internal/dialogue"
	"github.com/org/hurd-qemu-action/internal/doctor"
	"github.com/org/hurd-qemu-action/internal/environment"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/report"
	"github.com/org/hurd-qemu-action/internal/results"
	"github.com/org/hurd-qemu-action/internal/units"
	"github.com/org/hurd-qemu-action/internal/workspace"
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
	Home      string // of the user; empty: not known
	Container string // as docker knows the one that this runs in; empty: none, or not known

	Environ    []string // of this process, as the script's environment is made of it
	ResultsURL string   // ACTIONS_RESULTS_URL: the job's artifact and cache services; empty: there are none

	Repository string // owner/name of the workflow's repository, for artifacts; empty: none
	RunID      int64  // of the workflow; 0: none
	API        string // GitHub's REST address; empty: the public one

	DockerConfig string // path of docker's config.json, for registries that ask who we are; empty: none
}

// Request is one run.
type Request struct {
	Inputs config.Inputs
	Host   Host
	Log    *actions.Log

	// Beside is for one of several guests that run at once, when another one has
	// shown that a saved machine works: a slow restore is that of a busy host then.
	Beside bool

	// Memories has what runs of one process share; nil: this one has its own.
	Memories *Memories

	// Settled is called, at most once, when it is known whether a later run of
	// these inputs can start from a saved machine: this run did, or has saved
	// one, or never will. A run that fails before that does not call it. nil: nothing.
	Settled func()
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
	Metrics     string
	Benchmark   string  // of the input benchmark; empty: none was wanted, or the script never began
	Snapshot    string  // restored, saved, cold or failed; empty: it never came to that
	Phases      []Phase // in order

	Warnings  []string         // that were annotated about what did not come back
	BackFiles int              // files copied back into the workspace
	BackBytes units.Bytes      // that were written for them
	Artifact  results.Artifact // zero: none was made
}

// run is the state of the one pass: what its steps found and made so far.
type run struct {
	Request
	config  config.Config
	source  image.Source
	cleanup cleanup
	result  Result

	began  time.Time
	logs   *logs
	mask   *actions.Masker
	serial io.Writer // masked, like qemu
	qemu   io.Writer
	dir    string // run directory, private
	kept   int    // steps of the cleanup that the reports still need

	features *qemu.Features
	accel    qemu.Decision
	disk     disk
	remote   remoteDisk
	hardware qemu.Hardware
	keys     keys

	resources resources
	seed      string // path of the NoCloud seed; empty: there is none

	qemuTail *process.Tail // the end of what QEMU wrote
	started  time.Time     // of the machine
	machine  *qemu.Machine
	console  *console.Console
	lines    serialLines
	dialogue dialogue.Script        // of console-script
	speaking atomic.Pointer[string] // why nobody else may type on the console; nil: everybody may
	shell    *dialogue.Shell        // on the console, with transport: serial; nil: none yet
	// consoleLines has the last lines of the console.
	consoleLines chan string
	overlayPath  string // of the machine that runs
	savedOverlay string // below it, of a machine that was restored; empty: there is none
	ending       ending
	ready        atomic.Bool // a command has run in the guest
	readyAt      time.Time   // when it had
	client       *guest.Client
	loginShell   string // of the guest's user, when it is known

	rekeying rekeying
	clockOf  *guest.Client // the connection whose setting of the clock was told
	warm     warm
	// impatient changes how patient we are with the cache; nil outside tests.
	impatient func(*results.Service)

	commands commands // the input qmp
	settled  func()   // see Request
	userData userData // for a guest without cloud-init

	checkout    checkout
	variables   []environment.Variable
	diagnostics *diagnostic.Collector
	stopSamples func()
	samples     []report.Sample
	meter       meter
	bench       *bench // nil: the script runs once
	picture     []byte // of the screen, as PNG; empty: none was taken
}

// patience is how long the reader of the log may keep a run that is to end.
const patience = time.Second

// Run makes the one pass. It never fails without saying so in the log and in
// the Result, and leaves nothing behind but the logs, also when ctx ends; the
// cause of that end should be an Interrupt.
func Run(ctx context.Context, req Request) Result {
	r := makeRun(req)
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
	findings := r.examine(ctx, err)
	held := r.holdFailed(ctx, err)
	r.detach() // what comes back stands still meanwhile
	r.bringBack(ctx)
	r.afterRun(ctx)
	r.awaitSaved(ctx)
	r.awaitDisk(ctx)
	if cause := context.Cause(ctx); err == nil && !held && errors.As(cause, new(Interrupt)) {
		err = fail(Canceled, "Canceled", cause) // the results may not be complete
	}
	if r.warm.saving != nil {
		r.settled()
	}
	if err == nil && r.result.Kind == Success && r.config.ImageOutput != "" {
		err = guarded(ctx, func(ctx context.Context) error { return r.step(ctx, "Export", r.export) })
	}
	r.retireSaved(ctx)
	r.retireDisk(ctx) // an export reads all of the disk
	r.conclude(err)
	r.finish(ctx, err, findings)
	return r.result
}

func makeRun(req Request) *run {
	settled := func() {}
	if req.Settled != nil {
		settled = sync.OnceFunc(req.Settled)
	}
	return &run{
		settled: settled,
		Request: req, began: time.Now(), qemuTail: &process.Tail{Limit: 8 << 10},
		mask:        actions.NewMasker(req.Log.AddMask),
		diagnostics: diagnostic.New(diagnostic.Options{Root: workspace.GuestPath}),
		stopSamples: func() {},
	}
}

// finish ends the machine, which completes the logs, says how the run ended, and
// leaves nothing behind but what it was asked to.
func (r *run) finish(ctx context.Context, err error, findings <-chan doctor.Report) {
	r.stopSamples()
	last, stop := r.ending.context(ctx, cleanupBudget, stopReserve/2)
	ended := r.cleanup.runTo(last, r.kept)
	stop()
	r.addFindings(err, findings)
	r.annotateOutput()
	r.annotateConsole()
	r.warnUnmatched()
	r.publish(ctx, err)
	r.report(err)
	last, stop = r.ending.context(ctx, cleanupBudget, 0)
	defer stop()
	if err := errors.Join(ended, r.cleanup.run(last)); err != nil {
		r.Log.Annotate(actions.Warning, "Cleaning up was not complete", err.Error())
	}
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
		{"Workspace", r.packWorkspace},
	}
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.openLines(ctx); err != nil {
		return err
	}
	for _, s := range steps {
		if err := r.step(ctx, s.title, s.do); err != nil {
			return err
		}
	}
	if err := r.planSnapshot(); err != nil {
		return err
	}
	restored, err := r.restore(ctx)
	if restored || !r.maySave() {
		r.settled()
	}
	if err == nil && !restored {
		err = r.bootAndSave(ctx)
	}
	if err != nil {
		return err
	}
	if err := r.afterBoot(ctx); err != nil {
		return err
	}
	r.shareDisk(ctx)
	if err := r.step(ctx, "Copy in", r.bringIn); err != nil {
		return err
	}
	r.fetchRest()
	return r.runScript(ctx)
}

// bootAndSave boots the machine, does what is done once, and saves it for later runs.
func (r *run) bootAndSave(ctx context.Context) error {
	if err := r.bootOnce(ctx); err != nil {
		return err
	}
	if err := r.carryOut(ctx); err != nil {
		return err
	}
	if err := r.prepare(ctx); err != nil || r.warm.memory == nil {
		return err
	}
	if err := r.step(ctx, "Save", r.save); err != nil {
		return err
	}
	if r.warm.saving == nil {
		r.settled() // it could not be saved
		return nil
	}
	go func() {
		<-r.warm.saving
		r.settled()
	}()
	return nil
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
	problems = append(problems, separate(r.checkPublished())...)
	problems = append(problems, r.readWorkspace()...)
	problems = append(problems, r.readEnvironment()...)
	problems = append(problems, r.readResources()...)
	problems = append(problems, r.readMonitor()...)
	problems = append(problems, r.readDialogue()...)
	return invalid(problems)
}

// invalid is the error of inputs that have problems.
func invalid(problems []error) error {
	if len(problems) == 0 {
		return nil
	}
	return fail(InputInvalid, "Invalid input", errors.Join(problems...))
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
	dir, err := os.MkdirTemp(r.Host.Temp, runPrefix)
	if err != nil {
		return fail(Internal, "No run directory", fmt.Errorf("making the run directory: %w", err),
			"Make sure that "+r.Host.Temp+" can be written and has space.")
	}
	r.dir = dir
	r.cleanup.push("removing the run directory", func(context.Context) error { return os.RemoveAll(dir) })
	if n := len(filepath.Join(dir, ConsoleSocket)); n > maxSocketPath {
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
	if err = r.beginMonitor(); err != nil {
		return err
	}
	_ = os.Symlink(filepath.Join(r.Host.Workspace, r.result.SerialLog), filepath.Join(dir, serialLink)) // for doctor, which does without
	r.kept = len(r.cleanup.steps)
	return nil
}

// log opens a log in which secrets are masked.
func (r *run) log(name string) (io.Writer, error) {
	f, err := r.logs.create(name)
	if err != nil {
		return nil, fail(Internal, "No place for the logs", err)
	}
	w := r.mask.Writer(f)
	r.cleanup.push("closing "+name, func(context.Context) error { return errors.Join(w.Close(), f.Close()) })
	return w, nil
}

// storeDir is the image store.
func (r *run) storeDir() string { return StoreDir(r.Host.Cache) }

// stateDir keeps what was found out about this host.
func (r *run) stateDir() string { return filepath.Join(r.Host.Cache, "host") }

// chooseAccel asks QEMU what it can do, and KVM whether it works.
func (r *run) chooseAccel(ctx context.Context) (string, error) {
	features, err := qemu.Probe(ctx, r.binary(), r.stateDir())
	if err != nil {
		return "", fail(Internal, "QEMU cannot be used", err, "Install QEMU for x86 (Debian: qemu-system-x86 and qemu-utils).")
	}
	r.features = features
	// Before the image is fetched: a mistyped name should not cost a download.
	c := r.config
	var problems []error
	if err := qemu.CheckNames(qemu.Overrides{Machine: c.Machine, CPUModel: c.CPUModel, DiskBus: c.DiskBus, NIC: c.NIC}, features); err != nil {
		problems = append(problems, err)
	}
	if err := invalid(append(problems, r.checkResources(ctx)...)); err != nil {
		return "", err
	}
	if err := r.openTrace(); err != nil {
		return "", err
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
	r.noteResources()
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
