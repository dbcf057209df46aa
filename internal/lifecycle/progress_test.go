package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestProgress holds that the log of a job gets a line every ten seconds at
// most, besides the first of a step and notes, and a terminal a bar each time.
func TestProgress(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var lines, drawn []string
			progress := Progress(terminal, func(s string) { lines = append(lines, s) }, func(s string) { drawn = append(drawn, s) })
			for second := range 60 {
				step := image.StepFetch
				if second >= 45 {
					step = image.StepUnpack
				}
				progress(image.Report{Step: step, Source: "x", Done: units.Bytes(second), Total: 60})
				if second == 33 {
					progress(image.Report{Step: step, Source: "x", Note: "lost the connection"})
				}
				time.Sleep(time.Second)
			}
			want := []string{"0 B of", "10 B of", "20 B of", "30 B of", "lost", "40 B of", "unpacking x: 45 B of", "55 B of"}
			if terminal {
				want = []string{"lost"}
			}
			if len(lines) != len(want) || !slices.EqualFunc(lines, want, strings.Contains) {
				t.Errorf("terminal %t: lines %q", terminal, lines)
			}
			if terminal && (len(drawn) != 60 || !strings.HasPrefix(drawn[30], "[##########----------] fetching x: 30 B of 60 B (50 %)")) || !terminal && drawn != nil {
				t.Errorf("terminal %t: drawn %d, %q", terminal, len(drawn), drawn[:min(1, len(drawn))])
			}
		})
	}
}
