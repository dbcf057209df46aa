package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/console"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/report"
	"github.com/org/hurd-qemu-action/internal/units"
)

// summaryReserve is what of the step's summary is kept for our part.
const summaryReserve = report.SummaryLimit + 1<<10

// sampleEvery is how often the machine's use of the host is recorded.
const sampleEvery = time.Second

// observe records what a machine uses until the function that it returns is called.
func (r *run) observe(ctx context.Context, m *qemu.Machine) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &qemu.Sampler{Interval: sampleEvery}
	r.meter.ask = m.Usage
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, m.Usage)
	}()
	return func() {
		defer r.meter.collecting(time.Now())
		last, end := context.WithTimeout(context.WithoutCancel(ctx), sampleEvery)
		defer end()
		u, err := m.Usage(last)
		cancel()
		<-done
		samples := s.Samples()
		if err == nil { // a machine that has ended has told all that it will
			samples = append(samples, u)
		}
		for _, u := range samples {
			r.samples = append(r.samples, report.Sample{
				At: m.Started().Add(u.At).Sub(r.began), CPU: u.CPU, Resident: u.Resident, Read: u.Read, Written: u.Written,
			})
			r.meter.used(u)
		}
		r.measureFiles()
	}
}

// screenshotTime bounds the picture of a machine that may not answer.
const screenshotTime = 2 * time.Second

// screenshot keeps what the guest's screen shows: a boot that failed may say
// there what the serial line does not.
func (r *run) screenshot(ctx context.Context) {
	if r.machine == nil || r.machine.Err() != nil || len(r.picture) > 0 {
		return
	}
	ctx, stop := r.ending.context(ctx, screenshotTime, stopReserve)
	defer stop()
	picture, err := r.machine.Screendump(ctx)
	if err != nil {
		r.Log.Printf("No picture of the screen: %v", err)
		return
	}
	r.picture = picture
	if err := r.keep("screenshot.png", picture); err != nil {
		r.Log.Printf("No picture of the screen: %v", err)
	}
}

