package image

import (
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestReportLines(t *testing.T) {
	for _, tc := range []struct {
		r         Report
		text, bar string
	}{
		{Report{Step: StepFetch, Source: "x", Done: 30 * units.MiB, Total: 40 * units.MiB, Rate: 2 * units.MiB, Left: 5 * time.Second},
			"fetching x: 30 MiB of 40 MiB (75 %), 2 MiB/s, 5s left", "[###############-----] "},
		{Report{Step: StepFetch, Source: "x", Total: units.MiB}, "fetching x: 0 B of 1 MiB (0 %)", "[--------------------] "},
		{Report{Step: StepFetch, Source: "x", Done: 2 * units.MiB, Total: units.MiB}, "fetching x: 2 MiB of 1 MiB (200 %)", "[####################] "},
		{Report{Step: StepUnpack, Source: "x", Done: 3 * units.MiB, Rate: units.MiB}, "unpacking x: 3 MiB, 1 MiB/s", ""},
		{Report{Step: StepFetch, Source: "x", Note: "lost the connection", Total: units.MiB}, "fetching x: lost the connection", ""},
	} {
		if got := tc.r.String(); got != tc.text {
			t.Errorf("%+v: %q, want %q", tc.r, got, tc.text)
		}
		if got := tc.r.Bar(); got != tc.bar+tc.text {
			t.Errorf("%+v: %q, want %q", tc.r, got, tc.bar+tc.text)
		}
	}
}
