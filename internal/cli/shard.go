package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/shard"
)

// shardFlags are those of run that make it a fan-out.
type shardFlags struct {
	Shard string `name:"shard" placeholder:"FILE" group:"Many at once" help:"Run each line of FILE (- is standard input) as a script in a guest of its own. Blank lines and lines that begin with # are skipped. When no machine is saved yet, the first guest boots and saves itself and the others wait for that. Every guest gets the workspace; nothing comes back unless --copy-back is given, and then what two scripts write to one file, the last to end wins. Everything a script prints is also in output.log beside its logs. Exit status: 0 when all succeeded, else that of the first in the list that failed."`
	Jobs  int    `name:"jobs" placeholder:"N" group:"Many at once" help:"How many guests of --shard run at once. Default: as many as this host has CPUs and memory for."`
	JSON  bool   `name:"json" group:"Many at once" help:"Print one JSON object per script of --shard on standard output, as each ends; what the scripts print goes to standard error."`
}

// problem says why the flags can't be had together; empty: they can.
func (r *runCommand) problem(given func(flag string) bool) string {
	switch {
	case r.Shard == "" && given("jobs"):
		return "--jobs is for --shard, which names the file with the commands"
	case r.Shard == "" && r.JSON:
		return "--json is for --shard, which names the file with the commands"
	case r.Shard == "":
		return ""
	case len(r.Command) > 0 || r.Run != "":
		return "--shard names the commands: leave --run and the command out"
	case given("jobs") && r.Jobs < 1:
		return fmt.Sprintf("--jobs=%d: at least one guest is needed", r.Jobs)
	case r.CopyBack == "mirror":
		return "--copy-back=mirror: not with --shard, where one script would delete what another one has written; use changed, or patterns"
	case r.ArtifactName != "" || r.ArtifactPath != "":
		return "--artifact-name and --artifact-path are not for --shard: an artifact is of one guest; use --copy-back with patterns"
	case r.ImageOutput != "":
		return "--image-output is not for --shard: several guests would write one file"
	case lifecycle.FixedPorts(r.Forward, r.SerialPort):
		return "--forward and --serial-port: with --shard every guest needs ports of its own: write 0 as the port of the host, and look for the free ones in the log"
	}
	return ""
}

// fanOut is one run of a list of scripts.
type fanOut struct {
	command Command
	inputs  config.Inputs
	host    lifecycle.Host
	list    []shard.Script

	log       *actions.Log  // of all of it
	out, diag io.Writer     // for whole lines of the scripts; nothing but the log waits for who reads them
	settled   atomic.Bool   // guests need not wait for the first one any more
	showing   sync.Mutex    // one script's end at a time
	encoder   *json.Encoder // nil without --json
	results   []shard.Result
	memories  lifecycle.Memories // that the guests start from
}

// shard runs a list of scripts.
func (c Command) shard(r *runCommand, given func(flag string) bool) int {
	list, err := c.readList(r.Shard)
	if err != nil {
		return c.failed(fmt.Errorf("--shard=%s: %w", r.Shard, err))
	}
	inputs := c.flags(r)
	if !given("copy-back") {
		inputs.CopyBack = "none"
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer watchSignals(cancel)()
	f := &fanOut{command: c, inputs: inputs, list: list, results: make([]shard.Result, len(list))}
	f.log = c.log(c.getenv("GITHUB_ACTIONS") == "true" && !r.JSON, cancel)
	defer context.AfterFunc(ctx, func() { f.log.Hurry(time.Second) })()
	f.out, f.diag = f.log.Guest()
	if r.JSON {
		f.encoder, f.out = json.NewEncoder(f.out), f.diag
		f.encoder.SetEscapeHTML(false)
	}
	if f.host, err = c.host(r.Workspace); err != nil {
		return c.failed(err)
	}
	f.host.Progress = false // guests that overwrite each other's line help nobody
	jobs, err := f.jobs(r.Jobs)
	if err != nil {
		var problems config.Problems
		if !errors.As(err, &problems) {
			return c.failed(err)
		}
		for _, p := range problems {
			f.log.Annotate(actions.Error, "Invalid input", p.Error())
		}
		return statusUsage
	}
	f.log.Printf("Scripts: %d; guests at once: %d", len(list), jobs)
	return f.run(ctx, jobs)
}

// readList reads the list from a file or from standard input.
func (c Command) readList(name string) ([]shard.Script, error) {
	if name == "-" {
		return shard.Parse(c.Stdin)
	}
	file, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // the name is in the message already
		}
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	return shard.Parse(file)
}

