package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/shard"
)

// outputName is the file beside a script's logs with all that was said of it.
const outputName = "output.log"

// one runs one script in a guest of its own. It tells whether the others make
// sense, should none of them run yet.
func (f *fanOut) one(ctx context.Context, index int, settled func()) bool {
	began := time.Now()
	spool, err := shard.NewSpool(f.host.Temp)
	if err != nil {
		f.end(index, lifecycle.Result{Kind: lifecycle.Internal, ExitCode: statusUsage}, time.Since(began), nil, err.Error()+"\n")
		return false
	}
	defer func() { _ = spool.Close() }() // it was only read
	first := !f.settled.Load()
	p := f.printer(index, spool, first)
	inputs := f.inputs
	inputs.Run = f.list[index].Text
	if inputs.Snapshot == "save" && !first { // from what the first one has saved
		inputs.Snapshot = "auto"
	}
	result := lifecycle.Run(ctx, lifecycle.Request{
		Inputs: inputs, Host: f.host, Log: actions.New(p.options), Beside: !first, Memories: &f.memories,
		Settled: func() {
			f.settled.Store(true)
			settled()
		},
	})
	p.close()
	took := time.Since(began)
	hidden := ""
	if own := p.hidden; own != nil && !endedItself(result.Kind) {
		hidden = own.String()
	}
	if dir := logsOf(result); dir != "" {
		if err := keepOutput(filepath.Join(f.host.Workspace, dir), spool.Reader()); err != nil {
			hidden += err.Error() + "\n"
		}
	}
	f.end(index, result, took, spool, hidden)
	return !hopeless(result.Kind)
}

// endedItself tells whether it was the script that decided the result, so that
// what it printed explains it.
func endedItself(k lifecycle.Kind) bool {
	return k == lifecycle.Success || k == lifecycle.ScriptFailed || k == lifecycle.Signaled
}

// hopeless tells whether a result says that no other script would get a guest.
func hopeless(k lifecycle.Kind) bool {
	return k == lifecycle.InputInvalid || k == lifecycle.ImageFailed || k == lifecycle.BootFailed
}

// logsOf is the directory of a run's logs, relative to the workspace.
func logsOf(r lifecycle.Result) string {
	if r.SerialLog == "" {
		return ""
	}
	return filepath.Dir(r.SerialLog)
}

// printer is where the log of one script goes.
type printer struct {
	options actions.Options
	hidden  *process.Tail // our own words about a guest that are not shown; nil: they are
	lines   []*shard.Lines
}

// hiddenWords is how much of our own words about a guest is shown when it failed.
const hiddenWords = 16 << 10

// printer decides what is shown of a script while it runs: on a runner nothing,
// since a folded group can't be written in pieces; else what it prints, line by
// line, and of the first guest also how it boots.
func (f *fanOut) printer(index int, spool *shard.Spool, first bool) *printer {
	p := &printer{options: actions.Options{Stdout: spool, Stderr: spool}}
	if f.log.Commands() {
		return p
	}
	live := func(to io.Writer) *shard.Lines {
		l := shard.NewLines(to, f.prefix(index))
		p.lines = append(p.lines, l)
		return l
	}
	p.options.Stdout = io.MultiWriter(spool, live(f.out))
	p.options.Stderr = io.MultiWriter(spool, live(f.diag))
	if first {
		p.options.Own = io.MultiWriter(spool, wholeLines{live(f.diag)})
		return p
	}
	p.hidden = &process.Tail{Limit: hiddenWords}
	p.options.Own = io.MultiWriter(spool, p.hidden)
	return p
}

func (p *printer) close() {
	for _, l := range p.lines {
		_ = l.Close() // the log of all keeps its own errors
	}
}

// wholeLines leaves out the newline with which a log ends the guest's last line:
// the guest's own writer does that.
type wholeLines struct{ io.Writer }

func (w wholeLines) Write(p []byte) (int, error) {
	if string(p) == "\n" {
		return len(p), nil
	}
	return w.Writer.Write(p)
}

// prefix is what the lines of a script begin with.
func (f *fanOut) prefix(index int) string {
	return fmt.Sprintf("[%*d] ", len(fmt.Sprint(len(f.list))), f.list[index].Number)
}

// end shows how a script ended.
func (f *fanOut) end(index int, result lifecycle.Result, took time.Duration, spool *shard.Spool, hidden string) {
	f.showing.Lock()
	defer f.showing.Unlock()
	r := shard.Result{
		Script: f.list[index], Result: string(result.Kind), Status: result.ExitCode, Took: took,
		Snapshot: result.Snapshot, Log: logsOf(result),
	}
	f.results[index] = r
	if hidden != "" {
		l := shard.NewLines(f.diag, f.prefix(index))
		_, _ = io.WriteString(l, hidden) // the log of all keeps its own errors
		_ = l.Close()
	}
	title := fmt.Sprintf("%s%s: %s, %s", f.prefix(index), r.Script.Name(), r, actions.Seconds(took))
	if r.Snapshot != "" {
		title += ", " + r.Snapshot
	}
	if f.log.Commands() && spool != nil {
		if err := f.log.Replay(title, spool.Reader()); err != nil {
			f.log.Printf("The output can't be shown: %v", err)
		}
	} else {
		f.log.Printf("%s", title)
	}
	if r.Result != shard.Success && f.log.Commands() {
		f.log.Annotate(actions.Error, "Script "+fmt.Sprint(r.Script.Number)+" of the list", r.Script.Name()+": "+r.String())
	}
	f.emit(r)
}

// emit prints a result as JSON, where that is wanted.
func (f *fanOut) emit(r shard.Result) {
	if f.encoder != nil {
		_ = f.encoder.Encode(r) // the log of all keeps its own errors
	}
}

// keepOutput writes a script's output beside its logs, for the same owner.
func keepOutput(dir string, output io.Reader) error {
	path := filepath.Join(dir, outputName)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644) //nolint:gosec // later steps of other users read the logs
	if err != nil {
		return fmt.Errorf("keeping the output: %w", err)
	}
	_, err = io.Copy(file, output)
	if info, statErr := os.Stat(dir); statErr == nil && os.Geteuid() == 0 {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			err = errors.Join(err, os.Lchown(path, int(st.Uid), int(st.Gid)))
		}
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("keeping the output: %w", err)
	}
	return nil
}
