package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/report"
)

// bench is a script that is run again and again.
type bench struct {
	document metrics.Benchmark
	printed  *process.Tail // the end of what the repetition has printed, without secrets
}

// quoted is how much of what a failed repetition printed last is shown once more.
const (
	quoted      = 4 << 10
	quotedLines = 20
)

// quietTime bounds the wait for our own work beside the guest.
const quietTime = 5 * time.Minute

// awaitQuiet waits until the machine is saved: packing takes a processor, which
// the first repetitions would lack.
func (r *run) awaitQuiet(ctx context.Context) {
	if r.warm.saving == nil {
		return
	}
	timer := time.NewTimer(quietTime)
	defer timer.Stop()
	select {
	case <-r.warm.saving:
	case <-ctx.Done():
	case <-timer.C:
		r.Log.Printf("The machine is still being saved: the first repetitions share the host with that.")
	}
}

// repeat runs the script as often as the input benchmark says, and stops at the
// first time that it fails: that is the result then. Whatever happens, what was
// measured is kept. Of the files that the script wrote for the runner, those of
// the last repetition count: each begins with empty ones.
func (r *run) repeat(ctx context.Context) error {
	n := r.config.Benchmark
	sum := sha256.Sum256([]byte(r.config.Script))
	r.bench = &bench{document: metrics.Benchmark{
		Version: r.Host.Version, Began: time.Now().UTC(), Script: hex.EncodeToString(sum[:]), Shell: r.config.Shell,
		Start: r.meter.startOf(), Wanted: n,
	}}
	r.awaitQuiet(ctx)
	r.rekeyWith(ctx, r.client) // else it would be in the first time
	r.bench.document.Resolution = metrics.Known(r.resolution(ctx))
	start := time.Now()
	var last guest.Result
	for i := 1; i <= n; i++ {
		res, err := r.repetition(ctx, start, i)
		if err != nil {
			return err
		}
		if last = res; res.Status != 0 {
			break
		}
	}
	r.phase("Script", start, fmt.Sprintf("%d of %d repetitions", len(r.bench.document.Times), n), nil)
	r.mergeFiles(last.Files)
	return r.ended(last)
}

// repetition runs the script one time, in a group of the log.
func (r *run) repetition(ctx context.Context, began time.Time, i int) (guest.Result, error) {
	b := r.bench
	b.printed = &process.Tail{Limit: quoted}
	title := fmt.Sprintf("Repetition %d of %d", i, r.config.Benchmark)
	end := r.Log.Group(title)
	var before, after *qemu.Usage
	b.document.Times = append(b.document.Times, metrics.Measured{Failed: true}) // until it is known better
	m := &b.document.Times[i-1]
	res, err := r.once(ctx, began, watch{
		start: func() { before = r.usageNow(ctx) },
		end:   func() { after = r.usageNow(ctx) },
		shown: func(res guest.Result) {
			m.Took = metrics.Seconds(res.Duration)
			if before != nil && after != nil {
				used := metrics.Seconds(after.GuestCPU - before.GuestCPU)
				m.GuestCPU = &used
			}
			end("the script alone " + precisely(res.Duration))
		},
	})
	if err == nil {
		_, status := scriptEnd(res.Status, res.Signal)
		m.ExitCode, m.Failed = &status, status != 0
	}
	if m.Failed && r.Log.Commands() { // it is in a group that is folded
		if text := lines(b.printed.String()); len(text) > 0 {
			r.Log.Printf("%s ended with:", title)
			r.Log.Quote(text[max(0, len(text)-quotedLines):])
		}
	}
	var e *Error
	if errors.As(err, &e) && (e.Kind == Timeout || e.Kind == GuestLost) {
		e.Err = fmt.Errorf("repetition %d of %d: %w", i, r.config.Benchmark, e.Err)
	}
	return res, err
}

// remember has what is written to w kept as well.
func (b *bench) remember(w io.Writer) io.Writer { return io.MultiWriter(w, b.printed) }

// precisely writes a duration to the millisecond, which the log's other times
// are not worth.
func precisely(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// Resolution is measured by some empty commands, which a guest answers in
// milliseconds.
const (
	probes    = 5
	probeTime = 10 * time.Second
)

// resolution is what an empty command takes: as much is in each measured time.
// 0 when that is not known.
func (r *run) resolution(ctx context.Context) time.Duration {
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var times []time.Duration
	for range probes {
		began := time.Now()
		if status, err := r.client.Run(limited, guest.Command{Line: "exec true"}); err != nil || status.Code != 0 {
			break // whatever it is, the script will show it
		}
		times = append(times, time.Since(began))
	}
	return metrics.StatsOf(times).Median
}

// usageNow asks what the machine has used; nil when it does not tell.
func (r *run) usageNow(ctx context.Context) *qemu.Usage {
	if r.meter.ask == nil {
		return nil
	}
	defer r.meter.collecting(time.Now())
	limited, cancel := context.WithTimeout(ctx, sampleEvery)
	defer cancel()
	u, err := r.meter.ask(limited)
	if err != nil {
		return nil
	}
	return &u
}

// median is that of the repetitions that succeeded; 0 without any, and for a
// script that runs once.
func (b *bench) median() time.Duration {
	if b == nil {
		return 0
	}
	return b.document.Stats().Median
}

// last is which repetition was the last, as the beginning of a sentence, and
// what it took; for a script that runs once it is nothing, and what that took.
func (b *bench) last(script time.Duration) (which string, took time.Duration) {
	if b == nil || len(b.document.Times) == 0 {
		return "", script
	}
	n := len(b.document.Times)
	return fmt.Sprintf("repetition %d of %d: ", n, b.document.Wanted), time.Duration(b.document.Times[n-1].Took)
}

// keepBenchmark writes what was measured beside the logs.
func (r *run) keepBenchmark() error {
	if r.bench == nil {
		return nil
	}
	d := &r.bench.document
	d.Result, d.Machine, d.Image = string(r.result.Kind), r.machineFacts(), r.imageFacts()
	data, err := d.JSON()
	if err == nil {
		err = r.keepNumbers(benchmarkName, data)
	}
	if err == nil {
		r.result.Benchmark = r.logs.path(benchmarkName)
	}
	return err
}

// sayBenchmark prints what was measured.
func (r *run) sayBenchmark() {
	if r.bench == nil {
		return
	}
	r.Log.Printf("%s", strings.Join(r.bench.report().Text(), "\n"))
}

// report is the benchmark as the report has it.
func (b *bench) report() *report.Benchmark {
	s := b.document.Stats()
	out := &report.Benchmark{
		Wanted: b.document.Wanted, Median: s.Median, Min: s.Min, Max: s.Max, Quartile1: s.Quartile1, Quartile3: s.Quartile3, MAD: s.MAD,
	}
	if r := b.document.Resolution; r != nil {
		out.Resolution = time.Duration(*r)
	}
	for _, m := range b.document.Times {
		out.Times = append(out.Times, report.Repetition{Took: time.Duration(m.Took), Failed: m.Failed})
	}
	return out
}