// keep writes a file beside the logs.
func (r *run) keep(name string, data []byte) error {
	f, err := r.logs.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// publish writes the reports and makes the artifact, when the guest is gone and
// the logs are complete.
func (r *run) publish(ctx context.Context, err error) {
	if r.logs == nil {
		return // nothing has begun
	}
	if err := guarded(ctx, func(context.Context) error { return r.keepMetrics() }); err != nil {
		r.warn("No metrics", err.Error())
	}
	var rep report.Report
	if err := guarded(ctx, func(context.Context) error { // it is made of much that the guest said
		rep = r.makeReport(err)
		return r.keepReport(rep)
	}); err != nil {
		r.warn("No report", err.Error())
	}
	r.upload(ctx)
	if url := r.artifactURL(); url != "" {
		rep.Links = append(rep.Links, report.Link{Name: r.result.Artifact.Name, URL: url})
	}
	if err := r.Log.Files().AddSummary(rep.Summary()); err != nil {
		r.warn("No job summary", err.Error())
	}
}

// timing is a phase in timings.json; times are in seconds.
type timing struct {
	Phase  string  `json:"phase"`
	Start  float64 `json:"start"` // since the run began
	Took   float64 `json:"took"`
	Note   string  `json:"note,omitempty"`
	Failed bool    `json:"failed,omitempty"`
}

func (r *run) keepReport(rep report.Report) error {
	var page strings.Builder
	if err := rep.HTML(&page); err != nil {
		return err
	}
	timings := make([]timing, len(rep.Phases))
	for i, p := range rep.Phases {
		timings[i] = timing{p.Name, p.Start.Seconds(), p.Took.Seconds(), p.Note, p.Failed}
	}
	data, err := json.MarshalIndent(timings, "", "  ")
	return errors.Join(err, r.keep("report.html", []byte(page.String())), r.keep("timings.json", append(data, '\n')))
}

// makeReport puts together all that is known, with nothing in it that must not be shown.
func (r *run) makeReport(err error) report.Report {
	res, h := r.result, r.hardware
	clean := r.mask.String
	rep := report.Report{
		Result: string(res.Kind), ExitStatus: res.ExitCode, Began: r.began, Took: time.Since(r.began),
		Accel: res.Accel, AccelReason: res.AccelReason, Attempts: res.Attempts,
		Boot: res.Boot, SSH: res.SSH, Run: res.Script, Uname: clean(res.Uname),
		Image:    report.Image{Name: clean(r.config.Image), Digest: res.ImageDigest},
		Machine:  report.Machine{Type: h.Machine, CPUModel: h.CPUModel, CPUs: h.CPUs, Memory: h.Memory, Bus: h.DiskBus, NIC: h.NIC},
		Snapshot: res.Snapshot, Samples: r.samples, Screenshot: r.picture, Version: r.Host.Version,
	}
	var e *Error
	if errors.As(err, &e) {
		rep.Title, rep.Cause, rep.Advice = clean(e.Title), clean(e.Error()), e.Advice
	}
	if res.Kind == Success || res.Kind == ScriptFailed || res.Kind == Signaled {
		rep.Script = &report.Script{Status: res.ExitCode}
		if res.Kind == Signaled {
			rep.Script.Signal = signalName(res.ExitCode - 128)
		}
	}
	for _, p := range res.Phases {
		rep.Phases = append(rep.Phases, report.Phase{Name: p.Title, Start: p.Start.Sub(r.began), Took: p.End.Sub(p.Start), Note: clean(p.Note), Failed: p.Failed})
	}
	r.reportWorkspace(&rep)
	r.reportConsole(&rep)
	r.reportMetrics(&rep)
	counts := r.diagnostics.Counts()
	rep.Errors, rep.Warnings = counts.Errors, counts.Warnings
	for _, hint := range r.diagnostics.Hints() {
		rep.Hints = append(rep.Hints, report.Hint{Text: hint.Text, URL: hint.URL})
	}
	for _, f := range config.Fields() {
		if v := f.Value(&r.Inputs); v != f.Default && v != "" {
			if f.Secret {
				v = ""
			}
			rep.Inputs = append(rep.Inputs, report.Input{Name: f.Name, Value: clean(v), Secret: f.Secret})
		}
	}
	return rep
}

func (r *run) reportWorkspace(rep *report.Report) {
	c := &r.checkout
	took := func(title string) (d time.Duration) {
		for _, p := range r.result.Phases {
			if p.Title == title {
				d += p.End.Sub(p.Start)
			}
		}
		return d
	}
	if c.in {
		rep.CopyIn = &report.Copy{Files: c.tree.Files, Size: c.tree.Bytes, Took: took("Workspace") + took("Copy in")}
	}
	if c.in && c.fetched {
		rep.CopyBack = &report.Copy{Files: r.result.BackFiles, Size: r.result.BackBytes, Took: took("Copy back"), Warnings: r.result.Warnings}
	}
	for _, name := range append([]string{"serial.log", "qemu.log", "timings.json"}, r.meter.kept...) {
		rep.Links = append(rep.Links, report.Link{Name: name, URL: name})
	}
}

// severities are the report's words for those of the console.
var severities = map[console.Severity]report.Severity{
	console.Milestone: report.Milestone, console.Warning: report.Warning, console.Ending: report.Ending, console.Fatal: report.Fatal,
}

func (r *run) reportConsole(rep *report.Report) {
	if r.console == nil {
		return
	}
	for _, l := range r.console.Tail(-1) {
		rep.Serial = append(rep.Serial, report.Line{At: l.Time.Sub(r.began), Text: r.mask.String(l.Text)})
	}
	rep.Lost = int(r.console.Forgotten())
	for _, f := range r.console.Findings() {
		rep.Findings = append(rep.Findings, report.Finding{
			At: f.Line.Time.Sub(r.began), Kind: string(f.Kind), Severity: severities[f.Severity], Title: f.Title, Line: r.mask.String(f.Line.Text),
		})
	}
}

// annotateOutput sets what compilers complained about as annotations, on the
// files of the workspace.
func (r *run) annotateOutput() {
	for _, d := range r.diagnostics.Diagnostics() {
		level := actions.Warning
		if d.Severity == "error" {
			level = actions.Error
		}
		r.Log.AnnotateFile(level, actions.Place{File: d.File, Line: d.Line, Column: d.Column}, r.mask.String(d.Message))
	}
	for _, h := range r.diagnostics.Hints() {
		r.Log.Annotate(actions.Notice, "Porting to the Hurd", h.Text+" "+h.URL)
	}
}

// annotateConsole warns of what the console said that may explain a result.
func (r *run) annotateConsole() {
	if r.console == nil || r.result.Kind == BootFailed || r.result.Kind == GuestLost {
		return // it is in the error
	}
	for i, f := range r.console.Findings() {
		if f.Severity == console.Warning && i < maxFindings {
			r.Log.Annotate(actions.Warning, f.Title, fmt.Sprintf("%s: %s", f.Cause, r.mask.String(f.Line.Text)))
		}
	}
}

// maxFindings bounds the annotations of a console that repeats itself.
const maxFindings = 40

func sizeText(n int64) string { return units.Bytes(n).Human() }
