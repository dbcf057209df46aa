package lifecycle

import (
	"context"
	"time"
)

// Phase is one step of a run, for the reports.
type Phase struct {
	Title      string
	Start, End time.Time
	Note       string // a few words; may be empty
	Failed     bool
}

// step does one step of the pass in a group of the log, and remembers it.
func (r *run) step(ctx context.Context, title string, do func(context.Context) (note string, err error)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	end := r.Log.Group(title)
	start := time.Now()
	note, err := do(ctx)
	r.phase(title, start, note, err)
	end(note)
	return err
}

// phase remembers what took a part of the run's time.
func (r *run) phase(title string, start time.Time, note string, err error) {
	r.result.Phases = append(r.result.Phases, Phase{Title: title, Start: start, End: time.Now(), Note: note, Failed: err != nil})
}