// jobs decides how many guests run at once, and refuses inputs that are wrong
// for every script before the first guest is made.
func (f *fanOut) jobs(want int) (int, error) {
	inputs := f.inputs
	inputs.Run = f.list[0].Text
	cfg, err := config.Parse(inputs, nil)
	if err != nil {
		return 0, err
	}
	room, err := lifecycle.RoomFor(cfg)
	if err != nil {
		f.log.Printf("The memory of this host is not known: %v", err)
		return limitJobs(want, len(f.list), runtime.NumCPU(), cfg.CPUs, nil, func(string) {}), nil
	}
	warn := func(text string) { f.log.Annotate(actions.Warning, "Memory", text) }
	return limitJobs(want, len(f.list), runtime.NumCPU(), cfg.CPUs, &room, warn), nil
}

// limitJobs is how many guests run at once: as many as there are CPUs and free
// memory for, or as were asked for (want > 0) and there is any memory for. Fewer
// give the same results, only later; more could have the host's kernel end any
// process. room is nil where it is not known.
func limitJobs(want, scripts, hostCPUs, guestCPUs int, room *lifecycle.Room, warn func(string)) int {
	if want < 1 {
		jobs := max(1, hostCPUs/guestCPUs)
		if room != nil {
			jobs = min(jobs, room.Now())
		}
		return min(jobs, scripts)
	}
	jobs := min(want, scripts)
	switch {
	case room == nil:
	case jobs > room.Most():
		warn(fmt.Sprintf("%d guests of %s do not fit into this host's %s: %d run at once. Lower --memory to run more.", jobs, room.Memory.Human(), room.Total.Human(), room.Most()))
		return room.Most()
	case jobs > room.Now():
		warn(fmt.Sprintf("%d guests of %s may need more than the %s that are free on this host, and be slow or killed. Lower --jobs or --memory.", jobs, room.Memory.Human(), room.Free.Human()))
	}
	return jobs
}

// run runs all scripts and reports them.
func (f *fanOut) run(ctx context.Context, jobs int) int {
	for i, s := range f.list {
		f.results[i] = shard.Result{Script: s, Result: shard.NotRun}
	}
	started := shard.Schedule(ctx, len(f.list), jobs, func(i int, settled func()) bool {
		return f.one(ctx, i, settled)
	})
	for _, r := range f.results[started:] {
		f.emit(r)
	}
	f.summarize()
	return f.status(context.Cause(ctx))
}

// status is the exit status; the end of the context counts when it has kept a
// script from its own.
func (f *fanOut) status(cause error) int {
	cut := func(r shard.Result) bool { return r.Result == shard.NotRun || r.Result == string(lifecycle.Canceled) }
	if cause == nil || !slices.ContainsFunc(f.results, cut) {
		return shard.Status(f.results)
	}
	var i lifecycle.Interrupt
	if errors.As(cause, &i) {
		return 128 + int(i.Signal)
	}
	return statusUsage
}

// summarize prints the table of all results.
func (f *fanOut) summarize() {
	failed, notRun := shard.Failed(f.results)
	var table strings.Builder
	_ = shard.Table(&table, f.results) // a Builder takes everything
	f.log.Printf("%s", table.String()) // in no group: who reads a job's log looks for it
	text := fmt.Sprintf("%d of %d scripts succeeded", len(f.results)-failed-notRun, len(f.results))
	if notRun > 0 {
		text += fmt.Sprintf(", %d were not run", notRun)
	}
	f.log.Printf("%s.", text)
	if f.log.Commands() {
		if err := f.log.Files().AddSummary("### GNU/Hurd: " + text + "\n\n" + shard.Markdown(f.results)); err != nil {
			f.log.Annotate(actions.Warning, "No job summary", err.Error())
		}
	}
}
