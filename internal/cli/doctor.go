package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/doctor"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// doctorCommand looks at this host.
type doctorCommand struct {
	JSON      bool   `name:"json" help:"Print JSON: one object."`
	Offline   bool   `name:"offline" help:"Leave out what needs the network."`
	Guest     string `name:"guest" placeholder:"NAME" help:"Guest that runs, by the end of its run directory's name. Default: all that run here."`
	Image     string `name:"image" placeholder:"IMAGE" help:"As the input: the only image that is looked at. Default: all presets."`
	Arch      string `name:"arch" placeholder:"ARCH" help:"As the input."`
	Mirror    string `name:"image-mirror" placeholder:"URL" help:"As the input."`
	Accel     string `name:"accel" default:"auto" placeholder:"ACCEL" help:"As the input: with kvm, a KVM that does not work is an error."`
	Memory    string `name:"memory" default:"2G" placeholder:"SIZE" help:"As the input: what the host must have room for."`
	CPUs      int    `name:"cpus" default:"1" placeholder:"N" help:"As the input."`
	CacheDir  string `name:"cache-dir" placeholder:"DIR" help:"As the input: where the stores are."`
	Workspace string `name:"workspace" placeholder:"DIR" help:"Directory that stands for the workspace. Default: that of the job, else this one."`
	Token     string `name:"token" env:"GITHUB_TOKEN" placeholder:"TOKEN" help:"As the input."`
}

// statusBroken says that something is broken.
const statusBroken = 1

// doctor carries out the subcommand.
func (c Command) doctor(cmd *doctorCommand) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer watchSignals(cancel)()
	host, err := c.host(cmp.Or(cmd.Workspace, c.getenv("GITHUB_WORKSPACE"), "."))
	if err != nil {
		return c.failed(err)
	}
	host.Cache = cmp.Or(cmd.CacheDir, host.Cache)
	exam, err := cmd.examination(host)
	if err != nil {
		return c.failed(err)
	}
	report := doctor.Run(ctx, lifecycle.Examined(host, exam), doctor.Options{Offline: cmd.Offline})
	var i lifecycle.Interrupt
	if cause := context.Cause(ctx); errors.As(cause, &i) {
		_ = c.failed(cause)
		return 128 + int(i.Signal)
	}
	if err := c.showReport(report, cmd.JSON); err != nil {
		return c.failed(err)
	}
	if report.Verdict == doctor.Broken {
		return statusBroken
	}
	return 0
}

// examination reads the flags; all problems are reported.
func (cmd *doctorCommand) examination(host lifecycle.Host) (lifecycle.Examination, error) {
	var problems []error
	x := lifecycle.Examination{Accel: cmd.Accel, CPUs: cmd.CPUs, Guest: cmd.Guest, Want: image.Want{
		Arch: platform.Arch(cmd.Arch), Mirror: cmd.Mirror, Token: cmd.Token, API: host.API,
		Run: image.Run{Repository: host.Repository, ID: host.RunID},
	}}
	if cmd.Arch != "" {
		if _, err := platform.ParseArch(cmd.Arch); err != nil {
			problems = append(problems, fmt.Errorf("--arch: %w", err))
		}
	}
	switch cmd.Accel {
	case "auto", "kvm", "tcg":
	default:
		problems = append(problems, fmt.Errorf("--accel: %q is not known: use auto, kvm or tcg", cmd.Accel))
	}
	var err error
	if x.Memory, err = units.ParseBytes(cmd.Memory); err != nil {
		problems = append(problems, fmt.Errorf("--memory: %w", err))
	}
	if cmd.CPUs < 1 {
		problems = append(problems, fmt.Errorf("--cpus: %d is no number of processors: use 1", cmd.CPUs))
	}
	src := image.Source{Kind: image.KindPreset, Name: "debian"}
	if cmd.Image != "" {
		if src, err = image.ParseSource(cmd.Image); err != nil {
			problems = append(problems, fmt.Errorf("--image: %w", err))
		}
		x.Image = &src
	}
	if err == nil && len(problems) == 0 {
		want := x.Want
		want.Verify = image.VerifyNone // hashes are not compared here
		if err := src.Check(want); err != nil {
			problems = append(problems, err)
		}
	}
	return x, errors.Join(problems...)
}

// showReport prints what was found: for programs, or for people.
func (c Command) showReport(report doctor.Report, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(c.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Version string `json:"version"`
			doctor.Report
		}{c.version(), report})
	}
	log := actions.New(actions.Options{
		Stdout: c.Stdout, Stderr: c.Stderr, Own: c.Stdout, Commands: c.getenv("GITHUB_ACTIONS") == "true", Getenv: c.getenv,
	})
	log.Printf("hurd-qemu-action %s on %s/%s", c.version(), runtime.GOOS, runtime.GOARCH)
	showFindings(log, report)
	return log.Err()
}

// wordsWidth is that of a verdict's longest words.
var wordsWidth = len(doctor.Limited.Words())

// showFindings prints a line for each, by group, and then what to do.
func showFindings(log *actions.Log, report doctor.Report) {
	width := 0
	for _, f := range report.Findings {
		width = max(width, utf8.RuneCountInString(f.Title))
	}
	for i := 0; i < len(report.Findings); {
		group := report.Findings[i].Group
		var lines []string
		for ; i < len(report.Findings) && report.Findings[i].Group == group; i++ {
			f := report.Findings[i]
			lines = append(lines, fmt.Sprintf("%s %s  %s  %s", f.Verdict.Mark(), padded(f.Verdict.Words(), wordsWidth), padded(f.Title, width), f.Text))
			for _, line := range f.Quote {
				lines = append(lines, "    | "+line)
			}
		}
		log.Fold(group, lines)
	}
	problems := report.Problems()
	if len(problems) > 0 {
		log.Printf("What to do:")
	}
	for _, f := range problems {
		log.Printf("  %s %s: %s", f.Verdict.Mark(), f.Title, f.Verdict.Words())
		for _, fix := range f.Fix {
			log.Printf("      %s", fix)
		}
	}
	annotateFindings(log, problems)
	log.Printf("%s", conclusion(report))
}

// annotateFindings is for the reader of a job's summary page.
func annotateFindings(log *actions.Log, problems []doctor.Finding) {
	if !log.Commands() {
		return // it was just printed
	}
	for _, f := range problems {
		level := actions.Notice
		switch f.Verdict {
		case doctor.Broken:
			level = actions.Error
		case doctor.Slow:
			level = actions.Warning
		}
		log.Annotate(level, f.Title+": "+f.Verdict.Words(), strings.Join(append([]string{f.Text}, f.Fix...), "\n"))
	}
}

// conclusion counts.
func conclusion(report doctor.Report) string {
	var parts []string
	for _, v := range []doctor.Verdict{doctor.Broken, doctor.Slow, doctor.Limited, doctor.Fine, doctor.Skipped} {
		if n := report.Count(v); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v.Words()))
		}
	}
	text := fmt.Sprintf("%s (%.1f s)", strings.Join(parts, " · "), report.Seconds)
	if report.Verdict == doctor.Broken {
		return text + ": a run will fail, or lack something, until it is repaired."
	}
	return text + ": guests can run here."
}

func padded(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}
