package metrics

import "time"

// BenchmarkSchema names the format of Benchmark's document; see Schema.
const BenchmarkSchema = "hurd-qemu-action/benchmark/1"

// Benchmark is a script that was run again and again in one guest.
type Benchmark struct {
	Schema  string    `json:"schema"` // JSON sets it
	Version string    `json:"action_version,omitempty"`
	Began   time.Time `json:"began"`
	Result  string    `json:"result"` // of the run

	Script string `json:"script_sha256"` // of its text
	Shell  string `json:"shell,omitempty"`
	Start  string `json:"start"` // how the guest came up: "cold" or "restored"

	Wanted  int             `json:"wanted_repetitions"`
	Times   []Measured      `json:"repetitions"`       // in order; the last may have failed
	Summary *BenchmarkStats `json:"summary,omitempty"` // of those that succeeded

	// Resolution is what an empty command takes over the same connection, the
	// median of a few: as much is in each of the times.
	Resolution *Seconds `json:"resolution_seconds,omitempty"`

	Machine *Machine `json:"machine,omitempty"`
	Image   *Image   `json:"image,omitempty"`
}

// Measured is one repetition.
type Measured struct {
	Took     Seconds  `json:"seconds"`                     // from the start of the script until its end was known
	GuestCPU *Seconds `json:"guest_cpu_seconds,omitempty"` // meanwhile, of all that ran in the guest
	ExitCode *int     `json:"exit_code,omitempty"`         // nil: it came to no end of its own
	Failed   bool     `json:"failed,omitempty"`
}

// BenchmarkStats are Stats in a document.
type BenchmarkStats struct {
	Count     int     `json:"count"`
	Median    Seconds `json:"median_seconds"`
	Min       Seconds `json:"min_seconds"`
	Quartile1 Seconds `json:"quartile1_seconds"` // interpolated linearly, as R's type 7
	Quartile3 Seconds `json:"quartile3_seconds"`
	Max       Seconds `json:"max_seconds"`
	MAD       Seconds `json:"median_absolute_deviation_seconds"` // not scaled
	Mean      Seconds `json:"mean_seconds"`
}

// Repetition is what a run's own document has of a benchmark.
type Repetition struct {
	Wanted  int             `json:"wanted_repetitions"`
	Summary *BenchmarkStats `json:"summary,omitempty"`
}

// Stats are those of the repetitions that succeeded.
func (b Benchmark) Stats() Stats {
	var times []time.Duration
	for _, m := range b.Times {
		if !m.Failed {
			times = append(times, time.Duration(m.Took))
		}
	}
	return StatsOf(times)
}

// JSON writes the document.
func (b Benchmark) JSON() ([]byte, error) {
	b.Schema, b.Summary = BenchmarkSchema, b.Stats().document()
	if b.Times == nil {
		b.Times = []Measured{}
	}
	return encode(b)
}

// InRun is its part in the document of the run.
func (b Benchmark) InRun() *Repetition {
	return &Repetition{Wanted: b.Wanted, Summary: b.Stats().document()}
}

func (s Stats) document() *BenchmarkStats {
	if s.Count == 0 {
		return nil
	}
	return &BenchmarkStats{
		Count: s.Count, Median: Seconds(s.Median), Min: Seconds(s.Min), Quartile1: Seconds(s.Quartile1), Quartile3: Seconds(s.Quartile3),
		Max: Seconds(s.Max), MAD: Seconds(s.MAD), Mean: Seconds(s.Mean),
	}
}
